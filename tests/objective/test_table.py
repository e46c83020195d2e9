"""The objective that a config describes: what it weighs when, and what is refused by which name."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xjepa_jax.config import resolve
from xjepa_jax.config.fields import setting
from xjepa_jax.errors import ConfigError
from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective.latent import Latent
from xjepa_jax.objective.table import build
from xjepa_jax.objective.term import Term
from xjepa_jax.objective.vicreg import VICReg


def test_the_total_is_the_weighted_sum_of_what_is_logged(outputs: Outputs) -> None:
  objective = build({"latent": {"weight": 2.0}, "near": {"term": "cosine", "weight": 0.5}})
  total, metrics = jax.jit(objective.loss)({}, outputs, 0, jax.random.key(0))
  assert metrics.keys() == {
    "loss/latent",
    "loss/near",
    "loss/total",
    "latent/route/optical->radar",
    "latent/route/radar->optical",
    "latent/route/optical->optical",
  }
  np.testing.assert_allclose(
    total, 2 * metrics["loss/latent"] + metrics["loss/near"] / 2, rtol=1e-6
  )
  alone = jax.jit(Latent().loss)({}, outputs, jax.random.key(0))[0]
  np.testing.assert_allclose(metrics["loss/latent"], alone, rtol=1e-6)


def test_a_weight_starts_rises_and_ends_at_its_steps() -> None:
  one = Latent(weight=4.0, warmup=8, start=10, end=30)
  steps = jnp.array([0, 9, 10, 12, 18, 29, 30, 1000])
  weights = jax.vmap(one.weight_at)(steps)
  np.testing.assert_allclose(weights, [0, 0, 0, 1, 4, 4, 0, 0])
  assert Latent(weight=4.0, start=5).weight_at(5) == 4
  assert Latent(weight=4.0, start=5).weight_at(4) == 0


def test_a_weight_of_0_computes_logs_and_teaches_nothing(outputs: Outputs) -> None:
  objective = build({"latent": {"weight": 0.0}})

  def loss(predicted: dict[str, Any]) -> tuple[jax.Array, dict[str, jax.Array]]:
    seen = Outputs(**{**vars(outputs), "predicted": predicted})
    return objective.loss({}, seen, 0, jax.random.key(0))

  gradients, metrics = jax.jit(jax.grad(loss, has_aux=True))(outputs.predicted)
  assert metrics["loss/latent"] > 0 and metrics["loss/total"] == 0
  assert not any(leaf.any() for leaf in jax.tree.leaves(gradients))


def test_what_a_term_draws_does_not_depend_on_the_other_terms(outputs: Outputs) -> None:
  key = jax.random.key(7)
  few = {"slices": 4, "points": 5}
  alone = jax.jit(build({"sigreg": few}).loss)({}, outputs, 0, key)[1]
  both = build({"again": {"term": "sigreg", **few}, "sigreg": few})
  among = jax.jit(both.loss)({}, outputs, 0, key)[1]
  assert alone["loss/sigreg"] == among["loss/sigreg"] != among["loss/again"]


@pytest.mark.parametrize(
  ("settings", "complaint"),
  [
    ({}, "objective names no term; choose from latent, vicreg"),
    ({"latent": 1.0}, "'objective.latent' is 1.0; expected a group of keys"),
    ({"vicrag": {}}, "'objective.vicrag.term' is 'vicrag', .*Did you mean 'vicreg'"),
    ({"a": {"term": "zzz"}}, "'objective.a.term' is 'zzz', .*there are latent, vicreg"),
    ({"a": {"term": ["latent"]}}, "'objective.a.term' is"),
    ({"latent": {"distanse": "l1"}}, "'objective.latent.distanse' .*mean 'objective.latent.dist"),
    ({"latent": {"wieght": 1}}, "'objective.latent.wieght' .*mean 'objective.latent.weight'"),
    ({"latent": {"distance": "l3"}}, "'objective.latent.distance' is 'l3'; .*l2, smooth_l1, l1"),
    ({"latent": {"beta": 0}}, "'objective.latent.beta' is 0.0; allowed: more than 0"),
    ({"latent": {"routes": "a->b"}}, "'objective.latent.routes' is 'a->b'; expected a tuple"),
    ({"latent": {"weight": -1}}, "'objective.latent.weight' is -1.0; allowed: at least 0"),
    ({"latent": {"weight": float("nan")}}, "'objective.latent.weight' is nan"),
    ({"latent": {"weight": True}}, "'objective.latent.weight' is True; expected float"),
    ({"latent": {"warmup": 1.5}}, "'objective.latent.warmup' is 1.5; expected int"),
    ({"latent": {"start": -1}}, "'objective.latent.start' is -1; .*at least 0"),
    ({"latent": {"start": 5, "end": 5}}, "objective.latent.end is 5; .*after start, 5"),
    ({"vicreg": {"variance": "much"}}, "'objective.vicreg.variance' is 'much'"),
    ({"vicreg": {"deviation": 0}}, "'objective.vicreg.deviation' is 0"),
    ({"vicreg": {"over": "tokens"}}, "'objective.vicreg.over' .*allowed: descriptor, cells"),
    ({"psa": {"floor": 1.5}}, "'objective.psa.floor' is 1.5; .*more than 0, at most 1"),
    ({"sigreg": {"points": 1}}, "'objective.sigreg.points' is 1; .*at least 2"),
    ({"contrastive": {"temperature": 0}}, "'objective.contrastive.temperature' .*more than 0"),
    (
      {"contrastive": {"temperature": 0.001, "learn_temperature": True}},
      "objective.contrastive.temperature is 0.001; a learned one is kept at 0.01",
    ),
    ({"contrastive": {"across_cells": 1}}, "'objective.contrastive.across_cells' is 1; .*bool"),
  ],
)
def test_what_cannot_work_is_refused_by_its_key(settings: dict[str, Any], complaint: str) -> None:
  with pytest.raises(ConfigError, match=complaint):
    build(settings)


@pytest.mark.parametrize(
  ("settings", "complaint"),
  [
    ({"far": {"term": "cosine", "on": "cross"}}, "objective.far.on is 'cross', which is no head"),
    ({"far": {"term": "cosine", "on": ""}}, "objective.far.on is '', which is no head"),
    ({"latent": {"routes": ["optical"]}}, "objective.latent.routes names 'optical', .*optical->"),
  ],
)
def test_what_the_model_lacks_is_refused_by_its_label(
  outputs: Outputs, settings: dict[str, Any], complaint: str
) -> None:
  objective = build(settings)
  with pytest.raises(ConfigError, match=complaint):
    objective.loss({}, outputs, 0, jax.random.key(0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant(Term):
  """A term as somebody else may write one."""

  value: float = setting(1.0, "of the loss", most=9)

  def loss(
    self, params: dict[str, Any], outputs: Outputs, key: jax.Array
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    return jnp.float32(self.value), {}


def test_a_term_of_ones_own_is_weighted_and_checked_like_the_others(outputs: Outputs) -> None:
  terms = {"constant": Constant}
  settings: dict[str, Any] = {"mine": {"term": "constant", "value": 3, "weight": 2}, "cosine": {}}
  total, metrics = build(settings, terms).loss({}, outputs, 0, jax.random.key(0))
  np.testing.assert_allclose(total, 6 + metrics["loss/cosine"], rtol=1e-6)
  with pytest.raises(ConfigError, match="'objective.constant.value' is 10.0; allowed: at most 9"):
    build({"constant": {"value": 10}}, terms)
  with pytest.raises(ConfigError, match="'objective.mine.term' is 'constant', which is no term"):
    build(settings)


def test_an_option_that_is_none_is_one_that_was_not_given(outputs: Outputs) -> None:
  entry = {"term": "vicreg", "variance": None, "slices": None, "weight": 2.0}
  config = resolve({"objective": {"a": entry}})
  assert build(config.objective).terms == {"a": VICReg(weight=2.0)}
