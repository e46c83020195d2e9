"""Checks on a sample of tiles whether an archive's values are in the encoder's units.

A descriptor of linear power in place of dB looks like any other, so this is checked before anything
is computed. The judges that the sample calibrates then check every other tile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from xjepa_jax.data import units
from xjepa_jax.data.verdict import of_archive
from xjepa_jax.errors import ArchiveError, DataError
from xjepa_jax.retrieval.embedding.items import Reader
from xjepa_jax.retrieval.embedding.listing import Tiles

_SAMPLE = 200  # tiles per sensor
_SHOWN = 3  # odd tiles that a message names


class Contradictions(NamedTuple):
  """Contradictions between a sample of tiles and the encoder's sensors, as sentences.

  Attributes:
    of_all: contradictions of the sample as a whole.
    odd: contradictions of single tiles, where most are right.
    remarks: points that the values cannot decide.
    judges: sensor -> judge for its other tiles.
  """

  of_all: list[str]
  odd: list[str]
  remarks: list[str]
  judges: dict[str, units.Judge]


def contradictions(
  tiles: Tiles, reader: Reader, judges: Mapping[str, units.Judge], min_valid: float
) -> Contradictions:
  """Reads a sample of tiles and collects how they contradict the encoder's sensors.

  Args:
    tiles: tiles of the archive.
    reader: reads its images, with values as the encoder takes them.
    judges: key -> judge of the sensor, as the encoder has it.
    min_valid: tiles with a smaller fraction of valid pixels are ignored.

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
    # A regular pattern could miss images that alternate between two processings, so draw at random.
    for place in np.random.default_rng(0).permutation(len(mine))[:_SAMPLE]:
      sampled += 1
      try:
        values, seen = reader.read(*tiles.of(int(mine[place])))
      except DataError as error:  # the tile will be left out, with this as its reason
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
