"""The sensors of the pairs that are read, and where their .npy files lie."""

from __future__ import annotations

from xjepa_jax.data.pairs import PairFormat
from xjepa_jax.sensor_presets import preset
from xjepa_jax.sensors import Sensor

# 12 bands of uint16 and 2 of float32: 460,800 bytes a pair of 120 x 120 pixels
SENSORS: dict[str, Sensor] = {"s2": preset("sentinel2_l2a"), "s1": preset("sentinel1_grd")}


def npy_path(directory: str, key: str) -> str:
  """The file that holds one sensor's values of all pairs, (n, H, W, C)."""
  return f"{directory}/{key}.npy"


def pair_bytes(size: int) -> int:
  """Bytes of the values of a pair of `size` x `size` pixels."""
  shapes = dict.fromkeys(SENSORS, (size, size))
  return PairFormat(SENSORS, shapes).nbytes()
