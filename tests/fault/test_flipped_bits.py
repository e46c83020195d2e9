"""One flipped bit in any file of the newest checkpoint: it is set aside, and the run goes on."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.conftest import FinishedRun
from tests.fault.campaign import Arrays, assert_same_run, files_of, state_of
from xjepa_jax.config import to_dict
from xjepa_jax.run import run
from xjepa_jax.training.checkpoint import Checkpoints
from xjepa_jax.training.experiment import open_experiment

pytestmark = [pytest.mark.usefixtures("compiled_quickly"), pytest.mark.timeout(900)]
LAST, BEFORE = 12, 10
# Written by Orbax after the manifest; they say nothing of the arrays.
LATER = ("_CHECKPOINT_METADATA", "commit_success.txt")


def flip(path: Path, chosen: random.Random) -> None:
  """One bit of a file, any."""
  content = bytearray(path.read_bytes())
  bit = chosen.randrange(8 * len(content))
  content[bit // 8] ^= 1 << bit % 8
  path.write_bytes(content)


def arrays_of(state: object) -> Arrays:
  leaves = jax.tree_util.tree_leaves_with_path(state)
  found = ((jax.tree_util.keystr(name), np.asarray(leaf)) for name, leaf in leaves)
  return {name: (str(a.dtype), a.shape, a.tobytes()) for name, a in found}


def in_order(arrays: Arrays) -> list[tuple[str, tuple[int, ...], bytes]]:
  return sorted(arrays.values())


def test_a_bit_of_any_file_sets_the_checkpoint_aside_or_changes_nothing_of_what_is_loaded(
  finished_run: FinishedRun, tmp_path: Path
) -> None:
  checkpoints = Path(finished_run.workdir) / "checkpoints"
  names = [name for name, content in files_of(checkpoints / str(LAST)).items() if content]
  assert len(names) > 8
  saved = {step: in_order(state_of(checkpoints / str(step))) for step in (LAST, BEFORE)}
  assert saved[LAST] != saved[BEFORE]
  target = open_experiment(finished_run.config).abstract_state()
  config = to_dict(finished_run.config)
  chosen = random.Random(5)
  for name in names:
    workdir = tmp_path / name.replace("/", "-")
    for step in (LAST, BEFORE):
      shutil.copytree(checkpoints / str(step), workdir / "checkpoints" / str(step))
    flip(workdir / "checkpoints" / str(LAST) / name, chosen)
    with Checkpoints(str(workdir), config) as opened:
      found = in_order(arrays_of(opened.restore(target)))
    there = {path.name for path in (workdir / "checkpoints").iterdir()}
    if Path(name).name in LATER and "/" not in name:
      assert there == {str(LAST), str(BEFORE)} and found == saved[LAST], name
    else:
      assert there == {f"{LAST}.bad", str(BEFORE)} and found == saved[BEFORE], name
    shutil.rmtree(workdir)


def test_a_run_goes_on_from_the_checkpoint_before_and_ends_as_if_nothing_had_happened(
  finished_run: FinishedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  workdir = Path(shutil.copytree(finished_run.workdir, tmp_path / "run"))
  newest = workdir / "checkpoints" / str(LAST)
  files = [path for path in (newest / "state").rglob("*") if path.is_file()]
  flip(max(files, key=lambda path: path.stat().st_size), random.Random(3))
  damaged = files_of(newest)
  run(finished_run.config, str(workdir))
  assert f"Continuing {workdir} after step {BEFORE}" in capsys.readouterr().err
  assert files_of(workdir / "checkpoints" / f"{LAST}.bad") == damaged
  assert_same_run(workdir, Path(finished_run.workdir))
