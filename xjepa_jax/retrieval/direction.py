"""Who asks and who is searched: one direction of an evaluation."""

from __future__ import annotations

import dataclasses

import numpy as np

from xjepa_jax.retrieval.ranking import NOTHING

# What is no answer to a query: its own image; or all images of its scene, the other sensor's too.
LEAVE_OUT = ("query", "scene")


@dataclasses.dataclass(frozen=True)
class Direction:
  """Scenes that ask in one sensor, and scenes that are searched in another or the same.

  Attributes:
    query, archive: sensors.
    asking: (Q,) int, scenes in rising order.
    found: (A,) int, the same.
    leave_out: one of LEAVE_OUT.
  """

  query: str
  archive: str
  asking: np.ndarray
  found: np.ndarray
  leave_out: str = "query"

  @property
  def across(self) -> bool:
    """Whether the sensors differ."""
    return self.query != self.archive

  @property
  def located(self) -> bool:
    """Whether the query's own scene is an answer, and so R@k and MRR can be measured."""
    return self.across and self.leave_out == "query"

  @property
  def own(self) -> np.ndarray:
    """(Q,) int, where in the archive the query's scene is, or -1."""
    where = np.searchsorted(self.found, self.asking).clip(max=len(self.found) - 1)
    return np.where(self.found[where] == self.asking, where, NOTHING)

  @property
  def exclude(self) -> np.ndarray:
    """(Q,) int, the archive index left out, or -1 for none."""
    return np.full(len(self.asking), NOTHING) if self.located else self.own

  @property
  def answers(self) -> np.ndarray:
    """(Q,) int, how many answers there are to rank."""
    return len(self.found) - (self.exclude != NOTHING)
