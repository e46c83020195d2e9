"""Programs of the cloud that do nothing but write down how they were called."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"
_PROGRAM = """#!{python} -ISE
import json, os, sys
folder = os.path.dirname(os.path.abspath(__file__))
name = os.path.basename(__file__)
stdin = "" if sys.stdin.isatty() else sys.stdin.read()
with open(folder + "/calls", "a") as file:
  file.write(json.dumps({{"words": [name, *sys.argv[1:]], "stdin": stdin}}) + "\\n")
if os.path.exists(folder + "/answers"):
  with open(folder + "/answers") as file:
    answers = json.load(file)
  for number, (part, output, status) in enumerate(answers):
    if part in " ".join([name, *sys.argv[1:]]):
      with open(folder + "/answers", "w") as file:
        json.dump(answers[:number] + answers[number + 1:], file)
      sys.stdout.write(output)
      sys.exit(status)
"""


@dataclasses.dataclass(frozen=True)
class Finished:
  """What a script did: its status, what it printed, and which programs it called with what."""

  status: int
  output: str
  errors: str
  calls: list[list[str]]
  inputs: list[str]


class StandIns:
  """A folder that comes first in PATH, with a stand-in for each program that reaches out."""

  NAMES = ("gcloud", "kubectl", "docker", "git", "sbatch", "scancel", "sudo", "gcsfuse")

  def __init__(self, folder: Path, names: Sequence[str] = NAMES):
    self.folder = folder
    for name in names:
      path = folder / name
      path.write_text(_PROGRAM.format(python=sys.executable))
      path.chmod(0o755)

  def answer(self, *answers: tuple[str, str, int]) -> None:
    """Each is used once, by the first call with its words in it: (words, output, status)."""
    (self.folder / "answers").write_text(json.dumps(answers))

  def run(self, script: str, *arguments: str, seconds: float = 60, **environment: str) -> Finished:
    """Runs a script of launch/."""
    calls = self.folder / "calls"
    calls.unlink(missing_ok=True)
    ended = subprocess.run(
      ["bash", str(LAUNCH / script), *arguments],
      env={**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}", **environment},
      capture_output=True,
      text=True,
      stdin=subprocess.DEVNULL,
      timeout=seconds,
    )
    made = [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []
    return Finished(
      ended.returncode,
      ended.stdout,
      ended.stderr,
      [each["words"] for each in made],
      [each["stdin"] for each in made],
    )
