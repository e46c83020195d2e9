"""Vectors of scenes from any source, in the form that an evaluation takes.

Scenes are matched across sensors by id, character by character. Vectors have unit length, so that
inner products are cosines.
"""

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
  """P scenes, with one vector per sensor.

  Attributes:
    ids: scene ids; views of one scene by several sensors share an id.
    splits: (P,) split of each scene, "" if unknown.
    labels: label names of each scene.
    present: sensor -> (P,) bool.
    vectors: sensor -> (P, K) float32 of unit length, 0 where the sensor is absent.
    predicted: "a->b" -> (P, K) descriptors of b predicted from sensor a's image, of unit length;
      may be empty.
    asking: sensor -> (P, K) query vectors, if they differ from the archive's.
    one_space: whether vectors of different sensors can be compared directly.
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
    """Number of dimensions of the vectors, K."""
    return next(iter(self.vectors.values())).shape[1]

  @property
  def split_known(self) -> bool:
    """Whether the split of at least one scene is known."""
    return bool(np.any(self.splits != ""))

  def of(self, split: str) -> np.ndarray:
    """(P,) bool, the scenes of a split; all of them if no scene's split is known."""
    if not self.split_known:
      return np.ones(len(self.ids), bool)
    return self.splits == split

  def cut(self, size: int) -> SceneVectors:
    """The same scenes with the first `size` numbers of their vectors, without predicted ones.

    Raises:
      EvaluationError: the vectors are shorter.
    """
    return dataclasses.replace(
      self,
      vectors={key: cut(values, size) for key, values in self.vectors.items()},
      predicted={},
      asking={key: cut(values, size) for key, values in self.asking.items()},
    )


@dataclasses.dataclass(frozen=True)
class VectorRows:
  """Vectors as listed in a file, one per row.

  Attributes:
    ids, sensors, splits: (N,) text; "" for an unknown split.
    labels: label names of each row.
    vectors: (N, K) float.
    taken: description of the file columns that hold the vectors; "" where there is no choice.
    columns: column names, one per number of the vectors; () if the vectors are lists.
  """

  ids: Sequence[str]
  sensors: Sequence[str]
  splits: Sequence[str]
  labels: Sequence[tuple[str, ...]]
  vectors: np.ndarray
  taken: str = ""
  columns: tuple[str, ...] = ()


def gather(name: str, parts: Sequence[VectorRows]) -> SceneVectors:
  """Groups rows by scene.

  Args:
    name: name of the source, for messages.
    parts: rows of one or several files, with vectors of one size.

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
      # Rows of this part, plus those of earlier parts.
      counts = np.bincount(rows[of], minlength=len(ids)) + there
      if counts.max(initial=0) > 1:
        twice = list(ids)[int(counts.argmax())]
        raise EvaluationError(f"{name}: scene {twice!r} has two vectors of sensor {sensor!r}.")
      there[rows[of]] = True
      held = vectors.setdefault(sensor, np.zeros((len(ids), sizes[0]), np.float32))
      held[rows[of]] = part.vectors[of]
    for row, split, named in zip(rows, part.splits, part.labels, strict=True):
      # Any row of a scene may state its split and labels.
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
  """Raises an EvaluationError if there are several sensors but no scene is seen by two of them."""
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
  """Reorders vector columns to the order of the first part that has named columns."""
  first = next((part.columns for part in parts if part.columns), ())
  found = []
  for part in parts:
    # The order of columns may differ between files, but not their names.
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
  """The same scenes, with splits and labels taken from a data set.

  Scenes that the data set does not have are left out, and a line on stderr says how many.

  Args:
    scenes: scenes of a file.
    known: id -> (split, labels).
    name: name of the source, for messages.

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
