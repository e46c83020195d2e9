"""Findings of a made-up run: small pictures, a known ranking, texts that want escaping."""

from __future__ import annotations

import numpy as np
import pytest

from xjepa_jax.report.findings import Findings, TokenMap, chance_rows, summary_rows
from xjepa_jax.report.retrieval_grid import examples_of

IDS = [f"scene <{number}> & co" for number in range(8)]
QUERIES = [2, 5, 7]


def picture(sensor: str, number: int) -> np.ndarray:
  """(6, 6, 3) of one colour each, by which a scene is known again."""
  return np.full((6, 6, 3), 10 * (number + 1) + 100 * (sensor == "radar"), np.uint8)


def scores() -> np.ndarray:
  """(3, 8): query 2 finds its scene first, query 5 third, query 7 last."""
  found = np.tile(np.linspace(0.7, 0.1, 8), (3, 1))
  found[0, 2] = 0.9
  found[1, 5] = 0.6
  found[2, 7] = -0.5
  return found


@pytest.fixture(scope="session")
def findings() -> Findings:
  """Of everything that a report shows."""
  rng = np.random.default_rng(0)
  examples = examples_of("optical->radar", scores(), QUERIES, IDS, picture)
  examples += examples_of("radar->optical", scores()[:, ::-1], [5, 2, 0], IDS, picture)
  pairs = [
    TokenMap(
      IDS[number],
      {sensor: picture(sensor, number) for sensor in ("optical", "radar")},
      {sensor: rng.normal(size=(12, 16)) for sensor in ("optical", "radar")},
      {"optical": (3, 4), "radar": (4, 3)},
    )
    for number in (0, 1)
  ]
  directions = [
    {
      "query": query,
      "archive": archive,
      "queries": 1500,
      "archive_size": 1600,
      "metrics": {"recall@1": share, "recall@5": 2 * share, "mrr": float("nan"), "map_hits@5": 0.5},
      "chance": {"recall@1": 1 / 1600},
    }
    for query, archive, share in (("optical", "radar", 0.25), ("radar", "optical", 0.2))
  ]
  history = [
    {"step": step, "loss/total": 2 / step, "loss/latent": 1 / step, "latent/route/a->b": 1 / step}
    | ({"validation/a->b/recall@1": step / 1000} if step % 100 == 0 else {})
    for step in range(10, 301, 10)
  ]
  return Findings(
    title='A run of "X" <script>alert(1)</script>',
    summary=[*summary_rows("X-JEPA, layout", directions), *chance_rows(directions)],
    protocol={"split": "test & nothing else"},
    geometry={"RankMe": 12.5, "gap": float("inf")},
    history=history,
    examples=examples,
    token_maps=pairs,
    config={"model": {"width": 8, "note": "see http://example.org/<x>"}, "mean": float("nan")},
    versions={"jax": "0.10.2"},
    timing={"seconds": 12.5},
  )
