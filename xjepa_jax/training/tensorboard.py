"""Event files for TensorBoard, written without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import SupportsFloat

import numpy as np


class TensorBoard:
  """Scalars, histograms and images as TensorBoard shows them."""

  def __init__(self, directory: str, first: int = 0):
    """Begins a new event file.

    Args:
      directory: of event files; files of earlier starts stay.
      first: the first step that will be written; TensorBoard leaves out what earlier files have
        at this step and after.
    """
    from tensorboardX import SummaryWriter

    self._writer = SummaryWriter(directory, purge_step=first, flush_secs=30)

  def scalars(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
    """One curve a key; NaN and infinity are marked there."""
    for key, value in values.items():
      self._writer.add_scalar(key, float(value), step)

  def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    """The distribution of the finite values of each array; nothing of one that has none."""
    for key, value in values.items():
      array = np.asarray(value, dtype=np.float64).ravel()
      finite = array[np.isfinite(array)]
      if finite.size:
        self._writer.add_histogram(key, finite, step)

  def images(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    """Pictures, (H, W, 3) uint8."""
    for key, value in values.items():
      self._writer.add_image(key, np.asarray(value), step, dataformats="HWC")

  def close(self) -> None:
    """Writes what waits and ends the writing thread."""
    self._writer.close()
