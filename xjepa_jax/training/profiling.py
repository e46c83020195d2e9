"""A profile of some steps of a run; TensorBoard's profile plugin and XProf read it."""

from __future__ import annotations

import jax


class Profile:
  """Records the steps of a window, and ends with the run where that ends sooner.

  with Profile((10, 12), directory) as profile:
    for number in range(1, steps + 1):
      profile.before(number)
      ...
      profile.after(number)
  """

  def __init__(self, window: tuple[int, ...], directory: str):
    """Starts nothing yet.

    Args:
      window: first and last step, counted from 1; () is none.
      directory: where it is written.
    """
    self._window, self._directory = window, directory
    self._running = False

  def before(self, step: int) -> None:
    """Starts before the window's first step; a run that is continued within it starts there."""
    if self._window and not self._running and self._window[0] <= step <= self._window[1]:
      jax.profiler.start_trace(self._directory)
      self._running = True

  def after(self, step: int) -> None:
    """Stops after the window's last step."""
    if self._running and step >= self._window[1]:
      self._stop()

  def _stop(self) -> None:
    self._running = False
    jax.profiler.stop_trace()

  def __enter__(self) -> Profile:
    return self

  def __exit__(self, *_: object) -> None:
    if self._running:
      self._stop()
