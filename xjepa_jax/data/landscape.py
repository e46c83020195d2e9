"""The ground seen by both simulated sensors: land cover, its texture, parcels and relief.

This module has only geometry. The appearance of a class is decided by `optical` and `sar`, each
from its own random streams, so the layout is all that the two sensors share.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import sparse

from xjepa_jax.data.biomes import ZONES, Biome

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Classes = npt.NDArray[np.uint8]

PIXEL_M = 10.0

CLASS_NAMES: tuple[str, ...] = (
  "water",
  "bare soil",
  "cereal",
  "row crop",
  "rapeseed",
  "rice",
  "orchard",
  "grass",
  "broadleaf forest",
  "conifer forest",
  "heath",
  "wetland",
  "residential",
  "dense urban",
  "road",
  "gravel",
  "dunes",
)
CLASS = {name: code for code, name in enumerate(CLASS_NAMES)}


@dataclasses.dataclass(frozen=True)
class Landscape:
  """The ground of one scene; row 0 is the northern edge, column 0 the western one.

  Attributes:
    classes: (H, W) uint8, index into CLASS_NAMES.
    regions: (H, W) int, number of the parcel, block or patch of each pixel, 0 .. n_regions - 1.
    texture: (H, W) variation within a class in the pattern of that class (crowns, rows, pools,
      ridges), with mean about 0 and standard deviation about 1; 0 for classes without a pattern.
    slope_east: (H, W) rise per metre towards the east; 0 on water.
    slope_north: (H, W) rise per metre towards the north; 0 on water.
    street_angle: direction of the streets, radians anticlockwise from east.
  """

  classes: Classes
  regions: Ints
  texture: Floats
  slope_east: Floats
  slope_north: Floats
  street_angle: float

  @property
  def n_regions(self) -> int:
    return int(self.regions.max()) + 1


@functools.lru_cache(maxsize=64)
def _bumps(size: int, scale_m: float) -> sparse.csr_array:
  """(size, n) weights at every pixel of a line of n Gaussian bumps one sigma apart."""
  sigma = scale_m / PIXEL_M
  centres = np.arange(-4.0, size / sigma + 4.0)
  away = np.arange(size)[:, None] / sigma - centres
  weights = np.where(np.abs(away) < 4, np.exp(-0.5 * away**2), 0.0)
  return sparse.csr_array(weights / np.sqrt(np.sum(weights**2, axis=1, keepdims=True)))


def smooth_noise(rng: np.random.Generator, size: int, scale_m: float) -> Floats:
  """(size, size) Gaussian field of mean 0 and variance 1, of bumps with a sigma of scale_m metres.

  A sum of randomly weighted bumps is as smooth as blurred white noise and costs far less, and
  unlike an FFT it does not join opposite edges.
  """
  bumps = _bumps(size, scale_m)
  n = bumps.shape[1]
  # Sparse on purpose: in products this small, BLAS threads spin for longer than they work, and
  # writers run one process on each core.
  rows = np.ascontiguousarray((bumps @ rng.standard_normal((n, n))).T)
  return np.ascontiguousarray((bumps @ rows).T)


def _rotate(x: Floats, y: Floats, angle: float) -> tuple[Floats, Floats]:
  c, s = np.cos(angle), np.sin(angle)
  return c * x + s * y, c * y - s * x


def _parcels(
  rng: np.random.Generator, x: Floats, y: Floats, angle: float, width: float, length: float
) -> tuple[Ints, Floats]:
  """Strips of uneven width, each cut into uneven lengths: (parcel number, metres to its edge)."""
  u, v = _rotate(x, y, angle)
  reach = 1.5 * float(np.abs(x).max()) + width
  n = int(2 * reach / (0.6 * width)) + 2
  cuts = np.cumsum(rng.uniform(0.6, 1.4, n) * width) - reach - width
  cuts = np.concatenate([[-np.inf], cuts, [np.inf]])
  strip = np.searchsorted(cuts, u) - 1
  lengths = length * rng.uniform(0.5, 1.5, n + 1)
  along = v / lengths[strip] + rng.uniform(0, 1, n + 1)[strip]
  row = np.floor(along)
  ends = np.minimum(along - row, row + 1 - along) * lengths[strip]
  edge = np.minimum(np.minimum(u - cuts[strip], cuts[strip + 1] - u), ends)
  # A strip has far fewer rows than 100,000, so the sum is unique.
  return _renumber(strip * 100_000 + row.astype(np.int64)), edge


def _patches(rng: np.random.Generator, x: Floats, y: Floats, spacing: float) -> Ints:
  """Natural patches: each pixel joins the nearest point of a jittered grid with this spacing."""
  n = int(2.2 * float(np.abs(x).max()) / spacing) + 4
  jitter = rng.uniform(-0.5, 0.5, (2, n, n))
  east, north = x / spacing + n / 2, y / spacing + n / 2
  i, j = np.floor(east).astype(np.int64), np.floor(north).astype(np.int64)
  nearest, patch = np.full(x.shape, np.inf), np.zeros(x.shape, dtype=np.int64)
  for di in (-1, 0, 1):
    for dj in (-1, 0, 1):
      a, b = np.clip(i + di, 0, n - 1), np.clip(j + dj, 0, n - 1)
      away = (east - a - 0.5 - jitter[0, a, b]) ** 2 + (north - b - 0.5 - jitter[1, a, b]) ** 2
      closer = away < nearest
      nearest = np.where(closer, away, nearest)
      patch = np.where(closer, a * n + b, patch)
  return _renumber(patch)


def _renumber(ids: Ints) -> Ints:
  return np.unique(ids, return_inverse=True)[1].reshape(ids.shape)


def _line(
  rng: np.random.Generator, x: Floats, y: Floats, bend_m: float, wavelength_m: float
) -> Floats:
  """Distance in metres from a meandering line that crosses the scene near its middle."""
  u, v = _rotate(x, y, rng.uniform(0, np.pi))
  half = float(np.abs(x).max())
  k = 2 * np.pi / (wavelength_m * rng.uniform(0.7, 1.4))
  phase, bend = rng.uniform(0, 2 * np.pi), bend_m * rng.uniform(0.3, 1.0)
  off = v - rng.uniform(-0.6, 0.6) * half - bend * np.sin(k * u + phase)
  # Dividing by the slope of the curve keeps the line's width where it runs obliquely.
  return np.abs(off) / np.sqrt(1 + (bend * k * np.cos(k * u + phase)) ** 2)


def _zones(rng: np.random.Generator, size: int, parcels: Ints, biome: Biome) -> Ints:
  """(H, W) index into ZONES: the zone with the highest random field wins the pixel."""
  names = [name for name in ZONES if name in biome.zones]
  bias = np.array([biome.zones[name] for name in names]) + rng.normal(0, 0.5, len(names))
  fields = np.stack([smooth_noise(rng, size, 90.0) + b for b in bias])
  if rng.uniform() < 0.6:
    # In farmed country, woods and villages mostly end at the edge of a parcel.
    area = np.bincount(parcels.ravel())
    fields = np.stack([(np.bincount(parcels.ravel(), f.ravel()) / area)[parcels] for f in fields])
  return np.array([ZONES.index(name) for name in names])[np.argmax(fields, axis=0)]


def _land_cover(
  rng: np.random.Generator, zones: Ints, partitions: dict[str, Ints], biome: Biome
) -> tuple[Classes, Ints]:
  """Draw a class for every parcel, block and patch: (classes, region numbers)."""
  classes = np.zeros(zones.shape, dtype=np.uint8)
  regions = np.zeros(zones.shape, dtype=np.int64)
  first = 0
  for name, weights in biome.cover.items():
    ids = partitions[name]
    count = int(ids.max()) + 1
    codes = np.array([CLASS[member] for member in weights], dtype=np.uint8)
    share = rng.dirichlet(list(weights.values()))
    drawn = rng.choice(codes, count, p=share)
    here = zones == ZONES.index(name)
    classes[here] = drawn[ids[here]]
    regions[here] = first + ids[here]
    first += count
  return classes, regions


def _put(classes: Classes, regions: Ints, where: Mask, name: str) -> None:
  """Lay one object over the map, in place; it becomes a region of its own."""
  regions[where] = regions.max() + 1
  classes[where] = CLASS[name]


def _waters(
  rng: np.random.Generator, size: int, x: Floats, y: Floats, biome: Biome
) -> tuple[Mask, Mask, Mask, Floats]:
  """(water, its marshy fringe, the sea's beach, distance in metres from the valley's axis)."""
  # Everything is drawn in every scene, used or not, so that no switch shifts the later draws.
  odds = (biome.river, biome.lake, biome.sea, 0.5, 0.5)
  river, lake, sea, banks, shore = rng.uniform(size=5) < odds
  axis = _line(rng, x, y, 90.0, 700.0)
  half_width = rng.uniform(9.0, 35.0)
  basin, level = smooth_noise(rng, size, 80.0), rng.uniform(0.5, 1.4)
  marsh = smooth_noise(rng, size, 40.0) > 0.2
  inland, _ = _rotate(x, y, rng.uniform(0, 2 * np.pi))
  inland = inland - rng.uniform(-0.5, 0.5) * float(x.max()) + 50.0 * smooth_noise(rng, size, 110.0)
  water = ((axis < half_width) & river) | ((basin > level) & lake) | ((inland < 0) & sea)
  wet = ((axis < half_width + 45) & river & banks) | ((basin > level - 0.4) & lake & shore)
  beach = (inland < rng.uniform(20.0, 70.0)) & sea
  return water, wet & marsh, beach, axis if river else np.full_like(axis, np.inf)


def _slopes(
  rng: np.random.Generator, size: int, valley: Floats, relief_m: tuple[float, float]
) -> tuple[Floats, Floats]:
  """Rise per metre towards the east and towards the north."""
  low, high = np.log(relief_m)
  amplitude = np.exp(rng.uniform(low, high))
  # A margin of one sample on each side, so that slopes at the edges are as accurate as elsewhere.
  height = smooth_noise(rng, size + 2, 220.0) + 0.25 * smooth_noise(rng, size + 2, 70.0)
  height[1:-1, 1:-1] -= 0.6 * np.exp(-((valley / 120.0) ** 2))
  down, right = np.gradient(amplitude * height, PIXEL_M)
  return right[1:-1, 1:-1], -down[1:-1, 1:-1]


def _wave(metres: Floats, length: float) -> Floats:
  return np.sin(2 * np.pi / length * metres)


def _texture(
  rng: np.random.Generator, classes: Classes, x: Floats, y: Floats, field: float, street: float
) -> Floats:
  """(H, W) the pattern of each pixel's class; angles of parcels and streets in radians."""
  size = len(classes)
  crowns, clumps, waves = (smooth_noise(rng, size, metres) for metres in (13.0, 24.0, 50.0))
  (across, along), (east, north) = _rotate(x, y, field), _rotate(x, y, street)
  blown, _ = _rotate(x, y, rng.uniform(0, np.pi))
  # Sines cost the most, so a pattern is computed only where its class is.
  patterns: dict[str, Callable[[Mask], Floats]] = {
    "bare soil": lambda at: waves[at],
    "cereal": lambda at: waves[at],
    "row crop": lambda at: 1.4 * _wave(across[at], 45.0),
    "rice": lambda at: 2.2 * np.maximum(_wave(across[at], 60.0), _wave(along[at], 80.0)) ** 8 - 0.7,
    "orchard": lambda at: 2 * _wave(across[at], 42.0) * _wave(along[at], 42.0),
    "grass": lambda at: 0.7 * (waves[at] + clumps[at]),
    "broadleaf forest": lambda at: clumps[at],
    "conifer forest": lambda at: crowns[at],
    "heath": lambda at: 1.2 * np.maximum(clumps[at], 0) + 0.8 * np.maximum(crowns[at], 0) - 0.8,
    "wetland": lambda at: np.where(clumps[at] > 0.6, -1.6, 0.6),
    "residential": lambda at: 2 * _wave(east[at], 50.0) * _wave(north[at], 38.0),
    "gravel": lambda at: 1.4 * _wave(north[at] + 30.0 * waves[at], 70.0),
    "dunes": lambda at: 1.4 * _wave(blown[at] + 25.0 * waves[at], 120.0),
  }
  found = np.zeros(classes.shape)
  for name, pattern in patterns.items():
    here = classes == CLASS[name]
    if here.any():
      found[here] = pattern(here)
  return found


def landscape(streams: dict[str, np.random.Generator], size: int, biome: Biome) -> Landscape:
  """Lay out one scene of size x size pixels of 10 m.

  Args:
    streams: generators named "zones", "parcels", "cover", "water", "roads", "relief" and
      "texture".
    size: pixels along a side.
    biome: distributions from which the ground is drawn.
  """
  metres = (np.arange(size) - (size - 1) / 2) * PIXEL_M
  x, y = np.meshgrid(metres, -metres)
  rng = streams["parcels"]
  street_angle, field_angle = rng.uniform(0, np.pi, 2)
  hedges, width, length = rng.uniform(), rng.uniform(*biome.parcel_m), rng.uniform(140, 320)
  wobble = [smooth_noise(rng, size, 60.0) for _ in range(2)]
  rough = [smooth_noise(rng, size, 20.0) for _ in range(2)]
  farm, hedge = _parcels(rng, x + 8 * wobble[0], y + 8 * wobble[1], field_angle, width, length)
  blocks, street = _parcels(rng, x, y, street_angle, 75.0, 110.0)
  patches = _patches(rng, x + 15 * rough[0], y + 15 * rough[1], 170.0)

  zones = _zones(streams["zones"], size, farm, biome)
  partitions = {"farmland": farm, "forest": patches, "town": blocks, "open": patches}
  classes, regions = _land_cover(streams["cover"], zones, partitions, biome)
  farmland, town = zones == ZONES.index("farmland"), zones == ZONES.index("town")
  _put(classes, regions, town & (street < 4.0), "road")
  if hedges < biome.hedges:
    _put(classes, regions, farmland & (hedge < 5.0), "broadleaf forest")
  water, marsh, beach, valley = _waters(streams["water"], size, x, y, biome)
  _put(classes, regions, marsh, "wetland")
  _put(classes, regions, beach, "dunes")
  _put(classes, regions, water, "water")
  for chance in (0.7, 0.35):
    wanted = streams["roads"].uniform() < chance
    road = _line(streams["roads"], x, y, 60.0, 1500.0) < streams["roads"].uniform(5.0, 9.0)
    _put(classes, regions, road & wanted, "road")
  east, north = _slopes(streams["relief"], size, valley, biome.relief_m)
  dry = classes != CLASS["water"]
  texture = _texture(streams["texture"], classes, x, y, field_angle, street_angle)
  return Landscape(
    classes, _renumber(regions), texture, east * dry, north * dry, float(street_angle)
  )
