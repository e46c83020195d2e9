"""Where time went: every moment counted once, as the step's while one is under way."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xjepa_jax.training.goodput import ASIDE, KINDS, Goodput
from xjepa_jax.training.json_lines import read_history


class Machine:
  """A host and its devices, whose seconds pass when told to; it labels every second by itself."""

  def __init__(self) -> None:
    self.now = 0
    self.goodput = Goodput(clock=lambda: float(self.now))
    self.labels: list[str] = []  # what the host does, a second each
    self.busy: set[int] = set()  # seconds in which a step is under way
    self.free = 0  # when the last step given is done
    self.ends: list[int] = []  # of steps under way

  def passes(self, seconds: int, label: str = "other") -> None:
    for _ in range(seconds):
      self.labels.append(label)
      self.now += 1
      while self.ends and self.ends[0] == self.now:
        self.ends.pop(0)
        self.goodput.finished()

  def spends(self, seconds: int, kind: str) -> None:
    with self.goodput.spending(kind):
      self.passes(seconds, kind)

  def gives(self, step: int, seconds: int) -> None:
    self.goodput.giving(step)
    start = max(self.now, self.free)
    self.free = start + seconds
    self.busy |= set(range(start, self.free))
    self.ends.append(self.free)

  def expected(self) -> dict[str, float]:
    seen = ["steps" if t in self.busy else label for t, label in enumerate(self.labels)]
    return {kind: float(seen.count(kind)) for kind in KINDS}


LENGTHS = st.integers(1, 6)
TURNS = st.lists(
  st.tuples(st.lists(st.tuples(st.sampled_from((*ASIDE, "other")), LENGTHS), max_size=4), LENGTHS),
  max_size=6,
)


@settings(max_examples=200, deadline=None)
@given(turns=TURNS, rest=st.integers(0, 4))
def test_every_second_is_the_steps_while_one_is_under_way_and_else_what_the_host_does(
  turns: list[tuple[list[tuple[str, int]], int]], rest: int
) -> None:
  machine = Machine()
  with machine.goodput:
    for number, (host, length) in enumerate(turns, 1):
      for kind, seconds in host:
        if kind == "other":
          machine.passes(seconds)
        else:
          machine.spends(seconds, kind)
      machine.gives(number, length)
    machine.passes(rest)
    assert machine.goodput.seconds() == machine.expected()


def test_data_waited_for_behind_a_step_costs_nothing_and_beyond_it_what_is_left() -> None:
  machine = Machine()
  with machine.goodput:
    machine.spends(3, "data")  # before the first step there is none to hide behind
    machine.gives(1, 10)
    machine.spends(4, "data")
    machine.gives(2, 10)
    machine.spends(26, "data")
    machine.gives(3, 10)
    machine.passes(10)
    assert machine.goodput.seconds()["data"] == 3 + (4 + 26 - 20)
    scalars = machine.goodput.scalars()
    assert scalars["goodput/data_wait"] == pytest.approx(13 / 43)
    assert scalars["goodput/share"] == pytest.approx(30 / 43)
    machine.gives(4, 5)
    machine.passes(5)
    assert machine.goodput.scalars()["goodput/data_wait"] == 0
    assert machine.goodput.line() == "Goodput 72.9% of 0:48; the rest: data 27.1%"


def steps_of_a_second(goodput: Goodput, clock: list[float], first: int, last: int) -> None:
  for step in range(first, last + 1):
    goodput.giving(step)
    clock[0] += 1
    goodput.finished()


def test_steps_done_again_after_a_kill_are_lost_and_all_starts_are_added_up(tmp_path: Path) -> None:
  path, clock = str(tmp_path / "goodput.jsonl"), [0.0]
  with Goodput(path, clock=lambda: clock[0]) as killed:
    steps_of_a_second(killed, clock, 1, 10)
    killed.write()
    steps_of_a_second(killed, clock, 11, 13)
    written = Path(path).read_bytes()
  Path(path).write_bytes(written + b'{"step": 13, "st')  # nothing more was written whole
  with Goodput(path, clock=lambda: clock[0]) as goodput:
    with goodput.spending("restore"):
      clock[0] += 4
    steps_of_a_second(goodput, clock, 7, 12)
    totals = goodput.totals()
    assert goodput.line().startswith("Goodput 60.0% of 0:20 in 2 starts; the rest: ")
  assert {kind: seconds for kind, seconds in totals.items() if seconds} == {
    "steps": 10 + 2,
    "repeated": 4,
    "restore": 4,
  }
  with Goodput(path, clock=lambda: clock[0]) as third:
    assert third.totals() == totals
  steps = [row["step"] for row in read_history(path)]
  assert steps == [10, 10, 12, 12]  # after ten, when restored, and at the end of the two others


def test_what_took_a_second_is_written_at_once(tmp_path: Path) -> None:
  path, clock = str(tmp_path / "goodput.jsonl"), [0.0]
  with Goodput(path, clock=lambda: clock[0]) as goodput:
    for seconds in (0.5, 30.0):
      with goodput.spending("compile"):
        clock[0] += seconds
    (row,) = read_history(path)
    assert (row["step"], row["compile"]) == (0, 30.5)


@dataclasses.dataclass
class Seen:
  """What polling saw of a step and of the wait beside it, by `time.monotonic`.

  Attributes:
    given: when the step was.
    unready, ready: when it was last seen under way, and first seen done.
    ended: when the wait was over.
  """

  given: float
  unready: float
  ready: float
  ended: float


def polled(results: Any, seconds: float) -> tuple[float, float]:
  """Waits until a step is done, and for some seconds more; see `Seen`."""
  unready = time.monotonic()
  while not results.is_ready():
    unready = time.monotonic()
    time.sleep(0.001)
  ready = time.monotonic()
  time.sleep(seconds)
  return unready, ready


def test_real_steps_are_timed_by_when_they_run_and_not_by_when_they_are_given() -> None:
  turns = 400

  @jax.jit
  def step(x: jax.Array) -> jax.Array:
    return jax.lax.fori_loop(0, turns, lambda _, y: jnp.tanh(y @ y), x)

  results = step(jnp.eye(256))
  results.block_until_ready()
  with Goodput() as goodput:
    seen = []
    for number in range(1, 4):
      goodput.giving(number)
      given = time.monotonic()
      results = step(results)
      goodput.given(results)
      with goodput.spending("data"):
        times = polled(results, 1.0)
      seen.append(Seen(given, *times, time.monotonic()))
    goodput.giving(4)
    found = goodput.seconds()
    goodput.given(results)
  under_way = sum(each.unready - each.given for each in seen)
  idle = sum(each.ended - each.ready for each in seen)
  assert under_way > 0.005 and idle >= 3
  assert found["steps"] >= under_way
  assert found["data"] >= idle / 4  # of the rest, the thread may have been late to see the end
  assert found["data"] <= sum(each.ended - each.unready for each in seen)
