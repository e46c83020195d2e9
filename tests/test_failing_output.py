"""A run whose output fails is a run that is done; what its telemetry lacks is said at its start."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import xjepa_jax.run
from tests.conftest import FinishedRun
from tests.test_main import CONFIG, changed, command
from xjepa_jax.errors import ConfigError

pytestmark = [pytest.mark.usefixtures("compiled_quickly"), pytest.mark.timeout(900)]


def test_a_run_that_nobody_reads_on_a_terminal_of_few_letters_ends_with_0(
  finished_run: FinishedRun, simulated: str, compiled: str, tmp_path: Path
) -> None:
  workdir = shutil.copytree(finished_run.workdir, str(tmp_path / "copy"))
  page = Path(workdir, "report", "index.html")
  page.unlink()
  line, options = command(
    f"--config={CONFIG}:{simulated}", f"--workdir={workdir}", compiled=compiled
  )
  options["env"]["PYTHONIOENCODING"] = "ascii"
  reading, writing = os.pipe()
  os.close(reading)
  try:
    ended = subprocess.run(line, stdout=writing, stderr=writing, timeout=600, **options)
  finally:
    os.close(writing)
  assert ended.returncode == 0 and page.stat().st_size > 1000


def refuse(**_: Any) -> Any:
  raise RuntimeError("api_key not configured (no-tty)")


@pytest.mark.parametrize("service", ["wandb", "prometheus"])
def test_telemetry_that_takes_nothing_is_refused_before_anything_is_compiled(
  finished_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
  def compile_something(*_: Any) -> Any:
    raise AssertionError("the first state is made by compiled functions")

  monkeypatch.setattr(xjepa_jax.run, "_first_state", compile_something)
  monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=refuse))
  with socket.create_server(("127.0.0.1", 0)) as taken:
    keys = {
      "wandb": {"telemetry__wandb": "cross-sensor"},
      "prometheus": {"telemetry__prometheus_port": taken.getsockname()[1]},
    }[service]
    with pytest.raises(ConfigError, match=f"config key 'telemetry.{service}"):
      xjepa_jax.run.run(changed(finished_run.config, **keys), str(tmp_path / "run"))
