"""What an import will write, decided before anything is written.

Which pairs go to which shard depends only on the archive and the options, never on the number of
workers or on which pairs later turn out to be unreadable, so the same input gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from xjepa_jax.data import units
from xjepa_jax.data.archive import Archive, Entry, Skip
from xjepa_jax.data.image_levels import Levels
from xjepa_jax.data.pairs import Pair, PairFormat
from xjepa_jax.data.statistics import SensorStatistics
from xjepa_jax.data.verdict import Verdict, of_archive
from xjepa_jax.errors import ArchiveError, DataError, PairError
from xjepa_jax.sensors import sensor_to_json

_Sizes = Mapping[str, tuple[int, int]]  # sensor key -> height and width of a pair's image

# Version of the files that an unfinished import leaves; --resume refuses those of another version.
_FORMAT = 3
_JUDGED = 2000  # pairs whose values are checked during planning; all are checked on writing
_SAMPLE = 32  # pairs read during planning, for units, and for image sizes if headers lack them
_PARALLEL_SHARDS = 8  # a small archive is still split into shards, so that workers share it
_PAIRS_A_SHARD = 32  # but no shard gets fewer pairs than this for that reason


@dataclasses.dataclass(frozen=True)
class ImportPlan:
  """What an import will write.

  Attributes:
    archive: the archive that is imported.
    format: sensors, image sizes, encoding.
    shards: split -> entries of each of its shards.
    sample: sensor key -> statistics of the pairs read during planning.
    warnings: ways in which those pairs contradict the sensors' descriptions.
    unreadable: pairs that will be skipped, as far as headers and the sample show.
    remarks: questions about the scaling that the values cannot settle.
    judges: sensor key -> judge that checks each pair on writing; empty if values are trusted.
  """

  archive: Archive
  format: PairFormat
  shards: Mapping[str, Sequence[Sequence[Entry]]]
  sample: Mapping[str, SensorStatistics]
  warnings: Sequence[str]
  unreadable: Sequence[Skip]
  remarks: Sequence[str]
  judges: Mapping[str, units.Judge]

  @property
  def pairs(self) -> int:
    return sum(len(entries) for entries in self.archive.splits.values())

  @property
  def lost(self) -> Sequence[Skip]:
    """All pairs that are already known to be left out."""
    return [*self.archive.skipped, *self.unreadable]

  def fingerprint(self) -> str:
    """A digest of everything that decides which bytes are written."""
    content = {
      "format": _FORMAT,
      "name": self.archive.name,
      "encoding": self.format.encoding,
      "sensors": {key: sensor_to_json(sensor) for key, sensor in self.format.sensors.items()},
      "shapes": dict(self.format.shapes),
      "shards": {
        split: [[(entry.pair_id, repr(entry.source)) for entry in shard] for shard in shards]
        for split, shards in self.shards.items()
      },
      "read": _name(self.archive.read),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def plan_import(
  archive: Archive,
  shard_bytes: int,
  encoding: str,
  judged: bool = False,
  trust_offset: bool = False,
) -> ImportPlan:
  """Decide image sizes, check units, and distribute the pairs over shards.

  Args:
    archive: the archive to import.
    shard_bytes: target size of a shard, before compression.
    encoding: "bytes" or "zlib".
    judged: leave out pairs whose values contradict their sensors.
    trust_offset: accept the sensors' offsets whatever the values are.

  Raises:
    ArchiveError: there is nothing to import, no pair can be read, or an id occurs twice.
  """
  _check_ids(archive)
  sizes, unreadable = _told_sizes(archive)
  sample, unread = _read_sample(archive, {skip.pair_id: skip for skip in unreadable})
  unreadable += unread
  shapes = _usual_sizes(list(sizes.values()) or [_sizes_of(archive, pair) for pair in sample])
  unreadable += _of_other_sizes(sizes, shapes)
  form = PairFormat(archive.sensors, shapes, encoding)
  told = {skip.pair_id for skip in unreadable}
  fitting: list[Pair] = []
  for pair in sample:
    problem = _problem(form, pair)
    if problem is None:
      fitting.append(pair)
    elif pair.pair_id not in told:
      unreadable.append(Skip(pair.pair_id, problem))
  verdicts = _verdicts(archive, fitting, trust_offset)
  warnings = _of_sensors(archive, {key: verdict.wrong for key, verdict in verdicts.items()})
  judges = {key: verdict.judge for key, verdict in verdicts.items()}
  remarks: list[str] = []
  if judged:
    unreadable += _odd_in(verdicts)
    if not warnings:  # if the whole archive is in other units, the odd pairs are the correct ones
      unreadable += _odd(archive, {skip.pair_id for skip in unreadable}, verdicts)
    remarks = _of_sensors(archive, {key: verdict.remarks() for key, verdict in verdicts.items()})
  statistics = {key: verdict.statistics for key, verdict in verdicts.items()}
  shards = {
    split: _deal(entries, form.nbytes(), shard_bytes)
    for split, entries in archive.splits.items()
    if entries
  }
  return ImportPlan(
    archive, form, shards, statistics, warnings, unreadable, remarks, judges if judged else {}
  )


def _verdicts(archive: Archive, pairs: Sequence[Pair], trust_offset: bool) -> dict[str, Verdict]:
  """Sensor key -> verdict of some pairs' images on the sensor's description."""
  found = {}
  for key, sensor in archive.sensors.items():
    judge = units.Judge(
      sensor, f"--nodata {key}=", trust_option="--trust-offset", offset=not trust_offset
    )
    images = {
      pair.pair_id: pair.observations[key].values for pair in pairs if key in pair.observations
    }
    found[key] = of_archive(judge, images)
  return found


def _of_sensors(archive: Archive, sentences: Mapping[str, Sequence[str]]) -> list[str]:
  return [
    f"sensor {key!r} ({archive.sensors[key].product}): {sentence}"
    for key, each in sentences.items()
    for sentence in each
  ]


def _odd_in(verdicts: Mapping[str, Verdict]) -> list[Skip]:
  """The pairs with an odd image, each with all findings."""
  texts: dict[str, list[str]] = {}
  for key, verdict in verdicts.items():
    for pair_id, sentences in verdict.odd.items():
      texts.setdefault(pair_id, []).extend(f"sensor {key!r}: {each}" for each in sentences)
  return [Skip(pair_id, " ".join(each), odd=True) for pair_id, each in texts.items()]


def _odd(archive: Archive, known: Collection[str], verdicts: Mapping[str, Verdict]) -> list[Skip]:
  """Pairs whose values contradict their sensors, among up to `_JUDGED` pairs.

  The pairs are chosen by a hash of their id. The levels of the images read are added to the
  verdicts, which use them in their remarks.
  """
  from tqdm import tqdm

  judges = {key: verdict.judge for key, verdict in verdicts.items()}
  entries = [entry for entry in _entries(archive) if entry.pair_id not in known]
  # Hashing ids avoids any pattern in the archive's order, such as every second image being from
  # another processing baseline.
  entries.sort(key=lambda entry: hashlib.sha256(entry.pair_id.encode()).digest())
  found = []
  for entry in tqdm(entries[:_JUDGED], unit="pairs", desc="values", delay=5):
    try:
      pair = archive.read(entry)
      odd = units.of_pair(judges, pair)
    except DataError as error:
      found.append(Skip(entry.pair_id, str(error)))
      continue
    if odd:
      found.append(Skip(entry.pair_id, odd, odd=True))
      continue
    for key, observation in pair.observations.items():
      sensor, values = archive.sensors[key], observation.values
      verdicts[key].levels[entry.pair_id] = Levels.of(sensor, values, sensor.known(values))
  return found


def _name(read: Callable[[Entry], Pair]) -> str:
  """A function's name with its bound arguments, without the addresses that `repr` would show."""
  if isinstance(read, functools.partial):
    return f"{_name(read.func)} {read.args!r} {sorted(read.keywords.items())!r}"
  return f"{read.__module__}.{read.__qualname__}"


def _check_ids(archive: Archive) -> None:
  seen: set[str] = set()
  twice: list[str] = []
  for entries in archive.splits.values():
    for entry in entries:
      if entry.pair_id in seen:
        twice.append(entry.pair_id)
      seen.add(entry.pair_id)
  if twice:
    raise ArchiveError(
      f"{len(twice)} pair ids occur more than once, among them {', '.join(twice[:10])}. Give each "
      "pair an id of its own."
    )
  if not seen:
    reasons = "; ".join(f"{skip.pair_id}: {skip.reason}" for skip in archive.skipped[:3])
    raise ArchiveError(f"no pair to import. {reasons or 'The archive lists none.'}")


def _told_sizes(archive: Archive) -> tuple[dict[str, _Sizes], list[Skip]]:
  """Pair id -> sizes, and the unreadable pairs, if the archive can read sizes from headers."""
  sizes: dict[str, _Sizes] = {}
  unreadable: list[Skip] = []
  if archive.sizes is None:
    return sizes, unreadable
  for entry in _entries(archive):
    try:
      sizes[entry.pair_id] = archive.sizes(entry)
    except DataError as error:
      unreadable.append(Skip(entry.pair_id, str(error)))
  return sizes, unreadable


def _read_sample(archive: Archive, known: Mapping[str, Skip]) -> tuple[list[Pair], list[Skip]]:
  """Pairs spread evenly over the archive, and more until every sensor has been seen.

  Args:
    archive: archive of the pairs.
    known: pair id -> reason, for pairs known to be unreadable, which are not tried.
  """
  entries = [entry for entry in _entries(archive) if entry.pair_id not in known]
  step = max(len(entries) // _SAMPLE, 1)
  first = entries[::step][:_SAMPLE]
  chosen = {entry.pair_id for entry in first}
  pairs: list[Pair] = []
  unreadable: list[Skip] = []
  lacking = set(archive.sensors)
  # The sample first, then all others until every sensor has been seen.
  for entry in first + [entry for entry in entries if entry.pair_id not in chosen]:
    if entry.pair_id not in chosen and not lacking:
      break
    try:
      pair = archive.read(entry)
    except DataError as error:
      unreadable.append(Skip(entry.pair_id, str(error)))
      continue
    pairs.append(pair)
    lacking -= set(pair.observations)
  if not pairs:
    reason = [*known.values(), *unreadable][0].reason
    raise ArchiveError(
      f"none of the {len(entries) + len(known)} pairs can be read. The first: {reason}"
    )
  if lacking:
    raise ArchiveError(
      f"no pair has the sensor {', '.join(sorted(lacking))}. Leave it out of the import."
    )
  return pairs, unreadable


def _sizes_of(archive: Archive, pair: Pair) -> _Sizes:
  return {
    key: (observation.values.shape[0], observation.values.shape[1])
    for key, observation in pair.observations.items()
    if key in archive.sensors and observation.values.ndim == 3
  }


def _usual_sizes(sizes: Sequence[_Sizes]) -> dict[str, tuple[int, int]]:
  """The most frequent image size per sensor.

  Each sensor is counted among the pairs that have the usual size of the sensors before it, so that
  the sizes chosen occur together. Among equally frequent sizes the first one wins.
  """
  usual: dict[str, tuple[int, int]] = {}
  for key in dict.fromkeys(key for each in sizes for key in each):
    having = [each for each in sizes if key in each]
    alike = [each for each in having if not _differing(each, usual)]
    ((usual[key], _),) = Counter(each[key] for each in alike or having).most_common(1)
  return usual


def _differing(sizes: _Sizes, usual: _Sizes) -> list[str]:
  """Sensors whose image does not have the usual size."""
  return [key for key, size in sizes.items() if key in usual and usual[key] != size]


def _of_other_sizes(sizes: Mapping[str, _Sizes], usual: _Sizes) -> list[Skip]:
  skipped = []
  for pair_id, each in sizes.items():
    for key in _differing(each, usual)[:1]:
      (height, width), (rows, columns) = each[key], usual[key]
      reason = (
        f"sensor {key!r} has {height} x {width} pixels, most pairs have {rows} x {columns}. Cut or "
        "resample its images, or import it with others of its size."
      )
      skipped.append(Skip(pair_id, reason))
  return skipped


def _entries(archive: Archive) -> list[Entry]:
  return [entry for split in archive.splits.values() for entry in split]


def _problem(form: PairFormat, pair: Pair) -> str | None:
  try:
    form.check(pair)
  except PairError as error:
    return str(error)
  return None


def _deal(entries: Sequence[Entry], pair_bytes: int, shard_bytes: int) -> list[Sequence[Entry]]:
  """Entries in order, divided into shards of (nearly) equal numbers of pairs."""
  by_size = math.ceil(len(entries) * pair_bytes / shard_bytes)
  for_workers = min(_PARALLEL_SHARDS, len(entries) // _PAIRS_A_SHARD)
  count = min(max(by_size, for_workers, 1), len(entries))
  bounds = [len(entries) * i // count for i in range(count + 1)]  # sizes differ by at most 1
  return [entries[a:b] for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
