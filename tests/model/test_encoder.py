"""The encoder, every option of it, against the same in NumPy; and what it refuses."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.compiling import compiled
from tests.model import reference
from tests.model.reference import drawn
from xjepa_jax.config import HeadConfig, ModelConfig
from xjepa_jax.errors import ConfigError
from xjepa_jax.model.encoder import Encoder, layer_spec
from xjepa_jax.model.inputs import sensor_inputs
from xjepa_jax.model.positions import coordinates
from xjepa_jax.model.xjepa import merge, split
from xjepa_jax.sensors import Band, Sensor

OPTICAL = Sensor("optical", tuple(Band(name, 10.0) for name in "abc"), "uint8", "counts")
RADAR = Sensor("radar", (Band("a", 20.0), Band("b", 20.0)), "float32", "dB")
SENSORS = {"optical": OPTICAL, "radar": RADAR}
INPUTS = sensor_inputs(SENSORS, {"optical": (16, 24), "radar": (8, 12)}, 8)
HEADS = {"layout": HeadConfig("grid", cells=2, size=8), "semantic": HeadConfig("mean", size=6)}
ROWS, TOKENS, METRES_A_PATCH = 2, 6, 80
RNG = np.random.default_rng(0)
VALUES = {
  key: RNG.standard_normal((ROWS, each.height, each.width, each.bands)).astype(np.float32)
  for key, each in INPUTS.items()
}
SEEN = {"optical": np.array([[1, 1, 1], [1, 0, 1]], bool), "radar": np.ones((ROWS, 2), bool)}
INDICES = {
  "optical": np.array([[0, 2, 5], [1, 3, 4]], np.int32),
  "radar": np.array([[1, 2, 3], [0, 4, 5]], np.int32),
}


def build(dtype: Any = jnp.float32, **settings: Any) -> tuple[Any, Any]:
  config = ModelConfig(preset="debug", width=16, patch=8, **settings)
  module = nnx.eval_shape(lambda: Encoder(config, HEADS, INPUTS, dtype, nnx.Rngs(0)))
  definition, shapes = split(module)
  return definition, drawn(shapes)


def tokens(definition: Any, parameters: Any, values: Any = VALUES, indices: Any = None) -> Any:
  return compiled(
    lambda p, v: merge(definition, p).tokens(v, {k: SEEN[k] for k in v}, indices),
    parameters,
    values,
  )


def by_hand(parameters: Any, key: str, sample: int, places: Any, **settings: Any) -> Any:
  """Tokens of one image: stem, position, registers, own layers, shared layers, norm."""
  parameters = reference.wide(parameters)
  stem, grid = parameters["stems"][key], coordinates((2, 3)).astype(np.float64)
  cut = reference.patches(VALUES[key][sample].astype(np.float64), INPUTS[key].patch)[places]
  if settings.get("stem") == "bands":
    there = np.flatnonzero(SEEN[key][sample])
    x = sum(cut[:, :, b] @ stem["kernel"][b] + stem["bias"][b] for b in there)
    x = x / np.sqrt(len(there))
  else:
    x = reference.linear(stem["project"], cut.reshape(len(cut), -1))
  if settings.get("position_unit") == "metres":
    grid = grid * METRES_A_PATCH / 80
  at = None
  if settings.get("positions") == "rotary":
    at = grid[places]
  else:
    x = x + reference.sincos(grid, 16)[places]
  registers = settings.get("registers", 0)
  if registers:
    x = np.concatenate([parameters["register_tokens"], x])
    at = None if at is None else np.concatenate([np.zeros((registers, 2)), at])
  for layers in (parameters.get("own", {}).get(key), parameters.get("trunk")):
    if layers:
      x = reference.trunk(layers["blocks"], x, 2, places=at)
  return reference.layer_norm(parameters["norm"], x)[registers:]


@pytest.mark.parametrize(
  "settings",
  [
    {},
    {"shared_layers": 1, "registers": 2, "stem": "bands"},
    {"shared_layers": 0, "registers": 1, "positions": "rotary", "position_unit": "metres"},
  ],
)
def test_tokens_of_some_places_and_of_all_are_those_by_hand(settings: Any) -> None:
  definition, parameters = build(**settings)
  shared = settings.get("shared_layers", 2)  # of 2 layers in all
  depths = {
    "trunk": reference.depth(parameters["trunk"]["blocks"]) if "trunk" in parameters else 0,
    "own": reference.depth(parameters["own"]["radar"]["blocks"]) if "own" in parameters else 0,
  }
  assert depths == {"trunk": shared, "own": 2 - shared}
  for indices in (None, INDICES):
    found = tokens(definition, parameters, indices=indices)
    assert list(found) == ["optical", "radar"]
    for key in found:
      for sample in range(ROWS):
        places = np.arange(TOKENS) if indices is None else indices[key][sample]
        expected = by_hand(parameters, key, sample, places, **settings)
        np.testing.assert_allclose(found[key][sample], expected, rtol=1e-4, atol=1e-4)


def test_positions_in_metres_are_those_of_the_patch_on_the_ground() -> None:
  # Patches of 160 m: everything is twice as far apart as in units of 80 m.
  sensor = Sensor("coarse", (Band("a", 20.0),), "uint8", "counts")
  inputs = sensor_inputs({"coarse": sensor}, {"coarse": (16, 16)}, 8)
  config = ModelConfig(preset="debug", patch=8, position_unit="metres", shared_layers=0, depth=1)

  def places() -> Any:
    encoder = Encoder(config, {}, inputs, jnp.float32, nnx.Rngs(0))
    return encoder._enter("coarse", jnp.zeros((1, 16, 16, 1)), jnp.ones((1, 1), bool), None, None)[
      1
    ]

  found = compiled(places)
  np.testing.assert_array_equal(found[0], [[0, 0], [0, 2], [2, 0], [2, 2]])


def test_a_sensor_s_tokens_do_not_depend_on_who_else_is_there() -> None:
  definition, parameters = build()
  both = tokens(definition, parameters)
  alone = tokens(definition, parameters, {"radar": VALUES["radar"]})
  assert list(alone) == ["radar"]
  np.testing.assert_allclose(alone["radar"], both["radar"], atol=1e-5)


def test_descriptors_are_of_every_head_or_of_those_asked_for() -> None:
  definition, parameters = build()

  def described(parameters: Any) -> Any:
    encoder = merge(definition, parameters)
    found = encoder.tokens(VALUES, SEEN, INDICES)
    every = encoder.descriptors(VALUES, found, INDICES)
    return every, encoder.descriptors(VALUES, found, INDICES, ["semantic"])

  every, some = jax.eval_shape(described, parameters)
  assert {head: {k: x.shape for k, x in each.items()} for head, each in every.items()} == {
    "layout": {"optical": (ROWS, 8), "radar": (ROWS, 8)},
    "semantic": {"optical": (ROWS, 6), "radar": (ROWS, 6)},
  }
  assert list(some) == ["semantic"]


def test_bfloat16_tokens_are_close_to_float32_ones_and_parameters_stay_float32() -> None:
  exact = tokens(*build())
  definition, parameters = build(jnp.bfloat16)
  assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(parameters))
  found = tokens(definition, parameters)
  for key in found:
    assert found[key].dtype == jnp.bfloat16
    error = np.abs(found[key].astype(np.float32) - exact[key])
    assert error.mean() < 0.02 * np.abs(exact[key]).mean()


@pytest.mark.parametrize(
  ("settings", "complaint"),
  [
    ({"attention_heads": 3}, "'model.attention_heads' is 3.*width 32"),
    ({"width": 30, "attention_heads": 3}, "multiple of 4 for positions 'sincos'"),
    ({"attention_heads": 16, "positions": "rotary"}, "multiple of 64 for positions 'rotary'"),
    ({"shared_layers": 3}, "'model.shared_layers' is 3.*2 layers"),
  ],
)
def test_numbers_that_do_not_go_together_are_refused(settings: Any, complaint: str) -> None:
  with pytest.raises(ConfigError) as error:
    layer_spec(ModelConfig(preset="debug", **settings), jnp.float32)
  assert re.search(complaint, str(error.value))


def test_presets_are_those_of_the_literature_and_each_number_can_be_replaced() -> None:
  sizes = {"tiny": (192, 12), "base": (768, 12), "huge": (1280, 32), "giant": (1408, 40)}
  for preset, (width, depth) in sizes.items():
    for positions in ("sincos", "rotary"):
      found = layer_spec(ModelConfig(preset=preset, positions=positions), jnp.float32)
      assert (found[0].width, found[1], found[2]) == (width, depth, depth)
  spec, depth, shared = layer_spec(
    ModelConfig(preset="base", width=96, depth=5, attention_heads=4, shared_layers=2), jnp.float32
  )
  assert (spec.width, spec.heads, depth, shared) == (96, 4, 5, 2)
