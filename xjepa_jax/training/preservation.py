"""Which checkpoints are kept."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Preservation:
  """A preservation policy of Orbax: the last ones, every so many steps, and the best.

  Orbax's own policies joined would do but for the best: `BestN` fails on checkpoints whose metrics
  lack the key and ranks NaN anywhere.

  Attributes:
    last: so many of the last.
    every: steps whose multiples are kept for good; 0 keeps none for that.
    best: metric by which one more is kept, "" for none. Checkpoints without it do not take part.
    mode: "max" if a larger metric is better, or "min".
  """

  last: int
  every: int = 0
  best: str = ""
  mode: str = "max"

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any = None) -> list[bool]:
    """For each checkpoint, in the order of steps, whether it stays."""
    del context
    kept = {info.step for info in checkpoints[-self.last :]}
    if self.every:
      kept |= {info.step for info in checkpoints if info.step % self.every == 0}
    kept.add(self.best_step(checkpoints))
    return [info.step in kept for info in checkpoints]

  def best_step(self, checkpoints: Sequence[Any]) -> int | None:
    """The step of the best checkpoint, the later of equals; None if no metric was ever given."""
    ranked = [
      (float(info.metrics[self.best]) * (1 if self.mode == "max" else -1), info.step)
      for info in checkpoints
      if info.metrics
      and self.best in info.metrics
      and math.isfinite(float(info.metrics[self.best]))
    ]
    return max(ranked)[1] if ranked else None
