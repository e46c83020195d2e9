"""Stems: a projection of patches, and a missing band that is as if it were no band."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.compiling import compiled
from tests.model import reference
from tests.model.reference import drawn
from xjepa_jax.model.inputs import SensorInput
from xjepa_jax.model.stem import STEMS, BandStem
from xjepa_jax.model.trunk import BlockSpec
from xjepa_jax.model.xjepa import merge, split
from xjepa_jax.sensors import Band, Sensor

SPEC = BlockSpec(width=12, heads=2)
RNG = np.random.default_rng(0)
VALUES = RNG.standard_normal((3, 8, 12, 4)).astype(np.float32)
INDICES = np.array([[0, 3, 5], [1, 1, 2], [5, 4, 0]], np.int32)


def given(bands: int) -> SensorInput:
  described = Sensor("a camera", tuple(Band(f"b{n}", 10) for n in range(bands)), "uint8", "counts")
  return SensorInput(described, 8, 12, 4)


def stem(kind: str, bands: int = 4) -> tuple[Any, Any]:
  definition, shapes = split(nnx.eval_shape(lambda: STEMS[kind](given(bands), SPEC, nnx.Rngs(0))))
  return definition, drawn(shapes)


def tokens(definition: Any, parameters: Any, values: Any, seen: Any, indices: Any = None) -> Any:
  return compiled(lambda p, v, s: merge(definition, p)(v, s, indices), parameters, values, seen)


@pytest.mark.parametrize("indices", [None, INDICES])
def test_a_joint_stem_projects_each_patch_that_is_asked_for(indices: Any) -> None:
  definition, parameters = stem("joint")
  found = tokens(definition, parameters, VALUES, np.ones((3, 4), bool), indices)
  for sample in range(3):
    cut = reference.patches(VALUES[sample].astype(np.float64), 4).reshape(6, -1)
    expected = reference.linear(parameters["project"], cut)
    chosen = slice(None) if indices is None else indices[sample]
    np.testing.assert_allclose(found[sample], expected[chosen], atol=1e-5)


@pytest.mark.parametrize("indices", [None, INDICES])
def test_a_band_stem_sums_a_projection_a_band_over_the_root_of_their_number(indices: Any) -> None:
  definition, parameters = stem("bands")
  seen = np.array([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 1, 0]], bool)
  found = tokens(definition, parameters, VALUES, seen, indices)
  for sample in range(3):
    cut = reference.patches(VALUES[sample].astype(np.float64), 4)
    there = np.flatnonzero(seen[sample])
    expected = sum(
      cut[:, :, band] @ parameters["kernel"][band] + parameters["bias"][band] for band in there
    ) / np.sqrt(len(there))
    chosen = slice(None) if indices is None else indices[sample]
    np.testing.assert_allclose(found[sample], expected[chosen], atol=1e-5)


def test_a_missing_band_is_as_if_the_stem_did_not_have_it_whatever_its_values() -> None:
  definition, parameters = stem("bands")
  less, _ = stem("bands", 3)
  seen = np.broadcast_to([True, False, True, True], (3, 4))
  found = tokens(definition, parameters, VALUES, seen)
  kept = np.array([0, 2, 3])
  without = {name: value[kept] for name, value in parameters.items()}
  expected = tokens(less, without, VALUES[..., kept], np.ones((3, 3), bool))
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_image_of_no_band_has_tokens_of_0() -> None:
  definition, parameters = stem("bands")
  assert not tokens(definition, parameters, VALUES, np.zeros((3, 4), bool)).any()


def test_a_new_band_stem_s_tokens_vary_alike_with_few_and_with_many_bands() -> None:
  spec = BlockSpec(width=64, heads=2)
  definition = split(nnx.eval_shape(lambda: BandStem(given(4), spec, nnx.Rngs(0))))[0]
  draw = compiled(lambda key: split(BandStem(given(4), spec, nnx.Rngs(key)))[1], jax.random.key(0))
  values = RNG.standard_normal((200, 8, 12, 4)).astype(np.float32)
  seen = np.ones((200, 4), bool)
  seen[100:, 1:] = False
  variances = tokens(definition, draw, values, seen).reshape(2, -1).var(axis=1)
  # The kernel's 64 columns are few: the two estimates differ by some per cent.
  assert variances[0] == pytest.approx(variances[1], rel=0.15)


def test_the_arithmetic_is_bfloat16_if_asked_for_and_the_parameters_stay_float32() -> None:
  for kind in STEMS:
    spec = BlockSpec(width=12, heads=2, dtype=jnp.bfloat16)
    module = nnx.eval_shape(lambda kind=kind, spec=spec: STEMS[kind](given(4), spec, nnx.Rngs(0)))
    definition, shapes = split(module)
    found = tokens(definition, drawn(shapes), VALUES, np.ones((3, 4), bool))
    assert found.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))
