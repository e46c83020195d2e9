"""Collects a run's findings for its report: tables, examples and token maps of the test split."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xjepa_jax.config import to_dict
from xjepa_jax.data.pictures import picture
from xjepa_jax.model import images
from xjepa_jax.model.encoder import has_network
from xjepa_jax.report.findings import Example, Findings, TokenMap, chance_rows, summary_rows
from xjepa_jax.report.retrieval_grid import examples_of
from xjepa_jax.retrieval.baselines import protocol
from xjepa_jax.retrieval.describe import Described
from xjepa_jax.retrieval.directions import Row
from xjepa_jax.retrieval.evaluation import Evaluation
from xjepa_jax.sensors import Sensor
from xjepa_jax.training.experiment import Experiment, open_split
from xjepa_jax.versions import versions

_QUERIES = 6  # shown per direction
_TOKEN_PAIRS = 6


def summary(
  evaluation: Evaluation, baselines: Sequence[Row], network: bool = True
) -> list[dict[str, Any]]:
  """Return the rows of the table of results: every head, every baseline, and chance.

  Args:
    evaluation, baselines: results on one split.
    network: whether the heads belong to a network, whose name their rows then carry.
  """
  rows: list[dict[str, Any]] = []
  for head, found in evaluation.rows.items():
    name = f"X-JEPA, {head}" if network else head
    rows += summary_rows(name, [dataclasses.asdict(row) for row in found])
  for row in baselines:
    rows += summary_rows(row.method, [dataclasses.asdict(row)])
  first = next(iter(evaluation.rows.values()))
  return rows + chance_rows([dataclasses.asdict(row) for row in first])


def gather(
  experiment: Experiment,
  evaluation: Evaluation,
  baselines: Sequence[Row],
  tokens: Mapping[str, np.ndarray],
  split: str,
  *,
  encoder: str,
  title: str,
  history: Sequence[Mapping[str, float]],
  verdict: str,
  warnings: Sequence[str],
  timing: Mapping[str, float],
) -> Findings:
  """Collect a run's findings.

  Args:
    experiment: the run.
    evaluation, baselines: results on `split`.
    tokens: sensor -> (B, N, D) tokens of the first pairs of `split`.
    split: the split whose pairs are shown.
    encoder: "averaged" or "trained".
    title: title of the report.
    history: rows of `metrics.jsonl`.
    verdict: what is wrong with the embedding space, or "".
    warnings: other remarks on the run.
    timing: seconds and rates, by name.
  """
  device = experiment.mesh.devices.ravel()[0].device_kind
  rows = [row for found in evaluation.rows.values() for row in found]
  with Pictures(experiment, split) as pictures:
    found = examples(experiment, evaluation, pictures, _QUERIES)
    maps = token_maps(experiment, evaluation.described, tokens, pictures, _TOKEN_PAIRS)
  return Findings(
    title=title,
    summary=summary(evaluation, baselines, has_network(experiment.config.model)),
    protocol={
      "pairs": f"the split {split!r}, {len(evaluation.described.pair_ids):,} pairs",
      "encoder": f"the {encoder} encoder, whole images",
      "centre": "each sensor's descriptors less their mean over training pairs",
      **(rows[0].protocol if rows else {}),
      **{
        method: words
        for method, words in protocol(experiment).items()
        if any(row.method == method for row in baselines)
      },
    },
    geometry=evaluation.geometry,
    collapse=verdict or None,
    warnings=tuple(warnings),
    history=history,
    examples=found,
    token_maps=maps,
    config=to_dict(experiment.config),
    versions={**versions(), "device": f"{experiment.mesh.devices.size} x {device}"},
    timing=timing,
  )


class Pictures:
  """Pictures of a split's pairs, read on demand and numbered as in the evaluation."""

  def __init__(self, experiment: Experiment, split: str):
    """Open the split without reading anything."""
    self._inputs = experiment.inputs
    self._datasets = open_split(experiment.config, split)
    # A record holds all sensors of a pair, which are requested one at a time.
    self._read = functools.lru_cache(maxsize=64)(self._pair)

  def __call__(self, sensor: str, number: int) -> np.ndarray:
    """Return (H, W, 3) uint8: the part that the model sees, in the best colours of all bands."""
    described, values = self._read(number)[sensor]
    crop: Any = images.crop  # of arrays of either kind
    return picture(described, crop({sensor: values[None]}, self._inputs, None)[sensor][0])

  def __enter__(self) -> Pictures:
    return self

  def __exit__(self, *_: object) -> None:
    for dataset in self._datasets:
      dataset.close()

  def _pair(self, number: int) -> dict[str, tuple[Sensor, np.ndarray]]:
    for dataset in self._datasets:
      if number < len(dataset):
        observations = dataset[number].observations
        return {key: (dataset.format.sensors[key], o.values) for key, o in observations.items()}
      number -= len(dataset)
    raise IndexError(number)


def has_examples(experiment: Experiment, evaluation: Evaluation) -> bool:
  """Whether `examples` finds any: it needs two pairs that both have two of the sensors."""
  present = evaluation.described.present
  pairs = itertools.combinations(experiment.inputs, 2)
  return any(np.count_nonzero(present[a] & present[b]) >= 2 for a, b in pairs)


def examples(
  experiment: Experiment, evaluation: Evaluation, pictures: Pictures, count: int
) -> tuple[Example, ...]:
  """Choose evenly spread queries of every direction across sensors, ranked by the main head.

  Args:
    experiment: the run.
    evaluation, pictures: of one split.
    count: largest number of queries per direction.
  """
  descriptors = evaluation.descriptors[experiment.config.evaluation.head]
  present = evaluation.described.present
  found: list[Example] = []
  for a, b in itertools.permutations(experiment.inputs, 2):
    both = np.flatnonzero(present[a] & present[b])
    if len(both) < 2:
      continue
    chosen = np.unique(np.linspace(0, len(both) - 1, count).astype(int))
    scores = descriptors[a][both[chosen]] @ descriptors[b][both].T
    ids = [evaluation.described.pair_ids[number] for number in both]

    # `both` is bound as a default, because the loop assigns it again.
    def shown(sensor: str, number: int, both: np.ndarray = both) -> np.ndarray:
      return pictures(sensor, int(both[number]))

    found += examples_of(f"{a}->{b}", scores, list(chosen), ids, shown)
  return tuple(found)


def token_maps(
  experiment: Experiment,
  described: Described,
  tokens: Mapping[str, np.ndarray],
  pictures: Pictures,
  count: int,
) -> tuple[TokenMap, ...]:
  """Return the tokens of the first pairs, with their pictures.

  Args:
    experiment: the run.
    described, pictures: of one split.
    tokens: sensor -> (B, N, D) tokens of its first pairs.
    count: largest number of pairs.
  """
  if not tokens:  # an encoder without a network has none
    return ()
  grids = {key: given.grid for key, given in experiment.inputs.items()}
  maps = []
  for row in range(min([count, len(described.pair_ids), *map(len, tokens.values())])):
    keys = [key for key in experiment.inputs if described.present[key][row]]
    maps.append(
      TokenMap(
        described.pair_ids[row],
        {key: pictures(key, row) for key in keys},
        {key: tokens[key][row] for key in keys},
        grids,
      )
    )
  return tuple(maps)
