"""Elements shared by sheets of pictures: tiles of one size, captions, one font."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK = (28, 33, 40)
FAINT = (96, 104, 114)
PAPER = (255, 255, 255)
TRUE = (0, 140, 90)
_EMPTY = (236, 238, 241)


@functools.lru_cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
  """DejaVu Sans, which ships with matplotlib and has arrows and ticks."""
  import matplotlib

  name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
  return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def tile(picture: np.ndarray, side: int) -> Image.Image:
  """A picture fitted into a square.

  Args:
    picture: (H, W, 3) uint8; its longer side fills the square, enlarged without smoothing.
    side: side of the square in pixels.
  """
  image = Image.fromarray(np.ascontiguousarray(picture, dtype=np.uint8))
  scale = side / max(image.size)
  size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
  way = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
  square = Image.new("RGB", (side, side), _EMPTY)
  square.paste(image.resize(size, way), ((side - size[0]) // 2, (side - size[1]) // 2))
  return square


def fitted(draw: ImageDraw.ImageDraw, text: str, width: int, face: ImageFont.FreeTypeFont) -> str:
  """The text, with its middle cut out if it is wider than `width` pixels."""
  if draw.textlength(text, face) <= width:
    return text
  for kept in range(len(text) - 1, 1, -1):
    short = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    if draw.textlength(short, face) <= width:
      return short
  return "…"


def png(image: Image.Image) -> bytes:
  """A sheet as the bytes of a PNG file."""
  file = io.BytesIO()
  image.save(file, "PNG", optimize=True)
  return file.getvalue()
