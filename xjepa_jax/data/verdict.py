"""The verdict of a sample of an archive's images on their sensor, jointly and individually."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from xjepa_jax.data.image_levels import Levels, all_off_scale, carrying_offset, usual_levels
from xjepa_jax.data.statistics import SensorStatistics
from xjepa_jax.data.undeclared_fill import undeclared_fill
from xjepa_jax.data.units import Judge


class Verdict(NamedTuple):
  """The verdict of an archive's images on their sensor's description.

  Attributes:
    wrong: contradictions in what the images have in common.
    odd: image id -> contradictions in that image, if most images are right.
    judge: judge for the archive's other images.
    levels: image id -> levels.
    statistics: statistics of the images that are not odd.
  """

  wrong: list[str]
  odd: dict[str, list[str]]
  judge: Judge
  levels: dict[str, Levels]
  statistics: SensorStatistics

  def remarks(self) -> list[str]:
    """Points that the values cannot settle, see `Judge.remarks`; none if anything is wrong."""
    if self.wrong:
      return []
    return self.judge.remarks(self.statistics.to_json(self.judge.sensor), self.levels)


def of_archive(judge: Judge, images: Mapping[str, np.ndarray]) -> Verdict:
  """Judge a sample of an archive: each image, and what the images have in common.

  Args:
    judge: judge of their sensor.
    images: image id -> (H, W, C) values as stored.
  """
  sensor = judge.sensor
  counted = SensorStatistics.of(sensor)
  levels = {name: Levels.of(sensor, each, sensor.known(each)) for name, each in images.items()}
  odd = {name: found for name, each in images.items() if (found := judge.of_image(each))}
  right = {name: each for name, each in levels.items() if name not in odd}
  if right:  # odd images must not define what is usual
    judge = dataclasses.replace(judge, usual=usual_levels(list(right.values())))
    odd |= all_off_scale(sensor, right)
  most = len(odd) > len(images) / 2
  for name, each in images.items():
    if most or name not in odd:  # a few odd images would distort the pooled minima and maxima
      counted.add(sensor, each)
  statistics = counted.to_json(sensor)
  if not most:
    wrong = judge.of_statistics(statistics) or _mostly_offset(judge, images, right)
    return Verdict(wrong, odd, judge, levels, counted)
  filled = sum(
    bool(undeclared_fill(sensor, images[name], sensor.known(images[name]))) for name in odd
  )
  wrong = [] if filled > len(odd) / 2 else judge.of_statistics(statistics)
  if not wrong:  # then the first image's own findings explain the problem best
    first = next(iter(odd))
    wrong = [f"{len(odd):,} of {len(images):,} images: {first}: {' '.join(odd[first])}"]
  return Verdict(wrong, {}, judge, levels, counted)


def _mostly_offset(
  judge: Judge, images: Mapping[str, np.ndarray], levels: Mapping[str, Levels]
) -> list[str]:
  """Contradictions with the sensor's offset in most images, which a few other images may hide."""
  carrying = carrying_offset(judge.sensor, levels)
  if not judge.offset or len(carrying) <= len(images) / 2:
    return []
  counted = SensorStatistics.of(judge.sensor)
  for name in carrying:
    counted.add(judge.sensor, images[name])
  found = judge.of_offset(counted.to_json(judge.sensor))
  return [f"{len(carrying):,} of {len(images):,} images: {' '.join(found)}"] if found else []
