"""Outputs of a model that never was, and the comparison of a term with its definition in NumPy."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from tests.compiling import known
from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective.term import Term

BATCH, TARGETS, CONTEXT, WIDTH, SIZE, CELLS, GRID = 16, 3, 4, 6, 8, 2, (2, 3)
SENSORS = ("optical", "radar", "thermal")
ROUTES = ("optical->radar", "radar->optical", "optical->optical")
FLOATS = ("predicted", "target", "tokens", "descriptors")
Reference = Callable[[dict[str, Any], Outputs], float]


@pytest.fixture
def outputs() -> Outputs:
  """NumPy arrays; each sensor lacks other samples, and what is absent is NaN."""
  rng = np.random.default_rng(0)

  def normal(*shape: int) -> Any:
    return (rng.standard_normal(shape) * 0.8 + 0.3).astype(np.float32)

  present: dict[str, Any] = {sensor: rng.random(BATCH) < 0.7 for sensor in SENSORS}
  seen: dict[str, Any] = {sensor: np.ones((BATCH, CELLS), bool) for sensor in SENSORS}

  counted: dict[str, Any] = {route: rng.random((BATCH, TARGETS)) < 0.8 for route in ROUTES}

  def lacking(values: Any, *sensors: str) -> Any:
    values[~np.logical_and.reduce([present[sensor] for sensor in sensors])] = np.nan
    return values

  def places() -> Any:
    chosen = [rng.permutation(GRID[0] * GRID[1])[:CONTEXT] for _ in range(BATCH)]
    return np.sort(chosen, axis=1).astype(np.int32)

  return Outputs(
    predicted={r: lacking(normal(BATCH, TARGETS, WIDTH), *r.split("->")) for r in ROUTES},
    target={r: lacking(normal(BATCH, TARGETS, WIDTH), *r.split("->")) for r in ROUTES},
    tokens={s: lacking(normal(BATCH, CONTEXT, WIDTH), s) for s in SENSORS},
    positions={s: places() for s in SENSORS},
    descriptors={"layout": {s: lacking(normal(BATCH, SIZE), s) for s in SENSORS}},
    seen={"layout": seen},
    counted=counted,
    present=present,
    grid=dict.fromkeys(SENSORS, GRID),
  )


@pytest.fixture
def gaps(outputs: Outputs) -> Outputs:
  """The same with cells that no context token lies in; what stands there is NaN."""
  rng = np.random.default_rng(7)
  seen: dict[str, Any] = {sensor: rng.random((BATCH, CELLS)) < 0.7 for sensor in SENSORS}
  seen["optical"][np.flatnonzero(outputs.present["optical"])[0]] = False  # not one cell of it
  descriptors: dict[str, Any] = {}
  for sensor, values in outputs.descriptors["layout"].items():
    # Number j of cell c is number j * CELLS + c.
    descriptors[sensor] = np.where(np.tile(seen[sensor], (1, SIZE // CELLS)), values, np.nan)
  return dataclasses.replace(outputs, descriptors={"layout": descriptors}, seen={"layout": seen})


@pytest.fixture(params=["whole", "gaps"])
def cells(request: pytest.FixtureRequest, outputs: Outputs) -> Outputs:
  """Outputs with all cells of every descriptor, and with some."""
  return outputs if request.param == "whole" else request.getfixturevalue("gaps")


@pytest.fixture
def agrees() -> Callable[..., None]:
  """agrees(term, outputs, reference, params, key): value to 1e-5, and gradients too.

  The reference is a function of the same arrays in float64, so its central differences along
  random directions are good to many more digits than float32 has.
  """
  return _agrees


def _agrees(
  term: Term,
  outputs: Outputs,
  reference: Reference,
  params: dict[str, Any] | None = None,
  key: int = 0,
) -> None:
  inputs = {"params": params or {}} | {name: getattr(outputs, name) for name in FLOATS}

  def loss(inputs: dict[str, Any]) -> jax.Array:
    floats = {name: inputs[name] for name in FLOATS}
    seen = dataclasses.replace(outputs, **floats)
    return term.loss(inputs["params"], seen, jax.random.key(key))[0]

  def exact(inputs: dict[str, Any]) -> float:
    floats = {name: inputs[name] for name in FLOATS}
    return reference(inputs["params"], dataclasses.replace(outputs, **floats))

  # Compiling is what takes the time here; unoptimised code is made in half of it.
  quickly = known({"xla_backend_optimization_level": 0})
  value, gradient = jax.jit(jax.value_and_grad(loss), compiler_options=quickly)(inputs)
  wide = jax.tree.map(lambda x: np.asarray(x, np.float64), inputs)
  np.testing.assert_allclose(value, exact(wide), rtol=1e-5)
  for target in jax.tree.leaves(gradient["target"]):
    assert not np.any(target), "a gradient reached the targets"
  rng = np.random.default_rng(1)
  for name in ("params", "predicted", "tokens", "descriptors"):
    direction = jax.tree.map(lambda x: rng.standard_normal(x.shape), wide[name])
    ends = []
    for step in (1e-6, -1e-6):
      moved = copy.copy(wide)
      moved[name] = jax.tree.map(lambda x, d, step=step: x + step * d, wide[name], direction)
      ends.append(exact(moved))
    products = [
      np.asarray(g, np.float64) * d
      for g, d in zip(jax.tree.leaves(gradient[name]), jax.tree.leaves(direction), strict=True)
    ]
    slope = sum(product.sum() for product in products)
    size = sum(np.abs(product).sum() for product in products)
    assert abs(slope - (ends[0] - ends[1]) / 2e-6) <= 1e-5 * size + 1e-7, name
