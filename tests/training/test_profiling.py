"""Profiles of a window's steps and of those after SIGUSR1, as XProf and TensorBoard read them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from xjepa_jax.processes import barriers, preemption, profile_signal
from xjepa_jax.training.profiling import Profile


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
  before = signal.getsignal(signal.SIGUSR1)
  profile_signal.heed()
  yield
  profile_signal.wanted()
  signal.signal(signal.SIGUSR1, before)


def profiled(folder: Path) -> list[int]:
  """Numbers of the steps that the only profile below a folder shows, by JAX's own reader."""
  (path,) = folder.glob("plugins/profile/*/*.xplane.pb")
  return sorted(
    int(dict(event.stats)["step_num"])
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes
    for line in plane.lines
    for event in line.events
    if event.name == "train"
  )


def run(profile: Profile, steps: int, asked_after: int = 0) -> None:
  """Steps of a small program, with SIGUSR1 after one of them."""
  step = jax.jit(lambda x: x @ x)
  with profile:
    for number in range(1, steps + 1):
      profile.before(number)
      with jax.profiler.StepTraceAnnotation("train", step_num=number):
        results = step(jnp.eye(8))
      profile.after(number, results)
      if number == asked_after:
        os.kill(os.getpid(), signal.SIGUSR1)


def test_sigusr1_profiles_the_next_steps_and_disturbs_no_stop(tmp_path: Path) -> None:
  told: list[str] = []
  with preemption.heeding(), preemption.stepping():
    run(Profile((), 2, str(tmp_path), told.append), 6, asked_after=2)
    assert not preemption.agreed(6)
  assert told == [f"Profile of the steps 3 to 4: {tmp_path}"]
  assert profiled(tmp_path) == [3, 4]


def test_a_window_is_profiled_and_one_that_is_longer_than_the_run_ends_with_it(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  told: list[str] = []
  monkeypatch.setattr(barriers, "processes", lambda: 2)
  monkeypatch.setattr(barriers, "process", lambda: 1)
  run(Profile((4, 9), 2, str(tmp_path), told.append), 5)
  assert told == [f"Profile of the steps 4 to 5: {tmp_path}/process-1"]
  assert profiled(tmp_path / "process-1") == [4, 5]


def test_a_profile_that_cannot_be_made_is_told_of_once_and_the_run_goes_on(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  told: list[str] = []
  jax.profiler.start_trace(str(tmp_path / "other"))
  run(Profile((2, 4), 2, str(tmp_path), told.append), 5)
  jax.profiler.stop_trace()
  (said,) = told
  assert said.startswith("No profile of the steps from 2 on: ")
  assert not (tmp_path / "plugins").exists()
