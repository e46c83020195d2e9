"""Profiles of some steps of a run, readable by TensorBoard's profile plugin and XProf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from xjepa_jax.processes import barriers, profile_signal


class Profile:
  """Records the steps of a window, and more steps whenever SIGUSR1 asks for them.

  A profile that fails is reported and does not end a run.

  with Profile((10, 12), 5, directory, print) as profile:
    for number in range(1, steps + 1):
      profile.before(number)
      metrics = step(...)
      profile.after(number, metrics)
  """

  def __init__(
    self, window: tuple[int, ...], steps: int, directory: str, tell: Callable[[str], None]
  ):
    """Prepare without starting.

    Args:
      window: first and last step, counted from 1; () for none.
      steps: number of steps recorded when SIGUSR1 asks.
      directory: where profiles are written. Each of several processes gets a folder of its own in
        it, because those on one machine would write the same file.
      tell: shows a message to the user.
    """
    self._window, self._steps, self._tell = window, steps, tell
    self._directory = directory
    if barriers.processes() > 1:
      self._directory = f"{directory}/process-{barriers.process()}"
    self._first: int | None = None  # first of the steps being recorded
    self._last = self._done = 0

  def before(self, step: int) -> None:
    """Start recording if the step is in the window, also when resumed inside it, or on request."""
    if self._first is not None:
      return
    if self._window and self._window[0] <= step <= self._window[1]:
      self._start(step, self._window[1])
    elif profile_signal.wanted():
      self._start(step, step + self._steps - 1)

  def after(self, step: int, results: Any) -> None:
    """Stop after the last step, once its results are ready."""
    self._done = step
    if self._first is not None and step >= self._last:
      jax.block_until_ready(results)
      self._stop()

  def _start(self, first: int, last: int) -> None:
    try:
      jax.profiler.start_trace(self._directory)
    except Exception as error:  # RuntimeError, and errors of the platform's own profiler
      self._window = ()
      self._tell(f"No profile of the steps from {first:,} on: {error}")
      return
    self._first, self._last = first, last

  def _stop(self) -> None:
    first, self._first = self._first or 0, None
    steps = f"the steps {first:,} to {max(self._done, first):,}"
    try:
      jax.profiler.stop_trace()
    except Exception as error:  # as above, and a full disk
      self._window = ()
      self._tell(
        f"No profile of {steps} in {self._directory}, nor any other until the run is started "
        f"again: {error}"
      )
      return
    self._tell(f"Profile of {steps}: {self._directory}")

  def __enter__(self) -> Profile:
    return self

  def __exit__(self, *_: object) -> None:
    if self._first is not None:
      self._stop()
