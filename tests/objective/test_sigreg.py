"""SIGReg against its definition, and against the statistic's known values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import integrate

from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective.sigreg import SIGReg

SLICES, POINTS, EXTENT = 5, 9, 2.5


def reference(params: dict[str, Any], outputs: Outputs) -> float:
  del params
  drawn = np.asarray(jax.random.normal(jax.random.key(0), (8, SLICES)), np.float64)
  grid = [EXTENT * i / (POINTS - 1) for i in range(POINTS)]
  found = []
  for sensor, present in outputs.present.items():
    rows = np.flatnonzero(present & outputs.seen["layout"][sensor].any(axis=1))
    for column in drawn.T:
      projected = np.zeros(len(rows))
      for number, row in enumerate(rows):
        there = np.tile(outputs.seen["layout"][sensor][row], 4)
        part = column[there]
        value = outputs.descriptors["layout"][sensor][row][there] @ part
        projected[number] = value / np.sqrt(part @ part)
      integrand = [
        abs(np.mean(np.exp(1j * t * projected)) - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)
        for t in grid
      ]
      # Even in t, so the half line counts twice.
      area = sum(
        (integrand[i] + integrand[i + 1]) / 2 * (grid[i + 1] - grid[i]) for i in range(POINTS - 1)
      )
      found.append(len(projected) * 2 * area)
  return float(np.mean(found))


def test_sigreg_is_the_mean_epps_pulley_statistic_of_slices_and_sensors(
  cells: Outputs, agrees: Callable[..., None]
) -> None:
  agrees(SIGReg(slices=SLICES, points=POINTS, extent=EXTENT), cells, reference)


def statistic(outputs: Outputs, values: Any, seen: Any = None) -> float:
  one = dataclasses.replace(
    outputs,
    descriptors={"layout": {"optical": values}},
    seen={"layout": {"optical": jnp.ones((len(values), 1), bool) if seen is None else seen}},
    present={"optical": jnp.ones(len(values), bool)},
  )
  return float(jax.jit(SIGReg().loss)({}, one, jax.random.key(1))[0])


def test_standard_normal_samples_have_the_expected_statistic_whatever_their_number(
  outputs: Outputs,
) -> None:
  # n E|phi_n - phi|^2 = 1 - phi^2 for independent samples.
  expected, _ = integrate.quad(lambda t: (1 - np.exp(-(t**2))) * np.exp(-(t**2) / 2), -3, 3)
  rng = np.random.default_rng(4)
  for number in (256, 1024):
    values = rng.standard_normal((number, 64)).astype(np.float32)
    assert 0.8 * expected < statistic(outputs, values) < 1.2 * expected


def test_standard_normal_samples_have_it_too_where_half_of_their_cells_are_missing(
  outputs: Outputs,
) -> None:
  expected, _ = integrate.quad(lambda t: (1 - np.exp(-(t**2))) * np.exp(-(t**2) / 2), -3, 3)
  rng = np.random.default_rng(4)
  values = rng.standard_normal((1024, 64)).astype(np.float32)
  assert 0.8 * expected < statistic(outputs, values, rng.random((1024, 16)) < 0.5) < 1.2 * expected


def test_collapsed_samples_have_a_statistic_that_grows_with_their_number(outputs: Outputs) -> None:
  expected, _ = integrate.quad(
    lambda t: (1 - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2), -3, 3
  )
  for number in (64, 256):
    value = statistic(outputs, np.zeros((number, 8), np.float32))
    np.testing.assert_allclose(value, number * expected, rtol=2e-3)  # 17 points, not an integral


def test_another_key_draws_other_directions(outputs: Outputs) -> None:
  loss = jax.jit(SIGReg(slices=4, points=5).loss)
  first, again, other = (float(loss({}, outputs, jax.random.key(seed))[0]) for seed in (0, 0, 1))
  assert first == again != other
