"""One direction of an evaluation: the query sensor and scenes, the archive sensor and scenes.

Scenes are numbers in increasing order on both sides, so that a query's own scene is found by binary
search. Whether that scene is the answer or is left out depends on the sensors and the protocol.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from xjepa_jax.retrieval.ranking import NOTHING

# What is not ranked for a query: its own image, or every image of its scene in either sensor.
LEAVE_OUT = ("query", "scene")


@dataclasses.dataclass(frozen=True)
class Direction:
  """Query scenes in one sensor, and archive scenes in another sensor or the same one.

  Attributes:
    query, archive: sensors.
    asking: (Q,) int, scene numbers of the queries, increasing.
    found: (A,) int, scene numbers of the archive, increasing.
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
    """Whether the query's own scene can be found, so that R@k and MRR are defined."""
    return self.across and self.leave_out == "query"

  @property
  def own(self) -> np.ndarray:
    """(Q,) int, archive index of the query's own scene, or -1."""
    # A number beyond the last scene is clipped to it, and the comparison then rejects it.
    where = np.searchsorted(self.found, self.asking).clip(max=len(self.found) - 1)
    return np.where(self.found[where] == self.asking, where, NOTHING)

  @property
  def exclude(self) -> np.ndarray:
    """(Q,) int, archive index that is left out, or -1 for none."""
    return np.full(len(self.asking), NOTHING) if self.located else self.own

  @property
  def answers(self) -> np.ndarray:
    """(Q,) int, number of answers that are ranked for each query."""
    return len(self.found) - (self.exclude != NOTHING)
