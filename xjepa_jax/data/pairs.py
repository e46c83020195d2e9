"""One co-located pair, in memory and on disk.

On disk a pair is a `tf.train.Example` whose features are a TFDS `FeaturesDict`:

  pair_id, labels (names), longitude, latitude (EPSG:4326), crs, transform (of the first sensor's
  grid, six numbers as in rasterio), and for each sensor
  sensors/<key>/values          (n, H, W, C), n = 1, or 0 if the pair lacks that sensor
  sensors/<key>/acquired        ISO 8601, empty if unknown
  sensors/<key>/valid_fraction  share of valid pixels

Values are stored unscaled, as bytes (`encoding` "bytes" or "zlib"). TFDS cannot decode an optional
feature that is encoded as bytes, hence the leading n. Coordinates are encoded as bytes too, because
TFDS reads a float64 scalar back as a float32.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from xjepa_jax.data.example import ExampleView
from xjepa_jax.errors import ExampleError, PairError
from xjepa_jax.sensors import Sensor, check_key

ENCODINGS = ("bytes", "zlib")
NO_TRANSFORM = (math.nan,) * 6


@dataclasses.dataclass(frozen=True)
class Observation:
  """The image of one sensor.

  Attributes:
    values: (H, W, C) as stored, in the sensor's dtype and band order.
    acquired: time of acquisition, ISO 8601, or "" if unknown.
  """

  values: np.ndarray
  acquired: str = ""


@dataclasses.dataclass(frozen=True)
class Pair:
  """A co-located sample of one or more sensors.

  Attributes:
    pair_id: unique within its data set.
    observations: sensor key -> observation; a sensor that the pair lacks is absent.
    labels: names of classes, or empty.
    longitude, latitude: the centre, degrees in EPSG:4326, or NaN.
    crs: coordinate reference system of the first sensor's grid ("EPSG:32634", or WKT), or "".
    transform: that grid's affine transform (a, b, c, d, e, f) as in rasterio, or NaN.
  """

  pair_id: str
  observations: Mapping[str, Observation]
  labels: tuple[str, ...] = ()
  longitude: float = math.nan
  latitude: float = math.nan
  crs: str = ""
  transform: tuple[float, ...] = NO_TRANSFORM


@dataclasses.dataclass(frozen=True)
class PairFormat:
  """The layout of the pairs of one data set.

  Attributes:
    sensors: sensor key -> description, in the data set's order.
    shapes: sensor key -> (H, W).
    encoding: "bytes", or "zlib" for smaller files and slower reading.
  """

  sensors: Mapping[str, Sensor]
  shapes: Mapping[str, tuple[int, int]]
  encoding: str = "bytes"

  def __post_init__(self) -> None:
    for key in self.sensors:
      check_key(key)
    if self.encoding not in ENCODINGS:
      raise PairError(f"encoding {self.encoding!r} is not one of {', '.join(ENCODINGS)}.")
    if set(self.sensors) != set(self.shapes):
      raise PairError(f"sensors {list(self.sensors)} and shapes {list(self.shapes)} differ.")

  def shape(self, key: str) -> tuple[int, int, int]:
    """(H, W, C) of the named sensor's values."""
    return (*self.shapes[key], len(self.sensors[key].bands))

  def value_bytes(self, key: str) -> int:
    """Size in bytes of the named sensor's values, before compression."""
    return math.prod(self.shape(key)) * np.dtype(self.sensors[key].dtype).itemsize

  def nbytes(self) -> int:
    """Size in bytes of the values of a pair that has every sensor, before compression."""
    return sum(self.value_bytes(key) for key in self.sensors)

  def features(self) -> Any:
    """The TFDS `FeaturesDict` of a pair."""
    import tensorflow_datasets as tfds  # takes a second to import; a --help should not

    def number(shape: tuple[int, ...] = ()) -> Any:
      return tfds.features.Tensor(shape=shape, dtype=np.float64, encoding="bytes")

    return tfds.features.FeaturesDict(
      {
        "pair_id": tfds.features.Text(),
        "labels": tfds.features.Sequence(tfds.features.Text()),
        "longitude": number(),
        "latitude": number(),
        "crs": tfds.features.Text(),
        "transform": number((6,)),
        "sensors": {
          key: {
            "values": tfds.features.Tensor(
              shape=(None, *self.shape(key)), dtype=np.dtype(sensor.dtype), encoding=self.encoding
            ),
            "acquired": tfds.features.Text(),
            "valid_fraction": np.float32,
          }
          for key, sensor in self.sensors.items()
        },
      }
    )

  def encode(self, pair: Pair) -> bytes:
    """The pair as a serialised `tf.train.Example`; equal pairs give equal bytes.

    Raises:
      PairError: the pair has no id or no sensor, or values that this format cannot hold.
    """
    self.check(pair)
    example = {
      "pair_id": pair.pair_id,
      "labels": list(pair.labels),
      "longitude": np.float64(pair.longitude),
      "latitude": np.float64(pair.latitude),
      "crs": pair.crs,
      "transform": np.asarray(pair.transform, np.float64),
      "sensors": {key: self._encode_sensor(key, pair) for key in self.sensors},
    }
    features, serializer = self._codec
    message = serializer.get_tf_example(features.encode_example(example))
    # Protobuf otherwise writes the entries of a map in any order.
    return message.SerializeToString(deterministic=True)

  def decode(self, record: Any) -> Pair:
    """The pair in a serialised Example (bytes or a (n,) uint8 array), with its values copied.

    Raises:
      ExampleError: the record is not an Example, or not in this format.
    """
    view = ExampleView(record)
    observations = {}
    for key in self.sensors:
      values = self.values(view, key)
      if values is not None:
        observations[key] = Observation(values.copy(), view.text(f"sensors/{key}/acquired"))
    return Pair(
      pair_id=view.text("pair_id"),
      observations=observations,
      labels=view.texts("labels"),
      longitude=self._numbers(view, "longitude", 1)[0],
      latitude=self._numbers(view, "latitude", 1)[0],
      crs=view.text("crs"),
      transform=self._numbers(view, "transform", 6),
    )

  def values(self, view: ExampleView, key: str) -> np.ndarray | None:
    """One sensor's (H, W, C) values in an Example, not copied, or None if the pair lacks it.

    Raises:
      ExampleError: the values are missing, or do not have the size that this format expects.
    """
    content = view.bytes(values_name(key))
    if self.encoding == "zlib":
      content = memoryview(_inflate(content, self.value_bytes(key), key))
    if self._lacking(key, len(content)):
      return None
    return np.frombuffer(content, self.sensors[key].dtype).reshape(self.shape(key))

  def span(self, view: ExampleView, key: str) -> tuple[int, int] | None:
    """Start and stop of those values in the record, for encoding "bytes". Raises like `values`."""
    start, stop = view.span(values_name(key))
    return None if self._lacking(key, stop - start) else (start, stop)

  def _lacking(self, key: str, size: int) -> bool:
    """Whether values of this many bytes mean that the pair lacks the sensor."""
    if size not in (0, self.value_bytes(key)):
      raise ExampleError(
        f"{values_name(key)!r} holds {size} bytes, expected {self.value_bytes(key)} for "
        f"{self.shape(key)} {self.sensors[key].dtype}."
      )
    return size == 0

  def check(self, pair: Pair) -> None:
    """Raise a PairError unless this format can hold the pair."""
    if not pair.pair_id:
      raise PairError("a pair has an empty pair_id; every pair needs one of its own.")
    where = f"pair {pair.pair_id!r}"
    if not pair.observations:
      raise PairError(f"{where} has no sensor at all.")
    for key, observation in pair.observations.items():
      if key not in self.sensors:
        raise PairError(f"{where}: sensor {key!r} is not one of {', '.join(self.sensors)}.")
      values, sensor = observation.values, self.sensors[key]
      if values.shape != self.shape(key):
        raise PairError(
          f"{where}, sensor {key!r}: values are {values.shape}, expected {self.shape(key)} "
          f"(height, width, bands {', '.join(sensor.band_names)})."
        )
      if values.dtype != np.dtype(sensor.dtype):
        raise PairError(
          f"{where}, sensor {key!r}: values are {values.dtype}, expected {sensor.dtype}."
        )
      if not sensor.valid(values).any():
        raise PairError(f"{where}, sensor {key!r}: no pixel is valid (all are nodata or NaN).")
    if len(pair.transform) != 6:
      raise PairError(f"{where}: transform {pair.transform} must be six numbers.")

  def _encode_sensor(self, key: str, pair: Pair) -> dict[str, Any]:
    observation = pair.observations.get(key)
    if observation is None:
      # n = 0 marks a missing sensor, see the module's docstring.
      nothing = np.zeros((0, *self.shape(key)), self.sensors[key].dtype)
      return {"values": nothing, "acquired": "", "valid_fraction": 0.0}
    return {
      "values": observation.values[None],
      "acquired": observation.acquired,
      "valid_fraction": self.sensors[key].valid(observation.values).mean(dtype=np.float64),
    }

  @functools.cached_property
  def _codec(self) -> tuple[Any, Any]:
    from tensorflow_datasets.core import example_serializer

    features = self.features()
    return features, example_serializer.ExampleSerializer(features.get_serialized_info())

  @staticmethod
  def _numbers(view: ExampleView, name: str, count: int) -> tuple[float, ...]:
    content = view.bytes(name)
    if len(content) != 8 * count:
      raise ExampleError(f"{name!r} holds {len(content)} bytes, expected {8 * count}.")
    return tuple(float(number) for number in np.frombuffer(content, "<f8"))


def values_name(key: str) -> str:
  """The name of the feature that holds a sensor's values."""
  return f"sensors/{key}/values"


def _inflate(content: Any, expected: int, key: str) -> bytes:
  """Decompress at most `expected` bytes, so that a malicious record cannot fill the memory."""
  inflater = zlib.decompressobj()
  try:
    # One more byte than expected, so that data that is too long is noticed.
    values = inflater.decompress(bytes(content), expected + 1)
  except zlib.error as error:
    raise ExampleError(f"{values_name(key)!r} is not zlib data ({error}).") from error
  if not inflater.eof:
    raise ExampleError(f"{values_name(key)!r} inflates to other than {expected} bytes.")
  return values
