"""Values hidden by the nodata that a file declares, where it differs from its sensor's nodata."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from xjepa_jax.sensors import Sensor, possible_value


def hidden_by_declared(
  sensor: Sensor, values: np.ndarray, declared: Sequence[float | None]
) -> np.ndarray | None:
  """Mask of the values that a file's own nodata hides, by the rule of `Sensor.known`.

  A nodata value that no measurement can give hides its band's value. One that a measurement can
  give hides a pixel only where every band has the value declared for it.

  Args:
    sensor: sensor of the values, with the scaling that the file has.
    values: (H, W, C) as the file stores them.
    declared: nodata value of each band, or None where nothing is declared.

  Returns:
    (H, W, 1) or (H, W, C) bool, True where hidden; None if this hides nothing that `Sensor.known`
    does not already hide.
  """
  if all(_says_nothing(each, sensor, values.dtype) for each in declared):
    return None
  marked = np.stack([_equal(values[..., i], each) for i, each in enumerate(declared)], axis=-1)
  certain = [each is not None and not possible_value(sensor, each) for each in declared]
  if not marked.any():
    return None
  hidden: np.ndarray = (marked & np.array(certain)) | marked.all(axis=-1, keepdims=True)
  return hidden if hidden.any() else None


def representable(value: float, dtype: str) -> bool:
  """Whether the type can hold this value; floats can hold any, rounded to their precision."""
  if dtype.startswith("float"):
    return True
  limits = np.iinfo(dtype)
  return float(value).is_integer() and limits.min <= value <= limits.max


def _says_nothing(declared: float | None, sensor: Sensor, dtype: np.dtype) -> bool:
  if declared is None or math.isnan(declared) or not representable(declared, dtype.name):
    return True
  return sensor.nodata is not None and declared == sensor.nodata


def _equal(values: np.ndarray, declared: float | None) -> np.ndarray:
  if declared is None or not representable(declared, values.dtype.name):
    return np.zeros(values.shape, bool)
  if math.isnan(declared):
    return np.isnan(values)
  # Compare in the stored type: a float32 file holds its nodata rounded to float32.
  with np.errstate(over="ignore"):
    return np.asarray(values == np.float64(declared).astype(values.dtype))
