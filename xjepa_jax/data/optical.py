"""Simulated Sentinel-2 view of a scene: spectra by class and season.

Sun, relief, haze and cloud vary from scene to scene.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from xjepa_jax.data.landscape import CLASS_NAMES, PIXEL_M, Floats, Landscape, smooth_noise
from xjepa_jax.data.seasons import STATES, YEAR_DAYS, Season

Cube = npt.NDArray[np.float32]

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")

# Native ground sampling distance of each band in metres.
GROUND_M = (60, 10, 10, 10, 20, 20, 20, 10, 20, 60, 20, 20)

# Surface reflectance x 1e4 of every state in the order of BANDS: typical L2A values, rounded.
SPECTRA: dict[str, tuple[int, ...]] = {
  "water": (330, 380, 430, 300, 260, 220, 210, 180, 165, 150, 85, 65),
  "ice": (4700, 4800, 4700, 4500, 4300, 4000, 3800, 3500, 3200, 2500, 350, 260),
  "flooded field": (430, 500, 620, 610, 680, 760, 800, 820, 840, 800, 520, 330),
  "grown rice": (270, 320, 590, 390, 890, 2500, 3100, 3300, 3480, 3500, 1350, 640),
  "bare soil": (700, 880, 1180, 1520, 1780, 1930, 2080, 2230, 2380, 2450, 2950, 2550),
  "seedlings": (500, 610, 930, 990, 1400, 2150, 2500, 2650, 2820, 2880, 2450, 1750),
  "green cereal": (260, 310, 610, 370, 960, 2750, 3450, 3650, 3850, 3900, 1700, 850),
  "straw": (600, 790, 1230, 1520, 1930, 2380, 2630, 2790, 2980, 3060, 3050, 2080),
  "leafy crop": (280, 350, 670, 500, 1080, 2500, 3050, 3250, 3450, 3500, 1950, 1020),
  "rapeseed in flower": (350, 450, 1150, 930, 1480, 2850, 3450, 3650, 3850, 3900, 2080, 1080),
  "grass": (310, 400, 740, 560, 1150, 2400, 2850, 3050, 3250, 3300, 2100, 1200),
  "dry grass": (520, 680, 1060, 1330, 1750, 2150, 2350, 2500, 2680, 2750, 2950, 2050),
  "leafy orchard": (380, 470, 760, 720, 1180, 2150, 2550, 2720, 2880, 2930, 2150, 1350),
  "bare orchard": (520, 650, 930, 1120, 1430, 1750, 1900, 2030, 2150, 2200, 2450, 1850),
  "leafy forest": (200, 245, 450, 275, 740, 2250, 2900, 3100, 3300, 3350, 1550, 700),
  "autumn forest": (260, 330, 620, 700, 1150, 1950, 2250, 2400, 2550, 2600, 1750, 950),
  "bare forest": (320, 400, 560, 680, 950, 1300, 1450, 1580, 1700, 1750, 1800, 1250),
  "conifer forest": (180, 210, 340, 235, 520, 1450, 1800, 1900, 2050, 2100, 1000, 480),
  "heath": (350, 430, 650, 660, 1050, 1800, 2150, 2300, 2480, 2530, 2000, 1220),
  "dry heath": (450, 570, 820, 980, 1330, 1750, 1950, 2080, 2230, 2280, 2450, 1700),
  "green reed": (310, 380, 590, 490, 870, 1620, 1920, 2060, 2170, 2180, 1250, 680),
  "dead reed": (380, 480, 700, 830, 1080, 1350, 1480, 1580, 1680, 1680, 1450, 950),
  "residential": (680, 820, 1030, 1080, 1330, 1850, 2080, 2180, 2270, 2280, 1980, 1600),
  "dense urban": (1080, 1280, 1430, 1530, 1640, 1790, 1890, 1980, 2040, 2050, 2050, 1880),
  "road": (780, 930, 1060, 1130, 1240, 1350, 1410, 1470, 1510, 1520, 1530, 1380),
  "gravel": (1000, 1220, 1560, 1900, 2090, 2220, 2320, 2450, 2550, 2560, 3050, 2750),
  "dunes": (1150, 1450, 2050, 2600, 2850, 3000, 3120, 3270, 3400, 3420, 4000, 3600),
}
SNOW = np.array([8200, 8300, 8300, 8200, 8000, 7700, 7400, 7100, 6700, 5600, 1100, 900], np.float32)
# Share of the snow on the ground visible from above; crowns, roofs and traffic hide the rest.
SNOW_SEEN = {
  "water": 0.0,
  "broadleaf forest": 0.45,
  "conifer forest": 0.2,
  "heath": 0.7,
  "orchard": 0.7,
  "residential": 0.5,
  "dense urban": 0.35,
  "road": 0.2,
}

# Change of log reflectance per unit of vigour: pigments and water darken the visible and the
# short-wave infrared, leaf structure brightens the near infrared.
VIGOUR_AXIS = np.array([-0.5, -0.6, -0.4, -0.9, -0.4, 0.2, 0.35, 0.4, 0.4, 0.4, -0.4, -0.6])
# Sediment and algae in water: green to red edge brightens most.
TURBIDITY_AXIS = np.array([0.5, 0.7, 1.0, 1.2, 1.1, 0.9, 0.8, 0.7, 0.6, 0.4, 0.1, 0.1])
# Colour of bare ground and roofs, from grey to red.
HUE_AXIS = np.array([-0.3, -0.3, -0.15, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
# Path reflectance per unit of the haze that remains after atmospheric correction.
HAZE = np.array([900, 760, 580, 430, 370, 330, 300, 260, 240, 150, 80, 50], np.float32)
CLOUD = np.array(
  [6200, 6000, 5900, 5900, 5900, 5900, 5900, 5900, 5800, 3200, 4200, 3300], np.float32
)

# Share of scenes with clouds in or near them; in one of six of these no cloud is overhead.
CLOUDY = 0.22
# Clouds are low enough for their shadow to fall within this many pixels.
SHADOW_REACH = 48

# Fine texture as standard deviations of (brightness, vigour); TEXTURE for classes not listed.
TEXTURE = (0.03, 0.04)
ROUGH_TEXTURE = {
  "water": (0.02, 0.03),
  "broadleaf forest": (0.12, 0.05),
  "conifer forest": (0.12, 0.05),
  "heath": (0.08, 0.12),
  "wetland": (0.10, 0.15),
  "residential": (0.20, 0.40),
  "dense urban": (0.28, 0.25),
}

# Change of log reflectance per unit of `Landscape.texture`: crowns and pools shade the ground
# between them, ridges are lit.
PATTERN = {
  "bare soil": -0.12,
  "cereal": 0.12,
  "row crop": 0.15,
  "rice": 0.2,
  "orchard": -0.2,
  "grass": -0.12,
  "broadleaf forest": 0.14,
  "conifer forest": 0.14,
  "heath": -0.15,
  "wetland": 0.25,
  "residential": -0.12,
  "gravel": 0.18,
  "dunes": 0.12,
}

_SPECTRA = np.array([SPECTRA[state] for state in STATES], dtype=np.float32)
_SNOW_SEEN = np.array([SNOW_SEEN.get(name, 1.0) for name in CLASS_NAMES], dtype=np.float32)
_PATTERN = np.array([PATTERN.get(name, 0.0) for name in CLASS_NAMES])
_TEXTURE = np.array([ROUGH_TEXTURE.get(name, TEXTURE) for name in CLASS_NAMES])
_HUE_STATES = ("ice", "bare soil", "dense urban", "road", "gravel", "dunes")
_AXES = np.stack(
  [
    TURBIDITY_AXIS if state == "water" else HUE_AXIS if state in _HUE_STATES else VIGOUR_AXIS
    for state in STATES
  ]
).astype(np.float32)


def _surface(rng: np.random.Generator, ground: Landscape, season: Season) -> Cube:
  """(H, W, 12) reflectance x 1e4 of the ground under even light."""
  classes, regions = ground.classes, ground.regions
  size, n = len(classes), len(CLASS_NAMES)
  year = rng.normal(0, 0.35)
  # (brightness, vigour) per scene and class (crop variety, soil; an early or late year shifts all
  # classes), then per region, then within the region.
  by_class = rng.normal((0.0, year), (0.15, 0.3), (n, 2))
  by_region = rng.normal(0, (0.16, 0.35), (ground.n_regions, 2))
  within = 0.05 * smooth_noise(rng, size, 60.0), 0.15 * smooth_noise(rng, size, 50.0)
  fine = rng.normal(0, 1, (size, size, 2)) * _TEXTURE[classes]
  change = by_class[classes] + by_region[regions] + np.stack(within, -1) + fine
  change[..., 0] += _PATTERN[classes] * ground.texture
  states = season.states().astype(np.float32)
  change = change.astype(np.float32)
  log_factor = change[..., :1] + change[..., 1:] * (states @ _AXES)[classes]
  bare = (states @ _SPECTRA)[classes] * np.exp(np.clip(log_factor, -1.5, 1.0))
  if not season.snow:
    return bare
  drifts = np.clip(season.snow + 0.15 * smooth_noise(rng, size, 60.0), 0, 1).astype(np.float32)
  white = (drifts * _SNOW_SEEN[classes])[..., None]
  return bare + white * (SNOW - bare)


def _shading(ground: Landscape, zenith: float, azimuth: float) -> Floats:
  """(H, W) direct and diffuse light on the slope, relative to level ground.

  `azimuth` is the sun's, in radians clockwise from north.
  """
  towards = ground.slope_east * np.sin(azimuth) + ground.slope_north * np.cos(azimuth)
  normal = np.sqrt(1 + ground.slope_east**2 + ground.slope_north**2)
  # A slope that rises towards the sun faces away from it.
  incidence = (np.cos(zenith) - np.sin(zenith) * towards) / normal
  diffuse = 0.2
  return diffuse + (1 - diffuse) * np.clip(incidence, 0.05, None) / np.cos(zenith)


def _clouds(
  rng: np.random.Generator, size: int, zenith: float, azimuth: float
) -> tuple[Floats, Floats]:
  """(H, W) opacity of the clouds, and of the shadow they cast; both 0 in a cloudless scene."""
  if rng.uniform() >= CLOUDY:
    return np.zeros((size, size)), np.zeros((size, size))
  level = rng.uniform(1.1, 1.7)
  reach = rng.uniform(150.0, 550.0) * np.tan(zenith) / PIXEL_M
  right, down = -reach * np.sin(azimuth), reach * np.cos(azimuth)
  wide = size + 2 * SHADOW_REACH
  bank = smooth_noise(rng, wide, 90.0) + 0.25 * smooth_noise(rng, wide, 20.0)
  opacity = np.clip((bank - level) / 0.5, 0, 1)
  top, left = (int(np.clip(SHADOW_REACH - s, 0, 2 * SHADOW_REACH)) for s in (down, right))
  above = opacity[SHADOW_REACH : SHADOW_REACH + size, SHADOW_REACH : SHADOW_REACH + size]
  return above, opacity[top : top + size, left : left + size]


def _atmosphere(rng: np.random.Generator, reflectance: Cube, zenith: float, azimuth: float) -> Cube:
  size = len(reflectance)
  cloud, shadow = _clouds(rng, size, zenith, azimuth)
  lit = reflectance * (1 - 0.6 * shadow).astype(np.float32)[..., None]
  veil = rng.gamma(1.0, 0.3) * np.exp(0.35 * smooth_noise(rng, size, 150.0))
  haze = veil.astype(np.float32)[..., None] * HAZE
  # Light that the haze scatters into the view is lost to the ground.
  hazy = lit * (1 - np.minimum(haze / 6000, 0.4)) + haze
  opacity = (0.95 * cloud).astype(np.float32)[..., None]
  return hazy + opacity * (CLOUD * np.float32(rng.uniform(0.8, 1.3)) - hazy)


def _sensor(rng: np.random.Generator, radiance: Cube) -> Cube:
  """Blur each band to its ground sampling distance, then add noise."""
  seen = np.empty_like(radiance)
  for ground in (10, 20, 60):
    bands = [b for b, metres in enumerate(GROUND_M) if metres == ground]
    # Sigma of half a sample: about the width of the instrument's point spread function.
    sigma = 0.5 * ground / PIXEL_M
    seen[..., bands] = ndimage.gaussian_filter(
      radiance[..., bands], (sigma, sigma, 0), mode="nearest", truncate=3.0
    )
  noise = 8.0 + 0.008 * seen
  return seen + noise * rng.standard_normal(seen.shape, dtype=np.float32)


def _sun(rng: np.random.Generator, day: int) -> tuple[float, float]:
  """(zenith, azimuth) at half past ten in radians, the azimuth clockwise from north."""
  # 44 degrees on average over the year, for latitudes of 35 to 50: high in June, low in December.
  noon = 44.0 + 15.0 * np.cos(2 * np.pi * (day + 10) / YEAR_DAYS)
  return np.radians(noon + rng.uniform(-8, 8)), np.radians(rng.uniform(140, 175))


def optical(
  streams: dict[str, np.random.Generator], ground: Landscape, season: Season
) -> npt.NDArray[np.uint16]:
  """Sentinel-2 L2A image of the ground.

  Args:
    streams: generators named "spectra", "sun", "sky" and "msi noise".
    ground: the landscape.
    season: season of the acquisition.

  Returns:
    (H, W, 12) uint16 reflectance x 1e4 in the order of BANDS, without the +1000 offset of
    processing baseline 04.00; at least 1, because 0 is nodata.
  """
  zenith, azimuth = _sun(streams["sun"], season.day)
  light = _shading(ground, zenith, azimuth).astype(np.float32)[..., None]
  surface = _surface(streams["spectra"], ground, season) * light
  image = _sensor(streams["msi noise"], _atmosphere(streams["sky"], surface, zenith, azimuth))
  return np.rint(np.clip(image, 1, 20_000)).astype(np.uint16)
