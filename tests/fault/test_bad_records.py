"""A damaged record stops a run with its name, or is replaced by the next and counted."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tests.debug_config import get_config
from xjepa_jax.config import Config, resolve
from xjepa_jax.data import bad_records, framing, shard_index
from xjepa_jax.data.batch_source import BatchSource
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.order import Order
from xjepa_jax.data.pipeline import Pipeline, Reading
from xjepa_jax.errors import CorruptRecordError
from xjepa_jax.run import run
from xjepa_jax.training.json_lines import read_history

BATCH = 16


@pytest.fixture(autouse=True)
def told_nothing_yet(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(bad_records, "_told", set())


@pytest.fixture
def pairs(simulated: str, tmp_path: Path) -> str:
  """A copy of the simulated pairs, for damage."""
  return str(shutil.copytree(simulated, tmp_path / "pairs"))


def place(directory: str, number: int, split: str = "train") -> tuple[str, int, int, int]:
  """Shard, row in it, and first and last byte of a record's data."""
  with PairDataset(directory, split) as dataset:
    shard, row = re.fullmatch(r"(.*): record (\d+)", dataset.records.where(number)).groups()  # type: ignore[union-attr]
  index = shard_index.read(shard)
  start = int(index.offsets[int(row)])
  return shard, int(row), start, start + int(index.lengths[int(row)])


def damage(directory: str, *numbers: int, split: str = "train") -> list[str]:
  """Flips a bit of some records; their names, as an error has them."""
  named = []
  for number in numbers:
    shard, row, start, stop = place(directory, number, split)
    with open(shard, "r+b") as file:
      file.seek((start + stop) // 2)
      byte = file.read(1)[0]
      file.seek(-1, os.SEEK_CUR)
      file.write(bytes([byte ^ 4]))
    named.append(f"{shard}: record {row}")
  return named


def put_in_place(directory: str, number: int, other: int) -> None:
  """Writes a shard anew, by framing alone, with record `other` where `number` was."""
  with PairDataset(directory, "train") as dataset:
    content = dataset.records[other].tobytes()
    shard, row, _, _ = place(directory, number)
    first = number - row
    count = len(shard_index.read(shard))
    records = [dataset.records[first + at].tobytes() for at in range(count)]
  records[row] = content
  Path(shard).write_bytes(b"".join(map(framing.frame, records)))
  Path(shard + shard_index.SUFFIX).write_bytes(shard_index.build(shard).to_bytes())


def source(dataset: PairDataset, rows: Sequence[int] = range(BATCH), **options: Any) -> BatchSource:
  return BatchSource([dataset], Order([len(dataset)], seed=3), BATCH, rows, **options)


@pytest.mark.parametrize("bands", [None, {"s2": ["B04", "B03"]}])
def test_a_damaged_record_is_replaced_by_the_next_sound_one_wherever_it_stands(
  pairs: str, simulated: str, bands: dict[str, list[str]] | None
) -> None:
  instead = {17: 18, 40: 43, 41: 43, 42: 43, 127: 0}
  damage(pairs, *instead)
  places = Order([128], seed=3).places
  with PairDataset(simulated) as whole, PairDataset(pairs, bad_records=5) as dataset:
    batches, expected = source(dataset, bands=bands), source(whole, bands=bands)
    for step in (*range(16), 3):  # two epochs, and one of the steps again
      wanted = [instead.get(n, n) for n in places(np.arange(BATCH) + BATCH * step)[1].tolist()]
      found = batches[step]
      assert found["record"].tolist() == wanted and found["valid"].all()
      for key in ("s1", "s2"):
        values = np.stack([whole[n].observations[key].values for n in wanted])
        chosen = expected.slots[key].bands
        np.testing.assert_array_equal(
          found["values"][key], values if chosen is None else values[..., list(chosen)]
        )


def test_batches_are_the_same_for_any_rows_threads_and_step_begun_with(pairs: str) -> None:
  damage(pairs, 5, 6, 90)
  with PairDataset(pairs, bad_records=3) as dataset:
    whole = [source(dataset)[step] for step in range(8)]
  for begin in (0, 5):
    reading = Reading(threads=3, prefetch=4)
    dataset = PairDataset(pairs, bad_records=3)
    with Pipeline(dataset, BATCH, seed=3, reading=reading) as pipeline:
      batches = pipeline.batches(begin)
      for step, batch in batches:
        jax.tree.map(np.testing.assert_array_equal, batch, whole[step])
        if step == 7:
          break
      batches.close()
  for rows in (range(8), range(8, 16)):  # of one process and of another, each with its own count
    with PairDataset(pairs, bad_records=3) as dataset:
      part = source(dataset, rows)
      for step in reversed(range(8)):
        jax.tree.map(
          lambda found, expected, rows=rows: np.testing.assert_array_equal(
            found, expected[list(rows)]
          ),
          part[step],
          whole[step],
        )


def test_on_a_mesh_every_device_sees_the_replacement(pairs: str) -> None:
  damage(pairs, 5, 90)
  sharding = NamedSharding(Mesh(np.array(jax.devices()), ("fsdp",)), PartitionSpec("fsdp"))
  with Pipeline(PairDataset(pairs, bad_records=2), BATCH, sharding, seed=3) as pipeline:
    batches = pipeline.batches()
    _, placed = next(batches)
    batches.close()
  with PairDataset(pairs, bad_records=2) as dataset:
    jax.tree.map(np.testing.assert_array_equal, placed, source(dataset)[0])


def test_each_is_told_once_and_one_more_than_may_be_stops_with_its_name(
  pairs: str, caplog: pytest.LogCaptureFixture
) -> None:
  named = damage(pairs, 5, 17, 90)
  with caplog.at_level(logging.WARNING):
    for _ in range(2):  # as passes over a split open it again
      with PairDataset(pairs, bad_records=3) as dataset:
        for step in range(16):
          source(dataset)[step]
  said = [record.getMessage() for record in caplog.records]
  assert len(said) == 3
  for name in named:
    (line,) = [each for each in said if each.startswith(f"{name}: its bytes do not match")]
    assert "is read in its place" in line and "data.bad_records 3" in line
  with PairDataset(pairs, bad_records=2) as dataset:
    batches = source(dataset)
    with pytest.raises(
      CorruptRecordError, match="number 3 of its split.*data.bad_records is 2"
    ) as e:
      for step in range(8):
        batches[step]
  assert str(e.value).split(": its bytes")[0] in named


def test_without_leave_the_first_stops_with_its_name(pairs: str) -> None:
  (name,) = damage(pairs, 5)
  with PairDataset(pairs) as dataset, pytest.raises(CorruptRecordError) as caught:
    for step in range(8):
      source(dataset)[step]
  assert str(caught.value).startswith(f"{name}: its bytes do not match their checksums. Copy the")


def test_a_split_without_a_sound_record_stops_though_all_may_be_damaged(pairs: str) -> None:
  damage(pairs, *range(128))
  with (
    PairDataset(pairs, bad_records=1000) as dataset,
    pytest.raises(CorruptRecordError, match="number 128 of its split"),
  ):
    source(dataset)[0]


def short(directory: str, **keys: Any) -> Config:
  """The debug config without validation."""
  config = get_config(directory)
  config.evaluation.every = 0
  config.evaluation.mutual_information = 0
  config.data.update(keys)
  return resolve(config)


def losses(workdir: Path) -> list[dict[str, float]]:
  return [
    {key: each for key, each in row.items() if key.startswith(("step", "loss/", "norm/"))}
    for row in read_history(f"{workdir}/metrics.jsonl")
  ]


@pytest.mark.usefixtures("compiled", "compiled_quickly")
@pytest.mark.timeout(900)
def test_a_run_stops_and_the_same_directory_goes_on_when_it_may_as_if_the_next_had_stood_there(
  pairs: str, simulated: str, tmp_path: Path
) -> None:
  order = Order([128], seed=0).places(np.arange(64))[1].tolist()
  number = order[2 * BATCH + 3]  # of the third step
  (name,) = damage(pairs, number)
  (tmp_path / "killed").mkdir()
  workdir = tmp_path / "killed"
  with pytest.raises(CorruptRecordError, match=f"^{re.escape(name)}: its bytes do not match"):
    run(short(pairs), str(workdir))
  assert (workdir / "checkpoints" / "0").is_dir()  # what was done is kept
  run(short(pairs, bad_records=1), str(workdir))
  other = str(shutil.copytree(simulated, tmp_path / "by hand"))
  put_in_place(other, number, (number + 1) % 128)
  run(short(other), str(tmp_path / "expected"))
  assert losses(workdir) == losses(tmp_path / "expected")


@pytest.mark.usefixtures("compiled", "compiled_quickly")
@pytest.mark.timeout(900)
def test_what_is_measured_is_never_of_other_pairs_than_it_says(pairs: str, tmp_path: Path) -> None:
  (name,) = damage(pairs, 2, split="test")
  with pytest.raises(CorruptRecordError, match=f"^{re.escape(name)}: its bytes do not match"):
    run(short(pairs, bad_records=9), str(tmp_path / "run"))
