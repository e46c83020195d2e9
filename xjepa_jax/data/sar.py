"""Simulated Sentinel-1 view of a scene: C-band backscatter by class and season.

Soil moisture, incidence angle and speckle vary from scene to scene.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from xjepa_jax.data.landscape import CLASS, CLASS_NAMES, Floats, Landscape, smooth_noise
from xjepa_jax.data.seasons import STATES, Season, season_weights

POLARISATIONS = ("VV", "VH")

REFERENCE_DEG = 38.0  # incidence angle
# Mean sigma0 in dB (VV, VH) of every state at an incidence of REFERENCE_DEG: typical C-band values,
# rounded.
BACKSCATTER_DB: dict[str, tuple[float, float]] = {
  "water": (-19.5, -27.0),
  "ice": (-15.0, -23.0),
  "flooded field": (-16.0, -23.5),
  "grown rice": (-11.0, -18.0),
  "bare soil": (-12.0, -20.5),
  "seedlings": (-12.5, -20.0),
  "green cereal": (-14.0, -20.5),
  "straw": (-12.0, -19.0),
  "leafy crop": (-10.0, -16.5),
  "rapeseed in flower": (-10.0, -15.0),
  "grass": (-13.0, -20.0),
  "dry grass": (-14.0, -21.0),
  "leafy orchard": (-9.5, -15.5),
  "bare orchard": (-10.5, -17.0),
  "leafy forest": (-8.5, -14.0),
  "autumn forest": (-8.5, -14.5),
  "bare forest": (-8.0, -15.0),
  "conifer forest": (-9.0, -14.5),
  "heath": (-11.5, -17.5),
  "dry heath": (-12.5, -18.5),
  "green reed": (-11.0, -18.5),
  "dead reed": (-9.5, -18.0),
  "residential": (-6.0, -13.0),
  "dense urban": (-2.5, -10.5),
  "road": (-15.0, -22.5),
  "gravel": (-13.5, -22.0),
  "dunes": (-17.0, -25.0),
}

# Standard deviation in dB between regions of a class (moisture, roughness, stand density). Crops
# and soil vary most. Water varies by scene instead, because wind roughens all of it alike.
SPREAD_DB = {
  "water": 0.3,
  "broadleaf forest": 0.7,
  "conifer forest": 0.7,
  "wetland": 2.0,
  "residential": 1.6,
  "dense urban": 2.0,
  "road": 1.0,
}
FIELD_SPREAD_DB = 1.9
WIND_DB = 3.0

# Texture within a class in dB, on top of speckle: point scatterers.
TEXTURE_DB = {"residential": 2.2, "dense urban": 3.0, "wetland": 1.0, "water": 0.0, "road": 0.5}
PLAIN_TEXTURE_DB = 0.4

# Equivalent number of looks of an IW ground-range detected product.
LOOKS = 4.4
# Thermal noise added to the signal, sigma0 in dB.
NOISE_FLOOR_DB = -28.0
# Azimuth of the right-looking antenna's view on ascending and descending passes, degrees.
LOOK_AZIMUTH = (78.0, 282.0)

# Change of sigma0 in dB per unit of `Landscape.texture`: crowns, bunds and houses scatter; pools
# and the lee side of a dune do not.
PATTERN_DB = {
  "bare soil": 1.6,
  "cereal": 1.4,
  "row crop": 2.2,
  "rice": 3.2,
  "orchard": 2.4,
  "grass": 2.0,
  "broadleaf forest": 1.4,
  "conifer forest": 1.4,
  "heath": 2.0,
  "wetland": 3.0,
  "residential": 2.2,
  "gravel": 2.2,
  "dunes": 2.6,
}

_MEAN = np.array([BACKSCATTER_DB[state] for state in STATES])
_PATTERN = np.array([PATTERN_DB.get(name, 0.0) for name in CLASS_NAMES])
_SPREAD = np.array([SPREAD_DB.get(name, FIELD_SPREAD_DB) for name in CLASS_NAMES])
_TEXTURE = np.array([TEXTURE_DB.get(name, PLAIN_TEXTURE_DB) for name in CLASS_NAMES])
# Share of a change in soil moisture that C band sees: walls and water hide all of it, a forest
# canopy most of it, and a paddy is wet in any weather.
SOIL_SEEN = {"water": 0.0, "rice": 0.25, "residential": 0.0, "dense urban": 0.0, "road": 0.0}
SOIL_SEEN |= {"broadleaf forest": 0.25, "conifer forest": 0.25}
_SOIL_SEEN = np.array([SOIL_SEEN.get(name, 1.0) for name in CLASS_NAMES])


# Mean soil moisture in winter, spring, summer and autumn, in standard deviations.
MOISTURE = {
  "temperate": (0.8, 0.3, -0.7, 0.2),
  "cold": (0.0, 1.0, 0.0, 0.4),
  "dry": (1.0, 0.0, -1.2, -0.6),
}
# Change of sigma0 by frozen soil and by wet snow, in dB on open ground.
FROZEN_DB = -1.5
THAW_DB = -4.0


def _ground_db(rng: np.random.Generator, ground: Landscape, season: Season) -> Floats:
  """(H, W, 2) mean sigma0 in dB on level ground, before speckle."""
  classes, regions = ground.classes, ground.regions
  n, size = len(CLASS_NAMES), len(classes)
  # One part shifts both polarisations, a smaller one VH alone (the share of volume scattering).
  by_class = rng.normal(0, 0.8, (n, 1)) + rng.normal(0, (0.0, 0.5), (n, 2))
  by_class[CLASS["water"]] = rng.normal(0, WIND_DB) * np.array([1.0, 0.6])
  by_region = rng.normal(0, 1.0, (ground.n_regions, 1))
  by_region = by_region + rng.normal(0, (0.0, 0.5), (ground.n_regions, 2))
  wet = season_weights(season.day) @ np.array(MOISTURE[season.climate])
  soil = wet + rng.normal(0, 1.0) + 0.5 * smooth_noise(rng, size, 130.0)
  soil += season.snow * (THAW_DB if season.thaw else FROZEN_DB)
  texture = rng.standard_normal((size, size, 2)) * _TEXTURE[classes][..., None]
  return (
    (season.states() @ _MEAN + by_class)[classes]
    + by_region[regions] * _SPREAD[classes][..., None]
    + (soil * _SOIL_SEEN[classes] + _PATTERN[classes] * ground.texture)[..., None]
    + texture
  )


def _incidence_db(ground: Landscape, incidence: float, azimuth: float) -> Floats:
  """(H, W) change of sigma0 in dB with the local incidence angle; angles in radians."""
  away = ground.slope_east * np.sin(azimuth) + ground.slope_north * np.cos(azimuth)
  # A slope that rises away from the radar faces it, which reduces the local incidence angle.
  local = np.clip(incidence - np.arctan(away), np.radians(8), np.radians(80))
  # Typical gradients in dB per degree: the first for natural cover, the second for tilted ground,
  # where the illuminated area per pixel shrinks as well.
  return -0.13 * (np.degrees(incidence) - REFERENCE_DEG) - 0.25 * np.degrees(local - incidence)


def _double_bounce_db(ground: Landscape, azimuth: float) -> Floats:
  """(H, W) gain in dB of walls perpendicular to the radar's look direction."""
  streets = np.pi / 2 - ground.street_angle
  askew = np.degrees((streets - azimuth + np.pi / 4) % (np.pi / 2) - np.pi / 4)
  gain = 5.0 * np.exp(-((askew / 12.0) ** 2)) - 1.0
  share = np.zeros(len(CLASS_NAMES))
  share[CLASS["dense urban"]], share[CLASS["residential"]] = 1.0, 0.7
  return gain * share[ground.classes]


def speckle(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
  """Multi-look speckle: gamma-distributed intensities of mean 1 and variance 1 / LOOKS."""
  return rng.gamma(LOOKS, 1 / LOOKS, shape)


def sar(
  streams: dict[str, np.random.Generator], ground: Landscape, season: Season
) -> npt.NDArray[np.float32]:
  """Sentinel-1 image of the ground.

  Args:
    streams: generators named "backscatter", "orbit" and "speckle".
    ground: the landscape.
    season: season of the acquisition.

  Returns:
    (H, W, 2) float32 sigma0 in dB in the order of POLARISATIONS.
  """
  incidence = np.radians(streams["orbit"].uniform(31, 45))
  azimuth = np.radians(streams["orbit"].choice(LOOK_AZIMUTH))
  level = _ground_db(streams["backscatter"], ground, season)
  geometry = _incidence_db(ground, incidence, azimuth) + _double_bounce_db(ground, azimuth)
  level += geometry[..., None]
  # The product's 20 m resolution averages intensities, not decibels.
  power = ndimage.gaussian_filter(10 ** (level / 10), (0.6, 0.6, 0), mode="nearest")
  power = (power + 10 ** (NOISE_FLOOR_DB / 10)) * speckle(streams["speckle"], power.shape)
  return (10 * np.log10(np.maximum(power, 1e-6))).astype(np.float32)
