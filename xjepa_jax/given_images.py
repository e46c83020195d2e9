"""Checks of the images that a caller passes to an encoder, before anything is computed.

Only the centre crop that the encoder sees is checked: the share of observed pixels, and the units.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from xjepa_jax.data import units
from xjepa_jax.data.statistics import SensorStatistics
from xjepa_jax.errors import ExportError, SensorError
from xjepa_jax.model import images
from xjepa_jax.model.inputs import SensorInput
from xjepa_jax.sensors import Sensor


def judged(
  values: Mapping[str, Any],
  inputs: Mapping[str, SensorInput],
  trust_units: bool,
  min_valid: float,
  unseen: str,
) -> tuple[str, np.ndarray, np.ndarray]:
  """The only sensor of a call, its cropped images, and which of them will get NaN.

  Args:
    values, trust_units, min_valid, unseen: as in `LoadedEncoder.describe`.
    inputs: sensor -> its input.

  Returns:
    The sensor's key; (B, H, W, C) images of the encoder's size; (n,) indices of images with too few
    observed pixels, empty if these are accepted as they are.

  Raises:
    ExportError: as in `LoadedEncoder.describe`.
  """
  if unseen not in ("refuse", "nan", "take"):
    raise ExportError(f"unseen is {unseen!r}; expected 'refuse', 'nan' or 'take'.")
  if not 0 <= min_valid <= 1:  # also true for NaN
    raise ExportError(f"min_valid is {min_valid!r}; expected a share from 0 to 1.")
  sensor, stored = _one(values, inputs)
  described = inputs[sensor].sensor
  few = np.zeros(0, np.int64)
  if unseen != "take" and len(stored):
    shares = described.valid(stored).mean(axis=(1, 2))
    few = np.flatnonzero((shares < min_valid) | (shares == 0))
    if len(few) and unseen == "refuse":
      raise ExportError(
        f"{len(few)} of {len(stored)} images of {sensor!r} show too little, the first number "
        f"{few[0]}: {shares[few[0]]:.1%} of the pixels that are looked at were seen, expected "
        f"{min_valid:.1%}. Leave them out, or give unseen='nan'."
      )
  if not trust_units:
    _check_units(sensor, described, stored)
  return sensor, stored, few


def _one(values: Mapping[str, Any], inputs: Mapping[str, SensorInput]) -> tuple[str, np.ndarray]:
  """The only sensor of a call and its checked images, cropped at the centre."""
  if not isinstance(values, Mapping):
    raise ExportError(
      f"images are a {type(values).__name__}; expected them by their sensor, one of "
      f"{', '.join(inputs)}: {{{next(iter(inputs))!r}: images}}."
    )
  if len(values) != 1 or not set(values) <= set(inputs):
    named = ", ".join(map(str, values)) or "no sensor"
    raise ExportError(f"images of {named}: give those of one of {', '.join(inputs)}.")
  ((sensor, images_),) = values.items()
  given = inputs[sensor]
  bands = ", ".join(given.sensor.band_names)
  try:
    hidden = _mask(images_)
    stored = np.asarray(images_)
  except (ValueError, TypeError) as error:
    raise ExportError(
      f"images of {sensor!r} are no array ({error}); expected (B, H, W, {given.bands}), all of one "
      f"size and of the bands {bands}."
    ) from error
  fits = stored.ndim == 4 and stored.shape[3] == given.bands
  if not fits or stored.shape[1] < given.height or stored.shape[2] < given.width:
    raise ExportError(
      f"images of {sensor!r} have shape {stored.shape}; expected (B, H, W, {given.bands}) with "
      f"H >= {given.height}, W >= {given.width} and the bands {bands}."
    )
  # A file's byte order is not an error, but JAX takes only the native one.
  stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
  if stored.dtype != np.dtype(given.sensor.dtype):
    raise ExportError(
      f"images of {sensor!r} are {stored.dtype}; this sensor's values are stored as "
      f"{given.sensor.dtype}, in {given.sensor.units}. Give them as the product has them, unscaled."
    )
  if hidden is not None and hidden.any():
    try:
      stored = given.sensor.hide(stored, hidden)
    except SensorError as error:
      raise ExportError(f"images of {sensor!r} have a mask. {error}") from error
  crop: Any = images.crop  # typed for JAX arrays, but works on NumPy's as well
  return sensor, crop({sensor: stored}, inputs, None)[sensor]


def _mask(values: Any) -> np.ndarray | None:
  """The mask of a masked array, or of a list that contains some, in the shape of the values."""
  if np.ma.isMaskedArray(values):
    return np.ma.getmaskarray(values)
  if not isinstance(values, list | tuple):
    return None
  masks = [_mask(each) for each in values]
  if all(mask is None for mask in masks):
    return None
  return np.stack(
    [
      np.zeros(np.shape(each), bool) if mask is None else mask
      for mask, each in zip(masks, values, strict=True)
    ]
  )


def _check_units(key: str, sensor: Sensor, stored: np.ndarray) -> None:
  """Reject each image whose values contradict its sensor.

  What is only likely given all images together, another offset or 8-bit values, is a warning: a
  few images may simply show bright ground, or water.
  """
  judge = units.Judge(sensor, offset_way="Give them shifted by {shift:g}")
  counted = SensorStatistics.of(sensor)
  for number, image in enumerate(stored):
    wrong = judge.of_image(image)
    if wrong:
      raise ExportError(
        f"image {number} of {key!r} contradicts the units of {sensor.product}: {' '.join(wrong)} "
        "Give values as that product has them, or trust_units=True."
      )
    counted.add(sensor, image)
  statistics = counted.to_json(sensor)
  for remark in judge.of_offset(statistics) + judge.of_dark(statistics):
    # Level 4 is the caller of `LoadedEncoder.describe`, to whom the warning applies.
    warnings.warn(f"images of {key!r} ({sensor.product}): {remark}", stacklevel=4)
