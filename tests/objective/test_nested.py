"""Terms of a descriptor that can be cut: a weighted mean over its beginnings, by definition."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import types
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective.contrastive import Contrastive
from xjepa_jax.objective.nested import nested_loss
from xjepa_jax.objective.sigreg import SIGReg
from xjepa_jax.objective.table import TERMS, build


def cosine_loss(outputs: Outputs, size: int) -> float:
  """1 - cos of the first `size` numbers, over samples with both sensors, then pairs of sensors."""
  found = []
  for a, b in itertools.combinations(sorted(outputs.present), 2):
    both = outputs.present[a] & outputs.present[b]
    one, other = (np.asarray(outputs.descriptors["layout"][s])[both][:, :size] for s in (a, b))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    found.append(np.mean(1 - np.sum(one * other, axis=1) / lengths))
  return float(np.mean(found))


def test_the_loss_is_the_weighted_mean_over_the_beginnings_and_the_whole(
  outputs: Outputs, agrees: Callable[..., None]
) -> None:
  can_be_cut = dataclasses.replace(outputs, prefixes={"layout": ((2, 0.5), (4, 2.0))})

  def reference(params: dict[str, Any], outputs: Outputs) -> float:
    del params
    return (
      cosine_loss(outputs, 8) + 0.5 * cosine_loss(outputs, 2) + 2 * cosine_loss(outputs, 4)
    ) / 3.5

  term = build({"cosine": {}}).terms["cosine"]
  agrees(types.SimpleNamespace(loss=functools.partial(nested_loss, term)), can_be_cut, reference)


def test_each_beginning_is_logged_and_the_total_is_their_mean(outputs: Outputs) -> None:
  can_be_cut = dataclasses.replace(outputs, prefixes={"layout": ((4, 1.0),)})
  objective = build({"cosine": {}})
  total, metrics = jax.jit(objective.loss)({}, can_be_cut, 0, jax.random.key(0))
  np.testing.assert_allclose(metrics["cosine/prefix/4"], cosine_loss(outputs, 4), rtol=1e-5)
  expected = (cosine_loss(outputs, 4) + cosine_loss(outputs, 8)) / 2
  np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_a_beginning_of_a_grid_descriptor_is_contrasted_cell_by_cell(outputs: Outputs) -> None:
  """Its first 4 of 8 numbers in 2 cells are 2 of each cell: those of a smaller grid head."""
  term = Contrastive(cells=2)
  can_be_cut = dataclasses.replace(outputs, prefixes={"layout": ((4, 1.0),)})
  logged = jax.jit(functools.partial(nested_loss, term))({}, can_be_cut, jax.random.key(0))[1]
  by_cell: dict[str, Any] = {
    sensor: np.stack([values[:, 0:4:2], values[:, 1:4:2]], axis=2).reshape(len(values), 4)
    for sensor, values in outputs.descriptors["layout"].items()
  }
  smaller = dataclasses.replace(outputs, descriptors={"layout": by_cell})
  alone = jax.jit(term.loss)({}, smaller, jax.random.key(0))[0]
  np.testing.assert_allclose(logged["prefix/4"], alone, rtol=1e-6)


def test_a_head_without_beginnings_is_seen_as_it_is(outputs: Outputs) -> None:
  term = SIGReg(slices=4, points=5)
  of_another = dataclasses.replace(outputs, prefixes={"semantic": ((2, 1.0),)})
  key = jax.random.key(3)
  found = jax.jit(functools.partial(nested_loss, term))({}, of_another, key)
  plain = jax.jit(term.loss)({}, outputs, key)
  assert found[0] == plain[0] and found[1].keys() == plain[1].keys()


@pytest.mark.parametrize("name", ["vicreg", "contrastive", "cosine", "sigreg"])
def test_every_term_of_descriptors_sees_the_beginnings(outputs: Outputs, name: str) -> None:
  can_be_cut = dataclasses.replace(outputs, prefixes={"layout": ((2, 1.0),)})
  objective = build({name: {"on": "layout"}})
  found = jax.eval_shape(objective.loss, {}, can_be_cut, 0, jax.random.key(0))[1]
  assert f"{name}/prefix/2" in found and name in TERMS
