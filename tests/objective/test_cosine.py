"""The cosine term against its definition."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xjepa_jax.errors import ConfigError
from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective.cosine import Cosine


def reference(params: dict[str, Any], outputs: Outputs) -> float:
  del params
  means = []
  for a, b in itertools.combinations(outputs.present, 2):
    angles = []
    for row in np.flatnonzero(outputs.present[a] & outputs.present[b]):
      one, other = (outputs.descriptors["layout"][sensor][row] for sensor in (a, b))
      common = outputs.seen["layout"][a][row] & outputs.seen["layout"][b][row]
      if not common.any():
        continue
      one, other = (z.reshape(4, 2)[:, common].ravel() for z in (one, other))
      angles.append(1 - one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    means.append(np.mean(angles))
  return float(np.mean(means))


def test_cosine_is_that_of_common_cells_and_the_mean_over_samples_and_pairs_of_sensors(
  cells: Outputs, agrees: Callable[..., None]
) -> None:
  agrees(Cosine(), cells, reference)


def test_equal_directions_are_worth_0_and_opposite_ones_2(outputs: Outputs) -> None:
  values: Any = np.random.default_rng(5).standard_normal((16, 8)).astype(np.float32)
  for factor, expected in ((3.0, 0.0), (-0.5, 2.0)):
    outputs.descriptors["layout"] = {"optical": values, "radar": factor * values}
    value = jax.jit(Cosine().loss)({}, outputs, jax.random.key(0))[0]
    np.testing.assert_allclose(value, expected, atol=1e-6)


def test_one_sensor_has_nobody_to_agree_with(outputs: Outputs) -> None:
  outputs.descriptors["layout"] = {"optical": jnp.ones((16, 8))}
  assert jax.jit(Cosine().loss)({}, outputs, jax.random.key(0))[0] == 0


def test_a_head_that_the_model_lacks_is_refused_by_name(outputs: Outputs) -> None:
  with pytest.raises(ConfigError, match="on is 'cross', which is no head .* heads are: layout"):
    Cosine(on="cross").loss({}, outputs, jax.random.key(0))
