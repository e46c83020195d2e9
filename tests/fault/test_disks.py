"""Disks that are full or may not be written: one error names the place, and nothing is lost."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import FinishedRun
from tests.fault.campaign import ROOT, assert_same_run, files_of
from tests.fault.killing import environment
from xjepa_jax.data import shard_index
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.errors import CheckpointError, ShardIndexError
from xjepa_jax.run import run

pytestmark = [
  pytest.mark.skipif(sys.platform != "linux", reason="needs file systems that are mounted"),
  pytest.mark.usefixtures("compiled_quickly"),
  pytest.mark.timeout(900),
]
LAST = "12"  # step of the last checkpoint


def mount(*arguments: str) -> None:
  """Mounts, or skips the test where that is not allowed."""
  done = subprocess.run(["mount", *arguments], capture_output=True, text=True, timeout=30)
  if done.returncode:
    pytest.skip(f"no right to mount: {done.stderr.strip()}")


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
  """What is below the folder can be read, and not be written even by root."""
  mount("--bind", str(folder), str(folder))
  try:
    mount("-o", "remount,bind,ro", str(folder))
    yield
  finally:
    subprocess.run(["umount", str(folder)], check=True, timeout=30)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
  """A file system of 16 MB."""
  folder = tmp_path / "disk"
  folder.mkdir()
  mount("-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder))
  yield folder
  # Lazily: TensorStore keeps files open for a while.
  subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=30)


def leave(disk: Path, count: int) -> Path:
  """Fills a disk but for so many bytes; the file that takes the room."""
  ballast = disk / "ballast"
  with open(ballast, "wb") as file:
    for _ in range((shutil.disk_usage(disk).free - count) // 4096):
      file.write(bytes(4096))
  return ballast


def unfinished(finished: FinishedRun, folder: Path) -> Path:
  """What the run had left if it had been killed before it saved its last checkpoint."""
  workdir = Path(shutil.copytree(finished.workdir, folder / "run"))
  shutil.rmtree(workdir / "checkpoints" / LAST)
  return workdir


def kept(workdir: Path) -> dict[str, bytes]:
  """What a failure may not touch: the checkpoints that were whole, encoder and report."""
  return {
    name: content
    for name, content in files_of(workdir).items()
    if re.match(r"checkpoints/\d+/|encoder/|report/", name)
  }


def refused(pairs: str, workdir: Path, compiled: str) -> str:
  """The paragraph that the command ends with; nothing that was there has changed."""
  before = kept(workdir)
  line = [
    *(sys.executable, "-m", "xjepa_jax.main", f"--config=tests/debug_config.py:{pairs}"),
    f"--workdir={workdir}",
  ]
  more = {
    "JAX_COMPILATION_CACHE_DIR": compiled,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
  }
  ended = subprocess.run(
    line, cwd=ROOT, env=environment(**more), capture_output=True, text=True, timeout=600
  )
  assert ended.returncode == 1 and not ended.stdout, ended.stderr
  after = kept(workdir)
  assert {name: after.get(name) for name in before} == before
  paragraph = ended.stderr.strip().splitlines()[-1]
  assert paragraph.startswith("error: "), ended.stderr
  return paragraph.removeprefix("error: ")


def test_a_disk_that_is_full_when_a_checkpoint_is_saved_loses_nothing(
  finished_run: FinishedRun, simulated: str, compiled: str, disk: Path
) -> None:
  workdir = unfinished(finished_run, disk)
  ballast = leave(disk, 200_000)
  said = refused(simulated, workdir, compiled)
  assert re.search(rf"^{disk}\S+: .*\(.*No space left on device\).*same command", said), said
  ballast.unlink()
  run(finished_run.config, str(workdir))
  assert_same_run(workdir, Path(finished_run.workdir))


def test_a_disk_that_is_full_when_the_report_is_written_leaves_the_one_before(
  finished_run: FinishedRun, simulated: str, compiled: str, disk: Path
) -> None:
  workdir = Path(shutil.copytree(finished_run.workdir, disk / "run"))
  (workdir / "report" / "metrics.json").unlink()  # which holds times, so it is another each time
  ballast = leave(disk, 700_000)
  said = refused(simulated, workdir, compiled)
  assert "No space left" in said and f"{disk}/run/" in said
  ballast.unlink()
  run(finished_run.config, str(workdir))
  assert_same_run(workdir, Path(finished_run.workdir))


def test_checkpoints_that_may_not_be_written_are_named_and_the_run_goes_on_when_they_may(
  finished_run: FinishedRun, simulated: str, compiled: str, tmp_path: Path
) -> None:
  workdir = unfinished(finished_run, tmp_path)
  with read_only(workdir / "checkpoints"):
    said = refused(simulated, workdir, compiled)
  assert re.search(rf"^{workdir}/checkpoints: .*Read-only file system.*rights", said)
  run(finished_run.config, str(workdir))
  assert_same_run(workdir, Path(finished_run.workdir))


def test_a_directory_that_may_not_be_written_is_refused_before_anything_is_done(
  finished_run: FinishedRun, tmp_path: Path
) -> None:
  workdir = unfinished(finished_run, tmp_path)
  before = files_of(workdir)
  with read_only(workdir), pytest.raises(CheckpointError, match=f"^{workdir}: cannot be used"):
    run(finished_run.config, str(workdir))
  new = tmp_path / "new"
  new.mkdir()
  with read_only(new), pytest.raises(CheckpointError, match=f"{new} may not be written"):
    run(finished_run.config, str(new / "run"))
  assert files_of(workdir) == before and not files_of(new)


def test_a_data_set_that_may_not_be_written_is_read_and_an_index_that_it_lacks_is_named(
  simulated: str, tmp_path: Path
) -> None:
  pairs = Path(shutil.copytree(simulated, tmp_path / "pairs"))
  with PairDataset(simulated) as dataset:
    expected = [record.tobytes() for record in dataset.records.read(range(128))]
  with read_only(pairs), PairDataset(str(pairs)) as dataset:
    assert [record.tobytes() for record in dataset.records.read(range(128))] == expected
  shard = next(pairs.glob("*-train.*-of-*[0-9]"))
  (pairs / (shard.name + shard_index.SUFFIX)).unlink()
  with (
    read_only(pairs),
    pytest.raises(ShardIndexError, match=rf"^{shard}\.index: .*Read-only.*Make the directory"),
  ):
    PairDataset(str(pairs))
