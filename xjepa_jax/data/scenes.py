"""Simulated pairs of Sentinel-2 and Sentinel-1 images of one landscape."""

from __future__ import annotations

import dataclasses

import numpy as np

from xjepa_jax.data import simulated_places
from xjepa_jax.data.biomes import BIOMES, draw_biome
from xjepa_jax.data.landscape import CLASS_NAMES, landscape
from xjepa_jax.data.optical import optical
from xjepa_jax.data.sar import sar
from xjepa_jax.data.seasons import draw_season

__all__ = ["CLASS_NAMES", "MIN_LABEL_FRACTION", "MIN_SIZE", "Scene", "scene"]

# A class is a label of the scene when it covers at least this share of its pixels.
MIN_LABEL_FRACTION = 0.15
MIN_SIZE = 16

# One random stream per part of a scene, numbered by its place here. Only append to this list: any
# other change would alter every scene of every seed.
STREAMS = (
  "zones",
  "parcels",
  "cover",
  "water",
  "roads",
  "relief",
  "spectra",
  "sun",
  "sky",
  "msi noise",
  "backscatter",
  "orbit",
  "speckle",
  "biome",
  "weather",
  "texture",
)


@dataclasses.dataclass(frozen=True)
class Scene:
  """One place seen by both sensors on a common grid of 10 m; row 0 is the northern edge.

  Attributes:
    optical: (H, W, 12) uint16, Sentinel-2 L2A reflectance x 1e4, bands B01 B02 B03 B04 B05 B06
      B07 B08 B8A B09 B11 B12, no +1000 offset; 0 is nodata, so every pixel is at least 1.
    sar: (H, W, 2) float32, sigma0 of VV and VH in dB.
    classes: (H, W) uint8, index into CLASS_NAMES.
    labels: names of the classes that cover at least MIN_LABEL_FRACTION of the scene, and of the
      class that covers most; in the order of CLASS_NAMES.
    biome: a key of `biomes.BIOMES`.
    season: season of the acquisition, one of `seasons.SEASONS`.
  """

  optical: np.ndarray
  sar: np.ndarray
  classes: np.ndarray
  labels: tuple[str, ...]
  biome: str
  season: str


def _check(name: str, value: int, least: int) -> int:
  whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
  if not whole or value < least:
    raise ValueError(f"{name} is {value!r}; it must be a whole number of at least {least}")
  return int(value)


def _labels(classes: np.ndarray) -> tuple[str, ...]:
  share = np.bincount(classes.ravel(), minlength=len(CLASS_NAMES)) / classes.size
  least = min(MIN_LABEL_FRACTION, share.max())
  return tuple(n for n, part in zip(CLASS_NAMES, share, strict=True) if part >= least)


def streams(seed: int, index: int) -> dict[str, np.random.Generator]:
  """The independent random generators of one scene, by the name of the part that they draw."""
  children = np.random.SeedSequence([seed, index]).spawn(len(STREAMS))
  return {name: np.random.default_rng(s) for name, s in zip(STREAMS, children, strict=True)}


def scene(seed: int, index: int, size: int = 64) -> Scene:
  """Simulate scene number `index` of the series `seed`.

  The scene depends only on the three arguments: it is the same in any process and order. Both
  images show one layout (land cover, parcels, relief); only the optical sensor sees haze, cloud and
  crop colour, only the radar sees moisture, incidence and speckle. Class spectra and backscatter
  are rounded typical values, not measurements of any one place.

  Args:
    seed: number of the series, at least 0.
    index: number of the scene in the series, at least 0.
    size: pixels along a side, at least 16; objects keep their size in metres.

  Raises:
    ValueError: an argument is not a whole number, or below its minimum.
  """
  seed, index = _check("seed", seed, 0), _check("index", index, 0)
  size = _check("size", size, MIN_SIZE)
  parts = streams(seed, index)
  biome = draw_biome(parts["biome"])
  ground = landscape(parts, size, BIOMES[biome])
  day = simulated_places.day_of_year(index)
  season = draw_season(parts["weather"], BIOMES[biome].climate, day)
  return Scene(
    optical=optical(parts, ground, season),
    sar=sar(parts, ground, season),
    classes=ground.classes,
    labels=_labels(ground.classes),
    biome=biome,
    season=season.name,
  )
