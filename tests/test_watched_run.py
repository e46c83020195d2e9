"""A run watched from outside: asked by Prometheus, profiled by a signal, killed and continued."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.multiprocess.test_batches import free_port
from tests.test_main import command, wait_for
from tests.training.test_profiling import profiled
from tests.training.test_writers import scraped
from xjepa_jax.training.goodput import KINDS
from xjepa_jax.training.json_lines import read_history

pytestmark = pytest.mark.timeout(900)
SECONDS = 400.0  # to end, on a machine that is busy with something else
OPTIONS = (
  "--config.training.steps=1000000",  # it is ended by signals
  "--config.checkpoint.every=1000000",  # but for the first, before any step
  "--config.evaluation.every=0",
  "--config.telemetry.profile_steps=3",
)


@dataclasses.dataclass(frozen=True)
class Watched:
  """What was seen of a run that was killed, started again, and stopped.

  Attributes:
    workdir: its directory.
    scraped: what Prometheus was answered.
    killed: the last row of `goodput.jsonl` of the start that was killed.
    status, told: with which the other start ended, and its words on stderr.
  """

  workdir: Path
  scraped: dict[str, dict[str, float]]
  killed: dict[str, float]
  status: int
  told: str

  def log(self, beginning: str = "") -> list[dict[str, Any]]:
    return logged(self.workdir, beginning)


def logged(workdir: Path, beginning: str = "") -> list[dict[str, Any]]:
  """Lines of the log whose message has a beginning."""
  path = workdir / "logs" / "process-0.jsonl"
  content = path.read_bytes() if path.exists() else b""
  lines = [json.loads(line) for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
  return [line for line in lines if line["message"].startswith(beginning)]


def goodput(workdir: Path) -> dict[str, float]:
  """The last row."""
  return read_history(f"{workdir}/goodput.jsonl")[-1]


@pytest.fixture(scope="module")
def watched(simulated: str, compiled: str, tmp_path_factory: pytest.TempPathFactory) -> Watched:
  """Started, asked, profiled, killed; started again, and stopped when it is further than before."""
  workdir, port = tmp_path_factory.mktemp("watched") / "run", free_port()
  line, options = command(
    f"--config=tests/debug_config.py:{simulated}",
    f"--workdir={workdir}",
    f"--config.telemetry.prometheus_port={port}",
    *OPTIONS,
    compiled=compiled,
  )
  with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, **options) as process:
    try:
      wait_for(lambda: len(logged(workdir, "step ")) >= 5, process)
      answered = scraped(port)
      process.send_signal(signal.SIGUSR1)
      wait_for(lambda: logged(workdir, "Profile of"), process)
    finally:
      process.kill()
  killed = goodput(workdir)
  with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, **options) as process:
    try:
      wait_for(lambda: goodput(workdir)["step"] > killed["step"], process)
      process.send_signal(signal.SIGTERM)
      _, told = process.communicate(timeout=SECONDS)
    finally:
      process.kill()
  return Watched(workdir, answered, killed, process.returncode, told)


def test_prometheus_is_answered_the_losses_and_the_goodput_of_a_run_under_way(
  watched: Watched,
) -> None:
  step, scalars = watched.scraped["xjepa_step"][""], watched.scraped["xjepa_scalar"]
  assert step >= 4
  assert 0 < scalars["goodput/share"] < 1 and 0 <= scalars["goodput/data_wait"] <= 1
  assert scalars["memory/host_bytes"] > 1e8
  rows = {row["step"]: row for row in read_history(f"{watched.workdir}/metrics.jsonl")}
  assert {key.partition("/")[0] for key in scalars} >= {"loss", "schedule", "goodput", "memory"}
  assert scalars.keys() == rows[step].keys() - {"step"}


def test_sigusr1_profiles_the_next_steps_and_the_run_goes_on(watched: Watched) -> None:
  (line,) = watched.log("Profile of the steps")
  steps = profiled(watched.workdir / "profile")
  assert len(steps) == 3 and steps == list(range(steps[0], steps[0] + 3))
  assert line["message"] == (
    f"Profile of the steps {steps[0] + 1} to {steps[-1] + 1}: {watched.workdir}/profile"
  )


def test_the_steps_that_a_kill_lost_are_not_counted_twice(watched: Watched) -> None:
  rows = read_history(f"{watched.workdir}/goodput.jsonl")
  starts = {row["start"]: row for row in rows}
  first, second = starts.values()
  assert first == watched.killed and first["steps"] > 0 and first["repeated"] == 0
  assert second["repeated"] > 0 and second["steps"] > 0 and second["restore"] > 0
  last = read_history(f"{watched.workdir}/metrics.jsonl")[-1]
  seconds = {kind: last[f"goodput/{kind}_seconds"] for kind in KINDS}
  assert last["goodput/share"] == pytest.approx(seconds["steps"] / sum(seconds.values()))
  assert seconds["compile"] > first["compile"] > 0
  assert seconds["repeated"] == pytest.approx(second["repeated"], abs=0.001)  # rounded there
  assert "Goodput " in watched.told and " in 2 starts; the rest: " in watched.told


def test_the_log_tells_of_both_starts_and_of_the_stop(watched: Watched) -> None:
  starts = watched.log("Process 0 of 1 starts; python 3")
  assert len(starts) == 2 and len({line["pid"] for line in starts}) == 2
  assert watched.status == 0
  stopped = [line["message"] for line in watched.log() if line["level"] == "info"][-3:]
  assert stopped[0].startswith("Goodput ")
  assert stopped[1].startswith("Stopped by SIGTERM after step ")
  assert stopped[2] == "ends with status 0"
  assert {line["level"] for line in watched.log()} <= {"info", "warning"}
