"""Simulated scenes differ by kind of country and by time of the year, as they say they do."""

from __future__ import annotations

import collections
import datetime

import numpy as np
import pytest

from xjepa_jax.data import optical, sar, scenes, simulated_places
from xjepa_jax.data.biomes import BIOMES, ZONES
from xjepa_jax.data.landscape import CLASS, CLASS_NAMES, Landscape
from xjepa_jax.data.seasons import (
  CALENDARS,
  SEASONS,
  SNOW_CHANCE,
  STATES,
  Season,
  draw_season,
  season_weights,
)

SIZE = 32
WINTER, SPRING, SUMMER, AUTUMN = 14, 104, 195, 287
B02, B04, B08 = 1, 3, 7


def covered(name: str) -> Landscape:
  """Level ground of one class."""
  flat = np.zeros((SIZE, SIZE))
  classes = np.full(flat.shape, CLASS[name], np.uint8)
  return Landscape(classes, np.zeros(flat.shape, np.int64), flat, flat, flat, 0.0)


def mean_ndvi(name: str, season: Season) -> float:
  """Over eight scenes of one class, so that a hazy one does not decide."""
  images = [optical.optical(scenes.streams(5, i), covered(name), season) for i in range(8)]
  red, infrared = (np.stack([each[..., b] for each in images]).astype(float) for b in (B04, B08))
  return float(np.median((infrared - red) / (infrared + red)))


def mean_db(name: str, season: Season) -> float:
  """VV over eight scenes of one class."""
  images = [sar.sar(scenes.streams(5, i), covered(name), season)[..., 0] for i in range(8)]
  return float(np.mean(images))


# --- the tables ------------------------------------------------------------------------------


def test_every_biome_is_made_of_known_zones_classes_and_climates() -> None:
  for biome in BIOMES.values():
    assert biome.climate in CALENDARS
    assert set(biome.zones) == set(biome.cover) <= set(ZONES)
    for cover in biome.cover.values():
      assert set(cover) <= set(CLASS_NAMES)


def test_both_sensors_know_every_state_and_every_state_occurs() -> None:
  assert set(optical.SPECTRA) == set(sar.BACKSCATTER_DB) == set(STATES)
  seen = {state for each in CALENDARS.values() for states in each.values() for state in states}
  assert set(STATES) <= seen | set(CLASS_NAMES)
  assert {name for each in CALENDARS.values() for name in each} <= set(CLASS_NAMES)


@pytest.mark.parametrize(
  ("day", "weights"),
  [
    (WINTER, (1, 0, 0, 0)),
    (SPRING, (0, 1, 0, 0)),
    (SUMMER, (0, 0, 1, 0)),
    (AUTUMN, (0, 0, 0, 1)),
    (59, (0.5, 0.5, 0, 0)),  # 45 of 90 days after the middle of winter
    (241, (0, 0, 0.5, 0.5)),  # 46 of 92
    (333, (0.5, 0, 0, 0.5)),  # 46 of 92, and the year's end lies ahead
    (0, (78 / 92, 0, 0, 14 / 92)),
    (364, (77 / 92, 0, 0, 15 / 92)),
  ],
)
def test_a_day_is_a_mixture_of_the_seasons_around_it(day: int, weights: tuple[float, ...]) -> None:
  np.testing.assert_allclose(season_weights(day), weights)


def test_the_states_of_a_class_add_up_to_one_on_every_day() -> None:
  for climate in CALENDARS:
    for day in range(0, 365, 7):
      states = Season(climate, day).states()
      np.testing.assert_allclose(states.sum(axis=1), 1)
      assert states.min() >= 0


# --- the scenes ------------------------------------------------------------------------------


def test_every_biome_occurs_in_every_season_and_none_is_rare() -> None:
  seen = collections.Counter(
    (made.biome, made.season) for made in (scenes.scene(0, i, 16) for i in range(800))
  )
  assert set(seen) == {(biome, season) for biome in BIOMES for season in SEASONS}
  for biome in BIOMES:
    assert 50 < sum(seen[biome, season] for season in SEASONS) < 110


def test_a_scene_s_season_is_that_of_the_day_it_is_said_to_be_seen_on() -> None:
  months = {1: "winter", 4: "spring", 7: "summer", 10: "autumn"}
  found = set()
  for index in range(120):
    when = datetime.datetime.fromisoformat(simulated_places.acquired(index))
    if when.month in months:
      assert scenes.scene(3, index, 16).season == months[when.month]
      found.add(when.month)
  assert found == set(months)


def test_the_same_place_in_another_series_has_the_same_day_and_other_ground() -> None:
  one, other = scenes.scene(0, 5, 32), scenes.scene(1, 5, 32)
  assert one.season == other.season
  assert not np.array_equal(one.classes, other.classes)


def test_scenes_of_one_biome_have_more_classes_in_common_than_scenes_of_two() -> None:
  made = [scenes.scene(7, i, 48) for i in range(300)]
  shares = np.stack([np.bincount(m.classes.ravel(), minlength=len(CLASS_NAMES)) for m in made])
  shares = shares / shares.sum(axis=1, keepdims=True)
  common = np.minimum(shares[:, None], shares[None]).sum(axis=-1)
  biomes = np.array([m.biome for m in made])
  same = (biomes[:, None] == biomes) & ~np.eye(len(made), dtype=bool)
  assert common[same].mean() > 2 * common[biomes[:, None] != biomes].mean()


# --- what the sensors see of a season --------------------------------------------------------


def test_cereals_are_green_in_spring_ripe_in_summer_and_ploughed_in_autumn() -> None:
  ndvi = {day: mean_ndvi("cereal", Season("temperate", day)) for day in (SPRING, SUMMER, AUTUMN)}
  assert ndvi[SPRING] > ndvi[SUMMER] + 0.3 > ndvi[AUTUMN] + 0.3


def test_broadleaf_trees_are_bare_in_winter_and_conifers_are_not() -> None:
  for climate in ("temperate", "cold"):
    leaves = {day: mean_ndvi("broadleaf forest", Season(climate, day)) for day in (WINTER, SUMMER)}
    needles = {day: mean_ndvi("conifer forest", Season(climate, day)) for day in (WINTER, SUMMER)}
    assert leaves[SUMMER] > leaves[WINTER] + 0.2
    assert needles[SUMMER] == pytest.approx(needles[WINTER], abs=0.05)


def test_grass_of_dry_country_is_green_in_winter_and_of_cold_country_in_summer() -> None:
  for climate, green, brown in (("dry", WINTER, SUMMER), ("cold", SUMMER, WINTER)):
    difference = mean_ndvi("grass", Season(climate, green)) - mean_ndvi(
      "grass", Season(climate, brown)
    )
    assert difference > 0.2


def test_flooded_rice_is_dark_to_the_radar_and_bright_once_it_has_grown() -> None:
  spring, summer = (mean_db("rice", Season("temperate", day)) for day in (SPRING, SUMMER))
  assert spring < summer - 1
  # As open water may be: the radar alone cannot tell the two.
  assert spring < mean_db("grass", Season("temperate", SPRING)) - 2


def test_snow_is_white_to_the_optical_sensor_and_hidden_below_conifers() -> None:
  bare, white = (Season("cold", WINTER, snow=snow) for snow in (0.0, 0.6))

  def blue(name: str, season: Season) -> float:
    images = [optical.optical(scenes.streams(5, i), covered(name), season) for i in range(8)]
    return float(np.mean([each[..., B02] for each in images]))

  assert blue("grass", white) > blue("grass", bare) + 3000
  assert blue("grass", white) > blue("conifer forest", white) + 2000


def test_wet_snow_is_dark_to_the_radar_and_dry_snow_hardly_changes_it() -> None:
  bare, dry = (
    mean_db("grass", Season("cold", WINTER)),
    mean_db("grass", Season("cold", WINTER, 0.6)),
  )
  wet = mean_db("grass", Season("cold", WINTER, 0.6, thaw=True))
  assert wet < bare - 1.5
  assert abs(dry - bare) < 1.2


def test_snow_lies_in_the_winter_of_cold_country_often_and_never_in_summer_or_dry_country() -> None:
  def snowy(climate: str, day: int) -> float:
    rng = np.random.default_rng(0)
    return float(np.mean([draw_season(rng, climate, day).snow > 0 for _ in range(400)]))

  for climate, chance in SNOW_CHANCE.items():
    assert snowy(climate, WINTER) == pytest.approx(chance, abs=0.05)
    assert snowy(climate, SUMMER) == 0
  assert 0 < snowy("cold", 59) < snowy("cold", WINTER)


def test_the_sun_stands_high_in_summer_and_low_in_winter() -> None:
  """Ground that faces south gains more over ground that faces north, the lower the sun stands."""

  def gain(day: int) -> float:
    ratios = []
    for i in range(8):
      south, north = (
        optical.optical(
          scenes.streams(5, i), _facing(covered("gravel"), slope), Season("temperate", day)
        ).astype(float)[..., B08]
        for slope in (0.1, -0.1)
      )
      ratios.append(south.mean() / north.mean())
    return float(np.median(ratios))

  assert gain(WINTER) > gain(SUMMER) + 0.1


def _facing(ground: Landscape, slope: float) -> Landscape:
  north = np.full((SIZE, SIZE), slope)
  return Landscape(
    ground.classes, ground.regions, ground.texture, ground.slope_east, north, ground.street_angle
  )
