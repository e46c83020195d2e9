"""Writing an archive: the same bytes whatever the workers, and nothing lost on the way."""

from __future__ import annotations

import csv
import dataclasses
import functools
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from xjepa_jax.data.archive import Archive, Entry, Skip
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.description import INFO_FILE, describe
from xjepa_jax.data.import_plan import ImportPlan, plan_import
from xjepa_jax.data.pairs import Observation, Pair
from xjepa_jax.data.simulate import simulated_archive
from xjepa_jax.data.writer import check_free, write_dataset
from xjepa_jax.errors import ArchiveError, DatasetError, ImageError, InUseError, WriteError
from xjepa_jax.processes.locking import holding
from xjepa_jax.sensor_presets import PRESETS

SHARD_BYTES = 60_000


def make_plan(pairs: int = 60, encoding: str = "bytes") -> ImportPlan:
  return plan_import(simulated_archive(pairs, size=16), SHARD_BYTES, encoding)


def contents(directory: Path) -> dict[str, bytes]:
  return {
    str(path.relative_to(directory)): path.read_bytes()
    for path in sorted(directory.rglob("*"))
    if path.is_file()
  }


def grey_pair(entry: Entry, size: int = 4, broken: frozenset[int] = frozenset()) -> Pair:
  if entry.source in broken:
    raise ImageError(f"image {entry.source} is torn")
  values = np.full((size, size, 1), entry.source % 200 + 1, np.uint8)
  return Pair(entry.pair_id, {"grey": Observation(values)}, labels=(f"label {entry.source % 3}",))


def grey_archive(count: int, **options: object) -> Archive:
  entries = [Entry(f"pair {i}", i) for i in range(count)]
  read = functools.partial(grey_pair, **options)  # type: ignore[arg-type]
  return Archive("greys", {"grey": PRESETS["grey"]}, {"train": entries}, read)


@pytest.mark.parametrize("encoding", ["bytes", "zlib"])
def test_two_workers_write_the_bytes_that_one_writes(tmp_path: Path, encoding: str) -> None:
  plan = make_plan(encoding=encoding)
  write_dataset(plan, str(tmp_path / "one"), workers=1)
  write_dataset(plan, str(tmp_path / "two"), workers=2)
  assert contents(tmp_path / "one") == contents(tmp_path / "two")
  assert len(plan.shards["train"]) > 2


def test_progress_counts_every_pair_once(tmp_path: Path) -> None:
  for workers in (1, 2):
    counts: list[int] = []
    write_dataset(make_plan(), str(tmp_path / str(workers)), workers, progress=counts.append)
    assert sum(counts) == 60


def test_an_import_that_was_killed_continues_to_the_same_bytes(tmp_path: Path) -> None:
  """A real process, killed in the middle; what it finished is kept and not written again."""
  command = [sys.executable, "-m", "xjepa_jax.data.simulate", "--pairs", "200", "--size", "16"]
  command += ["--shard-mb", "0.06", "--workers", "2", "--out"]
  out = tmp_path / "killed"
  process = subprocess.Popen(
    [*command, str(out)],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
    start_new_session=True,
  )
  partial = out / ".partial"
  while process.poll() is None and len(list(partial.glob("*.summary.npz"))) < 3:
    pass
  assert process.poll() is None, "the import ended before it could be killed"
  os.killpg(process.pid, signal.SIGKILL)
  process.wait()
  assert not (out / INFO_FILE).exists()
  with pytest.raises(DatasetError, match="was not finished.*--resume"):
    PairDataset(str(out))
  finished = {path: path.stat().st_mtime_ns for path in partial.glob("*.summary.npz")}
  refused = subprocess.run([*command, str(out)], capture_output=True, text=True)
  assert refused.returncode == 1 and "--resume" in refused.stderr
  assert {path: path.stat().st_mtime_ns for path in partial.glob("*.summary.npz")} == finished
  subprocess.run([*command, str(out), "--resume"], check=True, capture_output=True)
  subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
  assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize("moved", range(0, 12, 3))
def test_an_import_that_was_killed_while_naming_its_shards_continues(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
  plan = make_plan()
  write_dataset(plan, str(tmp_path / "whole"))
  real, calls = os.replace, []

  def replace(source: str, target: str) -> None:
    if ".partial" not in str(target) and ".tmp" not in str(source):
      calls.append(target)
      if len(calls) > moved:
        raise KeyboardInterrupt
    real(source, target)

  with monkeypatch.context() as patch:
    patch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
      write_dataset(plan, str(tmp_path / "cut"))
  write_dataset(plan, str(tmp_path / "cut"), resume=True)
  assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_an_import_that_another_process_is_writing_is_left_to_it(tmp_path: Path) -> None:
  partial = tmp_path / "out" / ".partial"
  partial.mkdir(parents=True)
  unfinished = partial / "train-00000.tmp"
  unfinished.write_bytes(b"being written")
  with (
    holding(str(partial / "import.lock"), "the import"),
    pytest.raises(InUseError, match=rf"the unfinished import {partial} is in use by process"),
  ):
    write_dataset(make_plan(), str(tmp_path / "out"), resume=True)
  assert unfinished.exists()
  write_dataset(make_plan(), str(tmp_path / "out"), resume=True)
  assert len(PairDataset(str(tmp_path / "out"), None)) == 60 and not partial.exists()


@pytest.mark.parametrize("resume", [True, False])
def test_a_second_import_is_told_that_one_runs_and_not_that_it_was_interrupted(
  tmp_path: Path, resume: bool
) -> None:
  partial = tmp_path / "out" / ".partial"
  partial.mkdir(parents=True)
  lock = partial / "import.lock"
  with (
    holding(str(lock), "the import"),
    pytest.raises(InUseError, match="is in use by process .* which is running"),
  ):
    check_free(str(tmp_path / "out"), resume)
  lock.write_text("{}")  # of one that was killed
  if resume:
    check_free(str(tmp_path / "out"), resume)
  else:
    with pytest.raises(DatasetError, match="was interrupted.*--resume"):
      check_free(str(tmp_path / "out"), resume)


def test_resuming_another_import_is_refused(tmp_path: Path) -> None:
  (tmp_path / "out" / ".partial").mkdir(parents=True)
  (tmp_path / "out" / ".partial" / "plan.sha256").write_text(make_plan(60).fingerprint())
  with pytest.raises(DatasetError, match="belongs to another import"):
    write_dataset(make_plan(50), str(tmp_path / "out"), resume=True)


def test_the_fingerprint_is_the_same_in_another_process() -> None:
  code = (
    "from xjepa_jax.data.import_plan import plan_import\n"
    "from xjepa_jax.data.simulate import simulated_archive\n"
    f"print(plan_import(simulated_archive(60, 16), {SHARD_BYTES}, 'bytes').fingerprint())"
  )
  other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert other.stdout.strip() == make_plan().fingerprint()


def test_a_data_set_or_anything_else_in_the_way_is_never_overwritten(tmp_path: Path) -> None:
  write_dataset(make_plan(), str(tmp_path / "out"))
  before = contents(tmp_path / "out")
  for resume in (False, True):
    with pytest.raises(DatasetError, match="already holds a data set"):
      write_dataset(make_plan(), str(tmp_path / "out"), resume=resume)
  assert contents(tmp_path / "out") == before
  (tmp_path / "notes").mkdir()
  (tmp_path / "notes" / "mine.txt").write_text("mine")
  with pytest.raises(DatasetError, match="not empty"):
    write_dataset(make_plan(), str(tmp_path / "notes"))


def test_unreadable_pairs_are_skipped_with_their_reason(tmp_path: Path) -> None:
  archive = grey_archive(20, broken=frozenset({0, 7}))
  archive = dataclasses.replace(archive, skipped=[Skip("pair x", "no counterpart")])
  summary = write_dataset(plan_import(archive, 10**6, "bytes"), str(tmp_path / "out"))
  assert summary.splits == {"train": 18}
  assert summary.labels == {"label 0": 6, "label 1": 6, "label 2": 6}
  with open(tmp_path / "out" / "skipped.csv", encoding="utf-8", newline="") as file:
    rows = list(csv.reader(file))
  assert rows == [
    ["pair_id", "reason"],
    ["pair x", "no counterpart"],
    ["pair 0", "image 0 is torn"],
    ["pair 7", "image 7 is torn"],
  ]
  found = [pair.pair_id for pair in map(PairDataset(str(tmp_path / "out")).__getitem__, range(18))]
  assert found == [f"pair {i}" for i in range(20) if i not in (0, 7)]


def test_a_shard_of_which_every_pair_was_skipped_leaves_no_gap(tmp_path: Path) -> None:
  archive = grey_archive(96, broken=frozenset(range(32, 64)))
  plan = plan_import(archive, 10**6, "bytes")
  assert [len(shard) for shard in plan.shards["train"]] == [32, 32, 32]
  write_dataset(plan, str(tmp_path / "out"))
  names = sorted(path.name for path in (tmp_path / "out").glob("*.tfrecord*[0-9]"))
  assert names == ["greys-train.tfrecord-00000-of-00002", "greys-train.tfrecord-00001-of-00002"]
  assert len(PairDataset(str(tmp_path / "out"))) == 64


def test_a_pair_of_another_size_than_the_first_is_skipped(tmp_path: Path) -> None:
  def read(entry: Entry) -> Pair:
    return grey_pair(entry, size=5 if entry.source == 3 else 4)

  archive = dataclasses.replace(grey_archive(6), read=read)
  summary = write_dataset(plan_import(archive, 10**6, "bytes"), str(tmp_path / "out"))
  assert [skip.pair_id for skip in summary.skipped] == ["pair 3"]
  assert "(5, 5, 1), expected (4, 4, 1)" in summary.skipped[0].reason


def test_scaling_comes_from_the_training_split_alone(tmp_path: Path) -> None:
  archive = grey_archive(40)
  entries = archive.splits["train"]
  archive = dataclasses.replace(archive, splits={"train": entries[:10], "test": entries[10:]})
  write_dataset(plan_import(archive, 10**6, "bytes"), str(tmp_path / "out"))
  sensor = describe(str(tmp_path / "out")).format.sensors["grey"]
  assert sensor.scaling.mean == (np.mean(np.arange(1, 11)),)
  assert sensor.scaling.std == (round(float(np.std(np.arange(1, 11))), 6),)


def test_ids_that_occur_twice_are_refused_before_anything_is_written() -> None:
  archive = grey_archive(5)
  twice = [*archive.splits["train"], Entry("pair 3", 9)]
  with pytest.raises(ArchiveError, match="1 pair ids occur more than once, among them pair 3"):
    plan_import(dataclasses.replace(archive, splits={"train": twice}), 10**6, "bytes")


def test_an_archive_without_a_readable_pair_says_why() -> None:
  with pytest.raises(ArchiveError, match="no pair to import"):
    plan_import(grey_archive(0), 10**6, "bytes")
  with pytest.raises(ArchiveError, match="none of the 5 pairs can be read.*image 0 is torn"):
    plan_import(grey_archive(5, broken=frozenset(range(5))), 10**6, "bytes")


@pytest.mark.skipif(sys.platform != "linux", reason="needs a mounted file system of its own size")
def test_a_full_disk_loses_nothing_and_resumes(tmp_path: Path) -> None:
  """A real file system of 1 MB, enlarged after it was full."""
  disk = tmp_path / "disk"
  disk.mkdir()
  mounted = subprocess.run(
    ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, text=True
  )
  if mounted.returncode:
    pytest.skip(f"no right to mount a small file system: {mounted.stderr.strip()}")
  try:
    plan = plan_import(simulated_archive(200, size=16), SHARD_BYTES, "bytes")
    with pytest.raises(WriteError, match=re.escape(str(disk)) + ".*No space left.*--resume"):
      write_dataset(plan, str(disk / "out"))
    partial = disk / "out" / ".partial"
    finished = contents(partial)
    assert any(name.endswith(".summary.npz") for name in finished)
    assert not any(".tmp" in name for name in finished)
    assert not (disk / "out" / INFO_FILE).exists()
    subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
    write_dataset(plan, str(disk / "out"), resume=True)
    write_dataset(plan, str(tmp_path / "whole"))
    assert contents(disk / "out") == contents(tmp_path / "whole")
  finally:
    subprocess.run(["umount", str(disk)], check=True)


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
  code = (
    "import multiprocessing, sys\n"
    "from xjepa_jax.data.import_plan import plan_import\n"
    "from xjepa_jax.data.simulate import simulated_archive\n"
    "from xjepa_jax.data.writer import write_dataset\n"
    "def progress(count):\n"
    "  if count:\n"
    "    print(*[child.pid for child in multiprocessing.active_children()], flush=True)\n"
    "if __name__ == '__main__':\n"
    "  plan = plan_import(simulated_archive(2000, size=64), 10**7, 'bytes')\n"
    "  write_dataset(plan, sys.argv[1], workers=2, progress=progress)\n"
  )
  (tmp_path / "run.py").write_text(code)
  command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "out")]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
    assert process.stdout is not None
    workers = [int(pid) for pid in process.stdout.readline().split()]
    process.kill()
  assert len(workers) == 2
  deadline = time.monotonic() + 20
  while any(is_running(pid) for pid in workers):
    assert time.monotonic() < deadline, "a worker waits for ever, and holds a shard open"
    time.sleep(0.05)


def is_running(pid: int) -> bool:
  try:
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
  except FileNotFoundError:
    return False
  return state != "Z"


def test_what_a_killed_run_was_writing_is_removed(tmp_path: Path) -> None:
  plan = make_plan()
  partial = tmp_path / "out" / ".partial"
  partial.mkdir(parents=True)
  (partial / "train-00000.77.tmp").write_bytes(b"half a shard")

  def look(count: int) -> None:
    assert not (partial / "train-00000.77.tmp").exists()

  write_dataset(plan, str(tmp_path / "out"), resume=True, progress=look)


def test_a_worker_that_dies_is_reported_and_the_rest_is_kept(tmp_path: Path) -> None:
  plan = make_plan(200)

  def kill_one(count: int) -> None:
    workers = multiprocessing.active_children()  # none, once the others were ended for the one
    if count and workers:
      workers[0].kill()

  with pytest.raises(WriteError, match="worker process was killed.*--resume"):
    write_dataset(plan, str(tmp_path / "out"), workers=2, progress=kill_one)
  write_dataset(plan, str(tmp_path / "out"), resume=True)
  assert len(PairDataset(str(tmp_path / "out"))) == 160
