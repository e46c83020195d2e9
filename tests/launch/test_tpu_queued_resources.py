"""Several slices by a queued resource: what gcloud is asked, and how `watch` meets a preemption."""

from __future__ import annotations

import pytest

from tests.launch.stand_ins import StandIns

NAMED = ("--name", "my-run", "--zone", "us-east5-b")
SLICES = ("--accelerator", "v6e-16", "--slices", "2", "--spot")
WATCH = ("watch", *NAMED, *SLICES, "--poll", "0", "--shared", "10.0.0.2:/runs")
TRAIN = ("--", "--config=a.py")
QUEUED = ["gcloud", "compute", "tpus", "queued-resources"]
ZONE = "--zone=us-east5-b"
CREATE = [
  *[*QUEUED, "create", "my-run", "--accelerator-type=v6e-16", "--runtime-version=v2-alpha-tpuv6e"],
  *["--node-count=2", "--node-prefix=my-run", "--spot", ZONE],
]
DELETE = [*QUEUED, "delete", "my-run", "--force", "--quiet", ZONE]
STATE = "training.sh state 2>/dev/null || echo NONE"


def requests(state: str) -> tuple[str, str, int]:
  """gcloud's answer to the question which requests there are."""
  return ("queued-resources list", f"other\tACTIVE\nmy-run\t{state}\n", 0)


def verbs(calls: list[list[str]]) -> list[str]:
  """The calls in a word each, for an order that can be read."""
  words = []
  for call in calls:
    text = " ".join(call)
    if call[0] == "git":
      continue
    for part, word in (
      (STATE, "ask"),
      ("install.sh", "install"),
      ("training.sh start", "start"),
      ("training.sh again", "again"),
    ):
      if part in text:
        words.append(word)
        break
    else:
      words.append(call[4])
  return words


def test_several_slices_are_one_request(stand_ins: StandIns) -> None:
  made = stand_ins.run("tpu_queued_resources.sh", "create", *NAMED, *SLICES)
  assert made.calls == [CREATE]
  assert "This costs: 2 x v6e-16" in made.errors


def test_one_slice_is_called_as_the_request(stand_ins: StandIns) -> None:
  made = stand_ins.run("tpu_queued_resources.sh", "create", *NAMED, "--accelerator", "v5p-8")
  assert made.calls[0][5:] == [
    *["my-run", "--accelerator-type=v5p-8", "--runtime-version=v2-alpha-tpuv5"],
    *["--node-id=my-run", ZONE],
  ]


def test_a_run_starts_on_all_workers_of_all_slices(stand_ins: StandIns) -> None:
  ran = stand_ins.run("tpu_queued_resources.sh", "run", *NAMED, "--shared=10.0.0.2:/runs", *TRAIN)
  sent = (
    "--command=bash xjepa_jax/launch/worker/training.sh start --name my-run "
    "--shared 10.0.0.2:/runs -- --config=a.py"
  )
  assert ran.calls == [[*QUEUED, "ssh", "my-run", "--node=all", "--worker=all", sent, ZONE]]


def test_watch_installs_starts_and_ends_with_the_run(stand_ins: StandIns) -> None:
  stand_ins.answer(
    requests("WAITING_FOR_RESOURCES"),
    requests("PROVISIONING"),
    requests("ACTIVE"),
    requests("ACTIVE"),
    requests("ACTIVE"),
    (STATE, "NONE\n", 0),
    (STATE, "RUNNING\n", 0),
    (STATE, "DONE\n", 0),
  )
  watched = stand_ins.run("tpu_queued_resources.sh", *WATCH, *TRAIN)
  assert watched.status == 0, watched.errors
  assert verbs(watched.calls) == [
    *["list", "list", "list", "ask", "scp", "install", "start"],
    *["list", "ask", "list", "ask"],
  ]
  assert "is done" in watched.errors and "still there, and cost" in watched.errors


def test_watch_asks_again_after_a_preemption_and_goes_on(stand_ins: StandIns) -> None:
  stand_ins.answer(
    requests("SUSPENDED"),
    requests("ACTIVE"),
    (STATE, "NONE\n", 0),
    requests("ACTIVE"),
    (STATE, "DONE\n", 0),
    requests("ACTIVE"),
  )
  watched = stand_ins.run("tpu_queued_resources.sh", *WATCH, "--then-delete", *TRAIN)
  assert watched.status == 0, watched.errors
  assert verbs(watched.calls) == [
    *["list", "delete", "create"],
    *["list", "ask", "scp", "install", "start", "list", "ask"],
    *["list", "delete"],
  ]
  assert DELETE in watched.calls and CREATE in watched.calls


def test_watch_goes_on_where_deleting_or_asking_again_fails_for_a_moment(
  stand_ins: StandIns,
) -> None:
  gone = ("queued-resources list", "other\tACTIVE\n", 0)
  stand_ins.answer(
    requests("SUSPENDED"),
    ("queued-resources delete", "", 1),
    requests("SUSPENDED"),
    ("queued-resources create", "", 1),
    gone,
    ("queued-resources create", "", 1),  # but it was heard
    requests("ACTIVE"),
    (STATE, "DONE\n", 0),
  )
  watched = stand_ins.run("tpu_queued_resources.sh", *WATCH, *TRAIN)
  assert watched.status == 0, watched.errors
  assert verbs(watched.calls) == [
    *["list", "delete", "list", "delete", "create", "list", "create"],
    *["list", "ask"],
  ]


def test_watch_starts_again_what_was_stopped_and_waits_where_it_gets_no_answer(
  stand_ins: StandIns,
) -> None:
  stand_ins.answer(
    ("queued-resources list", "", 1),  # a network that is away for a moment
    requests("ACTIVE"),
    (STATE, "", 255),
    requests("ACTIVE"),
    (STATE, "STOPPED\n", 0),
    requests("ACTIVE"),
    (STATE, "DONE\n", 0),
  )
  watched = stand_ins.run("tpu_queued_resources.sh", *WATCH, *TRAIN)
  assert watched.status == 0, watched.errors
  assert verbs(watched.calls) == ["list", "list", "ask", "list", "ask", "again", "list", "ask"]


def test_watch_gives_up_where_the_training_has_and_after_too_many_preemptions(
  stand_ins: StandIns,
) -> None:
  stand_ins.answer(requests("ACTIVE"), (STATE, "FAILED 1\n", 0))
  failed = stand_ins.run("tpu_queued_resources.sh", *WATCH, *TRAIN)
  assert failed.status == 2 and "FAILED 1" in failed.errors
  assert verbs(failed.calls) == ["list", "ask"]
  stand_ins.answer(*[requests("SUSPENDED")] * 9)
  often = stand_ins.run("tpu_queued_resources.sh", *WATCH, "--recreate", "2", *TRAIN)
  assert often.status == 2 and "too often" in often.errors
  assert [call for call in often.calls if call[4] == "create"] == [CREATE, CREATE]


def test_watch_creates_nothing_that_was_not_asked_for(stand_ins: StandIns) -> None:
  stand_ins.answer(("queued-resources list", "other\tACTIVE\n", 0))
  watched = stand_ins.run("tpu_queued_resources.sh", *WATCH, *TRAIN)
  assert watched.status == 2 and "'create' it first" in watched.errors
  assert verbs(watched.calls) == ["list"]


def test_delete_twice_is_as_good_as_once(stand_ins: StandIns) -> None:
  stand_ins.answer(requests("ACTIVE"))
  assert DELETE in stand_ins.run("tpu_queued_resources.sh", "--delete", *NAMED).calls
  again = stand_ins.run("tpu_queued_resources.sh", "delete", *NAMED)
  assert again.status == 0 and "nothing to delete" in again.errors
  assert verbs(again.calls) == ["list"]


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    (("create", "--accelerator", "v6e-16", "--slices", "0"), "from 1"),
    (("create",), "--accelerator is missing"),
    (("run", "--shared", "none"), "for a single worker"),
    (("watch", "--accelerator", "v6e-16"), "HOST:/EXPORT"),
    (("wacht", "--accelerator", "v6e-16"), "did you mean 'watch'"),
  ],
)
def test_what_cannot_work_is_refused_before_anything_is_called(
  stand_ins: StandIns, arguments: tuple[str, ...], said: str
) -> None:
  refused = stand_ins.run("tpu_queued_resources.sh", *NAMED, *arguments, *TRAIN)
  assert refused.status == 2
  assert said in refused.errors
  assert not refused.calls
