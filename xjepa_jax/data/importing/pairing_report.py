"""Reports on an archive's pairs from images and their headers, before anything is written."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from xjepa_jax.data.grids import MAX_SHIFT, align, corner_shift
from xjepa_jax.data.importing.headers import Headers, without_pixels
from xjepa_jax.data.orientation import upright
from xjepa_jax.data.raster import Raster, RasterHeader
from xjepa_jax.errors import ArchiveError, ImageError

_SHOWN = 5  # distinct values of a property
_START = 2**16  # bytes; most files of equal size differ within them


def pairing_report(
  images: Mapping[str, Sequence[str]], pairs: Mapping[str, Mapping[str, str]], headers: Headers
) -> list[str]:
  """Summarise the headers of all images.

  Args:
    images: sensor key -> all of its images.
    pairs: pair id -> sensor key -> image, for the pairs with every sensor.
    headers: headers of the images.

  Returns:
    Lines for the import's summary: images found, matched and unmatched, their properties, and how
    pairs align. Unreadable images are counted, and left out of the rest.
  """
  lines = [f"{len(pairs):,} pairs have an image of every sensor"]
  for key, paths in images.items():
    matched = len({each[key] for each in pairs.values()})
    lines.append(
      f"{key}: {len(paths):,} images, {matched:,} matched, {len(paths) - matched:,} unmatched"
    )
    lines.append(f"{key}: {_properties([headers.read[p] for p in paths if p in headers.read])}")
    problems = [headers.problems[path] for path in paths if path in headers.problems]
    if problems:
      lines.append(f"{key}: {len(problems):,} images cannot be read, first {problems[0]}")
  return lines + _alignment(pairs, headers)


def _properties(headers: Sequence[RasterHeader]) -> str:
  sizes = [f"{header.shape[0]} x {header.shape[1]} x {header.count}" for header in headers]
  return "; ".join(
    (
      f"crs {_distinct(header.crs[:60] or 'none' for header in headers)}",
      f"size {_distinct(sizes)}",
      f"dtype {_distinct(header.dtype for header in headers)}",
      f"nodata {_distinct(str(header.nodata).lower() for header in headers)}",
    )
  )


def _distinct(values: Iterable[str]) -> str:
  """Distinct values, the most frequent first, with their counts if there are several."""
  counts = Counter(values).most_common()
  if len(counts) < 2:
    return counts[0][0] if counts else "unknown"
  shown = ", ".join(f"{value} ({count:,})" for value, count in counts[:_SHOWN])
  return f"{shown}, {len(counts) - _SHOWN} others" if len(counts) > _SHOWN else shown


# Copies


def copies(root: str, paths: Iterable[str]) -> str:
  """A sentence on byte-identical images.

  Only images of equal size are read, and whole only if their first bytes agree.

  Raises:
    ArchiveError: an image can no longer be read.
  """
  groups = [list(paths)]
  for digest in (os.path.getsize, _digest_of_start, _digest):
    groups = [same for group in groups for same in _alike(root, group, digest)]
  if not groups:
    return "no two images hold the same bytes"
  count = sum(len(group) - 1 for group in groups)
  first, second = groups[0][:2]
  return f"{count:,} images are copies of another, byte by byte; first {second} of {first}"


def _alike(root: str, paths: Iterable[str], digest: Callable[[str], Any]) -> list[list[str]]:
  """Groups of two or more paths with equal digests."""
  groups: dict[Any, list[str]] = {}
  for path in paths:
    try:
      groups.setdefault(digest(os.path.join(root, path)), []).append(path)
    except OSError as error:
      raise ArchiveError(f"{path}: cannot be read ({error.strerror}).") from error
  return [group for group in groups.values() if len(group) > 1]


def _digest_of_start(path: str) -> bytes:
  with open(path, "rb") as file:
    return hashlib.sha256(file.read(_START)).digest()


def _digest(path: str) -> bytes:
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").digest()


# Alignment


def _alignment(pairs: Mapping[str, Mapping[str, str]], headers: Headers) -> list[str]:
  counts: Counter[str] = Counter()
  largest, where, first_problem = 0.0, "", ""
  for pair_id, paths in pairs.items():
    if not all(path in headers.read for path in paths.values()):
      continue
    rasters = upright({key: without_pixels(headers.read[path]) for key, path in paths.items()})
    shift = _shift(list(rasters.values()))
    if shift > largest:
      largest, where = shift, f" (pair {pair_id!r})"
    try:
      align(rasters, {}, "refuse", "nearest")
      located = all(raster.georeferenced for raster in rasters.values())
      counts["aligned" if located else "unlocated"] += 1
    except ImageError as error:
      counts["off"] += 1
      first_problem = first_problem or str(error)
  lines = []
  if counts["aligned"] or counts["off"]:
    lines.append(
      f"{counts['aligned']:,} pairs are aligned within {MAX_SHIFT} pixels, {counts['off']:,} are "
      f"not; largest shift {largest:.2f} pixels{where}"
    )
  if counts["unlocated"]:
    lines.append(
      f"{counts['unlocated']:,} pairs are of one size; their shift is unknown, for images lack a "
      "georeference"
    )
  if first_problem:
    lines.append(f"first pair that is not aligned: {first_problem}")
  return lines


def _shift(rasters: Sequence[Raster]) -> float:
  """The largest corner shift from the first image in pixels, among images that can be compared."""
  first = rasters[0]
  shifts = [
    max(map(abs, corner_shift(raster, first)))
    for raster in rasters[1:]
    if first.georeferenced and raster.georeferenced and raster.crs == first.crs
    and raster.values.shape[:2] == first.values.shape[:2]
  ]  # fmt: skip
  return max(shifts, default=0.0)
