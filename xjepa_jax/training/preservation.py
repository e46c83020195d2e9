"""The policy that decides which checkpoints are kept."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Preservation:
  """A preservation policy for Orbax: the last few checkpoints, every n-th step, and the best.

  Joining Orbax's own policies would do, except for the best one: `BestN` fails on checkpoints whose
  metrics lack the key, and it ranks NaN anywhere.

  Attributes:
    last: number of most recent checkpoints to keep.
    every: checkpoints at multiples of this step are kept for good; 0 keeps none for this reason.
    best: metric by which one more is kept, "" for none. Checkpoints without it are not considered.
    mode: "max" if a larger metric is better, or "min".
  """

  last: int
  every: int = 0
  best: str = ""
  mode: str = "max"

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any = None) -> list[bool]:
    """Return whether each checkpoint is kept; checkpoints are in the order of their steps."""
    del context
    kept = {info.step for info in checkpoints[-self.last :]}
    if self.every:
      kept |= {info.step for info in checkpoints if info.step % self.every == 0}
    kept.add(self.best_step(checkpoints))
    return [info.step in kept for info in checkpoints]

  def best_step(self, checkpoints: Sequence[Any]) -> int | None:
    """Return the step of the best checkpoint, the later of equals; None if none has the metric."""
    ranked = [
      (float(info.metrics[self.best]) * (1 if self.mode == "max" else -1), info.step)
      for info in checkpoints
      if info.metrics
      and self.best in info.metrics
      and math.isfinite(float(info.metrics[self.best]))
    ]
    return max(ranked)[1] if ranked else None
