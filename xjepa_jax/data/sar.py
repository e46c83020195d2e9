"""A scene as Sentinel-1 sees it: C-band backscatter under moisture, incidence and speckle."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from xjepa_jax.data.landscape import CLASS, CLASS_NAMES, Floats, Landscape, smooth_noise

POLARISATIONS = ("VV", "VH")

REFERENCE_DEG = 38.0
# Mean sigma0 in dB (VV, VH) at REFERENCE_DEG of incidence: typical C-band values, rounded.
BACKSCATTER_DB: dict[str, tuple[float, float]] = {
  "water": (-19.5, -27.0),
  "bare soil": (-12.0, -20.5),
  "green cereal": (-14.0, -20.5),
  "ripe cereal": (-12.0, -19.0),
  "row crop": (-10.0, -16.5),
  "rapeseed": (-10.0, -15.0),
  "grass": (-13.0, -20.0),
  "broadleaf forest": (-8.5, -14.0),
  "conifer forest": (-9.0, -14.5),
  "heath": (-11.5, -17.5),
  "wetland": (-11.0, -18.5),
  "residential": (-6.0, -13.0),
  "dense urban": (-2.5, -10.5),
  "road": (-15.0, -22.5),
  "gravel": (-15.0, -23.0),
}

# Standard deviation in dB between regions of a class (moisture, roughness, stand density);
# crops and soil vary most, wind moves the whole of a scene's water instead.
SPREAD_DB = {
  "water": 0.3,
  "broadleaf forest": 0.7,
  "conifer forest": 0.7,
  "wetland": 2.0,
  "residential": 1.2,
  "dense urban": 1.5,
  "road": 1.0,
}
FIELD_SPREAD_DB = 1.6
WIND_DB = 3.0

# Point scatterers: texture within a class in dB, on top of speckle.
TEXTURE_DB = {"residential": 2.5, "dense urban": 3.5, "wetland": 1.0, "water": 0.0, "road": 0.5}
PLAIN_TEXTURE_DB = 0.4

# Equivalent number of looks of an IW ground-range detected product.
LOOKS = 4.4
# Thermal noise that adds to the signal, sigma0 in dB.
NOISE_FLOOR_DB = -28.0
# Azimuth in which the right-looking antenna looks on ascending and on descending passes, degrees.
LOOK_AZIMUTH = (78.0, 282.0)

_MEAN = np.array([BACKSCATTER_DB[name] for name in CLASS_NAMES])
_SPREAD = np.array([SPREAD_DB.get(name, FIELD_SPREAD_DB) for name in CLASS_NAMES])
_TEXTURE = np.array([TEXTURE_DB.get(name, PLAIN_TEXTURE_DB) for name in CLASS_NAMES])
# Share of a change of soil moisture that C band sees: walls and water hide all of it, a forest
# canopy most of it.
SOIL_SEEN = {"water": 0.0, "residential": 0.0, "dense urban": 0.0, "road": 0.0}
SOIL_SEEN |= {"broadleaf forest": 0.25, "conifer forest": 0.25}
_SOIL_SEEN = np.array([SOIL_SEEN.get(name, 1.0) for name in CLASS_NAMES])


def _ground_db(rng: np.random.Generator, ground: Landscape) -> Floats:
  """(H, W, 2) mean sigma0 in dB on level ground, before speckle."""
  classes, regions = ground.classes, ground.regions
  n, size = len(CLASS_NAMES), len(classes)
  # One part moves both polarisations, a smaller one VH alone (the share of volume scattering).
  by_class = rng.normal(0, 0.8, (n, 1)) + rng.normal(0, (0.0, 0.5), (n, 2))
  by_class[CLASS["water"]] = rng.normal(0, WIND_DB) * np.array([1.0, 0.6])
  by_region = rng.normal(0, 1.0, (ground.n_regions, 1))
  by_region = by_region + rng.normal(0, (0.0, 0.5), (ground.n_regions, 2))
  moisture = rng.normal(0, 1.0) + 0.5 * smooth_noise(rng, size, 130.0)
  texture = rng.standard_normal((size, size, 2)) * _TEXTURE[classes][..., None]
  return (
    _MEAN[classes]
    + by_class[classes]
    + by_region[regions] * _SPREAD[classes][..., None]
    + (moisture * _SOIL_SEEN[classes])[..., None]
    + texture
  )


def _incidence_db(ground: Landscape, incidence: float, azimuth: float) -> Floats:
  """(H, W) change of sigma0 in dB with the local incidence angle; angles in radians."""
  away = ground.slope_east * np.sin(azimuth) + ground.slope_north * np.cos(azimuth)
  # Ground that rises away from the radar faces it.
  local = np.clip(incidence - np.arctan(away), np.radians(8), np.radians(80))
  # Typical slopes in dB per degree: the first of natural cover, the second of tilted ground, where
  # the area lit per pixel shrinks as well.
  return -0.13 * (np.degrees(incidence) - REFERENCE_DEG) - 0.25 * np.degrees(local - incidence)


def _double_bounce_db(ground: Landscape, azimuth: float) -> Floats:
  """(H, W) gain in dB of walls that stand square to the radar's look direction."""
  streets = np.pi / 2 - ground.street_angle
  askew = np.degrees((streets - azimuth + np.pi / 4) % (np.pi / 2) - np.pi / 4)
  gain = 5.0 * np.exp(-((askew / 12.0) ** 2)) - 1.0
  share = np.zeros(len(CLASS_NAMES))
  share[CLASS["dense urban"]], share[CLASS["residential"]] = 1.0, 0.7
  return gain * share[ground.classes]


def speckle(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
  """Multi-look speckle: gamma intensities of mean 1 and variance 1 / LOOKS."""
  return rng.gamma(LOOKS, 1 / LOOKS, shape)


def sar(streams: dict[str, np.random.Generator], ground: Landscape) -> npt.NDArray[np.float32]:
  """Sentinel-1 image of the ground.

  Args:
    streams: generators named "backscatter", "orbit" and "speckle".
    ground: what lies below.

  Returns:
    (H, W, 2) float32 sigma0 in dB in the order of POLARISATIONS.
  """
  incidence = np.radians(streams["orbit"].uniform(31, 45))
  azimuth = np.radians(streams["orbit"].choice(LOOK_AZIMUTH))
  level = _ground_db(streams["backscatter"], ground)
  geometry = _incidence_db(ground, incidence, azimuth) + _double_bounce_db(ground, azimuth)
  level += geometry[..., None]
  # The 20 m resolution of the product mixes intensities, not decibels.
  power = ndimage.gaussian_filter(10 ** (level / 10), (0.6, 0.6, 0), mode="nearest")
  power = (power + 10 ** (NOISE_FLOOR_DB / 10)) * speckle(streams["speckle"], power.shape)
  return (10 * np.log10(np.maximum(power, 1e-6))).astype(np.float32)
