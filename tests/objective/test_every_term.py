"""What holds for all terms at once: devices, absent samples, degenerate batches, precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tests.compiling import known
from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective.table import TERMS, build

OBJECTIVE = build(
  {
    "latent": {"distance": "smooth_l1"},
    "vicreg": {},
    "tokens": {"term": "vicreg", "on": "tokens"},
    "over_cells": {"term": "vicreg", "over": "cells"},
    "psa": {},
    "sigreg": {"slices": 8},
    "contrastive": {"learn_temperature": True},
    "by_cell": {"term": "contrastive", "cells": 4},
    "across": {"term": "contrastive", "cells": 4, "across_cells": True},
    "cosine": {},
    "places": {},
  }
)
FLOATS = ("predicted", "target", "tokens", "descriptors")
Losses = tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture
def outputs(outputs: Outputs) -> Outputs:
  """Two of the sensors, which compile in half the time of three."""
  heads = (*outputs.descriptors.values(), *outputs.seen.values())
  for found in (outputs.tokens, outputs.positions, outputs.present, *heads):
    del found["thermal"]
  outputs.seen["layout"]["radar"][::3, 0] = False
  return outputs


def losses(floats: dict[str, Any], rest: Outputs) -> tuple[jax.Array, dict[str, jax.Array]]:
  given = {name: value for name, value in floats.items() if name != "params"}
  seen = dataclasses.replace(rest, **given)
  return OBJECTIVE.loss(floats["params"], seen, jnp.int32(3), jax.random.key(0))


@pytest.fixture(scope="module")
def evaluate() -> Callable[[Outputs], Losses]:
  """Metrics and gradients; one compilation a sharding for all tests."""
  quickly = known({"xla_backend_optimization_level": 0})
  compiled = jax.jit(jax.grad(losses, has_aux=True), compiler_options=quickly)
  params = OBJECTIVE.init(jax.random.key(0))

  def evaluate(outputs: Outputs) -> Losses:
    floats = {name: getattr(outputs, name) for name in FLOATS}
    rest = dataclasses.replace(outputs, **dict.fromkeys(FLOATS, {}))
    gradients, metrics = compiled(floats | {"params": params}, rest)
    return jax.device_get(metrics), jax.device_get(gradients)

  return evaluate


def test_every_term_of_the_table_is_here() -> None:
  parameters = OBJECTIVE.init(jax.random.key(0))
  assert parameters.keys() == {"contrastive"}
  assert set(TERMS) <= set(OBJECTIVE.terms)


def test_a_batch_on_eight_devices_has_the_values_and_gradients_of_one(
  outputs: Outputs, evaluate: Callable[[Outputs], Losses]
) -> None:
  rows = NamedSharding(Mesh(np.array(jax.devices()), ("rows",)), PartitionSpec("rows"))
  assert len(rows.device_set) == 8
  metrics, gradients = evaluate(outputs)
  metrics_of_8, gradients_of_8 = evaluate(jax.device_put(outputs, rows))
  assert metrics.keys() == metrics_of_8.keys()
  for name, value in metrics.items():
    np.testing.assert_allclose(metrics_of_8[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
  for one, eight in zip(jax.tree.leaves(gradients), jax.tree.leaves(gradients_of_8), strict=True):
    np.testing.assert_allclose(eight, one, rtol=1e-5, atol=1e-5 * np.abs(one).max())


def test_without_anybody_every_term_is_0_and_every_gradient_too(
  outputs: Outputs, evaluate: Callable[[Outputs], Losses]
) -> None:
  nobody = {sensor: jnp.zeros(16, bool) for sensor in outputs.present}
  metrics, gradients = evaluate(dataclasses.replace(outputs, present=nobody))
  assert all(value == 0 for name, value in metrics.items() if name.startswith("loss/"))
  assert all(np.isfinite(value) for value in metrics.values())
  assert all(not leaf.any() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_a_collapsed_model_has_finite_losses_and_gradients(
  outputs: Outputs, evaluate: Callable[[Outputs], Losses], fill: float
) -> None:
  def filled(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.full_like(x, fill), tree)

  collapsed = {name: filled(getattr(outputs, name)) for name in FLOATS}
  metrics, gradients = evaluate(dataclasses.replace(outputs, **collapsed))
  assert all(np.isfinite(value) for value in metrics.values())
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_rows_that_are_not_real_leave_the_values_of_the_others(
  outputs: Outputs, evaluate: Callable[[Outputs], Losses]
) -> None:
  padded = {sensor: present & (np.arange(16) < 11) for sensor, present in outputs.present.items()}
  metrics, gradients = evaluate(dataclasses.replace(outputs, present=padded))
  first = jax.tree.map(lambda x: x[:11], outputs)
  floats = {name: getattr(first, name) for name in FLOATS}
  floats["params"] = OBJECTIVE.init(jax.random.key(0))
  expected = jax.jit(losses)(floats, first)[1]
  for name, value in expected.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
  for name in FLOATS:
    assert all(not leaf[11:].any() for leaf in jax.tree.leaves(gradients[name]))


def test_low_precision_in_means_float32_out(outputs: Outputs) -> None:
  low = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if x.dtype == np.float32 else x, outputs)
  total, metrics = jax.eval_shape(
    OBJECTIVE.loss, OBJECTIVE.init(jax.random.key(0)), low, jnp.int32(0), jax.random.key(0)
  )
  for scalar in (total, *metrics.values()):
    assert scalar.shape == () and scalar.dtype == jnp.float32
