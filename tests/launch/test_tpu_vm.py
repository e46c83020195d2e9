"""One slice of Cloud TPU: what is asked of gcloud, and what is refused before anything is asked."""

from __future__ import annotations

import shlex

import pytest

from tests.launch.stand_ins import ROOT, StandIns

NAMED = ("--name", "my-run", "--zone", "us-east5-b")
TPU = ["gcloud", "compute", "tpus", "tpu-vm"]
ZONE = "--zone=us-east5-b"


def test_create_names_the_version_that_belongs_to_the_accelerator_and_says_that_it_costs(
  stand_ins: StandIns,
) -> None:
  versions = {
    "v6e-16": "v2-alpha-tpuv6e",
    "v5p-24": "v2-alpha-tpuv5",
    "v5litepod-8": "v2-alpha-tpuv5-lite",
    "v4-8": "tpu-ubuntu2204-base",
  }
  for accelerator, version in versions.items():
    made = stand_ins.run("tpu_vm.sh", "create", *NAMED, "--accelerator", accelerator, "--spot")
    flags = [f"--accelerator-type={accelerator}", f"--version={version}", "--spot", ZONE]
    assert made.calls == [[*TPU, "create", "my-run", *flags]]
    assert "This costs" in made.errors and "--delete --name my-run" in made.errors


def test_install_sends_the_commit_to_all_workers(stand_ins: StandIns) -> None:
  stand_ins.answer(("status", " M xjepa_jax/run.py\n", 0))
  installed = stand_ins.run("tpu_vm.sh", "install", *NAMED)
  archive = f"{ROOT}/build/launch/xjepa_jax.tar.gz"
  unpack = (
    "if bash xjepa_jax/launch/worker/training.sh state 2>/dev/null | grep -qx RUNNING; then "
    "echo 'error: a training runs here from the code that would be replaced; stop it first' >&2; "
    "exit 1; fi && rm -rf xjepa_jax && mkdir xjepa_jax && "
    "tar -xzf xjepa_jax.tar.gz -C xjepa_jax && bash xjepa_jax/launch/worker/install.sh tpu"
  )
  assert installed.calls == [
    ["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no"],
    ["git", "-C", str(ROOT), "archive", "--format=tar.gz", f"--output={archive}", "HEAD"],
    [*TPU, "scp", archive, "my-run:xjepa_jax.tar.gz", "--worker=all", ZONE],
    [*TPU, "ssh", "my-run", "--worker=all", f"--command={unpack}", ZONE],
  ]
  assert "not committed is not installed: xjepa_jax/run.py" in installed.errors


def test_arguments_of_a_training_come_through_the_shell_of_the_worker(stand_ins: StandIns) -> None:
  arguments = ["--config=a.py:base", "--config.data.directories=('gs://b/c d',)", "--x=$HOME"]
  ran = stand_ins.run("tpu_vm.sh", "run", *NAMED, "--shared=gs://bucket", "--", *arguments)
  (call,) = ran.calls
  assert call[:6] == [*TPU, "ssh", "my-run"]
  assert call[6] == "--worker=all"
  assert shlex.split(call[7].removeprefix("--command=")) == [
    *["bash", "xjepa_jax/launch/worker/training.sh", "start"],
    *["--name", "my-run", "--shared", "gs://bucket", "--", *arguments],
  ]


@pytest.mark.parametrize(
  ("command", "worker", "sent"),
  [("resume", "all", "again"), ("tail", "0", "tail"), ("state", "all", "state")],
)
def test_other_commands_are_the_workers(
  stand_ins: StandIns, command: str, worker: str, sent: str
) -> None:
  ran = stand_ins.run("tpu_vm.sh", command, *NAMED)
  text = f"--command=bash xjepa_jax/launch/worker/training.sh {sent}"
  assert ran.calls == [[*TPU, "ssh", "my-run", f"--worker={worker}", text, ZONE]]


def test_delete_looks_first_and_does_nothing_where_nothing_is(stand_ins: StandIns) -> None:
  listing = [*TPU, "list", "--format=value(name.basename())", ZONE]
  stand_ins.answer(("list", "other\nmy-run\n", 0))
  deleted = stand_ins.run("tpu_vm.sh", "--delete", *NAMED)
  assert deleted.calls == [listing, [*TPU, "delete", "my-run", "--quiet", ZONE]]
  stand_ins.answer(("list", "my-run-2\n", 0))
  nothing = stand_ins.run("tpu_vm.sh", "--delete", *NAMED)
  assert nothing.status == 0
  assert nothing.calls == [listing]
  assert "nothing to delete" in nothing.errors


def test_a_slice_that_cannot_be_looked_for_is_not_taken_for_deleted(stand_ins: StandIns) -> None:
  stand_ins.answer(("list", "", 1))
  failed = stand_ins.run("tpu_vm.sh", "--delete", *NAMED)
  assert failed.status == 1
  assert "nothing to delete" not in failed.errors


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    (("--name", "My_Run"), "for example 'my-run'"),
    (("--name", "r" * 61), "at most 60 characters"),
    (("--name", "1st"), "for example 'st'"),
    (("--name", "run-"), "for example 'run'"),
    (("--zone", "us-east5"), "is a region; --zone takes a zone of it, such as 'us-east5-b'"),
    (("--zone", "US-EAST5-B"), "expected one such as"),
    (("--accelerator", "v6-16"), "did you mean 'v6e-16'"),
    (("--accelerator", "v5e-16"), "Cloud TPU calls it 'v5litepod-16'"),
    (("--accelerator", "v5p-12"), "did you mean 'v5p-128'"),
    (("--accelerator", "v4-9000"), "unknown accelerator"),
    (("--version", "v2-alpha-tpuv5e"), "did you mean 'v2-alpha-tpuv5'"),
    (("--version", "tpu-ubuntu2204-base"), "'v2-alpha-tpuv6e' is"),
    (("--name",), "needs a value"),
  ],
)
def test_what_cannot_work_is_refused_before_anything_is_called(
  stand_ins: StandIns, arguments: tuple[str, ...], said: str
) -> None:
  known = ("create", *NAMED, "--accelerator", "v6e-16")
  refused = stand_ins.run("tpu_vm.sh", *known, *arguments)
  assert refused.status == 2
  assert said in refused.errors
  assert not refused.calls


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    ((), "Give HOST:/EXPORT"),
    (("--shared", "/mnt/runs"), "Give HOST:/EXPORT"),
    (("--shared", "gs://b", "--", "--workdir=gs://b/run"), "leave it out"),
    (("--shared", "gs://b"), "nothing to train"),
  ],
)
def test_a_run_needs_a_directory_that_all_workers_see(
  stand_ins: StandIns, arguments: tuple[str, ...], said: str
) -> None:
  train = () if "nothing" in said or "--" in arguments else ("--", "--config=a.py")
  refused = stand_ins.run("tpu_vm.sh", "run", *NAMED, *arguments, *train)
  assert refused.status == 2
  assert said in refused.errors
  assert not refused.calls
