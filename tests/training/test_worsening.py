"""A run that finds less than it did says so, and one that only wavers does not."""

from __future__ import annotations

import math
from collections.abc import Sequence

from xjepa_jax.training.worsening import worsening


def rows(
  scores: list[float],
  losses: Sequence[float] = (),
  shares: Sequence[float] = (),
  queries: int = 70,
) -> list[dict[str, float]]:
  found: list[dict[str, float]] = []
  for number, score in enumerate(scores):
    row = {"step": 100 * number, "validation/score": score, "chance/queries": queries}
    row |= {"validation/loss/total": losses[number]} if losses else {}
    row |= {"geometry/position_share/s1": shares[number]} if shares else {}
    found.append(row)
  return found


# validation/score of the default on simulated pairs at steps 0 to 400, 70 pairs' worth of noise.
FALLING = [0.1, 0.719, 0.735, 0.674, 0.659]


def test_a_score_that_falls_while_the_loss_does_is_told_with_both() -> None:
  said = worsening(rows(FALLING, losses=[9.0, 3.2, 2.9, 2.7, 2.5]))
  assert said.startswith("The run gets worse (step 400): the validation score is 0.659")
  assert "was 0.735 at step 200" in said
  assert "while the loss on the same pairs fell from 2.9 to 2.5" in said
  assert "rose from 2.9 to 3.5" in worsening(rows(FALLING, losses=[9.0, 3.2, 2.9, 2.7, 3.5]))


def test_it_takes_two_evaluations_in_a_row_below_the_best() -> None:
  assert [worsening(rows(FALLING[:n])) != "" for n in range(6)] == [False] * 5 + [True]
  assert worsening(rows([0.1, 0.735, 0.6, 0.73])) == ""


def test_within_the_noise_of_so_few_queries_nothing_is_said() -> None:
  wavering = [0.70, 0.72, 0.735, 0.70, 0.69]  # a standard error of 70 queries is .053
  assert worsening(rows(wavering)) == ""
  assert worsening(rows(wavering, queries=2000)) != ""
  assert worsening(rows([0.2, 1.0, 0.99, 0.99])) == ""  # one query of 70 is .014


def test_tokens_that_become_their_place_are_told() -> None:
  rising = [0.1, 0.7, 0.7, 0.7]
  said = worsening(rows(rising, shares=[0.15, 0.01, 0.05, 0.38]))
  assert "tokens of s1 say where they lie: their place explains 38% of their variance" in said
  assert "and 1% at step 100" in said
  assert worsening(rows(rising, shares=[0.01, 0.05, 0.1, 0.19])) == ""
  assert worsening(rows(rising, shares=[0.4, 0.35, 0.4, 0.41])) == ""


def test_without_a_score_or_a_history_nothing_is_said() -> None:
  assert worsening([]) == "" and worsening([{"step": 0}]) == ""
  assert worsening([{"step": n, "validation/score": math.nan} for n in range(5)]) == ""
