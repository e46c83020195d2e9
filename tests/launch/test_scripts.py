"""All scripts of launch/: shellcheck, help, and dry runs that say what runs call."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.stand_ins import LAUNCH, ROOT, StandIns

SOURCED = ("commands.sh", "tpu_names.sh", "tpu_workers.sh")
SCRIPTS = (
  "local.sh",
  "supervise.sh",
  "tpu_vm.sh",
  "tpu_queued_resources.sh",
  "gke/train.sh",
  "slurm/train.sbatch",
  "worker/install.sh",
  "worker/training.sh",
)
TPU = ("--name", "my-run", "--zone", "us-east5-b")
SLICES = ("--accelerator", "v6e-16", "--slices", "2")
TRAIN = ("--", "--config=configs/optical_sar.py:base", "--config.data.directories=('gs://b/c d',)")
GKE = ("--image", "us-docker.pkg.dev/p/i/x:1", "--claim", "share")
COMMANDS = (
  ("tpu_vm.sh", "create", *TPU, "--accelerator", "v5p-24", "--spot", "--with=--network=n"),
  ("tpu_vm.sh", "install", *TPU),
  ("tpu_vm.sh", "run", *TPU, "--shared", "10.0.0.2:/runs", *TRAIN),
  ("tpu_vm.sh", "resume", *TPU),
  ("tpu_vm.sh", "tail", *TPU, "--worker", "3"),
  ("tpu_vm.sh", "state", *TPU),
  ("tpu_vm.sh", "stop", *TPU),
  ("tpu_queued_resources.sh", "create", *TPU, *SLICES, "--project", "my-project"),
  ("tpu_queued_resources.sh", "install", *TPU),
  ("tpu_queued_resources.sh", "run", *TPU, "--shared", "gs://bucket", *TRAIN),
  ("tpu_queued_resources.sh", "resume", *TPU),
  ("tpu_queued_resources.sh", "tail", *TPU, "--node", "1"),
  ("tpu_queued_resources.sh", "state", *TPU),
  ("tpu_queued_resources.sh", "stop", *TPU),
  ("gke/train.sh", "image", "--devices", "tpu", *GKE[:2]),
  ("gke/train.sh", "tail", "--name", "my-run", "--namespace", "team"),
  ("gke/train.sh", "state", "--name", "my-run"),
  ("gke/train.sh", "--delete", "--name", "my-run"),
  ("slurm/train.sbatch", "--name", "my-run", "--nodes", "2", "--gpus", "4", *TRAIN),
  ("slurm/train.sbatch", "--delete", "--name", "my-run"),
)


def test_shellcheck_has_nothing_to_say() -> None:
  shellcheck = shutil.which("shellcheck") or str(Path(sys.executable).with_name("shellcheck"))
  if not Path(shellcheck).exists():
    pytest.skip("shellcheck is not installed")
  names = [*SCRIPTS, *SOURCED]
  assert sorted(names) == sorted(
    str(path.relative_to(LAUNCH)) for path in LAUNCH.rglob("*") if path.suffix in (".sh", ".sbatch")
  )
  checked = subprocess.run(
    [shellcheck, "--external-sources", *(f"launch/{name}" for name in names)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_has_an_example_and_calls_nothing(script: str, stand_ins: StandIns) -> None:
  helped = stand_ins.run(script, "--help")
  assert helped.status == 0, helped.errors
  assert "example" in helped.output and script in helped.output
  assert "#" not in helped.output
  assert not helped.calls


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_a_dry_run_prints_what_a_run_calls(command: tuple[str, ...], stand_ins: StandIns) -> None:
  script, *arguments = command
  printed = stand_ins.run(script, "--dry-run", *arguments)
  assert printed.status == 0, printed.errors
  assert [call for call in printed.calls if "status" not in call] == []
  run = stand_ins.run(script, *arguments)
  assert run.status == 0, run.errors
  assert run.calls
  assert [shlex.split(line) for line in printed.output.splitlines()] == [
    call for call in run.calls if "status" not in call
  ]


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script != "worker/training.sh"])
def test_an_unknown_option_is_refused(script: str, stand_ins: StandIns) -> None:
  refused = stand_ins.run(script, "--nmae", "x", "--", "true")
  assert refused.status == 2
  assert "nmae" in refused.errors
  assert not refused.calls


def test_gcloud_itself_accepts_every_command_line(stand_ins: StandIns, tmp_path: Path) -> None:
  gcloud = shutil.which("gcloud")
  if gcloud is None:
    pytest.skip("gcloud is not installed; its own parser checks the command lines where it is")
  deleting = [("--delete", *TPU), ("watch", *TPU, *SLICES, "--shared", "gs://bucket", *TRAIN)]
  commands = [
    *(command for command in COMMANDS if command[0].startswith("tpu_")),
    ("tpu_vm.sh", *deleting[0]),
    *(("tpu_queued_resources.sh", *each) for each in deleting),
  ]
  lines = {
    line
    for script, *arguments in commands
    for line in stand_ins.run(script, "--dry-run", *arguments).output.splitlines()
    if line.startswith("gcloud ")
  }
  listed = tmp_path / "commands.json"
  # The linter splits at spaces: what is sent to the workers is for their shell, and not looked at.
  plain = {
    " ".join("--command=x" if word.startswith("--command=") else word for word in shlex.split(line))
    for line in lines
  }
  listed.write_text(json.dumps([{"command_string": line} for line in sorted(plain)]))
  checked = subprocess.run(
    [gcloud, "meta", "lint-gcloud-commands", f"--commands-file={listed}"],
    env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "CLOUDSDK_CONFIG": str(tmp_path)},
    capture_output=True,
    text=True,
    timeout=280,
  )
  results = json.loads(checked.stdout)
  assert len(results) == len(plain) > 10
  refused = {
    each["command_string"]: each["error_message"] for each in results if not each["success"]
  }
  assert not refused
