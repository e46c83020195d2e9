"""The results of a run as plain values: everything that a report shows.

The pages, pictures and files of a report are made from `Findings` alone, without JAX, devices or
the data set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

# The meaning of a report's numbers, by the prefix of their key; the longest matching prefix counts.
DEFINITIONS = {
  "recall@": "R@k: share of queries whose co-located scene is among the first k of the archive; "
  "denominator: queries with a co-located scene in the archive",
  "mrr": "MRR: mean of 1 / rank of the co-located scene; denominator: the same queries",
  "precision@": "P@k: share of the first k that are relevant, mean over queries; denominator: k",
  "map": "mAP: precisions at the relevant answers of the whole ranking; denominator: all that is "
  "relevant in the archive",
  "map_hits@": "mAP@k (hits): precisions at the hits among the first k; denominator: these hits",
  "map_relevant@": "mAP@k (relevant): precisions at the hits among the first k; denominator: all "
  "that is relevant in the archive",
  "map_reachable@": "mAP@k (reachable): precisions at the hits among the first k; denominator: all "
  "that is relevant in the archive, at most k",
  "ndcg@": "nDCG@k: discounted gain of the first k; denominator: that of the best ranking",
  "f1_csmae@": "F1@k (CSMAE): F1 of the mean precision and mean recall of labels over all queries "
  "and ranks",
  "f1_query@": "F1@k (query): F1 of each query's mean precision and recall of labels, then the "
  "mean over queries",
  "f1_item@": "F1@k (item): F1 of the labels of every answer, mean over ranks and queries",
}
_LABELS = {
  "recall": "R",
  "precision": "P",
  "mrr": "MRR",
  "ndcg": "nDCG",
  "map": "mAP",
  "map_hits": "mAP (hits)",
  "map_relevant": "mAP (relevant)",
  "map_reachable": "mAP (reachable)",
  "f1_csmae": "F1 (CSMAE)",
  "f1_query": "F1 (query)",
  "f1_item": "F1 (item)",
}


@dataclasses.dataclass(frozen=True)
class Answer:
  """One answer to a query.

  Attributes:
    picture: (H, W, 3) uint8.
    pair_id: id of the scene.
    score: similarity; higher is more similar.
    true: whether it is the query's own scene.
  """

  picture: np.ndarray
  pair_id: str
  score: float
  true: bool


@dataclasses.dataclass(frozen=True)
class Example:
  """One query and the best answers to it.

  Attributes:
    direction: "a->b": the query's sensor and the answers'.
    picture: (H, W, 3) uint8, the query.
    pair_id: id of the query's scene.
    answers: the answers, best first.
    true_rank: rank of the query's own scene in the whole archive, from 1.
    archive_size: number of scenes in the archive.
  """

  direction: str
  picture: np.ndarray
  pair_id: str
  answers: tuple[Answer, ...]
  true_rank: int
  archive_size: int


@dataclasses.dataclass(frozen=True)
class TokenMap:
  """The tokens of several sensors for one pair.

  Attributes:
    pair_id: id of the pair.
    pictures: sensor -> (H, W, 3) uint8.
    tokens: sensor -> (N, D), row-major over its grid.
    grids: sensor -> (rows, columns) of its tokens.
  """

  pair_id: str
  pictures: Mapping[str, np.ndarray]
  tokens: Mapping[str, np.ndarray]
  grids: Mapping[str, tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Findings:
  """A run's results for `xjepa_jax.report.page.write_report`. All but the title may be empty.

  Attributes:
    title: title of the page.
    summary: rows of the table of results, see `summary_rows`; all values are numbers except "name"
      ("X-JEPA, layout", "chance") and "direction" ("a->b").
    protocol: how the results were measured, in words: which split and encoder, what was left out.
    geometry: measures of the embedding space by name: RankMe, modality gap, deviation.
    collapse: what is wrong with the space, or None if nothing was found.
    warnings: other remarks: terms that teach nothing, a run that gets worse.
    history: rows of `metrics.jsonl`.
    examples: queries with their answers, shown in this order within each direction.
    token_maps: pairs whose tokens are shown.
    config: the experiment's config, nested.
    versions: versions of the software, by name; also the device and the code's commit.
    timing: seconds and rates, by name.
  """

  title: str
  summary: Sequence[Mapping[str, Any]] = ()
  protocol: Mapping[str, str] = dataclasses.field(default_factory=dict)
  geometry: Mapping[str, float] = dataclasses.field(default_factory=dict)
  collapse: str | None = None
  warnings: Sequence[str] = ()
  history: Sequence[Mapping[str, float]] = ()
  examples: Sequence[Example] = ()
  token_maps: Sequence[TokenMap] = ()
  config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
  timing: Mapping[str, float] = dataclasses.field(default_factory=dict)


def summary_rows(name: str, directions: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """Return rows of a report's table for the rows of an evaluation.

  Args:
    name: name of the method for people: "X-JEPA, layout".
    directions: `dataclasses.asdict` of retrieval rows: "query", "archive", "queries",
      "archive_size", "metrics".
  """
  return [_summary(name, row, row["metrics"]) for row in directions]


def chance_rows(directions: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """Return rows of a report's table with what a random ranking would reach; see `summary_rows`."""
  return [_summary("chance", row, row["chance"]) for row in directions]


def measure(key: str) -> str:
  """Return the display name of a number: "R@5" for "recall@5"; any other key is unchanged."""
  stem, at, cut = key.partition("@")
  if stem not in _LABELS:
    return key
  label, space, kind = _LABELS[stem].partition(" ")
  return f"{label}{at}{cut}{space}{kind}"


def definition(key: str) -> str | None:
  """Return the definition of a summary's number with its denominator, or None for other keys."""
  fitting = [start for start in DEFINITIONS if key.startswith(start)]
  return DEFINITIONS[max(fitting, key=len)] if fitting else None


def _summary(name: str, row: Mapping[str, Any], numbers: Mapping[str, float]) -> dict[str, Any]:
  return {
    "name": name,
    "direction": f"{row['query']}->{row['archive']}",
    **numbers,
    "queries": row["queries"],
    "archive_size": row["archive_size"],
  }
