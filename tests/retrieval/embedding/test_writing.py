"""Parts computed ahead and written: nothing lost, nothing twice, wherever it is interrupted."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xjepa_jax.errors import EmbeddingError, ImageError
from xjepa_jax.retrieval.embedding import progress as progress_module
from xjepa_jax.retrieval.embedding.files import open_embeddings
from xjepa_jax.retrieval.embedding.items import Collected, Item, Window
from xjepa_jax.retrieval.embedding.listing import list_tiles, parts_of
from xjepa_jax.retrieval.embedding.plan import Options, Plan, settings_of
from xjepa_jax.retrieval.embedding.progress import Progress
from xjepa_jax.retrieval.embedding.reading import read_ahead
from xjepa_jax.retrieval.embedding.run import finish, write_parts

SIZE = 4  # of a tile
COUNT = 60  # of images


class ImageReader:
  """Images whose pixels are their number; some are unreadable, some not seen."""

  def read(self, item: Item, window: Window) -> tuple[np.ndarray, float]:
    number = int(item.id)
    time.sleep(0.0005 * (number % 3))
    if number % 17 == 3:
      raise ImageError(f"{item.source}: is damaged")
    return np.full((SIZE, SIZE, 2), number, np.float32), 0.2 if number % 13 == 5 else 1.0

  def close(self) -> None:
    pass


@dataclasses.dataclass
class Describer:
  """Descriptors that a person can compute: number, number squared, 1."""

  started: int = 0
  rows: int = 0
  fill: float = 0.0

  def start(
    self, values: dict[str, np.ndarray], head: str, *, trust_units: bool, unseen: str
  ) -> Any:
    ((_, batch),) = values.items()
    self.started += 1
    self.rows += len(batch)
    found = batch[:, 0, 0, 0].copy()
    return np.stack([found, found**2, np.ones_like(found) + self.fill], axis=1)


def plan_of(tmp_path: Path, platform: str = "cpu", **changed: Any) -> Plan:
  items = [
    Item(str(number), "radar" if number % 4 else "optical", f"{number}.tif", SIZE, SIZE,
         crs="EPSG:32633", transform=(10, 0, 5e5 + 1e4 * (number % 7), 0, -10, 5e6 + 1e4 * number),
         time=f"2021-07-{1 + number % 30:02d}", labels=("water",) * (number % 2))
    for number in range(COUNT)
  ]  # fmt: skip
  archive = Collected("images", str(tmp_path / "archive"), items, (), ImageReader, True)
  tiles = list_tiles(items, {"radar": (SIZE, SIZE), "optical": (SIZE, SIZE)}, None, True)
  options = Options("layout", "float32", 0.5, 7, 4, True)
  options = dataclasses.replace(options, **changed)
  encoder = {"name": "e", "path": "/e", "sha256": "0", "head": "layout"}
  settings = settings_of(archive, tiles, encoder, options, None, platform, {})
  return Plan(archive, tiles, parts_of(tiles, options.part_rows), encoder, 3, options, settings, {})


def write(plan: Plan, out: Path, process: int = 0, processes: int = 1) -> Describer:
  progress = Progress(str(out), plan.settings, process)
  numbers = range(process, len(plan.parts), processes)
  todo = [number for number in numbers if progress.finished(number) is None]
  describer = Describer()
  write_parts(plan, progress, describer, todo, plan.options.batch, 3, lambda count: None, {})
  finish(plan, progress, "other")
  return describer


def digests(directory: Path) -> dict[str, str]:
  return {
    str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(directory.rglob("*"))
    if path.is_file()
  }


def test_every_tile_has_its_own_descriptor_or_a_reason(tmp_path: Path) -> None:
  plan = plan_of(tmp_path)
  write(plan, tmp_path / "out")
  files = open_embeddings(str(tmp_path / "out"))
  rows = files.take(np.arange(len(files)))
  unit = files.vectors()
  skipped = (tmp_path / "out" / "skipped.csv").read_text().splitlines()
  expected = {number for number in range(COUNT) if number % 17 != 3 and number % 13 != 5}
  assert {int(row["id"]) for row in rows} == expected and len(rows) == len(expected)
  for row, vector in zip(rows, unit, strict=True):
    number = int(row["id"])
    assert row["sensor"] == ("radar" if number % 4 else "optical")
    exact = np.array([number, number**2, 1.0])
    np.testing.assert_allclose(vector, exact / np.linalg.norm(exact), atol=1e-6)
    assert row["datetime"].day == 1 + number % 30 and row["source"] == f"{number}.tif"
  assert len(skipped) == 1 + COUNT - len(expected)
  assert "3,radar,3.tif,3.tif: is damaged" in skipped
  assert '5,radar,5.tif,"20.0% of its pixels were seen, expected at least 50.0%."' in skipped


def test_parts_do_not_depend_on_batch_readers_or_processes(tmp_path: Path) -> None:
  write(plan_of(tmp_path), tmp_path / "one")
  for process in (2, 0, 1):
    write(plan_of(tmp_path), tmp_path / "three", process, 3)
  assert digests(tmp_path / "one") == digests(tmp_path / "three")
  write(plan_of(tmp_path, batch=5), tmp_path / "five")
  parts = [name for name in digests(tmp_path / "one") if name.startswith("parts/")]
  one, five = digests(tmp_path / "one"), digests(tmp_path / "five")
  assert len(parts) == 10 and all(one[name] == five[name] for name in parts)


def test_the_collection_has_the_fields_of_the_embedding_extension(tmp_path: Path) -> None:
  write(plan_of(tmp_path), tmp_path / "out")
  found = json.loads((tmp_path / "out" / "collection.json").read_text())
  assert (found["type"], found["stac_version"], found["emb:type"]) == (
    "Collection",
    "1.1.0",
    "chip",
  )
  assert (found["emb:dimensions"], found["data_type"]) == (3, "float32")
  assert {link["rel"] for link in found["links"]} == {"emb:model", "emb:source-data"}
  assert "embeddings" in found["assets"]
  ((west, south, east, north),) = found["extent"]["spatial"]["bbox"]
  rows = open_embeddings(str(tmp_path / "out")).take(range(40))
  assert min(row["bbox"]["xmin"] for row in rows) >= west and south < north and west < east
  assert found["extent"]["temporal"]["interval"] == [
    ["2021-07-01T00:00:00Z", "2021-07-30T00:00:00Z"]
  ]


class Killed(BaseException):
  """What no handler catches."""


def killing(last: int, function: Callable[..., Any]) -> Callable[..., Any]:
  """The function, which the process does not survive after `last` calls."""
  calls = iter(range(last))

  def counted(*arguments: Any, **given: Any) -> Any:
    if next(calls, None) is None:
      raise Killed
    return function(*arguments, **given)

  return counted


@pytest.mark.parametrize("what", ["replace", "open"])
def test_killed_at_any_write_the_same_command_ends_in_the_same_bytes(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
  plan = plan_of(tmp_path)
  write(plan, tmp_path / "whole")
  whole = digests(tmp_path / "whole")
  out = tmp_path / "out"
  for last in range(40):
    shutil.rmtree(out, ignore_errors=True)
    with monkeypatch.context() as patch:
      if what == "open":
        patch.setattr(progress_module, "open", killing(last, open), raising=False)
      else:
        patch.setattr(os, what, killing(last, getattr(os, what)))
      try:
        write(plan, out)
      except Killed:
        pass
      else:
        break
    write(plan, out)
    assert digests(out) == whole, last
  assert last > 20


def test_a_damaged_part_of_a_finished_directory_alone_is_computed_again(tmp_path: Path) -> None:
  plan, out = plan_of(tmp_path), tmp_path / "out"
  write(plan, out)
  whole = digests(out)
  assert write(plan, out).started == 0
  part = out / "parts" / "part-00004.parquet"
  bits = bytearray(part.read_bytes())
  bits[100] ^= 1
  part.write_bytes(bits)
  with pytest.raises(EmbeddingError, match="part-00004"):
    open_embeddings(str(out))
  assert write(plan, out).started == 2  # its seven tiles, four a batch
  assert digests(out) == whole


@pytest.mark.parametrize(
  ("old", "new"),
  [
    ('"rows": 7', '"rows": 6'),
    ("pixels were seen", "pixels are seen"),
  ],
)
def test_a_changed_record_counts_as_unfinished(tmp_path: Path, old: str, new: str) -> None:
  plan, out = plan_of(tmp_path), tmp_path / "out"
  write(plan, out)
  whole = digests(out)
  number, record = next(
    (number, path)
    for number, path in enumerate(sorted((out / "records").glob("part-*.json")))
    if old in path.read_text()
  )
  record.write_text(record.read_text().replace(old, new, 1))
  assert Progress(str(out), plan.settings, 0).finished(number) is None
  assert write(plan, out).started == 2  # its seven tiles, four a batch
  assert digests(out) == whole


def test_a_part_that_another_process_wrote_is_compared_before_all_is_called_whole(
  tmp_path: Path,
) -> None:
  plan, out = plan_of(tmp_path), tmp_path / "out"
  progress = Progress(str(out), plan.settings, 0)
  every = range(len(plan.parts))
  write_parts(plan, progress, Describer(), every, plan.options.batch, 3, lambda count: None, {})
  part = out / "parts" / "part-00004.parquet"
  content = part.read_bytes()
  part.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
  assert finish(plan, progress, "other") is None
  assert not (out / "manifest.json").exists()
  write(plan, out)
  assert part.read_bytes() == content and len(open_embeddings(str(out)))


def test_a_directory_begun_on_another_kind_of_device_is_refused(tmp_path: Path) -> None:
  out = tmp_path / "out"
  write(plan_of(tmp_path), out)
  with pytest.raises(EmbeddingError, match="platform is 'cpu' there and 'gpu' now"):
    write(plan_of(tmp_path, platform="gpu"), out)


def test_a_directory_of_other_settings_is_refused_with_the_difference(tmp_path: Path) -> None:
  out = tmp_path / "out"
  write(plan_of(tmp_path), out)
  with pytest.raises(EmbeddingError, match="quantisation is 'float32' there and 'int8' now"):
    write(plan_of(tmp_path, quantisation="int8"), out)
  with pytest.raises(EmbeddingError, match="batch is 4 there and 8 now; min_valid is 0.5 there"):
    write(plan_of(tmp_path, batch=8, min_valid=0.1), out)
  (tmp_path / "other").mkdir()
  (tmp_path / "other" / "thesis.tex").write_text("")
  with pytest.raises(EmbeddingError, match=r"holds thesis\.tex and no embeddings"):
    write(plan_of(tmp_path), tmp_path / "other")


def test_a_descriptor_that_is_not_finite_stops_it(tmp_path: Path) -> None:
  plan = plan_of(tmp_path)
  progress = Progress(str(tmp_path / "out"), plan.settings, 0)
  with pytest.raises(EmbeddingError, match=r"\.tif, \(0, 0, 4, 4\): .*is not finite"):
    write_parts(plan, progress, Describer(fill=np.nan), [0], 4, 2, lambda count: None, {})


def test_nothing_to_embed_is_an_error_that_says_why(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  unseen = np.zeros((SIZE, SIZE, 2), np.float32), 0.0
  monkeypatch.setattr(ImageReader, "read", lambda self, item, window: unseen)
  with pytest.raises(EmbeddingError, match=r"nothing in it could be embedded.*\.tif: 0.0% of"):
    write(plan_of(tmp_path), tmp_path / "out")


def test_reading_runs_ahead_by_a_bound_and_in_order() -> None:
  begun: list[int] = []
  lock = threading.Lock()

  def read(task: int) -> int:
    with lock:
      begun.append(task)
    time.sleep(0.001)
    return task * task

  results = read_ahead(range(50), read, threads=4, ahead=6)
  assert next(results) == 0
  time.sleep(0.05)
  assert len(begun) <= 7
  assert list(results) == [n * n for n in range(1, 50)]


def test_an_error_while_reading_comes_out_at_its_place() -> None:
  def read(task: int) -> int:
    if task == 3:
      raise ValueError("three")
    return task

  found = []
  with pytest.raises(ValueError, match="three"):
    for result in read_ahead(range(50), read, threads=2, ahead=4):
      found.append(result)
  assert found == [0, 1, 2]
