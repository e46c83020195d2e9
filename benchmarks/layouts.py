"""What descriptors without a network find, cross-validated by group: docs/trials.md's tables.

  python -m benchmarks.layouts --data data/ombria_full --table OMBRIA/pairs.csv \
    --group adjacency_group --place place

Every pair asks once, by a map that was fitted on the other folds, among all pairs of the data set
(of a place's other dates none is counted, neither as right nor as wrong). The test split takes no
part unless it is asked for with --test, when it asks among its own, fitted on the rest. Numbers are
compared as they are stored: int8 with a scale a scene.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.folds import folds_of
from xjepa_jax.model import images, spectrum
from xjepa_jax.model.gradients import DIRECTIONS, oriented_gradients
from xjepa_jax.paths import user_path
from xjepa_jax.retrieval.quantise import archive_side, bytes_a_vector, cut
from xjepa_jax.training.canonical import Moments, solve

_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Cells:
  """Pairs as gradients of cells.

  Attributes:
    gradients: sensor -> (N, P, DIRECTIONS).
    seen: sensor -> (N, P) bool.
    groups: (N,) names of what folds keep together.
    places: (N,) names; dates of one place share one.
    test: (N,) bool, of the test split.
  """

  gradients: Mapping[str, np.ndarray]
  seen: Mapping[str, np.ndarray]
  groups: np.ndarray
  places: np.ndarray
  test: np.ndarray


@dataclasses.dataclass(frozen=True)
class Variant:
  """A descriptor: its name, cells, numbers a cell (0: gradients as they are), and size."""

  name: str
  cells: int
  numbers: int
  size: int


VARIANTS = (
  Variant("gradients, 8 x 8", 8, 0, 576),
  Variant("gradients, 16 x 16", 16, 0, 2304),
  Variant("linear, 8 x 8 x 4", 8, 4, 256),
  Variant("linear, 16 x 16 x 2", 16, 2, 512),
  Variant("linear, 16 x 16 x 4", 16, 4, 1020),
  Variant("the same, first 508 numbers", 16, 4, 508),
  Variant("the same, first 252 numbers", 16, 4, 252),
  Variant("the same, first 60 numbers", 16, 4, 60),
)


def main(argv: list[str] | None = None) -> None:
  """Prints a table in Markdown."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.layouts", description=(__doc__ or "").splitlines()[0]
  )
  parser.add_argument("--data", type=user_path, required=True, help="data set of pairs")
  parser.add_argument("--table", type=user_path, help="CSV with pair_id and the next two columns")
  parser.add_argument("--group", help="column of what folds keep together; else each pair alone")
  parser.add_argument("--place", help="column of the place, of which there may be several dates")
  parser.add_argument("--folds", type=int, default=5)
  parser.add_argument("--shift", type=int, default=0, help="pixels of the second sensor, both ways")
  parser.add_argument("--test", action="store_true", help="the test split asks, the rest is fitted")
  args = parser.parse_args(argv)
  print("| | bytes | R@1 a->b | R@1 b->a | R@10 a->b | R@10 b->a |\n|---|---:|---:|---:|---:|---:|")
  for cells, variants in itertools.groupby(VARIANTS, key=lambda each: each.cells):
    found = read(args.data, cells, args.shift, *_columns(args.table, args.group, args.place))
    for variant in variants:
      recalls = [f"{100 * value:.1f}" for value in measure(found, variant, args.folds, args.test)]
      size = bytes_a_vector(variant.size, "int8")
      print(f"| {variant.name} | {size} | {' | '.join(recalls)} |", flush=True)


def measure(found: Cells, variant: Variant, folds: int, test: bool) -> list[float]:
  """R@1 and R@10 of both directions: [R@1 a->b, R@1 b->a, R@10 a->b, R@10 b->a]."""
  hits: dict[tuple[int, int], list[bool]] = {(k, way): [] for k in (1, 10) for way in range(2)}
  for fitted, asking, searched in _splits(found, folds, test):
    one, other = _descriptors(found, variant, fitted)
    for way, (queries, archive) in enumerate(((one, other), (other, one))):
      above = _above(queries, archive, asking, searched, found.places)
      for k in (1, 10):
        hits[k, way] += list(above < k)
  return [float(np.mean(each)) for each in hits.values()]


def read(
  directory: str, cells: int, shift: int, groups: Mapping[str, str], places: Mapping[str, str]
) -> Cells:
  """A data set's pairs that have both of its sensors, as cells."""
  ids: list[str] = []
  splits: list[str] = []
  gradients: dict[str, list[np.ndarray]] = {}
  seen: dict[str, list[np.ndarray]] = {}
  for split in ("train", "validation", "test"):
    with PairDataset(directory, split) as pairs:
      keys = list(pairs.format.sensors)[:2]
      describe = {key: _describer(pairs.format.sensors[key], cells) for key in keys}
      for rows in _batches([n for n in range(len(pairs)) if _has(pairs[n], keys)]):
        batch = [pairs[number] for number in rows]
        for number, key in enumerate(keys):
          values = np.stack([pair.observations[key].values for pair in batch])
          corner = shift * number
          side = [length - shift for length in values.shape[1:3]]
          values = values[:, corner : corner + side[0], corner : corner + side[1]]
          one, there = jax.device_get(describe[key](values))
          gradients.setdefault(key, []).append(one)
          seen.setdefault(key, []).append(there)
        ids += [pair.pair_id for pair in batch]
        splits += [split] * len(batch)
  return Cells(
    {key: np.concatenate(each) for key, each in gradients.items()},
    {key: np.concatenate(each) for key, each in seen.items()},
    np.array([groups.get(each, each) for each in ids]),
    np.array([places.get(each, each) for each in ids]),
    np.array(splits) == "test",
  )


def _describer(sensor: Any, cells: int) -> Callable[[np.ndarray], Any]:
  return jax.jit(lambda stored: oriented_gradients(images.scale(sensor, stored)[0], cells))


def _batches(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
  for start in range(0, len(numbers), _BATCH):
    yield numbers[start : start + _BATCH]


def _has(pair: Any, keys: Sequence[str]) -> bool:
  return all(key in pair.observations for key in keys)


def _splits(
  found: Cells, folds: int, test: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """(fitted, asking, searched) numbers of pairs."""
  if test:
    asking = np.flatnonzero(found.test)
    yield np.flatnonzero(~found.test), asking, asking
    return
  known = np.flatnonzero(~found.test)
  fold_of = folds_of(Counter(map(str, found.groups[known])), folds)
  fold = np.array([fold_of[str(group)] for group in found.groups[known]])
  for number in range(folds):
    yield known[fold != number], known[fold == number], known


def _above(
  queries: np.ndarray,
  archive: np.ndarray,
  asking: np.ndarray,
  searched: np.ndarray,
  places: np.ndarray,
) -> np.ndarray:
  """(Q,) how many are more alike to each query than its own pair, other dates left out."""
  scores = queries[asking] @ archive[searched].T
  own = (queries[asking] * archive[asking]).sum(axis=1)
  others = places[asking][:, None] != places[searched][None]
  return ((scores > own[:, None]) & others).sum(axis=1)


def _descriptors(found: Cells, variant: Variant, fitted: np.ndarray) -> list[np.ndarray]:
  """Of each sensor (N, K), centred on the pairs fitted, as they are stored."""
  if not variant.numbers:
    raw = [each.reshape(len(each), -1) for each in found.gradients.values()]
  else:
    raw = _linear(found, variant, fitted)
  stored = []
  for each in raw:
    vectors = cut(np.asarray(each - each[fitted].mean(axis=0), np.float32), variant.size)
    stored.append(archive_side(vectors, "int8"))
  return stored


def _linear(found: Cells, variant: Variant, fitted: np.ndarray) -> list[np.ndarray]:
  means, spectra = {}, {}
  for key, each in found.gradients.items():
    there = found.seen[key]
    means[key] = each[fitted][there[fitted]].mean(axis=0, dtype=np.float64)
    centred = np.where(there[..., None], each - means[key].astype(np.float32), 0)
    spectra[key] = np.asarray(spectrum.transform(jnp.asarray(centred)))
  moments = {
    (a, b): _moments(spectra[a][fitted], spectra[b][fitted], variant.cells)
    for a, b in itertools.combinations_with_replacement(spectra, 2)
  }
  maps, _ = solve(moments, means, variant.cells, variant.numbers)
  ring = spectrum.rings(variant.cells)
  order = spectrum.order(variant.cells, variant.numbers)
  return [
    ((each @ maps[key]["kernel"]) * maps[key]["scale"][ring]).reshape(len(each), -1)[:, order]
    for key, each in spectra.items()
  ]


def _moments(one: np.ndarray, other: np.ndarray, cells: int) -> Moments:
  products = np.einsum("bpf,bpg->pfg", one, other, dtype=np.float64, optimize=True)
  second = np.zeros((spectrum.count_rings(cells), DIRECTIONS, DIRECTIONS))
  np.add.at(second, spectrum.rings(cells), products)
  first, last = (each.sum(axis=0, dtype=np.float64) for each in (one, other))
  return Moments(np.float64(len(one)), first, last, second)


def _columns(
  table: str | None, group: str | None, place: str | None
) -> tuple[dict[str, str], dict[str, str]]:
  """pair -> group, pair -> place; empty where no column is named."""
  if table is None:
    return {}, {}
  with open(table, encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
  return (
    {row["pair_id"]: row[group] for row in rows} if group else {},
    {row["pair_id"]: row[place] for row in rows} if place else {},
  )


if __name__ == "__main__":
  main()
