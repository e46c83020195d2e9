"""Which encoder is exported, by what was measured of both."""

from __future__ import annotations

import math

import pytest

from xjepa_jax.retrieval.encoder_choice import choose


@pytest.mark.parametrize(
  ("averaged", "trained", "best"),
  [
    (0.5, 0.6, "trained"),
    (0.6, 0.5, "averaged"),
    (0.5, 0.5, "averaged"),
    (math.nan, 0.1, "trained"),
    (math.nan, math.nan, "averaged"),
  ],
)
def test_the_better_on_validation_is_chosen_unless_one_is_asked_for(
  averaged: float, trained: float, best: str
) -> None:
  metrics = {"validation/averaged/score": averaged, "validation/trained/score": trained}
  assert choose("best", metrics) == best
  assert choose("target", metrics) == "averaged" and choose("online", metrics) == "trained"


def test_without_a_score_it_is_the_average() -> None:
  assert choose("best", {}) == "averaged" and choose("online", {}) == "trained"
