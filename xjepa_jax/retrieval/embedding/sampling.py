"""Whether an archive's values are in the units that the encoder was trained with: a sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from xjepa_jax.data import units
from xjepa_jax.data.verdict import of_archive
from xjepa_jax.errors import ArchiveError, DataError
from xjepa_jax.retrieval.embedding.items import Reader
from xjepa_jax.retrieval.embedding.listing import Tiles

_SAMPLE = 200  # tiles of a sensor
_SHOWN = 3


class Contradictions(NamedTuple):
  """What in the values of a sample of tiles speaks against the encoder's sensors, in sentences.

  Attributes:
    of_all: what the tiles have in common.
    odd: what single ones have, where most are right.
    remarks: what values cannot decide.
    judges: sensor -> by which its other tiles are judged.
  """

  of_all: list[str]
  odd: list[str]
  remarks: list[str]
  judges: dict[str, units.Judge]


def contradictions(
  tiles: Tiles, reader: Reader, judges: Mapping[str, units.Judge], min_valid: float
) -> Contradictions:
  """What in the values of some tiles speaks against the encoder's sensors.

  Args:
    tiles: of the archive.
    reader: of its images; it gives values as the encoder takes them.
    judges: key -> of the sensor, as the encoder has it.
    min_valid: tiles of which less was seen do not count.

  Raises:
    ArchiveError: none of a sensor's tiles can be used.
  """
  found = Contradictions([], [], [], {})
  names = np.array([item.sensor for item in tiles.items], object)
  of_tile = names[tiles.item] if len(tiles) else names
  for key, judge in judges.items():
    sensor = judge.sensor
    mine = np.flatnonzero(of_tile == key)
    if not len(mine):
      continue
    sampled, errors = 0, []
    images = {}
    # In no order of the archive's: every second image may be of another processing.
    for place in np.random.default_rng(0).permutation(len(mine))[:_SAMPLE]:
      sampled += 1
      try:
        values, seen = reader.read(*tiles.of(int(mine[place])))
      except DataError as error:  # it will be left out, with its reason
        errors.append(str(error))
        continue
      if seen and seen >= min_valid:
        images[tiles.id(int(mine[place]))] = values
    if len(errors) == sampled:
      raise ArchiveError(
        f"none of {sampled} tiles of sensor {key!r}, read as a sample, can be used. The first: "
        f"{errors[0]}"
      )
    about = f"sensor {key!r} ({sensor.product}): "
    verdict = of_archive(judge, images)
    found.judges[key] = verdict.judge
    found.of_all.extend(about + each for each in verdict.wrong)
    found.remarks.extend(about + each for each in verdict.remarks())
    if verdict.odd and not verdict.wrong:
      named = "; ".join(
        f"{name}: {' '.join(each)}" for name, each in [*verdict.odd.items()][:_SHOWN]
      )
      found.odd.append(
        f"{about}{len(verdict.odd)} of {sampled} tiles contradict it, among them {named}"
      )
  return found
