"""The progress of a run: a bar on a terminal, or a line now and then in a log.

with Progress(total=1000, pairs=64, first=step) as progress:
  for step, batch in batches:
    ...
    progress.update(step + 1, scalars)      # scalars only at steps that fetched some
    if step in evaluations:
      with progress.paused():
        progress.note(retrieval)
"""

from __future__ import annotations

import collections
import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, SupportsFloat, TextIO

from tqdm import tqdm

from xjepa_jax.processes import barriers, log

_BAR = "{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}{postfix}"


class Progress:
  """Counts steps, measures their rate and shows the state of the run.

  The clock starts at the first `update`, after the first step, so that compilation does not count
  towards the rate; nor do pauses.
  """

  def __init__(
    self,
    total: int,
    pairs: int,
    *,
    first: int = 0,
    flops: float = 0.0,
    peak: float | None = None,
    window: int = 50,
    seconds: float = 30.0,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Prepare without showing anything.

    Args:
      total: steps of the whole run.
      pairs: pairs in a global batch.
      first: steps already done, in a run that is resumed.
      flops: operations of a step, as `flops.step` counts them; 0 is unknown.
      peak: peak FLOP/s of all devices together, or None where unknown.
      window: number of updates over which the rate is measured.
      seconds: time between lines where `stream` is not a terminal.
      stream: where progress is shown; None is stderr.
      clock: returns seconds; replaced in tests.
    """
    self.total, self.pairs = total, pairs
    self.step = first
    self._first, self._flops, self._peak = first, flops, peak
    self._seconds, self._clock = seconds, clock
    self._stream = stream or sys.stderr
    self._times: collections.deque[tuple[float, int]] = collections.deque(maxlen=window + 1)
    self._asleep = 0.0  # seconds of pauses
    self._said: float | None = None
    self._known: dict[str, float] = {}
    self._bar: Any = None
    if _shows_bars(self._stream):
      self._bar = tqdm(
        total=total, initial=first, file=self._stream, bar_format=_BAR, dynamic_ncols=True
      )

  def update(self, step: int, scalars: Mapping[str, SupportsFloat] | None = None) -> None:
    """Record that `step` steps are done, with their scalars, and show it when it is time.

    Args:
      step: updates done so far; `total` at the end.
      scalars: as written to `metrics.jsonl`. Shown are "loss/total", "loss/<term>", and retrieval
        such as "validation/a->b/recall@1".
    """
    self.step = step
    self._times.append((self._clock() - self._asleep, step))
    self.note(scalars or {})
    self._show()

  def note(self, scalars: Mapping[str, SupportsFloat]) -> None:
    """Record scalars such as those of an evaluation; they show from the next line on."""
    self._known.update({key: float(value) for key, value in scalars.items()})

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Exclude the time inside from the rate: evaluations, checkpoints, compilation."""
    start = self._clock()
    try:
      yield
    finally:
      self._asleep += self._clock() - start

  @property
  def rate(self) -> float | None:
    """Pairs per second over the window, or None before two updates."""
    steps = self._steps_a_second()
    return None if steps is None else steps * self.pairs

  @property
  def utilisation(self) -> float | None:
    """Model FLOPs utilisation as a share of `peak`, or None where it is unknown."""
    steps = self._steps_a_second()
    return steps * self._flops / self._peak if steps and self._flops and self._peak else None

  @property
  def seconds_left(self) -> float | None:
    """Seconds to the last step at the present rate, without pauses; None before two updates."""
    steps = self._steps_a_second()
    return (self.total - self.step) / steps if steps else None

  def scalars(self) -> dict[str, float]:
    """Return "pairs_per_second" and "mfu", where known, for the metric writers."""
    found = {"pairs_per_second": self.rate, "mfu": self.utilisation}
    return {key: value for key, value in found.items() if value is not None}

  def line(self) -> str:
    """Return the whole state in one line."""
    return f"step {self.step:,}/{self.total:,}  " + "  ".join(self._parts())

  def message(self, text: str) -> None:
    """Show a line of text without breaking the bar, and write it to the log."""
    log.note(text)
    self._print(text)

  def _print(self, text: str) -> None:
    if self._bar is None:
      print(text, file=self._stream, flush=True)
    else:
      self._bar.write(text, file=self._stream)

  def close(self) -> None:
    """Leave the bar as it is and release the terminal."""
    if self._bar is not None:
      self._bar.close()
      self._bar = None

  def __enter__(self) -> Progress:
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self.close()

  def _steps_a_second(self) -> float | None:
    if len(self._times) < 2:
      return None
    (start, first), (stop, last) = self._times[0], self._times[-1]
    return (last - first) / (stop - start) if stop > start else None

  def _show(self) -> None:
    if self._bar is not None:
      self._bar.set_postfix_str("  ".join(self._parts()), refresh=False)
      self._bar.update(self.step - self._bar.n)
      return
    now = self._clock()
    if self._said is None or now - self._said >= self._seconds or self.step >= self.total:
      self._said = now
      self._print(self.line())

  def _parts(self) -> Iterator[str]:
    rate, left, share = self.rate, self.seconds_left, self.utilisation
    if rate is not None and left is not None:
      yield f"{_brief(rate)} pairs/s"
      yield f"{duration(left)} left"
    if share is not None:
      yield f"MFU {share:.1%}"
    if any(key.startswith("loss/") for key in self._known):
      yield _losses(self._known)
    yield from _recalls(self._known)


def say(line: str) -> None:
  """Show a message where there is no `Progress`; of several processes, only the first prints it."""
  log.note(line)
  if barriers.is_first():
    print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
  """Format seconds for people: "0:07", "12:30", "3:05:00", "2 d 04:00"."""
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  days, hours = divmod(hours, 24)
  if days:
    return f"{days} d {hours:02}:{minutes:02}"
  return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _shows_bars(stream: TextIO) -> bool:
  """Whether the stream is a terminal with a width; one in a container may have none."""
  if not stream.isatty():
    return False
  try:
    return os.get_terminal_size(stream.fileno()).columns > 0
  except (OSError, ValueError):  # not a file of the system, such as a notebook's stream
    return True


def _brief(number: float) -> str:
  if not math.isfinite(number):
    return str(number)
  return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _losses(known: Mapping[str, float]) -> str:
  terms = {
    key.removeprefix("loss/"): value for key, value in known.items() if key.startswith("loss/")
  }
  total = terms.pop("total", None)
  text = ", ".join(f"{name} {value:.4g}" for name, value in terms.items())
  if total is None:
    return text
  return f"loss {total:.4g} ({text})" if len(terms) > 1 else f"loss {total:.4g}"


def _recalls(known: Mapping[str, float]) -> Iterator[str]:
  # "validation/a->b/recall@1" belongs to the main head; keys of other heads have one more part.
  found = [value for key, value in known.items() if key.split("/")[2:] == ["recall@1"]]
  if found:
    yield "R@1 " + " ".join(f"{value:.1%}" for value in found)
