"""What a run found, gathered for its report: tables, examples and token maps of the test split."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from xjepa_jax.config import to_dict
from xjepa_jax.data.pictures import picture
from xjepa_jax.report.findings import Example, Findings, TokenMap, chance_rows, summary_rows
from xjepa_jax.report.retrieval_grid import examples_of
from xjepa_jax.retrieval.baselines import Stored, read_split
from xjepa_jax.retrieval.directions import Row
from xjepa_jax.retrieval.evaluate import Evaluation
from xjepa_jax.training.experiment import Experiment, device_batch
from xjepa_jax.versions import versions

_QUERIES = 6  # shown a direction
_TOKEN_PAIRS = 6


def summary(evaluation: Evaluation, baselines: Sequence[Row]) -> list[dict[str, Any]]:
  """Rows of the table of results: every head, every baseline, chance."""
  rows: list[dict[str, Any]] = []
  for head, found in evaluation.rows.items():
    rows += summary_rows(f"X-JEPA, {head}", [dataclasses.asdict(row) for row in found])
  for row in baselines:
    rows += summary_rows(row.method, [dataclasses.asdict(row)])
  first = next(iter(evaluation.rows.values()))
  return rows + chance_rows([dataclasses.asdict(row) for row in first])


def gather(
  experiment: Experiment,
  encoder: Any,
  evaluation: Evaluation,
  baselines: Sequence[Row],
  split: str,
  *,
  title: str,
  history: Sequence[Mapping[str, float]],
  verdict: str,
  timing: Mapping[str, float],
) -> Findings:
  """A run's findings.

  Args:
    experiment: the run.
    encoder: the parameters evaluated.
    evaluation, baselines: of `split`.
    split: of the pairs shown.
    title: of the report.
    history: rows of `metrics.jsonl`.
    verdict: what is wrong with the space, or "".
    timing: seconds and rates, by name.
  """
  stored = read_split(experiment, split, experiment.config.evaluation.pairs)
  device = experiment.mesh.devices.ravel()[0].device_kind
  return Findings(
    title=title,
    summary=summary(evaluation, baselines),
    protocol={
      "pairs": f"the split {split!r}, {len(evaluation.described.pair_ids):,} pairs",
      "encoder": f"the {experiment.config.evaluation.encoder} encoder, whole images",
      "centre": "each sensor's descriptors less their mean over training pairs",
      **next(iter(evaluation.rows.values()))[0].protocol,
    },
    geometry=evaluation.geometry,
    collapse=verdict or None,
    history=history,
    examples=_examples(experiment, evaluation, stored),
    token_maps=_token_maps(experiment, encoder, split, stored, evaluation.described.pair_ids),
    config=to_dict(experiment.config),
    versions={**versions(), "device": f"{experiment.mesh.devices.size} x {device}"},
    timing=timing,
  )


def _examples(
  experiment: Experiment, evaluation: Evaluation, stored: Stored
) -> tuple[Example, ...]:
  """Evenly chosen queries of every direction across sensors, by the head ranked first."""
  descriptors = evaluation.descriptors[experiment.config.evaluation.head]
  found: list[Example] = []
  for a, b in itertools.permutations(experiment.inputs, 2):
    both = np.flatnonzero(stored.present[a] & stored.present[b])
    if len(both) < 2:
      continue
    chosen = np.unique(np.linspace(0, len(both) - 1, _QUERIES).astype(int))
    scores = descriptors[a][both[chosen]] @ descriptors[b][both].T
    ids = [evaluation.described.pair_ids[number] for number in both]

    def shown(sensor: str, number: int, both: np.ndarray = both) -> np.ndarray:
      given = experiment.inputs[sensor].sensor
      return picture(given, stored.values[sensor][both[number]])

    found += examples_of(f"{a}->{b}", scores, list(chosen), ids, shown)
  return tuple(found)


def _token_maps(
  experiment: Experiment, encoder: Any, split: str, stored: Stored, pair_ids: Sequence[str]
) -> tuple[TokenMap, ...]:
  """The tokens of pairs of a split's first batch, with their pictures."""
  grids = {key: given.grid for key, given in experiment.inputs.items()}
  for _, pipeline in experiment.passes(split):
    batches = pipeline.batches()
    _, batch = next(batches)
    tokens = jax.device_get(experiment.tokens(encoder, device_batch(batch)))
    batches.close()  # its reading threads end now
    shown = range(min(_TOKEN_PAIRS, len(pair_ids), len(next(iter(tokens.values())))))
    return tuple(
      TokenMap(
        pair_ids[row],
        {
          key: picture(given.sensor, stored.values[key][row])
          for key, given in experiment.inputs.items()
          if stored.present[key][row]
        },
        {key: each[row] for key, each in tokens.items() if stored.present[key][row]},
        grids,
      )
      for row in shown
    )
  return ()
