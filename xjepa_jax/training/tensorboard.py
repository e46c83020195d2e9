"""Event files for TensorBoard, written without TensorFlow.

An event file is a TFRecord file of `Event` messages, the first of which names the format
(tensorflow/core/util/events_writer.cc).
"""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Mapping
from typing import Any, SupportsFloat

import numpy as np
from PIL import Image

from xjepa_jax.data import framing
from xjepa_jax.training.append_file import append, open_to_append

_BINS = 64


class TensorBoard:
  """Writes scalars, histograms and images for TensorBoard.

  Every event is on disk when the call returns. Other writers use a thread of their own; on a full
  disk such a thread dies unnoticed, and the run waits for it without end.
  """

  def __init__(self, directory: str, first: int = 0):
    """Begin a new event file.

    Args:
      directory: the folder of event files, created if missing; files of earlier starts stay.
      first: the first step that will be written; TensorBoard hides what earlier files hold at this
        step and later.
    """
    from tensorboardX.proto import event_pb2, summary_pb2

    self._event, self._summary = event_pb2, summary_pb2
    os.makedirs(directory, exist_ok=True)
    # The number of files keeps names apart if two begin in the same second.
    begun, before = int(time.time()), len(os.listdir(directory))
    name = f"events.out.tfevents.{begun:010}.{socket.gethostname()}.{os.getpid()}.{before}"
    self._file = open_to_append(f"{directory}/{name}")
    # The format comes first. The start record makes TensorBoard hide what earlier files have from
    # this step on.
    self._write(first, file_version="brain.Event:2")
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._write(first, session_log=start)

  def scalars(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
    """Write one curve per key; TensorBoard marks NaN and infinity."""
    self._show(step, {key: {"simple_value": float(value)} for key, value in values.items()})

  def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    """Write the distribution of each array's finite values; arrays without any are left out."""
    shown = {}
    for key, value in values.items():
      array = np.asarray(value, dtype=np.float64).ravel()
      finite = array[np.isfinite(array)]
      if finite.size:
        shown[key] = {"histo": self._histogram(finite)}
    self._show(step, shown)

  def images(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    """Write pictures, (H, W, 3) uint8."""
    self._show(step, {key: {"image": self._image(value)} for key, value in values.items()})

  def close(self) -> None:
    """Close the file; may be called twice."""
    self._file.close()

  def _show(self, step: int, shown: Mapping[str, dict[str, Any]]) -> None:
    for key, content in shown.items():
      value = self._summary.Summary.Value(tag=key, **content)
      self._write(step, summary=self._summary.Summary(value=[value]))

  def _write(self, step: int, **what: Any) -> None:
    event = self._event.Event(wall_time=time.time(), step=step, **what)
    append(self._file, framing.frame(event.SerializeToString()))

  def _histogram(self, values: np.ndarray) -> Any:
    counts, edges = np.histogram(values, bins=_BINS)
    return self._summary.HistogramProto(
      min=values.min(),
      max=values.max(),
      num=values.size,
      sum=values.sum(),
      sum_squares=np.square(values).sum(),
      bucket_limit=edges[1:].tolist(),
      bucket=counts.tolist(),
    )

  def _image(self, picture: np.ndarray) -> Any:
    array, file = np.ascontiguousarray(picture), io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    height, width, channels = array.shape
    return self._summary.Summary.Image(
      height=height, width=width, colorspace=channels, encoded_image_string=file.getvalue()
    )
