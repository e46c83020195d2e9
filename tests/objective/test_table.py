"""The objective that a config describes: what it weighs when, and what is refused by which name."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xjepa_jax.errors import ConfigError
from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective.latent import latent
from xjepa_jax.objective.table import build
from xjepa_jax.objective.weighted import Weighted


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
  alone = jax.jit(latent().loss)({}, outputs, jax.random.key(0))[0]
  np.testing.assert_allclose(metrics["loss/latent"], alone, rtol=1e-6)


def test_a_weight_starts_rises_and_ends_at_its_steps() -> None:
  one = Weighted(latent(), weight=4.0, warmup=8, start=10, end=30)
  steps = jnp.array([0, 9, 10, 12, 18, 29, 30, 1000])
  weights = jax.vmap(one.weight_at)(steps)
  np.testing.assert_allclose(weights, [0, 0, 0, 1, 4, 4, 0, 0])
  assert Weighted(latent(), weight=4.0, start=5).weight_at(5) == 4
  assert Weighted(latent(), weight=4.0, start=5).weight_at(4) == 0


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
    ({"latent": 1.0}, "objective.latent is 1.0; expected a group of keys"),
    ({"vicrag": {}}, "objective.vicrag.term is 'vicrag', .*did you mean 'vicreg'"),
    ({"a": {"term": "zzz"}}, "objective.a.term is 'zzz', .*choose from latent, vicreg"),
    ({"a": {"term": ["latent"]}}, "objective.a.term is"),
    ({"latent": {"distanse": "l1"}}, "objective.latent.distanse .*did you mean 'distance'"),
    ({"latent": {"wieght": 1}}, "objective.latent.wieght .*did you mean 'weight'"),
    ({"latent": {"distance": "l3"}}, "objective.latent.distance is 'l3'; .*l2, smooth_l1, l1"),
    ({"latent": {"beta": 0}}, "objective.latent.beta is 0; expected more than 0"),
    ({"latent": {"routes": "a->b"}}, r"objective.latent.routes is 'a->b'; .*\['a->b'\]"),
    ({"latent": {"routes": ["a"]}}, "objective.latent.routes holds 'a'; .*->"),
    ({"latent": {"weight": -1}}, "objective.latent.weight is -1; expected at least 0"),
    ({"latent": {"weight": float("nan")}}, "objective.latent.weight is nan; .*finite"),
    ({"latent": {"weight": True}}, "objective.latent.weight is True; .*finite number"),
    ({"latent": {"warmup": 1.5}}, "objective.latent.warmup is 1.5; expected a whole number"),
    ({"latent": {"start": -1}}, "objective.latent.start is -1; .*at least 0"),
    ({"latent": {"start": 5, "end": 5}}, "objective.latent.end is 5; .*after start, 5"),
    ({"vicreg": {"on": ""}}, "objective.vicreg.on is ''; expected a name"),
    ({"vicreg": {"variance": "much"}}, "objective.vicreg.variance is 'much'"),
    ({"vicreg": {"deviation": 0}}, "objective.vicreg.deviation is 0"),
    ({"psa": {"floor": 1.5}}, "objective.psa.floor is 1.5; expected at most 1"),
    ({"sigreg": {"points": 1}}, "objective.sigreg.points is 1; .*at least 2"),
    ({"contrastive": {"temperature": 0}}, "objective.contrastive.temperature is 0; .*more than 0"),
    (
      {"contrastive": {"temperature": 0.001, "learn_temperature": True}},
      "objective.contrastive.temperature is 0.001; a learned one is kept at 0.01",
    ),
    ({"contrastive": {"across_cells": 1}}, "objective.contrastive.across_cells is 1; .*True"),
  ],
)
def test_what_cannot_work_is_refused_by_its_key(settings: dict[str, Any], complaint: str) -> None:
  with pytest.raises(ConfigError, match=complaint):
    build(settings)


def test_what_the_model_lacks_is_refused_by_its_label(outputs: Outputs) -> None:
  objective = build({"far": {"term": "cosine", "on": "cross"}})
  with pytest.raises(ConfigError, match="objective.far.on is 'cross', which is no head"):
    objective.loss({}, outputs, 0, jax.random.key(0))
