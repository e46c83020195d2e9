"""The kinds of country in which simulated scenes lie: land cover, and the pattern of parcels.

A scene has one biome, so most of it consists of a few classes, and scenes of different biomes share
hardly any. All numbers are choices that make scenes differ; they describe no real region.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

Cover = Mapping[str, float]

ZONES = ("farmland", "forest", "town", "open")

# Covers shared by several biomes.
MIXED_FOREST: Cover = {"broadleaf forest": 0.9, "conifer forest": 0.9}
TOWN: Cover = {"residential": 1.6, "dense urban": 0.7, "grass": 0.3}


@dataclasses.dataclass(frozen=True)
class Biome:
  """Distributions from which the scenes of one kind of country are drawn.

  Attributes:
    climate: climate whose calendar its plants follow, a key of `seasons.CALENDARS`.
    zones: zone -> bias with which it competes for pixels; absent zones do not occur.
    cover: zone -> Dirichlet weights of its classes. They are drawn once per scene: the smaller the
      weights, the more one class dominates the scene.
    river, lake, sea: probability that a scene shows one.
    hedges: probability that its parcels have hedges.
    parcel_m: smallest and largest mean width of a parcel, in metres.
    relief_m: smallest and largest standard deviation of the height, in metres.
  """

  climate: str
  zones: Mapping[str, float]
  cover: Mapping[str, Cover]
  river: float = 0.3
  lake: float = 0.2
  sea: float = 0.0
  hedges: float = 0.2
  parcel_m: tuple[float, float] = (90.0, 170.0)
  relief_m: tuple[float, float] = (1.5, 12.0)


BIOMES: dict[str, Biome] = {
  "boreal forest": Biome(
    climate="cold",
    zones={"forest": 1.0, "open": 0.2, "farmland": -1.2},
    cover={
      "forest": {"conifer forest": 1.8, "broadleaf forest": 0.5},
      "open": {"wetland": 1.0, "heath": 0.6, "grass": 0.2},
      "farmland": {"grass": 0.6, "cereal": 0.4},
    },
    lake=0.5,
  ),
  "crop plain": Biome(
    climate="temperate",
    zones={"farmland": 1.4, "forest": -0.3, "town": -0.6},
    cover={
      "farmland": {"cereal": 1.4, "row crop": 1.3, "rapeseed": 0.8, "bare soil": 0.4},
      "forest": MIXED_FOREST,
      "town": TOWN,
    },
    hedges=0.3,
    parcel_m=(80.0, 140.0),
  ),
  "pasture": Biome(
    climate="temperate",
    zones={"farmland": 0.9, "forest": 0.3, "town": -0.7},
    cover={
      "farmland": {"grass": 2.0, "cereal": 0.4, "row crop": 0.4},
      "forest": {"broadleaf forest": 1.6, "conifer forest": 0.3},
      "town": TOWN,
    },
    hedges=0.8,
    parcel_m=(70.0, 130.0),
    relief_m=(3.0, 22.0),
  ),
  "orchards": Biome(
    climate="dry",
    zones={"farmland": 0.9, "open": 0.3, "forest": -0.8, "town": -0.4},
    cover={
      "farmland": {"orchard": 1.8, "cereal": 0.4, "bare soil": 0.3},
      "open": {"heath": 1.4, "gravel": 0.4},
      "forest": {"conifer forest": 1.0, "broadleaf forest": 0.3},
      "town": {"residential": 1.8, "dense urban": 0.4},
    },
    relief_m=(4.0, 25.0),
  ),
  "steppe": Biome(
    climate="dry",
    zones={"open": 1.1, "farmland": 0.4, "town": -1.2},
    cover={
      "open": {"grass": 2.0, "heath": 0.9, "gravel": 0.6},
      "farmland": {"cereal": 0.8, "bare soil": 0.9},
      "town": TOWN,
    },
    river=0.2,
    lake=0.1,
    parcel_m=(100.0, 180.0),
    relief_m=(2.0, 20.0),
  ),
  "desert": Biome(
    climate="dry",
    zones={"open": 1.2, "farmland": -0.5, "town": -1.0},
    cover={
      "open": {"dunes": 1.3, "gravel": 1.2, "bare soil": 0.4, "heath": 0.2},
      "farmland": {"orchard": 0.5, "cereal": 0.4, "bare soil": 0.5},
      "town": {"residential": 1.5, "dense urban": 0.5},
    },
    river=0.1,
    lake=0.0,
    relief_m=(2.0, 25.0),
  ),
  "city": Biome(
    climate="temperate",
    zones={"town": 1.3, "open": -0.5, "forest": -0.6, "farmland": -0.4},
    cover={
      "town": {"residential": 1.3, "dense urban": 1.3, "grass": 0.5},
      "open": {"grass": 1.0, "gravel": 0.4},
      "forest": MIXED_FOREST,
      "farmland": {"row crop": 0.5, "cereal": 0.5, "grass": 0.4},
    },
    relief_m=(1.0, 8.0),
  ),
  "coast": Biome(
    climate="temperate",
    zones={"open": 0.6, "forest": 0.2, "town": 0.0, "farmland": 0.0},
    cover={
      "open": {"dunes": 0.9, "heath": 0.6, "grass": 0.5},
      "forest": {"conifer forest": 1.2, "broadleaf forest": 0.3},
      "town": TOWN,
      "farmland": {"grass": 0.8, "row crop": 0.5},
    },
    river=0.2,
    lake=0.3,
    sea=0.75,
    relief_m=(1.5, 12.0),
  ),
  "delta": Biome(
    climate="temperate",
    zones={"farmland": 0.8, "open": 0.6, "town": -0.9},
    cover={
      "farmland": {"rice": 1.8, "row crop": 0.9},
      "open": {"wetland": 1.8, "grass": 0.4},
      "town": TOWN,
    },
    river=0.7,
    lake=0.4,
    parcel_m=(70.0, 130.0),
    relief_m=(0.5, 2.0),
  ),
  "mountain": Biome(
    climate="cold",
    zones={"forest": 0.6, "open": 0.8, "town": -1.4},
    cover={
      "forest": {"conifer forest": 1.0, "broadleaf forest": 0.8},
      "open": {"gravel": 1.0, "grass": 1.0, "heath": 0.5},
      "town": {"residential": 1.0},
    },
    lake=0.1,
    relief_m=(20.0, 50.0),
  ),
}


def draw_biome(rng: np.random.Generator) -> str:
  """The name of a scene's biome; all are equally likely."""
  return tuple(BIOMES)[int(rng.integers(len(BIOMES)))]
