"""What an experiment fills in from its config."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tests.training.conftest import Small
from xjepa_jax.errors import ConfigError, SensorError
from xjepa_jax.objective.term import Term
from xjepa_jax.sensors import sensor_to_json
from xjepa_jax.training.experiment import open_experiment


def test_a_term_that_is_built_of_a_config_has_the_config_s_keys(small: Small) -> None:
  terms: dict[str, Any] = {"psa": {"floor": 0.2}, "latent": {"weight": 0.5}}
  config = dataclasses.replace(small.config, objective=terms)
  experiment = open_experiment(config, jax.devices()[:1])
  assert jax.eval_shape(experiment.init, jax.random.key(0))["objective"] == {}
  assert experiment.objective.terms["latent"].weight == 0.5


def test_a_key_of_another_term_is_refused(small: Small) -> None:
  # "psa" had a width while its metric was a parameter.
  for name in ("latent", "psa"):
    config = dataclasses.replace(small.config, objective={name: {"width": 32}})
    with pytest.raises(ConfigError, match=rf"'objective\.{name}\.width' is unknown"):
      open_experiment(config, jax.devices()[:1])


class Nothing(Term):
  """A term as somebody else may write one."""

  def loss(self, params: Any, outputs: Any, key: Any) -> Any:
    return jnp.float32(0), {}


def test_a_term_of_ones_own_is_named_by_the_config_and_passed_in(small: Small) -> None:
  config = dataclasses.replace(small.config, objective={"latent": {}, "mine": {"term": "nothing"}})
  experiment = open_experiment(config, jax.devices()[:1], {"nothing": Nothing})
  assert isinstance(experiment.objective.terms["mine"], Nothing)


def test_a_config_may_describe_a_sensor_otherwise_than_its_data_set(small: Small) -> None:
  scaling = {"normalise": "percentile", "low": [-25.0, -30.0], "high": [0.0, -5.0]}
  config = dataclasses.replace(small.config, sensors={"s1": {"scaling": scaling}})
  found = open_experiment(config, jax.devices()[:1]).inputs["s1"].sensor
  held = open_experiment(small.config, jax.devices()[:1]).inputs["s1"].sensor
  changed = dataclasses.replace(
    held.scaling, normalise="percentile", low=(-25.0, -30.0), high=(0.0, -5.0)
  )
  expected = dataclasses.replace(held, scaling=changed)
  assert sensor_to_json(found) == sensor_to_json(expected) != sensor_to_json(held)


@pytest.mark.parametrize(
  ("sensors", "error", "message"),
  [
    ({"s9": {"nodata": 0}}, ConfigError, "'sensors.s9' describes a sensor that no data set has"),
    (
      {"s1": {"dtype": "int16"}},
      SensorError,
      "'sensors.s1': dtype is 'int16' and the data set stores 'float32'",
    ),
    (
      {"s1": {"scaling": {"maen": [0, 0]}}},
      SensorError,
      "'sensors.s1'.scaling: unknown key 'maen'",
    ),
    ({"s1": {"scaling": {"mean": [0]}}}, SensorError, "scaling.mean has 1 values for 2 bands"),
  ],
)
def test_a_sensor_that_cannot_be_so_is_refused(
  small: Small, sensors: Any, error: type[Exception], message: str
) -> None:
  with pytest.raises(error, match=message):
    open_experiment(dataclasses.replace(small.config, sensors=sensors), jax.devices()[:1])
