"""What an experiment fills in from its config."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import pytest

from tests.training.conftest import Small
from xjepa_jax.errors import ConfigError
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
    with pytest.raises(ConfigError, match=rf"objective\.{name}\.width is no key"):
      open_experiment(config, jax.devices()[:1])
