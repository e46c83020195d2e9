"""Curves: which key goes to which panel, what a restart leaves, and what is not drawn."""

from __future__ import annotations

import numpy as np

from xjepa_jax.report.curves import curves, panel_titles, png
from xjepa_jax.report.findings import Findings


def lines_of(figure: object) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
  return {
    axis.get_title(loc="left"): {
      line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
      for line in axis.get_lines()
    }
    for axis in figure.axes  # type: ignore[attr-defined]
  }


def test_every_kind_of_number_has_its_panel() -> None:
  row = {
    "loss/total": 3.0,
    "loss/latent": 1.0,
    "latent/route/a->b": 0.5,
    "validation/a->b/recall@1": 0.1,
    "validation/a->b/recall@10": 0.5,
    "geometry/layout/rankme/a": 9.0,
    "geometry/layout/gap": 0.2,
    "geometry/layout/deviation/a": 0.9,
    "geometry/position/a->b": 0.3,
    "norm/gradient": 1.0,
    "validation/averaged/a->b/recall@1": 0.1,
    "validation/averaged/score": 0.3,
    "validation/trained/score": 0.2,
    "validation/score": 0.3,
    "validation/loss/latent": 0.2,
    "geometry/position_share/s1": 0.1,
    "probe/latent/position/a->b": 0.2,
    "probe/latent/over_position/a->b": 1.1,
    "targets/position/a->b": 0.01,
  }
  history = [{"step": 1} | row, {"step": 2} | row]
  figure = curves(history, {"chance": 0.01})
  found = {title: set(lines) for title, lines in lines_of(figure).items()}
  assert found == {
    "Loss by term": {"total (weighted)", "latent"},
    "Prediction loss by route": {"a → b"},
    "Averaged and trained encoder: validation score": {"averaged", "trained"},
    "Retrieval: R@1": {"a → b", "chance"},
    "Effective rank (RankMe)": {"layout a"},
    "Gap between sensors": {"layout"},
    "Deviation": {"layout a"},
    "Loss on validation pairs": {"latent"},
    "Loss over that of a guess from position (1: no better)": {"latent a → b"},
    "Share of the tokens' variance that place explains": {"s1"},
    "Position (0: predictions know only their place)": {"a → b"},
  }
  assert panel_titles(history) == list(found)


def test_values_are_drawn_at_their_steps_and_gaps_stay_gaps() -> None:
  history = [
    {"step": 30, "loss/total": 1.0},
    {"step": 10, "loss/total": 3.0},
    {"step": 20, "loss/total": float("nan")},
    {"step": 30, "loss/total": 0.5},
  ]
  steps, values = lines_of(curves(history))["Loss by term"]["total (weighted)"]
  assert steps == [10, 20, 30]
  np.testing.assert_array_equal(values, [3.0, np.nan, 0.5])


def test_a_long_loss_is_drawn_as_a_running_mean_of_the_same_level() -> None:
  rng = np.random.default_rng(0)
  history = [{"step": step, "loss/total": 2 + rng.normal()} for step in range(1000)]
  _, values = lines_of(curves(history))["Loss by term"]["total (weighted)"]
  raw = np.array([row["loss/total"] for row in history])
  assert len(values) == 1000
  np.testing.assert_allclose(values[500], raw[490:511].mean())
  np.testing.assert_allclose(values[0], raw[:11].mean())


def test_nothing_to_show_is_no_figure() -> None:
  assert curves([]) is None
  assert curves([{"step": 1, "seconds": 3.0}, {"step": 2, "loss/total": float("nan")}]) is None


def test_the_same_history_makes_the_same_bytes(findings: Findings) -> None:
  one, other = curves(findings.history), curves(findings.history)
  assert one is not None and other is not None
  assert png(one) == png(other)
