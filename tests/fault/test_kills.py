"""kill -9 at random moments: the same command, started again, ends as if nothing had happened.

`python -m benchmarks.fault` does the same a hundred times.
"""

from __future__ import annotations

import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import FinishedRun
from tests.fault.campaign import (
  ROOT,
  Commands,
  aims,
  assert_same_run,
  files_of,
  kill_until_done,
  write_archive,
)
from tests.fault.killing import Aim, Command, environment
from tests.fault.phases import IMPORT, PAIRS, PHASES, REPORT, RUN

pytestmark = [
  pytest.mark.skipif(sys.platform != "linux", reason="watches files by inotify"),
  pytest.mark.timeout(900),
]
SECONDS = 400.0  # of one start, on a machine that is busy with something else
MOMENTS = (
  Aim("steps", 2, 0.5),
  Aim("restore", 1, 0.5),
  Aim("save", 2, 0.4),
  Aim("evaluation", 1, 0.5),
  Aim("report", 1, 0.6),
)


def test_a_run_killed_while_it_restores_steps_saves_evaluates_and_reports_ends_as_if_it_was_not(
  finished_run: FinishedRun,
  simulated: str,
  compiled: str,
  tmp_path: Path,
  record_property: Callable[[str, object], None],
) -> None:
  pairs = shutil.copytree(simulated, tmp_path / PAIRS)  # where it is seen what is read of them
  command = Command(
    "run",
    [
      *(sys.executable, "-m", "xjepa_jax.main", f"--config=tests/debug_config.py:{pairs}"),
      f"--workdir={tmp_path / RUN}",
    ],
    environment(
      JAX_COMPILATION_CACHE_DIR=compiled,
      JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0.1",
      JAX_DISABLE_MOST_OPTIMIZATIONS="1",
    ),
    ROOT,
    tmp_path,
    SECONDS,
  )
  kills = list(kill_until_done(command, MOMENTS))
  record_property("kills", str(kills))
  assert len(kills) == len(MOMENTS)
  assert_same_run(tmp_path / RUN, Path(finished_run.workdir))


def test_an_import_with_workers_that_is_killed_again_and_again_gives_the_same_bytes(
  tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
  commands = Commands(write_archive(tmp_path / "archive", 60), environment(), seconds=SECONDS)
  assert commands.importing(tmp_path / "whole").run()[0] == 0
  chosen = random.Random(0)
  moments = [Aim(IMPORT, 1, chosen.uniform(0.2, 0.6)) for _ in range(2)]
  kills = list(kill_until_done(commands.importing(tmp_path / "killed"), moments))
  record_property("kills", str(kills))
  assert kills and {kill.landed for kill in kills} == {IMPORT}
  assert files_of(tmp_path / "killed" / PAIRS) == files_of(tmp_path / "whole" / PAIRS)


def test_a_campaign_aims_at_every_phase_of_a_run_alike() -> None:
  for kills in (7, 12, 100):
    moments = aims(kills, random.Random(kills))
    counts = Counter(dict.fromkeys(PHASES, 0))
    counts.update(aim.phase for aim in moments)
    assert len(moments) == kills and set(counts) == set(PHASES)
    assert max(counts.values()) - min(counts.values()) <= 1
    order = [aim.phase for aim in moments]
    assert order[: counts[IMPORT]] == [IMPORT] * counts[IMPORT]
    assert order[-counts[REPORT] :] == [REPORT] * counts[REPORT]
    assert all(0 <= aim.share < 1 and 1 <= aim.turn <= 3 for aim in moments)
