"""A platform without devices is one paragraph of every command, before anything is computed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = """
from xjepa_jax.processes.devices import check_devices
try:
  check_devices()
except ValueError as error:
  print(error)
"""


def without_devices(*line: str, platform: str = "cuda") -> subprocess.CompletedProcess[str]:
  """A program that was told a platform whose devices are not here."""
  return subprocess.run(
    [sys.executable, *line],
    capture_output=True,
    text=True,
    cwd=ROOT,
    env={**os.environ, "JAX_PLATFORMS": platform},
    timeout=300,
  )


@pytest.mark.parametrize("platform", ["cuda", "tpu", "nonsense"])
def test_a_platform_that_is_not_here_is_named_with_what_to_do(platform: str) -> None:
  ended = without_devices("-c", CODE, platform=platform)
  assert ended.returncode == 0, ended.stderr
  (paragraph,) = ended.stdout.splitlines()
  assert f"JAX_PLATFORMS is {platform!r}" in paragraph
  assert "Unset JAX_PLATFORMS to use what is here" in paragraph
  assert without_devices("-c", CODE, platform="").stdout == ""  # what the paragraph says helps


COMMANDS = {
  "main": ("xjepa_jax.main", "--config=tests/debug_config.py:nowhere", "--workdir={0}/run"),
  "plan": ("xjepa_jax.main", "--config=tests/debug_config.py:nowhere", "--plan"),
  "embed": (
    "xjepa_jax.retrieval.embed", "--encoder", "{0}", "--archive", "{0}", "--out", "{0}/out",
  ),
  "evaluate": ("xjepa_jax.retrieval.evaluate", "{0}", "--pairs", "{0}"),
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_every_command_that_computes_says_so_first(
  command: tuple[str, ...], tmp_path: Path
) -> None:
  ended = without_devices("-m", *(each.format(tmp_path) for each in command))
  assert (ended.returncode, ended.stdout) == (1, ""), ended.stderr
  said = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
  assert len(said) == 1 and "JAX has no devices to compute on" in said[0]
  assert "Traceback" not in ended.stderr and not list(tmp_path.iterdir())
