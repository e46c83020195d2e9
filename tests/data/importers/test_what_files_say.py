"""What files say of themselves counts: masks, tags of scale, places, names of bands."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from PIL import Image
from rasterio.enums import ColorInterp

from tests.data.importers.test_skipped import archive, command, optical, radar
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.description import describe
from xjepa_jax.data.file_scaling import check_scaling
from xjepa_jax.data.importers import __main__ as importers
from xjepa_jax.data.importing.file_sensors import as_told
from xjepa_jax.data.raster import Raster, read_raster
from xjepa_jax.errors import ImageError
from xjepa_jax.sensor_presets import PRESETS
from xjepa_jax.sensors import Band, Scaling, Sensor

IMPORTERS = ("manifest", "folders")
SIZE = 16
HIDDEN = 6  # columns
FILLER = {"s1": -1.0, "s2": 9000}
Change = Callable[[Any], None]


def write(
  path: Path,
  values: np.ndarray,
  change: Change = lambda file: None,
  kinds: list[ColorInterp] | None = None,
  **more: Any,
) -> None:
  """A GeoTIFF of (H, W, C) values on the grid of the archive's others, changed while it is open."""
  profile = {
    "driver": "GTiff", "height": values.shape[0], "width": values.shape[1],
    "count": values.shape[2], "dtype": values.dtype, "crs": "EPSG:32633",
    "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6),
  }  # fmt: skip
  with rasterio.open(path, "w", **(profile | more)) as file:
    if kinds:
      file.colorinterp = kinds
    file.write(np.moveaxis(values, -1, 0))
    change(file)


def image(folder: Path, key: str, number: int = 0) -> Path:
  return folder / key / f"p{number:02d}.tif"


def images(key: str, number: int = 0) -> np.ndarray:
  return radar(number) if key == "s1" else optical(number)


def ran(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
  status = importers.main(list(args))
  said = capsys.readouterr()
  return status, said.out, said.err


def stored(folder: Path, key: str, number: int = 0) -> np.ndarray:
  with PairDataset(str(folder / "out"), None) as pairs:
    found = {pairs[i].pair_id: pairs[i] for i in range(len(pairs))}
  return found[f"p{number:02d}"].observations[key].values


# Masks


def with_internal_mask(path: Path, values: np.ndarray) -> None:
  with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
    write(path, values, lambda file: file.write_mask(shown()))


def with_mask_beside(path: Path, values: np.ndarray) -> None:
  with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False):
    write(path, values, lambda file: file.write_mask(shown()))
  assert Path(f"{path}.msk").exists()


def with_alpha(path: Path, values: np.ndarray) -> None:
  """As `gdalwarp -dstalpha` writes it: the last band."""
  alpha = shown().astype(values.dtype)[..., None] * 255
  kinds = [ColorInterp.gray, *[ColorInterp.undefined] * (values.shape[2] - 1), ColorInterp.alpha]
  write(path, np.concatenate([values, alpha], axis=-1), kinds=kinds)


def shown() -> np.ndarray:
  mask = np.full((SIZE, SIZE), True)
  mask[:, :HIDDEN] = False
  return mask


@pytest.mark.parametrize("importer", IMPORTERS)
@pytest.mark.parametrize("key", ["s1", "s2"])
@pytest.mark.parametrize("masked", [with_internal_mask, with_mask_beside, with_alpha])
def test_what_a_mask_hides_was_not_seen(
  masked: Callable[[Path, np.ndarray], None],
  key: str,
  importer: str,
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
) -> None:
  archive(tmp_path, [SIZE] * 10)
  for number in range(10):
    values = images(key, number)
    values[:, :HIDDEN] = FILLER[key]
    masked(image(tmp_path, key, number), values)
  status, _, err = ran(capsys, *command(importer, tmp_path))
  assert status == 0, err
  found = describe(str(tmp_path / "out"))
  with PairDataset(str(tmp_path / "out"), "train") as pairs:
    numbers = [int(pairs[i].pair_id[1:]) for i in range(len(pairs))]
  seen = np.stack([images(key, number)[:, HIDDEN:] for number in numbers]).astype(np.float64)
  statistics = found.statistics[key]
  assert statistics["valid_fraction"] == pytest.approx(1 - HIDDEN / SIZE)
  for band, name in enumerate(found.format.sensors[key].band_names):
    assert statistics["bands"][name]["mean"] == pytest.approx(seen[..., band].mean(), rel=1e-5)
  sensor = found.format.sensors[key]
  np.testing.assert_array_equal(sensor.valid(stored(tmp_path, key)), shown())


def test_a_mask_needs_a_marker_and_the_error_names_one_that_works(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  lines = ["pair_id,a,b"]
  rng = np.random.default_rng(0)
  for number in range(4):
    for key in "ab":
      values = rng.integers(1, 255, (SIZE, SIZE, 1)).astype(np.uint8)
      with_internal_mask(tmp_path / f"{key}{number}.tif", values)
    lines.append(f"{number},a{number}.tif,b{number}.tif")
  (tmp_path / "pairs.csv").write_text("\n".join(lines))
  options = ["manifest", "--src", str(tmp_path / "pairs.csv"), "--out", str(tmp_path / "out")]
  options += ["--sensor", "a=grey", "--sensor", "b=grey"]
  status, _, err = ran(capsys, *options)
  assert status == 1 and "a mask hides 38% of it" in err
  assert "--nodata a=0" in err
  status, _, err = ran(capsys, *options, "--nodata", "a=0", "--nodata", "b=0")
  assert status == 0, err
  assert describe(str(tmp_path / "out")).statistics["a"]["valid_fraction"] == 1 - HIDDEN / SIZE


def test_transparent_pixels_of_a_png_were_not_seen(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  rng = np.random.default_rng(0)
  colour = rng.integers(1, 255, (SIZE, SIZE, 3)).astype(np.uint8)
  alpha = (shown() * 255).astype(np.uint8)
  Image.fromarray(np.dstack([colour, alpha])).save(tmp_path / "a.png")
  keyed = colour.copy()
  keyed[~shown()] = (9, 9, 9)
  Image.fromarray(keyed).save(tmp_path / "b.png", transparency=(9, 9, 9))
  (tmp_path / "pairs.csv").write_text("pair_id,a,b\nx,a.png,b.png\n")
  status, _, err = ran(
    capsys, "manifest", "--src", str(tmp_path / "pairs.csv"), "--out", str(tmp_path / "out"),
    "--sensor", "a=rgb", "--sensor", "b=rgb", "--nodata", "a=0", "--nodata", "b=0",
    "--ungeoreferenced",
  )  # fmt: skip
  assert status == 0, err
  with PairDataset(str(tmp_path / "out"), None) as pairs:
    for key in "ab":
      values = pairs[0].observations[key].values
      np.testing.assert_array_equal(values, np.where(shown()[..., None], colour, 0))


# Scales and offsets


@pytest.mark.parametrize("importer", IMPORTERS)
def test_a_scale_and_an_offset_in_tags_have_to_be_the_sensor_s(
  importer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [SIZE] * 4)

  def tagged(file: Any) -> None:
    file.scales, file.offsets = [1e-4] * 12, [-0.1] * 12

  for number in range(4):
    write(image(tmp_path, "s2", number), optical(number) + np.uint16(1000), tagged)
  status, _, err = ran(capsys, *command(importer, tmp_path))
  assert status == 1
  assert "gain of 1 after an offset of -1000" in err and "an offset of 0" in err
  (name,) = re.findall(r"Take the product that has them: (\w+)\.", err)
  right = [text.replace("sentinel2_l2a", name) for text in command(importer, tmp_path)]
  status, _, err = ran(capsys, *right)
  assert status == 0, err
  assert describe(str(tmp_path / "out")).format.sensors["s2"].scaling.offset == -1000


@pytest.mark.parametrize(("scale", "offset"), [(1, -1000), (1e-4, -0.1)])
def test_tags_may_be_in_the_sensor_s_units_or_in_reflectance(scale: float, offset: float) -> None:
  sensor = PRESETS["sentinel2_l2a_n0400"]
  check_scaling("a.tif", "s2", sensor, [scale], [offset], [1])
  with pytest.raises(ImageError, match="Take the product that has them: sentinel2_l2a_n0400"):
    check_scaling("a.tif", "s2", PRESETS["sentinel2_l2a"], [scale], [offset], [1])


def test_decibels_as_integers_ask_for_a_described_gain(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [SIZE] * 4)

  def tagged(file: Any) -> None:
    file.scales = [0.01] * 2

  for number in range(4):
    hundredths = np.rint(radar(number) * 100).astype(np.int16)
    write(image(tmp_path, "s1", number), hundredths, tagged)
  status, _, err = ran(capsys, *command("manifest", tmp_path))
  assert status == 1 and "a gain of 0.01 after an offset of 0" in err
  assert '"scaling": {"gain": 0.01, "offset": 0}' in err
  (tmp_path / "sensors.json").write_text(
    '{"s1": {"product": "S1 x 100", "units": "dB", "dtype": "int16", "bands": [{"name": "VV", '
    '"gsd": 10, "polarisation": "VV"}, {"name": "VH", "gsd": 10, "polarisation": "VH"}], '
    '"scaling": {"gain": 0.01, "offset": 0}}}'
  )
  given = command("manifest", tmp_path)
  at = given.index("s1=sentinel1_grd")
  described = [*given[: at - 1], *given[at + 1 :], "--sensors", str(tmp_path / "sensors.json")]
  status, out, err = ran(capsys, *described)
  assert status == 0, out + err
  mean = describe(str(tmp_path / "out")).format.sensors["s1"].scaling.mean
  expected = np.mean([radar(number).mean(axis=(0, 1)) for number in range(4)], axis=0)
  np.testing.assert_allclose(mean, expected, atol=0.01)


# Places


def points() -> list[rasterio.control.GroundControlPoint]:
  corners = [(0, 0), (0, SIZE), (SIZE, 0), (SIZE, SIZE)]
  return [
    rasterio.control.GroundControlPoint(row, column, 5e5 + 10 * column, 5e6 - 10 * row)
    for row, column in corners
  ]


@pytest.mark.parametrize("importer", IMPORTERS)
@pytest.mark.parametrize("warped", [(), ("--misaligned", "warp")])
@pytest.mark.parametrize("by", ["points", "world file"])
def test_an_image_placed_by_what_is_not_read_is_refused_with_the_way_out(
  by: str,
  warped: tuple[str, ...],
  importer: str,
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
) -> None:
  archive(tmp_path, [SIZE] * 2)
  for number in range(2):
    path = image(tmp_path, "s1", number)
    if by == "points":
      write(path, radar(number), transform=None, crs="EPSG:32633", gcps=points())
    else:
      write(path, radar(number), transform=None)
      path.with_suffix(".tfw").write_text("10\n0\n0\n-10\n500005\n4999995\n")
  status, _, err = ran(capsys, *command(importer, tmp_path, *warped))
  assert status == 1
  found = "4 ground control points" if by == "points" else "the world file"
  assert f"is placed by {found}" in err and "which is not read" in err
  tool, *rest = shlex.split(re.findall(r"(gdal\w+ \S+ \S+)", err)[0])
  if shutil.which(tool) is None:
    pytest.skip(f"{tool} is not installed: apt-get install gdal-bin")
  for number in range(2):
    path = image(tmp_path, "s1", number)
    new = path.with_name("new.tif")
    subprocess.run([tool, path, new], check=True, capture_output=True, timeout=60)
    path.with_suffix(".tfw").unlink(missing_ok=True)
    new.rename(path)
  status, _, err = ran(capsys, *command(importer, tmp_path))
  assert status == 0, err
  np.testing.assert_allclose(stored(tmp_path, "s1"), radar(0), rtol=1e-5)


@pytest.mark.parametrize("importer", IMPORTERS)
def test_images_that_lie_nowhere_are_paired_where_the_user_says_so_and_counted(
  importer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [SIZE] * 3)
  for number in range(3):
    write(image(tmp_path, "s1", number), radar(number), transform=None, crs=None)
  status, _, err = ran(capsys, *command(importer, tmp_path, "--dry-run"))
  assert status == 1 and "says nothing of where it lies" in err
  (remedy,) = set(re.findall(r"--ungeoreferenced", err))
  status, out, err = ran(capsys, *command(importer, tmp_path, remedy))
  assert status == 0, err
  assert "3 pairs are of one size; their shift is unknown" in out


def test_nodata_and_scales_in_a_side_file_are_refused_and_what_it_names_works(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [SIZE] * 2)
  values = radar(0)
  values[:, :HIDDEN] = -9999
  path = image(tmp_path, "s1")
  write(path, values)
  side = Path(f"{path}.aux.xml")
  bands = "".join(
    f'<PAMRasterBand band="{band}"><NoDataValue>-9999</NoDataValue></PAMRasterBand>'
    for band in (1, 2)
  )
  side.write_text(f"<PAMDataset>{bands}</PAMDataset>")
  status, _, err = ran(capsys, *command("manifest", tmp_path))
  assert status == 1 and "declares nodata -9999, which p00.tif does not" in err
  (mending,) = re.findall(r"mkdir -p \S+ && gdal_translate \S+ \S+", err)
  tool, _, new = shlex.split(mending)[-3:]
  if shutil.which(tool) is None:
    pytest.skip(f"{tool} is not installed: apt-get install gdal-bin")
  subprocess.run(mending, shell=True, check=True, capture_output=True, timeout=60)
  side.unlink()
  Path(new).rename(path)
  status, _, err = ran(capsys, *command("manifest", tmp_path, "--nodata", "s1=-9999"))
  assert status == 0, err
  sensor = describe(str(tmp_path / "out")).format.sensors["s1"]
  np.testing.assert_array_equal(sensor.valid(stored(tmp_path, "s1")), shown())


def test_a_side_file_of_statistics_alone_is_no_matter(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [SIZE] * 2)
  Path(f"{image(tmp_path, 's1')}.aux.xml").write_text(
    '<PAMDataset><PAMRasterBand band="1"><Metadata><MDI key="STATISTICS_MEAN">-9</MDI></Metadata>'
    "</PAMRasterBand></PAMDataset>"
  )
  status, _, err = ran(capsys, *command("manifest", tmp_path))
  assert status == 0, err


# A declared value in one band only


@pytest.mark.parametrize("key", ["s1", "s2"])
def test_a_declared_marker_that_cannot_be_measured_hides_its_band_alone(
  key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [SIZE] * 4)
  whole = {
    number: images(key, number).astype(np.float32 if key == "s1" else np.int16)
    for number in range(4)
  }
  for number, values in whole.items():
    marked = values.copy()
    marked[:4, :, 1] = -9999
    write(image(tmp_path, key, number), marked, nodata=-9999)
  status, _, err = ran(capsys, *command("manifest", tmp_path))
  assert status == 0, err
  found = describe(str(tmp_path / "out"))
  bands = found.statistics[key]["bands"]
  names = found.format.sensors[key].band_names
  exact = np.stack(list(whole.values())).astype(np.float64)
  assert bands[names[1]]["mean"] == pytest.approx(exact[:, 4:, :, 1].mean(), rel=1e-5)
  assert bands[names[0]]["mean"] == pytest.approx(exact[..., 0].mean(), rel=1e-5)


# Which bands a file has


def described(path: Path, names: list[str], values: np.ndarray) -> None:
  write(path, values, lambda file: setattr(file, "descriptions", tuple(names)))


@pytest.mark.parametrize("importer", IMPORTERS)
def test_bands_are_chosen_by_what_files_call_them(
  importer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [SIZE] * 2)
  for number in range(2):
    values = radar(number)
    angle = np.full((SIZE, SIZE, 1), 37, np.float32)
    stack = np.concatenate([angle, values[..., 1:], values[..., :1]], axis=-1)
    described(image(tmp_path, "s1", number), ["angle", "VH", "vv"], stack)
  status, _, err = ran(capsys, *command(importer, tmp_path))
  assert status == 0, err
  np.testing.assert_array_equal(stored(tmp_path, "s1", 1), radar(1))


@pytest.mark.parametrize("importer", IMPORTERS)
def test_bands_that_have_no_name_are_named_as_the_error_says(
  importer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [SIZE] * 2)
  for number in range(2):
    angle = np.full((SIZE, SIZE, 1), 37, np.float32)
    write(image(tmp_path, "s1", number), np.concatenate([radar(number), angle], axis=-1))
    quality = np.zeros((SIZE, SIZE, 1), np.uint16)
    write(image(tmp_path, "s2", number), np.concatenate([optical(number), quality], axis=-1))
  given: list[str] = []
  for _ in range(2):  # a sensor's error after the other's
    status, _, err = ran(capsys, *command(importer, tmp_path, *given))
    assert status == 1
    given += re.findall(r"--bands s[12]=[\w,-]+", err)[0].split()
  status, _, err = ran(capsys, *command(importer, tmp_path, *given))
  assert status == 0, err
  for key in ("s1", "s2"):
    np.testing.assert_array_equal(stored(tmp_path, key, 1), images(key, 1))


def test_one_file_a_band_is_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  archive(tmp_path, [SIZE] * 2)
  lines = ["pair_id,s1,s2"]
  for number in range(2):
    values = optical(number)
    files = []
    for band in range(12):
      coarse = band > 5  # of 20 m
      name = f"s2/p{number}_b{band}.tif"
      plane = values[::2, ::2, band : band + 1] if coarse else values[..., band : band + 1]
      size = 20 if coarse else 10
      grid = rasterio.Affine(size, 0, 5e5, 0, -size, 5e6)
      write(tmp_path / name, plane, transform=grid)
      files.append(name)
    lines.append(f"p{number:02d},s1/p{number:02d}.tif,{';'.join(files)}")
  (tmp_path / "pairs.csv").write_text("\n".join(lines))
  status, _, err = ran(capsys, *command("manifest", tmp_path))
  assert status == 0, err
  expected = optical(1)
  expected[..., 6:] = expected[::2, ::2, 6:].repeat(2, axis=0).repeat(2, axis=1)
  np.testing.assert_array_equal(stored(tmp_path, "s2", 1), expected)


def test_jpeg_2000_as_sentinel_2_s_product_has_it_is_read_as_the_geotiff_of_the_same(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [SIZE] * 2)
  lines = ["pair_id,s1,s2"]
  for number in range(2):
    values = optical(number)
    files = []
    for band in range(12):
      name = f"s2/T33UUB_p{number}_B{band:02d}.jp2"
      plain = tmp_path / "band.tif"
      write(plain, values[..., band : band + 1])
      rasterio.shutil.copy(
        plain, tmp_path / name, driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES"
      )
      files.append(name)
    lines.append(f"p{number:02d},s1/p{number:02d}.tif,{';'.join(files)}")
  (tmp_path / "pairs.csv").write_text("\n".join(lines))
  status, _, err = ran(capsys, *command("manifest", tmp_path))
  assert status == 0, err
  np.testing.assert_array_equal(stored(tmp_path, "s2", 1), optical(1))
  damaged = tmp_path / files[0]
  damaged.write_bytes(damaged.read_bytes()[:100])
  with pytest.raises(ImageError, match="cannot be read as JPEG 2000, it is damaged"):
    read_raster(str(damaged))


def test_archives_with_bands_of_their_own_heed_masks_and_scales_too() -> None:
  sensor = PRESETS["sentinel1_grd"]
  hidden = ~shown()[..., None]
  raster = Raster(radar(0), "a.tif", hidden=hidden)
  found = as_told("s1", sensor, raster)
  np.testing.assert_array_equal(sensor.valid(found.values), shown())
  with pytest.raises(ImageError, match="a.tif: declares value = stored . 0.1"):
    as_told("s1", sensor, Raster(radar(0), "a.tif", scales=(0.1, 0.1), offsets=(0.0, 0.0)))


@pytest.mark.parametrize(
  ("turned", "transform"),
  [
    (lambda x: x[::-1], (10, 0, 5e5, 0, 10, 5e6 - 10 * SIZE)),
    (lambda x: x[:, ::-1], (-10, 0, 5e5 + 10 * SIZE, 0, -10, 5e6)),
    (lambda x: x.swapaxes(0, 1), (0, 10, 5e5, -10, 0, 5e6)),
  ],
)
def test_however_files_are_stored_pairs_are_north_up(
  turned: Callable[[np.ndarray], np.ndarray],
  transform: tuple[float, ...],
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
) -> None:
  archive(tmp_path, [SIZE])
  for key in ("s1", "s2"):
    place = rasterio.Affine(*transform)
    write(image(tmp_path, key), np.ascontiguousarray(turned(images(key))), transform=place)
  status, _, err = ran(capsys, *command("manifest", tmp_path))
  assert status == 0, err
  with PairDataset(str(tmp_path / "out"), None) as pairs:
    pair = pairs[0]
  assert pair.transform == (10, 0, 5e5, 0, -10, 5e6)
  for key in ("s1", "s2"):
    np.testing.assert_array_equal(pair.observations[key].values, images(key))


def test_a_mask_of_one_nodata_value_a_band_hides_pixels(tmp_path: Path) -> None:
  values = optical(0)[..., :3]
  values[:, :HIDDEN] = (7, 8, 9)
  write(tmp_path / "a.tif", values, lambda file: file.update_tags(NODATA_VALUES="7 8 9"))
  hidden = read_raster(str(tmp_path / "a.tif")).hidden
  assert hidden is not None
  np.testing.assert_array_equal(hidden[..., 0], ~shown())


def test_a_scale_five_times_off_is_no_rounding() -> None:
  sensor = Sensor("x", (Band("a", 10),), "uint16", "reflectance", scaling=Scaling(gain=1e-4))
  check_scaling("a.tif", "x", sensor, [1.00001e-4], [0.0], [1])
  with pytest.raises(ImageError, match="a gain of 2e-05"):
    check_scaling("a.tif", "x", sensor, [2e-5], [0.0], [1])


def test_a_band_called_nir_is_no_transparency_whatever_its_writer_marks_it_as(
  tmp_path: Path,
) -> None:
  kinds = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
  values = np.zeros((SIZE, SIZE, 4), np.uint8)
  for name, alpha in (("NIR", 0), ("B08", 0), ("", 4), ("Band 4", 4), ("alpha", 4)):

    def called(file: Any, name: str = name) -> None:
      file.set_band_description(4, name)

    write(tmp_path / "a.tif", values, called, kinds)
    assert read_raster(tmp_path / "a.tif").alpha == alpha, name


@pytest.mark.parametrize(
  ("content", "said"),
  [("-1.#IND", ""), ("nan", ""), ("-9999", "declares nodata -9999"), ("none", "'none', expected")],
)
def test_a_number_in_a_side_file_is_read_or_the_side_file_named(
  content: str, said: str, tmp_path: Path
) -> None:
  path = tmp_path / "a.tif"
  write(path, optical(0))
  Path(f"{path}.aux.xml").write_text(
    f'<PAMDataset><PAMRasterBand band="1"><NoDataValue>{content}</NoDataValue></PAMRasterBand>'
    "</PAMDataset>"
  )
  if not said:
    assert read_raster(path).nodata is None
    return
  with pytest.raises(ImageError, match=re.escape(said)) as refused:
    read_raster(path)
  assert str(refused.value).startswith(f"{path}.aux.xml")


@pytest.mark.parametrize("warped", [(), ("--misaligned", "warp")])
def test_a_system_that_is_lacking_is_given_by_the_command_of_the_error(
  warped: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  if shutil.which("gdal_translate") is None:
    pytest.skip("gdal_translate is not installed: apt-get install gdal-bin")
  archive(tmp_path, [SIZE] * 2)
  for number in range(2):
    write(image(tmp_path, "s1", number), radar(number), crs=None)
  status, _, err = ran(capsys, *command("folders", tmp_path, *warped))
  assert status == 1 and "lacks a coordinate reference system" in err
  (mending,) = re.findall(r"mkdir -p \S+ && gdal_translate -a_srs EPSG:32633 \S+ \S+", err)
  for number in range(2):  # the same for all files
    one = re.sub(r"p\d\d\.tif", f"p{number:02d}.tif", mending)
    subprocess.run(one, shell=True, check=True, capture_output=True, timeout=60)
  named = [text.replace("grd:s1", "grd:s1_placed") for text in command("folders", tmp_path)]
  status, _, err = ran(capsys, *named)
  assert status == 0, err
