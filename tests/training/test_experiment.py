"""What an experiment fills in from its config."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import pytest

from tests.training.conftest import Small
from xjepa_jax.errors import ConfigError
from xjepa_jax.training.experiment import open_experiment


def test_psa_is_of_the_encoder_s_width_unless_it_says_otherwise(small: Small) -> None:
  terms: dict[str, Any] = {
    "psa": {},
    "mine": {"term": "psa", "width": 5},
    "latent": {"weight": 0.5},
  }
  config = dataclasses.replace(small.config, objective=terms)
  experiment = open_experiment(config, jax.devices()[:1])
  shapes = jax.eval_shape(experiment.init, jax.random.key(0))["objective"]
  assert shapes["psa"]["factor"].shape == (32, 32)
  assert shapes["mine"]["factor"].shape == (5, 5)
  assert experiment.objective.terms["latent"].weight == 0.5


def test_other_terms_are_not_given_a_width(small: Small) -> None:
  config = dataclasses.replace(small.config, objective={"latent": {"width": 32}})
  with pytest.raises(ConfigError, match=r"objective\.latent\.width is no key"):
    open_experiment(config, jax.devices()[:1])
