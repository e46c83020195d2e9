"""What the simulated scenes promise, measured on the images themselves."""

import hashlib
import itertools
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from tests.data.conftest import Views
from xjepa_jax.data import optical as optical_module
from xjepa_jax.data import sar as sar_module
from xjepa_jax.data import scenes
from xjepa_jax.data.landscape import CLASS, CLASS_NAMES, PIXEL_M, Landscape, smooth_noise
from xjepa_jax.data.scenes import MIN_LABEL_FRACTION, Scene, scene
from xjepa_jax.data.seasons import Season

SEED = 2024
B02, B03, B04, B08, B8A, B09 = 1, 2, 3, 7, 8, 9
VV, VH = 0, 1


def fingerprint(made: Scene) -> str:
  parts = (made.optical, made.sar, made.classes)
  return hashlib.sha256(b"".join(a.tobytes() for a in parts)).hexdigest()


# --- one scene -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, 64, 75, 512])
def test_a_scene_has_the_stated_shapes_and_types_at_any_size(size: int) -> None:
  made = scene(SEED, 0, size)
  assert made.optical.shape == (size, size, 12) and made.optical.dtype == np.uint16
  assert made.sar.shape == (size, size, 2) and made.sar.dtype == np.float32
  assert made.classes.shape == (size, size) and made.classes.dtype == np.uint8
  assert made.optical.min() >= 1
  assert np.isfinite(made.sar).all()


def test_a_scene_is_a_pure_function_of_seed_and_index() -> None:
  first = fingerprint(scene(SEED, 7))
  scene(SEED, 8)
  np.random.default_rng(0).normal(size=10)
  assert fingerprint(scene(SEED, 7)) == first
  others = {fingerprint(scene(s, i)) for s, i in ((SEED, 8), (SEED + 1, 7), (7, SEED))}
  assert len(others | {first}) == 4


def test_another_process_with_other_threads_makes_the_same_scene() -> None:
  code = (
    "import hashlib; from xjepa_jax.data.scenes import scene; s = scene(5, 3, 96);"
    "print(hashlib.sha256(s.optical.tobytes() + s.sar.tobytes() + s.classes.tobytes()).hexdigest())"
  )
  root = str(pathlib.Path(scenes.__file__).parents[2])
  threads = {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "PYTHONPATH": root}
  run = subprocess.run(
    [sys.executable, "-c", code],
    env=os.environ | threads | {"PYTHONHASHSEED": "1"},
    capture_output=True,
    text=True,
    check=True,
  )
  assert run.stdout.strip() == fingerprint(scene(5, 3, 96))


def test_the_global_random_state_is_neither_read_nor_moved() -> None:
  np.random.seed(1)
  next_draw = np.random.random()
  first = fingerprint(scene(SEED, 1))
  np.random.seed(1)
  assert fingerprint(scene(SEED, 1)) == first
  assert np.random.random() == next_draw


@pytest.mark.parametrize(
  ("arguments", "named", "least"),
  [
    ((-1, 0, 64), "seed", 0),
    ((0, -1, 64), "index", 0),
    ((0, 0, 15), "size", 16),
    ((1.5, 0, 64), "seed", 0),
    ((0, True, 64), "index", 0),
  ],
)
def test_an_argument_out_of_range_is_named_with_what_is_allowed(
  arguments: tuple[int, int, int], named: str, least: int
) -> None:
  with pytest.raises(ValueError, match=rf"^{named} is .* whole number of at least {least}"):
    scene(*arguments)


def test_numpy_integers_are_as_good_as_python_ones() -> None:
  assert fingerprint(scene(np.int64(3), np.uint8(4), np.int32(32))) == fingerprint(scene(3, 4, 32))  # type: ignore[arg-type]


def test_more_clouds_change_the_optical_image_alone(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(optical_module, "CLOUDY", 0.0)
  clear = [scene(SEED, i) for i in range(12)]
  monkeypatch.setattr(optical_module, "CLOUDY", 1.0)
  cloudy = [scene(SEED, i) for i in range(12)]
  for a, b in zip(clear, cloudy, strict=True):
    assert np.array_equal(a.sar, b.sar) and np.array_equal(a.classes, b.classes)
  pairs = zip(clear, cloudy, strict=True)
  assert sum(not np.array_equal(a.optical, b.optical) for a, b in pairs) > 6


def test_more_wind_changes_the_radar_image_alone(monkeypatch: pytest.MonkeyPatch) -> None:
  calm = scene(SEED, 2)
  monkeypatch.setattr(sar_module, "WIND_DB", 9.0)
  monkeypatch.setattr(sar_module, "NOISE_FLOOR_DB", -20.0)
  windy = scene(SEED, 2)
  assert np.array_equal(calm.optical, windy.optical)
  assert np.array_equal(calm.classes, windy.classes)
  assert not np.array_equal(calm.sar, windy.sar)


# --- land cover ------------------------------------------------------------------------------


def test_labels_are_the_classes_whose_share_reaches_the_threshold_and_the_largest() -> None:
  for i in range(40):
    made = scene(SEED, i)
    pixels = [int((made.classes == code).sum()) for code in range(len(CLASS_NAMES))]
    expected = []
    for name, count in zip(CLASS_NAMES, pixels, strict=True):
      if count >= MIN_LABEL_FRACTION * made.classes.size or count == max(pixels):
        expected.append(name)
    assert made.labels == tuple(expected)
    assert made.labels


def test_every_class_occurs_and_a_scene_shows_several_objects(views: Views) -> None:
  classes = views.classes[:300]
  share = np.bincount(classes.ravel(), minlength=len(CLASS_NAMES)) / classes.size
  assert share.min() > 0.005
  assert share.max() < 0.25
  kinds = [len(np.unique(c)) for c in classes]
  assert np.median(kinds) >= 6
  assert np.mean(np.array(kinds) >= 3) > 0.98


def test_the_layouts_of_two_scenes_agree_no_more_than_by_chance(views: Views) -> None:
  classes = views.classes[:200]
  share = np.bincount(classes.ravel(), minlength=len(CLASS_NAMES)) / classes.size
  agreement = np.mean([np.mean(a == b) for a, b in itertools.pairwise(classes)])
  assert agreement == pytest.approx(np.sum(share**2), abs=0.02)


def test_objects_keep_their_size_in_metres_when_the_scene_grows() -> None:
  def edges_per_km(size: int, count: int) -> float:
    """Class changes along rows between pixels of neither road nor water, which cross scenes."""
    changes = pairs = 0
    for i in range(count):
      c = scene(SEED, i, size).classes
      areal = (c != CLASS["road"]) & (c != CLASS["water"])
      both = areal[:, 1:] & areal[:, :-1]
      changes += int(((c[:, 1:] != c[:, :-1]) & both).sum())
      pairs += int(both.sum())
    return 1000 * changes / (pairs * PIXEL_M)

  assert edges_per_km(160, 24) == pytest.approx(edges_per_km(48, 150), rel=0.2)


@pytest.mark.parametrize("scale_m", [20.0, 90.0, 220.0])
def test_smooth_noise_has_unit_variance_and_the_stated_gaussian_correlation(scale_m: float) -> None:
  rng = np.random.default_rng(0)
  fields = np.stack([smooth_noise(rng, 48, scale_m) for _ in range(2000)])
  assert fields.var(axis=0).mean() == pytest.approx(1, abs=0.05)
  assert np.abs(fields.mean(axis=0)).mean() < 0.05
  lag = round(scale_m / PIXEL_M)
  seen = np.mean(fields[:, :, lag:] * fields[:, :, :-lag])
  # Bumps of one sigma correlate like a Gaussian of sqrt(2) sigma: exp(-1 / 4) at one sigma.
  assert seen == pytest.approx(np.exp(-0.25), abs=0.05)


# --- what the sensors see --------------------------------------------------------------------


def mean_over(image: np.ndarray, classes: np.ndarray, *names: str) -> float:
  return float(np.mean(image[np.isin(classes, [CLASS[name] for name in names])]))


def test_water_is_dark_and_buildings_are_bright_in_both_polarisations(views: Views) -> None:
  sar, classes = views.sar, views.classes
  for polarisation in (VV, VH):
    image = sar[..., polarisation]
    water = mean_over(image, classes, "water")
    grass = mean_over(image, classes, "grass")
    urban = mean_over(image, classes, "dense urban", "residential")
    assert water + 4 < grass < urban - 4


def test_forest_scatters_more_volume_than_open_ground(views: Views) -> None:
  sar, classes = views.sar, views.classes
  forest = mean_over(sar[..., VH], classes, "broadleaf forest", "conifer forest")
  assert forest > mean_over(sar[..., VH], classes, "bare soil", "grass", "gravel") + 4


def test_vegetation_is_green_to_the_optical_sensor(views: Views) -> None:
  optical, classes = views.optical, views.classes
  ndvi = (optical[..., B08] - optical[..., B04]) / (optical[..., B08] + optical[..., B04])
  forest = mean_over(ndvi, classes, "broadleaf forest", "conifer forest")
  assert forest > mean_over(ndvi, classes, "bare soil") + 0.3
  assert mean_over(ndvi, classes, "water") < mean_over(ndvi, classes, "dense urban")
  ndwi = (optical[..., B03] - optical[..., B08]) / (optical[..., B03] + optical[..., B08])
  assert mean_over(ndwi, classes, "water") > 0 > mean_over(ndwi, classes, "grass")


def test_speckle_over_water_has_the_stated_number_of_looks(views: Views) -> None:
  sar, classes = views.sar, views.classes
  for polarisation in (VV, VH):
    squared, weight = 0.0, 0
    for image, ground in zip(sar[..., polarisation], classes, strict=True):
      # Four pixels from the shore the blur brings in nothing but water.
      water = ndimage.binary_erosion(ground == CLASS["water"], iterations=4)
      lakes, count = ndimage.label(water)
      for lake in range(1, count + 1):
        power = 10 ** (image[lakes == lake].astype(np.float64) / 10)
        if power.size >= 100:
          squared += power.var(ddof=1) / power.mean() ** 2 * power.size
          weight += power.size
    assert weight > 20_000
    assert weight / squared == pytest.approx(sar_module.LOOKS, rel=0.06)


def test_coarser_bands_are_smoother(views: Views) -> None:
  optical = views.optical[:200]

  def neighbours(band: int) -> float:
    image = optical[..., band].astype(np.float64)
    image = image - image.mean(axis=(1, 2), keepdims=True)
    return float(np.sum(image[:, :, 1:] * image[:, :, :-1]) / np.sum(image[:, :, 1:] ** 2))

  assert neighbours(B08) < neighbours(B8A) < neighbours(B09)


def test_about_a_fifth_of_the_scenes_shows_clouds(views: Views) -> None:
  # Hardly anything but clouds and snow reaches a reflectance of 0.3 in the coastal band, smoothed
  # over 60 m, and snow absorbs the short-wave infrared.
  bright, snowless = views.optical[..., 0] > 3000, views.optical[..., 10] > 3000
  cloudy = (bright & snowless).any(axis=(1, 2))
  # In one of six cloudy scenes the gap is overhead.
  assert cloudy.mean() == pytest.approx(optical_module.CLOUDY * 5 / 6, abs=0.04)


def tilted(east: float, north: float, cover: str = "grass") -> Landscape:
  plane = np.ones((64, 64))
  return Landscape(
    np.full((64, 64), CLASS[cover], np.uint8),
    np.zeros((64, 64), np.int64),
    0 * plane,
    east * plane,
    north * plane,
    0.0,
  )


JULY = Season("temperate", 195)


def test_slopes_that_face_the_midday_sun_are_brighter() -> None:
  for i in range(5):
    # Ground that rises towards the north faces south.
    south = optical_module.optical(scenes.streams(SEED, i), tilted(0, 0.2), JULY)
    north = optical_module.optical(scenes.streams(SEED, i), tilted(0, -0.2), JULY)
    assert south[..., B08].mean() > 1.05 * north[..., B08].mean()


def test_slopes_facing_the_radar_are_brighter_and_it_looks_east_or_west() -> None:
  brighter_in_the_west = []
  for i in range(12):
    parts = [scenes.streams(SEED, i) for _ in range(2)]
    rise_east, rise_west = (
      float(sar_module.sar(p, tilted(s, 0, "broadleaf forest"), JULY)[..., VV].mean())
      for p, s in zip(parts, (0.2, -0.2), strict=True)
    )
    # 11.3 degrees to either side at 0.25 dB a degree, a little less where noise adds in.
    assert abs(rise_east - rise_west) == pytest.approx(5.5, abs=0.5)
    brighter_in_the_west.append(rise_east > rise_west)
  assert 0 < sum(brighter_in_the_west) < 12
