"""InfoNCE against its definition: whole descriptors, cell by cell, and across cells."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xjepa_jax.errors import ConfigError
from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective.contrastive import Contrastive


def similarity(a: np.ndarray, b: np.ndarray) -> float:
  """Cosine over the numbers that both have; NaN is what is not there."""
  both = ~np.isnan(a) & ~np.isnan(b)
  a, b = a[both], b[both]
  return float(a @ b / math.sqrt((a @ a) * (b @ b))) if both.any() else 0.0


def info_nce(one: Any, other: Any, temperature: float) -> list[float]:
  """Of each of two lists of vectors that belong together, place by place."""
  found = np.zeros(len(one))
  for queries, answers in ((one, other), (other, one)):
    for place, query in enumerate(queries):
      exps = [math.exp(similarity(query, answer) / temperature) for answer in answers]
      found[place] -= math.log(exps[place] / sum(exps)) / 2
  return found.tolist()


def definition(outputs: Outputs, temperature: float, cells: int, across: bool) -> float:
  found: list[Any] = []
  for a, b in itertools.combinations(sorted(outputs.present), 2):
    both = outputs.present[a] & outputs.present[b]
    sides = []
    for sensor in (a, b):
      there = np.tile(outputs.seen["layout"][sensor], 4)
      values = np.where(there, outputs.descriptors["layout"][sensor], np.nan)[both]
      sides.append(np.stack([values[:, c::cells] for c in range(cells)], 1))
    if across:
      sides = [side.reshape(-1, 1, side.shape[-1]) for side in sides]
    losses = []
    for one, other in zip(*(side.swapaxes(0, 1) for side in sides), strict=True):
      there = (~np.isnan(one) & ~np.isnan(other)).any(axis=1)
      losses += info_nce(one[there], other[there], temperature)
    found.append(np.mean(losses))
  return float(np.mean(found))


@pytest.mark.parametrize(("cells", "across"), [(0, False), (2, False), (4, True)])
def test_contrastive_is_symmetric_info_nce_among_the_samples_of_both(
  outputs: Outputs, agrees: Callable[..., None], cells: int, across: bool
) -> None:
  check(outputs, agrees, cells, across)


@pytest.mark.parametrize(("cells", "across"), [(0, False), (2, False), (4, True)])
def test_cells_that_a_context_did_not_see_are_left_out(
  gaps: Outputs, agrees: Callable[..., None], cells: int, across: bool
) -> None:
  check(gaps, agrees, cells, across)


def check(outputs: Outputs, agrees: Callable[..., None], cells: int, across: bool) -> None:
  def reference(params: dict[str, Any], outputs: Outputs) -> float:
    del params
    return definition(outputs, 0.2, max(cells, 1), across)

  agrees(Contrastive(temperature=0.2, cells=cells, across_cells=across), outputs, reference)


def test_a_learned_temperature_has_its_gradient(
  outputs: Outputs, agrees: Callable[..., None]
) -> None:
  def reference(params: dict[str, Any], outputs: Outputs) -> float:
    return definition(outputs, float(np.exp(-params["log_scale"])), 1, False)

  term = Contrastive(temperature=0.3, learn_temperature=True)
  agrees(term, outputs, reference, term.init(jax.random.key(0)))


def test_a_learned_temperature_stops_at_a_hundredth_and_can_come_back(outputs: Outputs) -> None:
  term = Contrastive(temperature=0.3, learn_temperature=True)

  def loss(log_scale: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    return term.loss({"log_scale": log_scale}, outputs, jax.random.key(0))

  evaluate = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (_, logged), _ = evaluate(term.init(jax.random.key(0))["log_scale"])
  np.testing.assert_allclose(logged["temperature"], 0.3, rtol=1e-6)
  (_, logged), gradient = evaluate(jnp.float32(9.0))
  np.testing.assert_allclose(logged["temperature"], 0.01, rtol=1e-5)
  assert gradient > 0  # Random descriptors are matched badly: a higher temperature is better.


def of_two(outputs: Outputs, values: Any) -> Outputs:
  seen = jnp.ones((len(values), 2), bool)
  return dataclasses.replace(
    outputs,
    descriptors={"layout": {"optical": values, "radar": values}},
    seen={"layout": dict.fromkeys(("optical", "radar"), seen)},
    present=dict.fromkeys(("optical", "radar"), jnp.arange(len(values)) < 5),
  )


def test_identical_orthogonal_descriptors_have_the_known_value(outputs: Outputs) -> None:
  one_hot = of_two(outputs, 7 * np.eye(8, dtype=np.float32))
  value = jax.jit(Contrastive(temperature=0.5).loss)({}, one_hot, jax.random.key(0))[0]
  np.testing.assert_allclose(value, math.log(1 + 4 * math.exp(-2)), rtol=1e-5)


def test_descriptors_that_are_all_alike_are_worth_guessing_among_those_present(
  outputs: Outputs,
) -> None:
  alike = of_two(outputs, np.ones((8, 8), np.float32))
  value = jax.jit(Contrastive().loss)({}, alike, jax.random.key(0))[0]
  np.testing.assert_allclose(value, math.log(5), rtol=1e-5)
  joint = jax.jit(Contrastive(cells=4, across_cells=True).loss)({}, alike, jax.random.key(0))[0]
  np.testing.assert_allclose(joint, math.log(20), rtol=1e-5)


def test_cells_that_do_not_divide_a_descriptor_are_refused(outputs: Outputs) -> None:
  with pytest.raises(ConfigError, match="cells is 3, which does not divide descriptors of size 8"):
    Contrastive(cells=3).loss({}, outputs, jax.random.key(0))
