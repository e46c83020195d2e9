"""Carries out a plan: computes the unfinished parts, then describes the directory.

The manifest is written last, once the parts of all processes are complete, so an interrupted run
never looks like a finished directory.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from xjepa_jax.data import units
from xjepa_jax.data.plain_text import for_spreadsheet
from xjepa_jax.data.storage import writing_failed
from xjepa_jax.data.tables import csv_text
from xjepa_jax.errors import EmbeddingError, WriteError
from xjepa_jax.retrieval.embedding.collection import COLLECTION, collection_json
from xjepa_jax.retrieval.embedding.computing import DescribedPart, Describer, describe_parts
from xjepa_jax.retrieval.embedding.description import DESCRIPTION, EmbeddingDescription
from xjepa_jax.retrieval.embedding.footprints import footprints
from xjepa_jax.retrieval.embedding.items import LeftOut
from xjepa_jax.retrieval.embedding.manifest import MANIFEST, digest, manifest_bytes, part_name
from xjepa_jax.retrieval.embedding.part import part_bytes
from xjepa_jax.retrieval.embedding.plan import Plan
from xjepa_jax.retrieval.embedding.progress import PartRecord, Progress, bounding
from xjepa_jax.retrieval.embedding.reading import PerThread
from xjepa_jax.retrieval.embedding.rows import Rows, part_table
from xjepa_jax.retrieval.embedding.times import instant, text_of

SKIPPED = "skipped.csv"
_WRITING = 2  # maximum number of parts that wait to be written


def write_parts(
  plan: Plan,
  progress: Progress,
  describer: Describer,
  numbers: Sequence[int],
  rows: int,
  threads: int,
  done: Callable[[int], None],
  judges: Mapping[str, units.Judge],
  skip_odd: bool = False,
) -> None:
  """Computes parts, and writes them in a separate thread.

  Args:
    plan: plan of the directory.
    progress: state of the directory.
    describer: describes a batch.
    numbers: numbers of the parts to write.
    rows: batch size.
    threads: number of reader threads.
    done: called with the number of tiles whenever some are finished.
    judges: judges of the sensors whose tiles are refused if their values contradict the sensor.
    skip_odd: leave such tiles out instead of refusing them.

  Raises:
    EmbeddingError, DataError: see `describe_parts`.
    WriteError: a part cannot be written; those before it are kept.
  """
  readers = PerThread(plan.archive.reader)
  writing: collections.deque[Future[None]] = collections.deque()

  def write(part: DescribedPart) -> None:
    _write_part(plan, progress, part)
    start, stop = plan.parts[part.number]
    done(stop - start)

  try:
    with ThreadPoolExecutor(1, thread_name_prefix="write") as writer:
      try:
        for part in describe_parts(
          numbers, plan.parts, plan.tiles, readers, describer, plan.options.head, rows,
          plan.options.min_valid, threads, judges, skip_odd,
        ):  # fmt: skip
          writing.append(writer.submit(write, part))
          # Bounds the memory, and raises a write error soon after it occurs.
          while len(writing) > _WRITING:
            writing.popleft().result()
      finally:
        # Parts that have been computed are written even if a later one fails.
        for future in writing:
          future.result()
  except OSError as error:
    if isinstance(error, WriteError):
      raise
    raise writing_failed(progress.directory, error) from error
  finally:
    readers.close()


def finish(plan: Plan, progress: Progress, licence: str) -> EmbeddingDescription | None:
  """Describes the directory if all parts are there and intact; None if others are still writing.

  The parts of all processes are compared with their records, so that no part that was damaged after
  it was written enters the manifest.

  Raises:
    EmbeddingError: no tile has a row.
    WriteError: a file cannot be written.
  """
  every = range(len(plan.parts))
  if any(progress.record(number) is None for number in every):  # cheap: reads no parts
    return None
  known = []
  for number in every:
    record = progress.finished(number)
    if record is None:
      return None
    known.append(record)
  count = sum(record.rows for record in known)
  skipped = [*plan.archive.left_out, *plan.tiles.left_out]
  skipped += [each for record in known for each in record.left_out]
  if not count:
    reason = f" The first: {skipped[0].source}: {skipped[0].reason}" if skipped else ""
    raise EmbeddingError(f"{plan.archive.path}: nothing in it could be embedded.{reason}")
  description = _description(plan, count, known)
  files: dict[str, Mapping[str, Any]] = {}
  try:
    progress.sweep(len(plan.parts))
    others = {
      SKIPPED: _skipped_csv(skipped),
      COLLECTION: _collection(plan, description, known, licence),
      DESCRIPTION: description.to_json().encode(),
    }
    for name, content in others.items():
      progress.write(name, content)
      files[name] = digest(content)
    for number, record in enumerate(known):
      files[part_name(number)] = record.file
      name, described = progress.records_digest(number)
      files[name] = described
    name, described = progress.settings_digest()
    files[name] = described
    # Written last, because a manifest makes the directory complete.
    progress.write(MANIFEST, manifest_bytes(files))
  except OSError as error:
    raise writing_failed(progress.directory, error) from error
  return description


def _write_part(plan: Plan, progress: Progress, part: DescribedPart) -> None:
  tiles, chosen = plan.tiles, part.tiles
  items = [tiles.items[number] for number in tiles.item[chosen]]
  windows = tiles.windows[chosen]
  outlines, boxes = _outlines(plan, chosen, windows)
  times = [instant(item.time) for item in items]
  rows = Rows(
    ids=[tiles.id(int(number)) for number in chosen],
    sensors=[item.sensor for item in items],
    sources=[item.source for item in items],
    digests=[item.digest for item in items],
    vectors=part.vectors.reshape(len(chosen), plan.dimensions),
    longitude=tiles.longitude[chosen],
    latitude=tiles.latitude[chosen],
    footprints=outlines,
    boxes=boxes,
    windows=windows.astype(np.int32),
    valid_fraction=part.valid_fraction,
    times=times,
    labels=[item.labels for item in items],
  )
  table = part_table(rows, plan.options.quantisation, plan.options.geometry, plan.about())
  known = [time for time in times if time is not None]
  progress.finish_part(
    part.number,
    part_bytes(table),
    PartRecord(
      file={},
      rows=len(chosen),
      bounds=_bounds(rows),
      times=(text_of(min(known)), text_of(max(known))) if known else None,
      left_out=part.left_out,
    ),
  )


def _outlines(
  plan: Plan, chosen: np.ndarray, windows: np.ndarray
) -> tuple[pa.Array | None, np.ndarray | None]:
  if not plan.options.geometry:
    return None, None
  items = [plan.tiles.items[number] for number in plan.tiles.item[chosen]]
  systems = [item.crs if item.georeferenced else "" for item in items]
  transforms = np.array([item.transform for item in items], np.float64).reshape(-1, 6)
  return footprints(systems, transforms, windows)


def _bounds(rows: Rows) -> tuple[float, float, float, float] | None:
  known = np.isfinite(rows.longitude)
  if not known.any():
    return None
  longitude, latitude = rows.longitude[known], rows.latitude[known]
  boxes = [np.stack([longitude, latitude, longitude, latitude], axis=1)]
  if rows.boxes is not None:
    boxes.append(rows.boxes[np.isfinite(rows.boxes).all(axis=1)])
  every = np.concatenate(boxes)
  west, south = (float(value) for value in every[:, :2].min(axis=0))
  east, north = (float(value) for value in every[:, 2:].max(axis=0))
  return west, south, east, north


def _description(plan: Plan, count: int, records: Sequence[PartRecord]) -> EmbeddingDescription:
  names = [item.sensor for item in plan.tiles.items]
  sensors = {
    names[plan.tiles.item[start]]
    for (start, _), record in zip(plan.parts, records, strict=True)
    if record.rows
  }
  return EmbeddingDescription(
    encoder=plan.encoder,
    dimensions=plan.dimensions,
    quantisation=plan.options.quantisation,
    sensors=tuple(sorted(sensors)),
    source={"kind": plan.archive.kind, "path": plan.archive.path, **plan.archive.settings},
    count=count,
    georeferenced=plan.options.geometry,
    settings={key: value for key, value in plan.settings.items() if key != "versions"},
    versions=plan.versions,
    digests=True,
  )


def _collection(
  plan: Plan, description: EmbeddingDescription, records: Sequence[PartRecord], licence: str
) -> bytes:
  times = [record.times for record in records if record.times]
  first = min((each[0] for each in times), key=datetime.datetime.fromisoformat, default=None)
  last = max((each[1] for each in times), key=datetime.datetime.fromisoformat, default=None)
  sizes = {
    plan.tiles.items[plan.tiles.item[start]].sensor: plan.tiles.windows[start, [3, 2]].tolist()
    for start, _ in plan.parts
  }
  return collection_json(
    description,
    os.path.splitext(plan.about()["source"])[0],
    bounding([record.bounds for record in records]),
    (first, last) if first is not None and last is not None else None,
    sizes,
    plan.settings["stride"],
    licence,
  )


def _skipped_csv(skipped: Sequence[LeftOut]) -> bytes:
  names = [field.name for field in dataclasses.fields(LeftOut)]
  rows = [[for_spreadsheet(cell) for cell in dataclasses.astuple(each)] for each in skipped]
  return csv_text([names, *rows]).encode()
