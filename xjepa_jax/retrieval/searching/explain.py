"""A picture of the patches that match between a query and a hit, drawn side by side."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image, ImageDraw

from xjepa_jax.data import sheet

SIDE = 320  # pixels, the side of a panel
LINES = 12  # largest number of matches drawn
_MARGIN = 16
_BETWEEN = 48
_TITLE = 56
_CAPTION = 44
_COLOURS = (
  (230, 25, 75), (60, 180, 75), (255, 190, 0), (0, 110, 220), (245, 130, 48), (145, 30, 180),
  (0, 160, 170), (240, 50, 230), (120, 170, 20), (170, 110, 40), (128, 0, 0), (0, 0, 128),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Match:
  """A patch of the query and a patch of the hit that match each other best; row-major numbers."""

  query: int
  hit: int
  similarity: float


def similarities(query: np.ndarray, hit: np.ndarray) -> np.ndarray:
  """Return the (N, M) cosines of every patch of the query with every patch of the hit.

  Args:
    query: (N, d) descriptors of patches, centred on the mean of their sensor.
    hit: (M, d).
  """
  return _unit(query) @ _unit(hit).T


def matches(similarity: np.ndarray, most: int = LINES) -> list[Match]:
  """Return patches that are each other's best match, most similar first.

  Args:
    similarity: (N, M).
    most: largest number of matches returned.
  """
  best_hit, best_query = similarity.argmax(axis=1), similarity.argmax(axis=0)
  mutual = [
    Match(int(i), int(j), float(similarity[i, j]))
    for i, j in enumerate(best_hit)
    if best_query[j] == i
  ]
  return sorted(mutual, key=lambda match: -match.similarity)[:most]


def explanation(
  query_picture: np.ndarray,
  hit_picture: np.ndarray,
  similarity: np.ndarray,
  grids: tuple[tuple[int, int], tuple[int, int]],
  title: str,
) -> Image.Image:
  """Draw query and hit side by side, with lines between matching patches and a map of agreement.

  The map, on the right, shows for each place of the scene how similar the two patches there are, if
  both images have the same grid. Otherwise it shows how well each patch of the hit is matched by
  any patch of the query.

  Args:
    query_picture, hit_picture: (H, W, 3) uint8, what the encoder saw.
    similarity: (N, M) similarities of patches.
    grids: rows and columns of the query's and of the hit's patches.
    title: the text above.
  """
  width = 2 * _MARGIN + 3 * SIDE + 2 * _BETWEEN
  image = Image.new("RGB", (width, _TITLE + SIDE + _CAPTION), sheet.PAPER)
  draw = ImageDraw.Draw(image)
  lefts = [_MARGIN + i * (SIDE + _BETWEEN) for i in range(3)]
  face = sheet.font(17, bold=True)
  draw.text((_MARGIN, 16), sheet.fitted(draw, title, width - 2 * _MARGIN, face), sheet.INK, face)
  aligned = grids[0] == grids[1]
  agreement = similarity.diagonal() if aligned else similarity.max(axis=0)
  panels = (query_picture, hit_picture, _heat(agreement.reshape(grids[1])))
  for left, panel in zip(lefts, panels, strict=True):
    image.paste(sheet.tile(panel, SIDE), (left, _TITLE))
  found = matches(similarity)
  for match, colour in zip(found, _COLOURS, strict=False):
    start = _box(draw, match.query, grids[0], lefts[0], colour)
    end = _box(draw, match.hit, grids[1], lefts[1], colour)
    draw.line((*start, *end), colour, 2)
  captions = (
    "query",
    f"hit, with the {len(found)} best mutual matches",
    f"{'agreement' if aligned else 'best match'}, mean {agreement.mean():.2f} (blue -1, red 1)",
  )
  for left, caption in zip(lefts, captions, strict=True):
    face = sheet.font(13)
    text = sheet.fitted(draw, caption, SIDE + _BETWEEN - 8, face)
    draw.text((left, _TITLE + SIDE + 10), text, sheet.FAINT, face)
  return image


def _unit(vectors: np.ndarray) -> np.ndarray:
  vectors = np.asarray(vectors, np.float32)
  length = np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors / np.maximum(length, np.finfo(np.float32).tiny)


def _heat(values: np.ndarray) -> np.ndarray:
  """Return (rows, columns, 3) uint8 for values from -1 (blue) through 0 (white) to 1 (red)."""
  level = np.clip(values, -1, 1)[..., None]
  red, blue, white = np.array([178, 24, 43]), np.array([33, 102, 172]), np.array([247.0] * 3)
  end = np.where(level > 0, red, blue)
  return np.round(white + np.abs(level) * (end - white)).astype(np.uint8)


def _box(
  draw: ImageDraw.ImageDraw,
  patch: int,
  grid: tuple[int, int],
  left: int,
  colour: tuple[int, int, int],
) -> tuple[float, float]:
  """Frame a patch of a picture, and return its centre."""
  rows, columns = grid
  cell = SIDE / max(rows, columns)  # `sheet.tile` fits the longer side
  across, down = (SIDE - cell * columns) / 2, (SIDE - cell * rows) / 2
  x = left + across + patch % columns * cell
  y = _TITLE + down + patch // columns * cell
  draw.rectangle((x, y, x + cell - 1, y + cell - 1), outline=colour, width=2)
  return x + cell / 2, y + cell / 2
