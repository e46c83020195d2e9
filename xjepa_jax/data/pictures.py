"""Pictures of stored values for people, rendered as the sensor's description specifies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from xjepa_jax.data.pairs import Pair
from xjepa_jax.sensors import Channel, Sensor

_MARGIN = 4
_CAPTION = 14
_UNSEEN = (64, 0, 64)  # dark violet, a colour that land has in no sensor's rendering


def picture(sensor: Sensor, stored: np.ndarray) -> np.ndarray:
  """An image rendered for display.

  Args:
    sensor: its `display` names the channels and their ranges; without one, the first band is
      stretched from its 2nd to its 98th percentile in this image.
    stored: (H, W, C) as stored.

  Returns:
    (H, W, 3) uint8; pixels without data are dark violet.
  """
  known = sensor.known(stored)
  values = np.where(known, sensor.calibrate(stored), 0)
  channels = sensor.display or (_stretch(sensor, values[known[..., 0]]),)
  shown = [name for each in channels for name in (each.band, each.minus) if name is not None]
  seen = known[..., list(map(sensor.band_names.index, shown))].all(axis=-1)
  levels = [_channel(sensor, channel, values) for channel in channels]
  image = np.stack(levels if len(levels) == 3 else levels * 3, axis=-1)
  image[~seen] = _UNSEEN
  return image


def contact_sheet(
  pairs: Sequence[Pair], sensors: dict[str, Sensor], columns: int = 4, height: int = 128
) -> Image.Image:
  """Pairs as a grid, each with its sensors side by side and its id below.

  Args:
    pairs: pairs to show, row by row.
    sensors: sensor key -> description; each has one place in every pair, empty where a pair lacks
      it.
    columns: pairs per row.
    height: height of each image in pixels; images are enlarged without smoothing.
  """
  width = (height + _MARGIN) * len(sensors) + _MARGIN
  rows = -(-len(pairs) // columns)
  cell = height + _CAPTION + _MARGIN
  sheet = Image.new("RGB", (columns * width + _MARGIN, rows * cell + _MARGIN), "white")
  draw = ImageDraw.Draw(sheet)
  for i, pair in enumerate(pairs):
    left, top = (i % columns) * width + _MARGIN, (i // columns) * cell + _MARGIN
    for place, (key, sensor) in enumerate(sensors.items()):
      if key in pair.observations:
        values = picture(sensor, pair.observations[key].values)
        tile = Image.fromarray(values).resize((height, height), Image.Resampling.NEAREST)
        sheet.paste(tile, (left + place * (height + _MARGIN), top))
    draw.text((left, top + height), _shortened(pair.pair_id, width // 7), fill="black")
  return sheet


def _channel(sensor: Sensor, channel: Channel, values: np.ndarray) -> np.ndarray:
  level = values[..., sensor.index([channel.band])[0]]
  if channel.minus is not None:
    level = level - values[..., sensor.index([channel.minus])[0]]
  share = (level - channel.low) / (channel.high - channel.low)
  return np.round(np.clip(share, 0, 1) * 255).astype(np.uint8)


def _stretch(sensor: Sensor, pixels: np.ndarray) -> Channel:
  low, high = np.percentile(pixels[:, 0], (2, 98)) if len(pixels) else (0.0, 1.0)
  # A constant image has no range, by which `_channel` divides.
  return Channel(sensor.band_names[0], float(low), float(max(high, low + 1e-6)))


def _shortened(text: str, length: int) -> str:
  return text if len(text) <= length else f"{text[: length // 2 - 1]}…{text[-length // 2 :]}"
