"""Vectors of scenes, wherever they come from, as an evaluation takes them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from xjepa_jax.errors import EvaluationError
from xjepa_jax.retrieval.directions import unit_rows
from xjepa_jax.retrieval.quantise import cut


@dataclasses.dataclass(frozen=True)
class SceneVectors:
  """P scenes, each with a vector of some sensors.

  Attributes:
    ids: of the scenes; views of one scene by several sensors have one id.
    splits: of each, "" where it is not known.
    labels: of each.
    present: sensor -> (P,) bool.
    vectors: sensor -> (P, K) float32 of length 1, 0 where the sensor is absent.
    predicted: "a->b" -> (P, K), what sensor a's image says of b's, of length 1; may be empty.
    asking: sensor -> (P, K) vectors that ask, where they are not those that are searched.
    one_space: whether vectors of different sensors can be compared as they are.
  """

  ids: tuple[str, ...]
  splits: np.ndarray
  labels: tuple[tuple[str, ...], ...]
  present: Mapping[str, np.ndarray]
  vectors: Mapping[str, np.ndarray]
  predicted: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  asking: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  one_space: bool = True

  @property
  def dimensions(self) -> int:
    """K."""
    return next(iter(self.vectors.values())).shape[1]

  @property
  def split_known(self) -> bool:
    """Whether the split of any scene is."""
    return bool(np.any(self.splits != ""))

  def of(self, split: str) -> np.ndarray:
    """(P,) bool, the scenes of a split; all of them where no scene's split is known."""
    if not self.split_known:
      return np.ones(len(self.ids), bool)
    return self.splits == split

  def cut(self, size: int) -> SceneVectors:
    """The same by the first `size` numbers of their vectors, nothing predicted.

    Raises:
      EvaluationError: they are shorter.
    """
    return dataclasses.replace(
      self,
      vectors={key: cut(values, size) for key, values in self.vectors.items()},
      predicted={},
      asking={key: cut(values, size) for key, values in self.asking.items()},
    )


@dataclasses.dataclass(frozen=True)
class VectorRows:
  """Vectors as a file lists them, one a row.

  Attributes:
    ids, sensors, splits: (N,) text; "" for an unknown split.
    labels: of each.
    vectors: (N, K) float.
    taken: in words, which of a file's columns they are; "" where that is no question.
    columns: their names, a number of the vectors each; () where the vectors are lists.
  """

  ids: Sequence[str]
  sensors: Sequence[str]
  splits: Sequence[str]
  labels: Sequence[tuple[str, ...]]
  vectors: np.ndarray
  taken: str = ""
  columns: tuple[str, ...] = ()


def gather(name: str, parts: Sequence[VectorRows]) -> SceneVectors:
  """Puts the rows of one scene together.

  Args:
    name: of what the rows are from, for a message.
    parts: of one or several files, their vectors of one size.

  Raises:
    EvaluationError: sizes or columns differ, a scene has two rows of a sensor, or nothing is there.
  """
  sizes = sorted({part.vectors.shape[1] for part in parts})
  if len(sizes) != 1 or not any(len(part.ids) for part in parts):
    found = " and ".join(map(str, sizes)) or "no"
    raise EvaluationError(f"{name}: expected vectors of one size, found {found} numbers.")
  parts = _aligned(name, parts)
  ids: dict[str, int] = {}
  for part in parts:
    for each in part.ids:
      ids.setdefault(each, len(ids))
  splits = np.full(len(ids), "", object)
  labels: list[tuple[str, ...]] = [()] * len(ids)
  present: dict[str, np.ndarray] = {}
  vectors: dict[str, np.ndarray] = {}
  for part in parts:
    rows = np.array([ids[each] for each in part.ids], int)
    sensors = np.asarray(part.sensors, object)
    for sensor in dict.fromkeys(part.sensors):
      of = sensors == sensor
      there = present.setdefault(sensor, np.zeros(len(ids), bool))
      counts = np.bincount(rows[of], minlength=len(ids)) + there
      if counts.max(initial=0) > 1:
        twice = list(ids)[int(counts.argmax())]
        raise EvaluationError(f"{name}: scene {twice!r} has two vectors of sensor {sensor!r}.")
      there[rows[of]] = True
      held = vectors.setdefault(sensor, np.zeros((len(ids), sizes[0]), np.float32))
      held[rows[of]] = part.vectors[of]
    for row, split, named in zip(rows, part.splits, part.labels, strict=True):
      splits[row] = split or splits[row]
      labels[row] = named or labels[row]
  return SceneVectors(
    ids=tuple(ids),
    splits=splits,
    labels=tuple(labels),
    present=present,
    vectors={key: unit_rows(values, present[key]) for key, values in vectors.items()},
  )


def check_paired(scenes: SceneVectors) -> None:
  """Raises an EvaluationError if no scene is seen by two sensors although there are several."""
  seen = np.sum(list(scenes.present.values()), axis=0)
  if len(scenes.present) < 2 or seen.max(initial=0) > 1:
    return
  examples = "; ".join(
    f"{sensor} has {', '.join(repr(scenes.ids[row]) for row in np.flatnonzero(values)[:3])}"
    for sensor, values in scenes.present.items()
  )
  raise EvaluationError(
    f"no scene has vectors of two sensors, so no query has an answer: {examples}. Views of one "
    "scene need one id, letter by letter: write the ids alike in all files."
  )


def _aligned(name: str, parts: Sequence[VectorRows]) -> list[VectorRows]:
  """The same with the numbers of their vectors in one order, that of the first with named ones."""
  first = next((part.columns for part in parts if part.columns), ())
  found = []
  for part in parts:
    if part.columns and set(part.columns) != set(first):
      mine, other = (
        ", ".join(sorted(set(these) - set(those))[:3])
        for these, those in ((first, part.columns), (part.columns, first))
      )
      raise EvaluationError(
        f"{name}: the vectors' columns have other names in one file than in another: {mine} there, "
        f"{other} here, so it cannot be told which belong together. Give them the same names."
      )
    if part.columns:
      order = [part.columns.index(each) for each in first]
      part = dataclasses.replace(part, vectors=part.vectors[:, order], columns=first)
    found.append(part)
  return found


def described_by(
  scenes: SceneVectors, known: Mapping[str, tuple[str, tuple[str, ...]]], name: str
) -> SceneVectors:
  """The same scenes with the splits and labels that a data set has for them.

  Scenes that it has not are left out, and a line on stderr says how many.

  Args:
    scenes: of a file.
    known: id -> split and labels.
    name: of what the vectors are from, for a message.

  Raises:
    EvaluationError: the data set has none of the scenes.
  """
  rows = [row for row, each in enumerate(scenes.ids) if each in known]
  if not rows:
    raise EvaluationError(
      f"{name}: none of its {len(scenes.ids):,} scenes is in the data set, such as "
      f"{scenes.ids[0]!r}; that has ids such as {next(iter(known), 'none')!r}."
    )
  if lost := len(scenes.ids) - len(rows):
    print(
      f"{name}: {lost:,} of {len(scenes.ids):,} scenes {'is' if lost == 1 else 'are'} left out, "
      "which the data set does not have in the splits that ask or are searched.",
      file=sys.stderr,
    )
  ids = tuple(scenes.ids[row] for row in rows)
  return SceneVectors(
    ids=ids,
    splits=np.array([known[each][0] for each in ids], object),
    labels=tuple(known[each][1] for each in ids),
    present={key: values[rows] for key, values in scenes.present.items()},
    vectors={key: values[rows] for key, values in scenes.vectors.items()},
    predicted={key: values[rows] for key, values in scenes.predicted.items()},
  )
