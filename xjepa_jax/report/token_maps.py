"""Tokens as colours: what the encoder distinguishes, and whether two sensors agree on it.

The three principal components of all tokens shown, of both sensors together, become red, green
and blue, so that the same colour means the same direction of the space in every map.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from xjepa_jax.data import sheet
from xjepa_jax.report.findings import TokenMap

COMPONENTS = 3
SIDE = 168
_MARGIN = 16
_BETWEEN = 8
_APART = 28
_HEADER = 52
_CAPTION = 30
_OUTLIERS = (2.0, 98.0)  # percentiles of the tokens that map to black and to full colour
_ROUNDING = 1e-12  # relative to the tokens' size; a smaller variance or share counts as none
_UNKNOWN = (128, 128, 128)


@dataclasses.dataclass(frozen=True)
class Pca:
  """Principal components of tokens.

  Attributes:
    mean: (D,).
    components: (3, D), orthonormal rows; 0 where tokens have fewer dimensions. The largest entry
      of each is positive, so that the same tokens always get the same colours.
    share: (3,) shares of the variance, each between 0 and 1; all 0 where tokens do not differ.
  """

  mean: np.ndarray
  components: np.ndarray
  share: np.ndarray

  def project(self, tokens: np.ndarray) -> np.ndarray:
    """Project (N, D) tokens to (N, 3)."""
    return (np.asarray(tokens, np.float64) - self.mean) @ self.components.T


def fit_pca(tokens: np.ndarray) -> Pca:
  """Fit the first three principal components of (N, D) tokens, ignoring rows that are not finite.

  They are the eigenvectors of the (D, D) covariance, which is cheaper than a decomposition of all
  tokens.
  """
  tokens = np.asarray(tokens, np.float64)
  tokens = tokens[np.isfinite(tokens).all(axis=1)]
  width = tokens.shape[1]
  mean = tokens.mean(axis=0) if len(tokens) else np.zeros(width)
  centred = tokens - mean
  values, vectors = np.linalg.eigh(centred.T @ centred)  # in ascending order
  kept = min(COMPONENTS, width)
  components, share = np.zeros((COMPONENTS, width)), np.zeros(COMPONENTS)
  components[:kept] = vectors[:, ::-1][:, :kept].T
  largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
  components *= np.where(largest < 0, -1.0, 1.0)
  total = values.sum()
  if total > _ROUNDING * np.sum(tokens**2):
    share[:kept] = np.clip(values[::-1][:kept] / total, 0, 1)
  return Pca(mean, components, share)


def colours(maps: Sequence[TokenMap]) -> tuple[list[dict[str, np.ndarray]], Pca]:
  """Return every pair's tokens as small pictures.

  Returns:
    For each pair sensor -> (rows, columns, 3) uint8, and the components used. Each component spans
    its 2nd to its 98th percentile over all tokens shown; a token that is not finite is grey.

  Raises:
    ValueError: there is no token, or the number of tokens does not fill a grid.
  """
  for pair in maps:
    for sensor, tokens in pair.tokens.items():
      rows, columns = pair.grids[sensor]
      if tokens.shape[0] != rows * columns:
        raise ValueError(
          f"pair {pair.pair_id!r}, sensor {sensor!r}: {tokens.shape[0]} tokens do not fill a grid "
          f"of {rows} x {columns}"
        )
  every = [tokens for pair in maps for tokens in pair.tokens.values()]
  if not every:
    raise ValueError("token maps need at least one pair with tokens")
  pca = fit_pca(np.concatenate(every))
  projected = pca.project(np.concatenate(every))
  finite = projected[np.isfinite(projected).all(axis=1)]
  low, high = np.percentile(finite, _OUTLIERS, axis=0) if len(finite) else np.zeros((2, COMPONENTS))
  return [
    {
      sensor: _colour(pca, tokens, low, high).reshape(*pair.grids[sensor], 3)
      for sensor, tokens in pair.tokens.items()
    }
    for pair in maps
  ], pca


def token_sheet(maps: Sequence[TokenMap]) -> Image.Image:
  """Draw a row per pair: each sensor's picture and, beside it, the colours of its tokens.

  Raises:
    ValueError: see `colours`.
  """
  coloured, pca = colours(maps)
  sensors = list(dict.fromkeys(sensor for pair in maps for sensor in pair.tokens))
  unit = 2 * SIDE + _BETWEEN
  width = 2 * _MARGIN + len(sensors) * unit + (len(sensors) - 1) * _APART
  image = Image.new("RGB", (width, _HEADER + len(maps) * (SIDE + _CAPTION) + 36), sheet.PAPER)
  draw = ImageDraw.Draw(image)
  for i, sensor in enumerate(sensors):
    left = _MARGIN + i * (unit + _APART)
    draw.text((left, 16), sensor, sheet.INK, sheet.font(19, bold=True))
    draw.text((left + SIDE + _BETWEEN, 20), "its tokens", sheet.FAINT, sheet.font(14))
    for j, pair in enumerate(maps):
      if sensor in pair.tokens:
        top = _HEADER + j * (SIDE + _CAPTION)
        image.paste(sheet.tile(pair.pictures[sensor], SIDE), (left, top))
        image.paste(sheet.tile(coloured[j][sensor], SIDE), (left + SIDE + _BETWEEN, top))
  face = sheet.font(13)
  for j, pair in enumerate(maps):
    top = _HEADER + j * (SIDE + _CAPTION) + SIDE + 5
    draw.text((_MARGIN, top), sheet.fitted(draw, pair.pair_id, width, face), sheet.INK, face)
  share = ", ".join(f"{part:.0%}" for part in pca.share)
  said = f"red, green, blue: principal components 1, 2, 3 of all tokens shown ({share} of variance)"
  draw.text(
    (_MARGIN, image.height - 30),
    sheet.fitted(draw, said, width - 2 * _MARGIN, face),
    sheet.FAINT,
    face,
  )
  return image


def _colour(pca: Pca, tokens: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
  projected = pca.project(tokens)
  # A component without variance is black; otherwise rounding errors would be painted.
  varied = (high > low) & (pca.share > _ROUNDING)
  shown = np.clip((projected - low) / np.where(varied, high - low, 1), 0, 1) * varied
  finite = np.isfinite(projected).all(axis=1)
  levels = np.round(np.where(finite[:, None], shown, 0) * 255).astype(np.uint8)
  levels[~finite] = _UNKNOWN
  return levels
