"""Compares several sources under one protocol, beside the baselines.

Baselines are computed once for all protocols, and only if the pairs' pixels are available.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from xjepa_jax.data.description import describe
from xjepa_jax.errors import EvaluationError, XJepaError
from xjepa_jax.retrieval import image_statistics
from xjepa_jax.retrieval.closed_form import GRADIENTS, LINEAR, closed_form_vectors
from xjepa_jax.retrieval.evaluating.evaluation_table import evaluation_table
from xjepa_jax.retrieval.evaluating.sizes import Size, size_rows
from xjepa_jax.retrieval.evaluating.sources import Reading, Source
from xjepa_jax.retrieval.evaluating.statistics_source import statistics_vectors
from xjepa_jax.retrieval.protocol_rows import PREDICTED, duplicate_rate, protocol_rows
from xjepa_jax.retrieval.protocols import LOCATION, Protocol
from xjepa_jax.retrieval.row import Row
from xjepa_jax.retrieval.scene_vectors import SceneVectors, check_paired


@dataclasses.dataclass(frozen=True)
class Compared:
  """The result of one protocol, as text and as JSON types."""

  text: str
  content: dict[str, Any]


class Comparison:
  """Sources, and the baselines on the pairs if there are any.

  Args:
    sources: sources with distinct names.
    reading: how they were read.
    train: split on which baselines are fitted.
    resamples: number of bootstrap resamples.
    linear: maximum number of pairs for fitting the linear layout; 0 omits it and gradients.
  """

  def __init__(
    self, sources: Sequence[Source], reading: Reading, train: str, resamples: int, linear: int
  ):
    self._sources = sources
    self._reading = reading
    self._train = train
    self._resamples = resamples
    self._linear = linear

  def by(self, protocol: Protocol) -> Compared:
    """Carries out a protocol.

    Raises:
      XJepaError: a source cannot be measured by it, or the pairs cannot be read.
    """
    rows: list[tuple[str, Row]] = []
    doubles: dict[tuple[str, str], float] = {}
    content = []
    for source in self._sources:
      try:
        if protocol.relevant == LOCATION:
          check_paired(source.scenes)
        found = protocol_rows(protocol, source.scenes, resamples=self._resamples)
      except EvaluationError as error:
        raise EvaluationError(f"{source.name}: {error}") from error
      rates = duplicate_rate(protocol, source.scenes)
      for row in found:
        name = f"{source.name}, {PREDICTED}" if row.method == PREDICTED else source.name
        rows.append((name, row))
        doubles |= {(name, sensor): rate for sensor, rate in rates.items()}
      content.append(
        {
          "name": source.name,
          "paths": source.paths,
          "kind": source.kind,
          "dimensions": source.scenes.dimensions,
          "duplicates": rates,
          "rows": [dataclasses.asdict(row) for row in found],
        }
      )
    baseline, why = self._baselines(protocol)
    rows += [(row.method, row) for row in baseline]
    notes = [f"{name}: {reason}" for name, reason in why.items()]
    table = evaluation_table(rows, protocol.headline, doubles, notes)
    return Compared(
      f"{self._title(protocol)}\n{table}",
      {
        "protocol": dataclasses.asdict(protocol),
        "splits_known": all(source.scenes.split_known for source in self._sources),
        "bootstrap": {"resamples": self._resamples, "level": 0.95, "over": "queries"},
        "duplicates": "share of the archive's vectors with another at a cosine of 1 to five digits",
        "sources": content,
        "baselines": [dataclasses.asdict(row) for row in baseline],
        "image_statistics": why.get(image_statistics.METHOD, "measured"),
        "not_measured": why,
      },
    )

  def sizes(
    self, source: Source, protocol: Protocol, kinds: str, prefixes: Sequence[int]
  ) -> list[Size]:
    """Quality against bytes per scene for one source, see `sizes.size_rows`."""
    return size_rows(protocol, source.scenes, kinds, prefixes or source.prefixes)

  @functools.cached_property
  def _sensors(self) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for source in self._sources for key in source.scenes.vectors))

  @functools.cached_property
  def _statistics(self) -> SceneVectors:
    return statistics_vectors(self._reading.pairs, self._reading.splits, self._train, self._sensors)

  @functools.cached_property
  def _closed_form(self) -> dict[str, SceneVectors]:
    found, _ = closed_form_vectors(
      self._reading.pairs, self._reading.splits, self._train, self._sensors, self._linear
    )
    return found

  def _baselines(self, protocol: Protocol) -> tuple[list[Row], dict[str, str]]:
    """Rows of the baselines that need no training, and for those without rows the reason."""
    baselines: dict[str, Callable[[], SceneVectors]] = {
      image_statistics.METHOD: lambda: self._statistics
    }
    if self._linear:
      baselines[GRADIENTS] = lambda: self._closed_form[GRADIENTS]
      baselines[LINEAR] = lambda: self._closed_form[LINEAR]
    if not self._reading.pairs:
      return [], dict.fromkeys(baselines, "no pixels (give --pairs)")
    splits = describe(self._reading.pairs).splits
    if not sum(splits.get(self._train, ())):
      there = ", ".join(name for name, shards in splits.items() if sum(shards))
      why = f"no split {self._train!r} to fit them on; --train names one of {there}"
      return [], dict.fromkeys(baselines, why)
    rows: list[Row] = []
    missing: dict[str, str] = {}
    for name, vectors in baselines.items():
      try:
        rows += protocol_rows(protocol, vectors(), (name, name), self._resamples)
      except XJepaError as error:
        missing[name] = str(error)
    return rows, missing

  def _title(self, protocol: Protocol) -> str:
    lines = [
      f"{protocol.name}: {protocol.title}",
      f"  queries: {protocol.queries}; archive: {protocol.archive}; {protocol.source}",
    ]
    if protocol.uncertain:
      lines.append(f"  uncertain: {protocol.uncertain}")
    if not all(source.scenes.split_known for source in self._sources):
      lines.append("  where the split of scenes is not known, all of them ask and are searched")
    if self._resamples:
      lines.append(f"  per cent, [95 % bootstrap interval over queries, {self._resamples:,} draws]")
    return "\n".join(lines)
