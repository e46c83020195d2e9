"""Show what a data set holds: python -m xjepa_jax.data.inspect DIRECTORY

Prints counts, splits, labels, sensors, and the training split's statistics, recomputed and stored
side by side; --verify also checks the CRC of every record, and --sheet draws some of the pairs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator

from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.description import SENSORS_FILE, Description, describe
from xjepa_jax.data.image_levels import Levels, all_off_scale
from xjepa_jax.data.statistics import SensorStatistics
from xjepa_jax.data.units import Judge, of_pair
from xjepa_jax.errors import DataError, XJepaError
from xjepa_jax.paths import StrPath, user_path
from xjepa_jax.processes.output import run_command
from xjepa_jax.sensors import Sensor

_TOLERANCE = 1e-6  # for stored statistics, which are written with all digits
_LABELS_SHOWN = 20
_SAMPLE = 512  # pairs whose labels and statistics are read, unless --verify reads all


def main(argv: list[str] | None = None) -> int:
  """Print what a data set holds; returns 1 if anything in it is wrong, else 0."""
  parser = argparse.ArgumentParser(
    prog="python -m xjepa_jax.data.inspect",
    description="Show what a data set of pairs holds, and check it.",
    epilog="example: python -m xjepa_jax.data.inspect data/mine --verify --sheet pairs.png",
  )
  parser.add_argument(
    "directory", type=user_path, help="of the data set, local or an address such as gs://..."
  )
  parser.add_argument(
    "--verify",
    action="store_true",
    help="read every record: check its CRC and its features, and the statistics stored",
  )
  parser.add_argument(
    "--sheet", type=user_path, metavar="PNG", help="write a contact sheet of pairs"
  )
  parser.add_argument("--pairs", type=int, default=24, help="on the contact sheet (24)")
  args = parser.parse_args(argv)
  try:
    wrong = inspect(args.directory, args.verify)
    if args.sheet:
      _write_sheet(args.directory, args.sheet, args.pairs)
  except XJepaError as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  for sentence in wrong:
    print(f"error: {sentence}", file=sys.stderr)
  return 1 if wrong else 0


def inspect(directory: StrPath, verify: bool = False) -> list[str]:
  """Print what a data set holds.

  Args:
    directory: directory of the data set.
    verify: read every record instead of a sample.

  Returns:
    One sentence per problem: damaged records, statistics that differ from those stored.

  Raises:
    DatasetError, ShardIndexError, SensorError: the data set cannot be opened at all.
  """
  directory = os.fspath(directory)
  description = describe(directory)
  print(f"{directory}: data set {description.name!r}, encoding {description.format.encoding}")
  for key, sensor in description.format.sensors.items():
    _print_sensor(key, sensor, description.format.shapes[key])
  wrong: list[str] = []
  counted: dict[str, SensorStatistics] = {}
  levels: dict[str, dict[str, Levels]] = {key: {} for key in description.format.sensors}
  for split, lengths in description.splits.items():
    with PairDataset(directory, split) as pairs:
      counts = _Counts.read(pairs, verify, wrong)
    print(f"  {split}: {sum(lengths):,} pairs in {len(lengths):,} shards; {counts}")
    if counts.odd:
      wrong.append(
        f"{split}: the values of {len(counts.odd):,} of {counts.read_pairs:,} pairs contradict "
        f"their sensors, the first: {counts.odd[0]} Import again with the product, the nodata "
        "value or the processing that they have."
      )
    for key, found in counts.levels.items():
      levels[key].update(found)
    # The stored statistics are those of the training split, or of the first if there is none.
    if split == "train" or not counted:
      counted = counts.statistics
  # Statistics without the damaged pairs would differ from the stored ones for that reason alone.
  wrong += _compare(description, counted, levels, verify and not wrong)
  if verify and not wrong:
    print("Every record is intact, and the stored statistics are those of the pairs.")
  return wrong


class _Counts:
  """Counts over the pairs of a split."""

  def __init__(self, sensors: dict[str, Sensor]):
    self.read_pairs = 0
    self.sensors: Counter[str] = Counter()
    self.labels: Counter[str] = Counter()
    self.statistics = {key: SensorStatistics.of(sensor) for key, sensor in sensors.items()}
    self.levels: dict[str, dict[str, Levels]] = {key: {} for key in sensors}  # by pair
    self.odd: list[str] = []  # pairs whose values contradict their sensors

  @classmethod
  def read(cls, pairs: PairDataset, whole: bool, wrong: list[str]) -> _Counts:
    sensors = dict(pairs.format.sensors)
    counts = cls(sensors)
    judges = {key: Judge(sensor, f"--nodata {key}=") for key, sensor in sensors.items()}
    right = []
    for number in _numbers(len(pairs), whole):
      try:
        pair = pairs[number]
      except DataError as error:
        wrong.append(str(error))
        continue
      counts.read_pairs += 1
      counts.labels.update(pair.labels)
      counts.sensors.update(list(pair.observations))
      if odd := of_pair(judges, pair):
        counts.odd.append(f"pair {pair.pair_id!r}, {odd}")
      else:
        right.append(pair.pair_id)
      for key, observation in pair.observations.items():
        sensor, values = sensors[key], observation.values
        counts.statistics[key].add(sensor, values)
        counts.levels[key][pair.pair_id] = Levels.of(sensor, values, sensor.known(values))
    for key, levels in counts.levels.items():
      mine = {pair_id: levels[pair_id] for pair_id in right if pair_id in levels}
      for pair_id, sentences in all_off_scale(sensors[key], mine).items():
        counts.odd.append(f"pair {pair_id!r}, sensor {key!r}: {' '.join(sentences)}")
    return counts

  def __str__(self) -> str:
    having = ", ".join(f"{count:,} with {key}" for key, count in self.sensors.items())
    text = f"of {self.read_pairs:,} read, {having}"
    if self.labels:
      common = self.labels.most_common(_LABELS_SHOWN)
      text += f"; {len(self.labels)} labels: "
      text += ", ".join(f"{label} ({count:,})" for label, count in common)
    return text


def _numbers(count: int, whole: bool) -> Iterator[int]:
  step = 1 if whole else max(count // _SAMPLE, 1)
  yield from range(0, count, step)


def _print_sensor(key: str, sensor: Sensor, shape: tuple[int, int]) -> None:
  scaling = sensor.scaling
  print(
    f"  {key}: {sensor.product}; {shape[0]} x {shape[1]} {sensor.dtype}, {sensor.units}, nodata "
    f"{sensor.nodata}, offset {scaling.offset:g}, gain {scaling.gain:g}"
  )


def _compare(
  description: Description,
  counted: dict[str, SensorStatistics],
  levels: dict[str, dict[str, Levels]],
  whole: bool,
) -> list[str]:
  """Print stored statistics beside those just counted, and return the contradictions.

  `whole` is True if every pair was counted.
  """
  wrong = []
  print(
    "Statistics of stored values, training split"
    + ("" if whole else ", found in some of the pairs")
  )
  print(f"  {'band':<10}{'mean':>12}{'found':>12}{'std':>12}{'found':>12}{'min':>12}{'max':>12}")
  for key, sensor in description.format.sensors.items():
    stored = description.statistics[key]["bands"]
    found = counted[key].to_json(sensor)
    for band, numbers in found["bands"].items():
      old = stored.get(band, {})
      print(
        f"  {key + ' ' + band:<10}{old.get('mean', float('nan')):>12.3f}{numbers['mean']:>12.3f}"
        f"{old.get('std', float('nan')):>12.3f}{numbers['std']:>12.3f}"
        f"{numbers['min']:>12.3f}{numbers['max']:>12.3f}"
      )
      off = [
        name
        for name, number in numbers.items()
        if abs(number - old.get(name, float("inf"))) > _TOLERANCE * max(1, abs(number))
      ]
      if whole and off:
        wrong.append(
          f"sensor {key!r}, band {band}: the stored {', '.join(off)} are not those of the pairs. "
          f"{SENSORS_FILE} was changed, or belongs to another data set."
        )
    judge = Judge(sensor, f"--nodata {key}=")
    for kind, sentences in (
      ("Warning", judge.of_statistics(found)),
      ("Note", judge.remarks(found, levels[key])),
    ):
      for sentence in sentences:
        print(f"{kind}: sensor {key!r} ({sensor.product}): {sentence}")
  return wrong


def _write_sheet(directory: str, path: str, count: int) -> None:
  from xjepa_jax.data.pictures import contact_sheet

  with PairDataset(directory, None) as pairs:
    step = max(len(pairs) // max(count, 1), 1)
    shown = [pairs[number] for number in range(0, len(pairs), step)][:count]
    sheet = contact_sheet(shown, dict(pairs.format.sensors))
  try:
    sheet.save(path)
  except (OSError, ValueError) as error:
    raise DataError(f"{path}: the contact sheet cannot be written ({error}).") from error
  print(f"Contact sheet: {path}")


if __name__ == "__main__":
  run_command(main)
