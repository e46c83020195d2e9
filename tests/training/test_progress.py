"""The progress line: rates without compiling and pauses, times left, bars and plain lines."""

from __future__ import annotations

import io

import pytest

from xjepa_jax.training.progress import Progress, duration


class Clock:
  """Seconds that pass when told to."""

  def __init__(self) -> None:
    self.now = 100.0

  def __call__(self) -> float:
    return self.now


class Terminal(io.StringIO):
  """A stream that says it is a terminal."""

  def isatty(self) -> bool:
    return True


def test_the_rate_leaves_out_compiling_and_pauses() -> None:
  clock = Clock()
  progress = Progress(1000, pairs=64, stream=io.StringIO(), clock=clock)
  clock.now += 300  # the first step compiles
  progress.update(1)
  assert progress.rate is None and progress.seconds_left is None and progress.scalars() == {}
  for step in range(2, 12):
    clock.now += 0.5
    progress.update(step)
    with progress.paused():
      clock.now += 60  # an evaluation
  assert progress.rate == pytest.approx(128)
  assert progress.seconds_left == pytest.approx((1000 - 11) * 0.5)


def test_the_rate_is_that_of_the_window() -> None:
  clock = Clock()
  progress = Progress(1000, pairs=10, window=5, stream=io.StringIO(), clock=clock)
  for step in range(1, 101):
    clock.now += 1.0 if step <= 95 else 0.1
    progress.update(step)
  assert progress.rate == pytest.approx(100)


def test_utilisation_is_the_share_of_the_peak_and_nothing_without_one() -> None:
  clock = Clock()
  progress = Progress(10, pairs=1, flops=2e12, peak=8e12, stream=io.StringIO(), clock=clock)
  unknown = Progress(10, pairs=1, flops=2e12, peak=None, stream=io.StringIO(), clock=clock)
  for step in (1, 2, 3):
    clock.now += 0.5
    progress.update(step)
    unknown.update(step)
  assert progress.utilisation == pytest.approx(0.5)
  assert progress.scalars() == pytest.approx({"pairs_per_second": 2.0, "mfu": 0.5})
  assert unknown.utilisation is None and "MFU" not in unknown.line()


def test_a_line_says_step_rate_time_left_losses_and_recall() -> None:
  clock = Clock()
  progress = Progress(1200, pairs=64, stream=io.StringIO(), clock=clock)
  progress.update(119)
  clock.now += 0.05
  progress.note({"validation/a->b/recall@1": 0.123, "validation/a->b/recall@10": 0.5})
  progress.update(120, {"loss/total": 0.51234, "loss/latent": 0.4, "loss/vicreg": 0.1, "x": 1.0})
  assert progress.line() == (
    "step 120/1,200  1,280 pairs/s  0:54 left  loss 0.5123 (latent 0.4, vicreg 0.1)  R@1 12.3%"
  )


def test_a_log_gets_a_line_now_and_then_and_the_last() -> None:
  clock, stream = Clock(), io.StringIO()
  with Progress(100, pairs=1, seconds=30, stream=stream, clock=clock) as progress:
    for step in range(1, 101):
      clock.now += 1
      progress.update(step)
  steps = [int(line.split()[1].split("/")[0]) for line in stream.getvalue().splitlines()]
  assert steps == [1, 31, 61, 91, 100]


def test_a_terminal_gets_a_bar_that_messages_do_not_tear() -> None:
  clock, stream = Clock(), Terminal()
  with Progress(10, pairs=8, first=4, stream=stream, clock=clock) as progress:
    for step in (5, 6):
      clock.now += 1
      progress.update(step, {"loss/total": 0.25})
    progress.message("saved")
  shown = stream.getvalue()
  assert "6/10" in shown and "\r" in shown
  assert "saved\n" in shown


@pytest.mark.parametrize(
  ("seconds", "text"),
  [(7, "0:07"), (750, "12:30"), (11_100, "3:05:00"), (59.6, "1:00"), (187_200, "2 d 04:00")],
)
def test_durations_read_like_a_clock(seconds: float, text: str) -> None:
  assert duration(seconds) == text
