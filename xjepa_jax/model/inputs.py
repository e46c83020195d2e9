"""A model's input from each sensor: its bands, its image size, and how images are cut into tokens.

All sensors are put on one grid of tokens whose patches cover the same ground, so that tokens of
different sensors can be stacked and go through shared layers in one pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from einops import rearrange
from jax import Array

from xjepa_jax.errors import ConfigError
from xjepa_jax.sensors import Sensor


@dataclasses.dataclass(frozen=True)
class SensorInput:
  """The images of one sensor as a model takes them.

  Attributes:
    sensor: description of the sensor, with the bands of a batch in order.
    height, width: size of an image in pixels.
    patch: side of a patch in pixels of this sensor.
  """

  sensor: Sensor
  height: int
  width: int
  patch: int

  @property
  def bands(self) -> int:
    """Number of bands, C."""
    return len(self.sensor.bands)

  @property
  def grid(self) -> tuple[int, int]:
    """Rows and columns of tokens."""
    return self.height // self.patch, self.width // self.patch

  @property
  def tokens(self) -> int:
    """Number of tokens per image, N."""
    return self.grid[0] * self.grid[1]

  @property
  def metres(self) -> float:
    """Side of a patch in metres on the ground; images are on the grid of their finest band."""
    return self.patch * min(band.gsd for band in self.sensor.bands)


def sensor_inputs(
  sensors: Mapping[str, Sensor], sizes: Mapping[str, tuple[int, int]], patch: int
) -> dict[str, SensorInput]:
  """The inputs of a model, all sensors on one common grid of tokens.

  Args:
    sensors: key -> description, with the bands in use.
    sizes: key -> (H, W) of the images that the model sees.
    patch: side of a patch in pixels of the first sensor. Patches of the other sensors cover the
      same ground: they have half as many pixels where a sensor's image has half as many.

  Raises:
    ConfigError: a patch does not divide an image, or the sensors have no common grid.
  """
  first = next(iter(sensors))
  rows, columns = (length // patch for length in sizes[first])
  inputs = {}
  for key, sensor in sensors.items():
    height, width = sizes[key]
    side = patch if key == first else height // rows if rows else 0
    if side == 0 or (side * rows, side * columns) != (height, width):
      raise ConfigError(
        f"config key 'model.patch' is {patch}: the images of sensor {key!r} are {height} x {width} "
        f"pixels, which the {rows} x {columns} patches of {first!r} do not divide. Choose a patch "
        f"that divides {sizes[first][0]} and {sizes[first][1]}, or another data.image_size."
      )
    inputs[key] = SensorInput(sensor, height, width, side)
  return inputs


def patches(values: Array, patch: int) -> Array:
  """Cut images into patches.

  Args:
    values: (..., H, W, C).
    patch: side of a patch, which divides H and W.

  Returns:
    (..., N, patch * patch, C), N in row-major order.
  """
  return rearrange(values, "... (r p) (s q) c -> ... (r s) (p q) c", p=patch, q=patch)
