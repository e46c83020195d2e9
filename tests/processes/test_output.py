"""What is printed may fail in every way that it can, and the work that is done stays done."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_help import commands

ROOT = Path(__file__).resolve().parents[2]
FULL = Path("/dev/full")
PRINTING = """
import logging, sys
from xjepa_jax.processes.output import run_command
def main():
  for number in range({lines}):
    print("Łódź → café \\udcff", number)
  print("é", file=sys.stderr)
  logging.warning("ü")
  return {status}
run_command(main, optional={optional})
"""


def printing(lines: int = 1, status: int = 0, optional: bool = False) -> list[str]:
  """A command that prints some lines, and how it is started."""
  code = PRINTING.format(lines=lines, status=status, optional=optional)
  return [sys.executable, "-c", code]


def read_by_nobody(line: list[str]) -> tuple[int, str]:
  """Status and stderr of a program whose stdout is a pipe that was closed."""
  reading, writing = os.pipe()
  os.close(reading)
  try:
    ended = subprocess.run(
      line, stdout=writing, stderr=subprocess.PIPE, text=True, cwd=ROOT, timeout=120
    )
  finally:
    os.close(writing)
  return ended.returncode, ended.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_letters_that_a_terminal_lacks_are_escaped(encoding: str) -> None:
  ended = subprocess.run(
    printing(),
    capture_output=True,
    env={**os.environ, "PYTHONIOENCODING": encoding},
    cwd=ROOT,
    timeout=60,
  )
  expected = "Łódź → café \udcff 0\n".encode(encoding, "backslashreplace")
  assert (ended.returncode, ended.stdout) == (0, expected)
  assert ended.stderr.splitlines()[0] == "é".encode(encoding, "backslashreplace")


@pytest.mark.parametrize("status", [0, 3])
def test_a_reader_that_goes_after_the_first_line_ends_nothing(status: int) -> None:
  with subprocess.Popen(
    printing(lines=20_000, status=status),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    cwd=ROOT,
  ) as process:
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline().endswith(b" 0\n")
    process.stdout.close()
    said = process.stderr.read().decode()
    assert process.wait(60) == status
  assert said.splitlines() == ["é", "WARNING:root:ü"]


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_s_help_may_be_cut_by_its_reader(command: str) -> None:
  assert read_by_nobody([sys.executable, "-m", *command.split(), "--help"]) == (0, "")


@pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize(("optional", "status"), [(True, 0), (False, 1)])
@pytest.mark.parametrize("lines", [1, 20_000])
def test_a_full_disk_is_an_error_where_the_output_is_what_was_asked_for(
  optional: bool, status: int, lines: int
) -> None:
  with FULL.open("w") as full:
    ended = subprocess.run(
      printing(lines=lines, optional=optional),
      stdout=full,
      stderr=subprocess.PIPE,
      text=True,
      cwd=ROOT,
      timeout=60,
    )
  assert ended.returncode == status and "Traceback" not in ended.stderr
  said = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
  assert len(said) == status
  if said:
    assert "standard output cannot be written (No space left on device)" in said[0]


SIMULATE = "xjepa_jax.data.simulate --out nowhere --pairs 10 --size 16"
REPORTS = [
  *(f"{command} --help" for command in sorted(commands())),
  f"{SIMULATE} --dry-run",
  f"{SIMULATE} --dry",
  "xjepa_jax.main --config=configs/optical_sar.py --plan --topology=v5p-8",
]


@pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("line", REPORTS)
def test_a_report_that_is_all_that_was_asked_for_and_is_lost_is_an_error(line: str) -> None:
  with FULL.open("w") as full:
    ended = subprocess.run(
      [sys.executable, "-m", *line.split()],
      stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, timeout=300,
    )  # fmt: skip
  assert ended.returncode == 1 and "Traceback" not in ended.stderr
  said = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
  assert len(said) == 1 and "standard output cannot be written" in said[0]


@pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")
def test_stderr_that_takes_nothing_ends_nothing() -> None:
  with FULL.open("w") as full:
    ended = subprocess.run(
      printing(), stdout=subprocess.PIPE, stderr=full, text=True, cwd=ROOT, timeout=60
    )
  assert ended.returncode == 0 and ended.stdout.endswith(" 0\n")


def test_closed_streams_end_nothing() -> None:
  line = " ".join(["exec", '"$0"', '"$@"', ">&-", "2>&-"])
  ended = subprocess.run(["sh", "-c", line, *printing()], cwd=ROOT, timeout=60)
  assert ended.returncode == 0
