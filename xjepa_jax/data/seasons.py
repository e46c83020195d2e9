"""The time of year in simulated scenes: the state of each class on a day, and the snow cover.

A class has one state per season, and between the middles of two seasons a mixture of both. The
appearance of a state is in each sensor's own table (`optical.SPECTRA`, `sar.BACKSCATTER_DB`), so
the calendar is all that the two share. Seasons are those of the northern hemisphere.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from xjepa_jax.data.landscape import CLASS_NAMES, Floats

SEASONS = ("winter", "spring", "summer", "autumn")
YEAR_DAYS = 365
# Days after 1 January in the middle of each season: 15 January, April, July and October.
MIDDLES = (14, 104, 195, 287)

STATES: tuple[str, ...] = (
  "water",
  "ice",
  "flooded field",
  "grown rice",
  "bare soil",
  "seedlings",
  "green cereal",
  "straw",
  "leafy crop",
  "rapeseed in flower",
  "grass",
  "dry grass",
  "leafy orchard",
  "bare orchard",
  "leafy forest",
  "autumn forest",
  "bare forest",
  "conifer forest",
  "heath",
  "dry heath",
  "green reed",
  "dead reed",
  "residential",
  "dense urban",
  "road",
  "gravel",
  "dunes",
)

Calendar = dict[str, tuple[str, str, str, str]]

# The state of each class in winter, spring, summer and autumn. A class that is not listed has the
# state of its own name all year.
TEMPERATE: Calendar = {
  "cereal": ("seedlings", "green cereal", "straw", "bare soil"),
  "row crop": ("bare soil", "bare soil", "leafy crop", "straw"),
  "rapeseed": ("leafy crop", "rapeseed in flower", "straw", "seedlings"),
  "rice": ("bare soil", "flooded field", "grown rice", "straw"),
  "orchard": ("bare orchard", "leafy orchard", "leafy orchard", "leafy orchard"),
  "grass": ("dry grass", "grass", "grass", "grass"),
  "broadleaf forest": ("bare forest", "leafy forest", "leafy forest", "autumn forest"),
  "wetland": ("dead reed", "green reed", "green reed", "dead reed"),
}
CALENDARS: dict[str, Calendar] = {
  "temperate": TEMPERATE,
  "cold": TEMPERATE
  | {
    "water": ("ice", "water", "water", "water"),
    "cereal": ("bare soil", "seedlings", "green cereal", "straw"),
    "grass": ("dry grass", "dry grass", "grass", "dry grass"),
    "broadleaf forest": ("bare forest", "bare forest", "leafy forest", "autumn forest"),
    "wetland": ("dead reed", "dead reed", "green reed", "dead reed"),
  },
  # Winter rain and dry summers: the green months are the cool ones.
  "dry": TEMPERATE
  | {
    "cereal": ("green cereal", "straw", "bare soil", "bare soil"),
    "orchard": ("leafy orchard", "leafy orchard", "leafy orchard", "leafy orchard"),
    "grass": ("grass", "grass", "dry grass", "dry grass"),
    "heath": ("heath", "heath", "dry heath", "dry heath"),
    "broadleaf forest": ("leafy forest", "leafy forest", "leafy forest", "leafy forest"),
  },
}

# Chance of snow on the ground in the middle of winter; it decreases to 0 by the middles of autumn
# and spring.
SNOW_CHANCE = {"temperate": 0.15, "cold": 0.9, "dry": 0.0}
THAW_CHANCE = 0.3


@dataclasses.dataclass(frozen=True)
class Season:
  """The time of year in one scene.

  Attributes:
    climate: a key of CALENDARS.
    day: days after 1 January.
    snow: share of open ground that is white, 0 to 1.
    thaw: whether the snow is wet.
  """

  climate: str
  day: int
  snow: float = 0.0
  thaw: bool = False

  @property
  def name(self) -> str:
    """The season whose middle is nearest."""
    return SEASONS[int(np.argmax(season_weights(self.day)))]

  def states(self) -> Floats:
    """(classes, states): share of each of STATES in each of CLASS_NAMES; rows sum to 1."""
    return season_weights(self.day) @ _TABLES[self.climate]


def season_weights(day: int) -> Floats:
  """(4,) share of each season on a day: 1 in its middle, linear to the next one's middle."""
  middles = np.array([MIDDLES[-1] - YEAR_DAYS, *MIDDLES, MIDDLES[0] + YEAR_DAYS], dtype=np.float64)
  hats = np.array([np.interp(day % YEAR_DAYS, middles, row) for row in np.eye(len(middles))])
  return hats[1:-1] + np.array([hats[-1], 0.0, 0.0, hats[0]])


def draw_season(rng: np.random.Generator, climate: str, day: int) -> Season:
  """The season of a scene on a day, with its snow drawn from `rng`."""
  chance, depth, warmth = rng.uniform(size=3)
  lies = chance < SNOW_CHANCE[climate] * season_weights(day)[0]
  return Season(
    climate, day, 0.25 + 0.4 * depth if lies else 0.0, bool(lies and warmth < THAW_CHANCE)
  )


def _table(calendar: Calendar) -> Floats:
  """(4, classes, states) of 0 and 1."""
  table = np.zeros((len(SEASONS), len(CLASS_NAMES), len(STATES)))
  for code, name in enumerate(CLASS_NAMES):
    for season, state in enumerate(calendar.get(name, (name,) * len(SEASONS))):
      table[season, code, STATES.index(state)] = 1
  return table


# Transposed to (classes, 4, states), so that weights (4,) contract the season axis.
_TABLES = {climate: _table(each).transpose(1, 0, 2) for climate, each in CALENDARS.items()}
