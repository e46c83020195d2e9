"""Images are read as stored, or refused in a sentence that names the file."""

from __future__ import annotations

import functools
import io
import math
import multiprocessing
import os
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from xjepa_jax.data.band_stack import read_bands
from xjepa_jax.data.raster import centre, read_header, read_raster
from xjepa_jax.errors import ImageError

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
GEOTIFF = SHARED / "geotiff"
needs_geotiff = pytest.mark.skipif(
  not GEOTIFF.is_dir(), reason="real GeoTIFFs are not in ../shared/data/geotiff"
)
UTM = (10.0, 0.0, 500000.0, 0.0, -10.0, 4000000.0)
QUICK = settings(
  max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write_tif(path: Path, bands: np.ndarray, transform=UTM, crs="EPSG:32633", **options) -> str:
  """(C, H, W) values as GeoTIFF."""
  count, height, width = bands.shape
  transform = rasterio.Affine(*transform) if transform else None
  with rasterio.open(
    path, "w", driver="GTiff", height=height, width=width, count=count, dtype=bands.dtype,
    transform=transform, crs=crs, **options,
  ) as file:  # fmt: skip
    file.write(bands)
  return str(path)


def numbers(*shape: int, dtype: str = "uint16") -> np.ndarray:
  return np.random.default_rng(0).integers(0, 120, shape).astype(dtype)


def png_bytes(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
  """A PNG of zeros by the specification, with any header."""

  def chunk(kind: bytes, content: bytes) -> bytes:
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

  header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
  return (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", header)
    + chunk(b"IDAT", zlib.compress(bytes(1000)))
    + chunk(b"IEND", b"")
  )


def npy_header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
  buffer = io.BytesIO()
  content = {"descr": descr, "fortran_order": False, "shape": shape}
  np.lib.format.write_array_header_1_0(buffer, content)
  return buffer.getvalue()


# What is read


@pytest.mark.parametrize(
  "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
)
@pytest.mark.parametrize("bands", [1, 3])
def test_geotiff_values_are_those_written(tmp_path: Path, dtype: str, bands: int):
  written = numbers(bands, 5, 7, dtype=dtype)
  raster = read_raster(write_tif(tmp_path / "a.tif", written, nodata=7))
  assert raster.values.dtype == dtype and raster.values.shape == (5, 7, bands)
  for band in range(bands):
    np.testing.assert_array_equal(raster.values[..., band], written[band])
  assert (raster.crs, raster.transform, raster.nodata) == ("EPSG:32633", UTM, 7)


@needs_geotiff
def test_real_geotiffs_equal_what_rasterio_reads_band_by_band():
  paths = sorted(GEOTIFF.glob("*/S*/**/*.tif"))[:12]
  assert paths
  for path in paths:
    raster = read_raster(str(path))
    with rasterio.open(path) as file:
      assert raster.transform == tuple(file.transform)[:6]
      assert raster.crs == file.crs.to_string()
      for band in range(file.count):
        np.testing.assert_array_equal(raster.values[..., band], file.read(band + 1))


@needs_geotiff
def test_sen1floods11_keeps_nan_nodata_and_geographic_coordinates():
  raster = read_raster(str(GEOTIFF / "sen1floods11_sample" / "S1" / "Spain_7370579_S1Hand.tif"))
  assert raster.crs == "EPSG:4326" and str(raster.nodata) == "nan"
  longitude, latitude = centre(raster)
  assert longitude == pytest.approx(-0.7818936232976315 + 256 * 8.983152841195215e-05, abs=1e-12)
  assert latitude == pytest.approx(38.12881257139627 - 256 * 8.983152841195215e-05, abs=1e-12)


@pytest.mark.parametrize("mode, shape", [("L", (4, 6)), ("RGB", (4, 6, 3)), ("RGBA", (4, 6, 4))])
def test_png_values_are_those_written(tmp_path: Path, mode: str, shape: tuple[int, ...]):
  written = numbers(*shape, dtype="uint8")
  Image.fromarray(written, mode=mode).save(tmp_path / "a.png")
  raster = read_raster(str(tmp_path / "a.png"))
  np.testing.assert_array_equal(raster.values, written.reshape(4, 6, -1))
  assert (raster.crs, raster.georeferenced, raster.nodata) == ("", False, None)


def test_png_of_16_bits_is_read_in_full(tmp_path: Path):
  written = np.array([[0, 255, 256], [1000, 40000, 65535]], np.uint16)
  Image.fromarray(written).save(tmp_path / "a.png")
  raster = read_raster(str(tmp_path / "a.png"))
  assert raster.values.dtype == np.uint16
  np.testing.assert_array_equal(raster.values[..., 0], written)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<f4", ">f8"])
def test_npy_values_are_those_written_in_native_order(tmp_path: Path, dtype: str, order: str):
  written = np.asarray(numbers(4, 5, 3), dtype=dtype, order=order)  # type: ignore[call-overload]
  np.save(tmp_path / "a.npy", written)
  raster = read_raster(str(tmp_path / "a.npy"))
  np.testing.assert_array_equal(raster.values, written)
  assert raster.values.dtype.isnative and raster.values.flags.c_contiguous


def test_an_npy_of_two_axes_has_one_band(tmp_path: Path):
  np.save(tmp_path / "a.npy", numbers(4, 5))
  assert read_raster(str(tmp_path / "a.npy")).values.shape == (4, 5, 1)


def test_sidecar_files_are_named_and_not_read(tmp_path: Path):
  path = write_tif(tmp_path / "a.tif", numbers(1, 3, 4), transform=None, crs=None)
  (tmp_path / "a.tfw").write_text("10\n0\n0\n-10\n5\n5\n")
  (tmp_path / "a.tif.aux.xml").write_text(
    "<PAMDataset><SRS>EPSG:32633</SRS><GeoTransform>1,2,0,3,0,4</GeoTransform></PAMDataset>"
  )
  raster = read_raster(path)
  assert not raster.georeferenced and raster.crs == "" and raster.nodata is None
  assert raster.located_by == f"the world file {tmp_path / 'a.tfw'}"
  (tmp_path / "a.tfw").unlink()
  assert read_raster(path).located_by == f"the transform in {path}.aux.xml"
  for told in ("<NoDataValue>3</NoDataValue>", "<Scale>0.01</Scale>", "<Offset>2</Offset>"):
    (tmp_path / "a.tif.aux.xml").write_text(
      f'<PAMDataset><PAMRasterBand band="1">{told}</PAMRasterBand></PAMDataset>'
    )
    with pytest.raises(ImageError, match="aux.xml: declares .*gdal_translate"):
      read_raster(path)


def test_a_spawned_worker_reads_the_same_values(tmp_path: Path):
  path = write_tif(tmp_path / "a.tif", numbers(2, 5, 7))
  with multiprocessing.get_context("spawn").Pool(1) as pool:
    raster = pool.apply(read_raster, (path,))
  np.testing.assert_array_equal(raster.values, read_raster(path).values)


# Where it lies


def test_centre_on_the_central_meridian_is_where_utm_puts_it(tmp_path: Path):
  # 2 x 2 pixels around (500000, 0) of zone 33: where the equator meets 15 degrees east.
  path = write_tif(tmp_path / "a.tif", numbers(1, 2, 2), transform=(10, 0, 499990, 0, -10, 10))
  assert centre(read_raster(path)) == pytest.approx((15.0, 0.0), abs=1e-9)


def test_centre_is_unknown_without_a_way_to_longitude_and_latitude(tmp_path: Path):
  for crs in (None, 'LOCAL_CS["unnamed",UNIT["metre",1]]'):
    path = write_tif(tmp_path / "a.tif", numbers(1, 2, 2), crs=crs)
    assert all(map(math.isnan, centre(read_raster(path))))


def test_a_centre_beyond_the_antimeridian_comes_back(tmp_path: Path):
  path = write_tif(
    tmp_path / "a.tif", numbers(1, 2, 2), transform=(1, 0, 189, 0, -1, 11), crs="EPSG:4326"
  )
  assert centre(read_raster(path)) == pytest.approx((-170, 10))


# What is refused


def refused(path: str | Path, *words: str, **options) -> None:
  with pytest.raises(ImageError) as caught:
    read_raster(str(path), **options)
  for word in (Path(path).name, *words):
    assert word in str(caught.value)


def test_content_that_is_not_what_the_suffix_says(tmp_path: Path):
  (tmp_path / "text.tif").write_text("not an image")
  refused(tmp_path / "text.tif", "promises GeoTIFF", "b'not an i'")
  Image.new("L", (2, 2)).save(tmp_path / "png.tif", format="PNG")
  refused(tmp_path / "png.tif", "promises GeoTIFF, but it holds PNG")
  write_tif(tmp_path / "a.tif", numbers(1, 2, 2))
  os.rename(tmp_path / "a.tif", tmp_path / "tif.png")
  refused(tmp_path / "tif.png", "promises PNG, but it holds GeoTIFF")
  (tmp_path / "empty.npy").write_bytes(b"")
  refused(tmp_path / "empty.npy", "it is empty")
  (tmp_path / "vrt.tif").write_text('<VRTDataset rasterXSize="2" rasterYSize="2"/>')
  refused(tmp_path / "vrt.tif", "promises GeoTIFF")


@pytest.mark.parametrize("name, package", [("a.tif", "rasterio"), ("a.png", "PIL")])
def test_a_missing_package_is_named_with_its_remedy(
  tmp_path: Path, name: str, package: str, monkeypatch: pytest.MonkeyPatch
):
  write_tif(tmp_path / "a.tif", numbers(1, 2, 2))
  Image.new("L", (2, 2)).save(tmp_path / "a.png")
  monkeypatch.setitem(sys.modules, package, None)
  with pytest.raises(ImageError, match=r"pip install xjepa_jax\[geo\]"):
    read_raster(str(tmp_path / name))


@pytest.mark.parametrize("name", ["a.vrt", "a.jpg", "a", "a.tif.gz"])
def test_other_suffixes(tmp_path: Path, name: str):
  (tmp_path / name).write_bytes(b"II*\0")
  refused(tmp_path / name, "unknown suffix", ".tif, .tiff, .jp2, .png, .npy")


@pytest.mark.parametrize(
  "name", ["/vsicurl/http://a.b/c.tif", "https://a.b/c.tif", "/vsizip/a.zip/c.tif", "zip://c.tif"]
)
def test_names_that_gdal_would_fetch(name: str):
  with pytest.raises(ImageError, match="no file of this machine"):
    read_raster(name)


def test_what_is_no_regular_file(tmp_path: Path):
  refused(tmp_path / "absent.tif", "no such file")
  (tmp_path / "folder.tif").mkdir()
  refused(tmp_path / "folder.tif", "not a regular file")
  os.mkfifo(tmp_path / "pipe.tif")  # opening it would wait for ever
  refused(tmp_path / "pipe.tif", "not a regular file")
  with pytest.raises(ImageError, match="cannot be opened"):
    read_raster("a\0.tif")


@pytest.mark.parametrize("options", [{}, {"compress": "deflate"}, {"compress": "lzw"}])
def test_every_truncation_of_a_geotiff(tmp_path: Path, options: dict[str, str]):
  written = np.random.default_rng(0).integers(0, 65535, (2, 32, 32)).astype(np.uint16)
  content = Path(write_tif(tmp_path / "a.tif", written, **options)).read_bytes()
  for length in range(0, len(content), max(len(content) // 60, 1)):
    (tmp_path / "cut.tif").write_bytes(content[:length])
    refused(tmp_path / "cut.tif")


def test_no_truncation_of_a_png_and_no_flipped_byte_changes_a_value(tmp_path: Path):
  written = numbers(8, 8, dtype="uint8")
  Image.fromarray(written).save(tmp_path / "a.png")
  content = (tmp_path / "a.png").read_bytes()
  for at in range(len(content)):
    (tmp_path / "cut.png").write_bytes(content[:at])
    flipped = bytearray(content)
    flipped[at] ^= 0x10
    (tmp_path / "flipped.png").write_bytes(flipped)
    for name in ("cut.png", "flipped.png"):
      if at < len(content) - 12:
        refused(tmp_path / name)
        continue
      try:  # the last chunk, IEND, holds nothing: its damage may pass
        values = read_raster(str(tmp_path / name)).values[..., 0]
      except ImageError:
        continue
      np.testing.assert_array_equal(values, written)


def test_every_truncation_of_an_npy(tmp_path: Path):
  np.save(tmp_path / "a.npy", numbers(4, 4))
  content = (tmp_path / "a.npy").read_bytes()
  for length in range(len(content)):
    (tmp_path / "cut.npy").write_bytes(content[:length])
    refused(tmp_path / "cut.npy")


def test_a_geotiff_that_declares_a_billion_pixels(tmp_path: Path):
  with rasterio.open(
    tmp_path / "a.tif", "w", driver="GTiff", height=32000, width=32000, count=1, dtype="uint8",
    SPARSE_OK=True,
  ):  # fmt: skip
    pass
  assert (tmp_path / "a.tif").stat().st_size < 1_000_000
  refused(tmp_path / "a.tif", "declares 32000 x 32000 pixels in 1 bands")


def test_a_small_geotiff_of_one_enormous_tile(tmp_path: Path):
  with rasterio.open(
    tmp_path / "a.tif", "w", driver="GTiff", height=10, width=10, count=1, dtype="uint8",
    tiled=True, blockxsize=32768, blockysize=32768, SPARSE_OK=True,
  ):  # fmt: skip
    pass
  refused(tmp_path / "a.tif", "32768 x 32768")


def test_bands_count_towards_the_limit_and_the_limit_itself_passes(tmp_path: Path):
  path = write_tif(tmp_path / "a.tif", numbers(3, 4, 5))
  assert read_raster(path, max_pixels=60).values.shape == (4, 5, 3)
  refused(path, "4 x 5 pixels in 3 bands", "limit of 59", max_pixels=59)


def test_a_png_whose_header_declares_a_bomb(tmp_path: Path):
  (tmp_path / "a.png").write_bytes(png_bytes(2**31 - 1, 2**31 - 1))
  refused(tmp_path / "a.png", "2147483647 x 2147483647")


def test_an_npy_whose_header_declares_more_than_it_holds(tmp_path: Path):
  (tmp_path / "a.npy").write_bytes(npy_header((10**6, 10**6)))
  refused(tmp_path / "a.npy", "1000000 x 1000000")
  (tmp_path / "a.npy").write_bytes(npy_header((100, 100)) + bytes(9999))
  refused(tmp_path / "a.npy", "declares 10000 bytes and holds 9999")
  (tmp_path / "a.npy").write_bytes(npy_header((-1, 4)) + bytes(100))
  refused(tmp_path / "a.npy", "empty image")


class _Trap:
  """Unpickling it would leave a file behind."""

  path = ""

  def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
    return os.mkdir, (self.path,)


def test_an_npy_with_a_pickle_is_refused_and_the_pickle_is_not_run(tmp_path: Path):
  _Trap.path = str(tmp_path / "ran")
  np.save(tmp_path / "a.npy", np.array([[_Trap()]], dtype=object), allow_pickle=True)
  refused(tmp_path / "a.npy", "values of type object")
  assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("descr", ["|O", "<c8", "<i8", "|b1", "<f2", "|S4"])
def test_an_npy_of_a_type_that_no_sensor_has(tmp_path: Path, descr: str):
  (tmp_path / "a.npy").write_bytes(npy_header((2, 2), descr) + bytes(64))
  refused(tmp_path / "a.npy", "holds values of type", "uint8")


@pytest.mark.parametrize("shape", [(), (4,), (1, 2, 2, 1), (0, 4)])
def test_an_npy_that_is_no_image(tmp_path: Path, shape: tuple[int, ...]):
  np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
  refused(tmp_path / "a.npy")


@pytest.mark.parametrize("depth, colour", [(8, 3), (1, 0), (4, 0), (16, 2), (16, 6)])
def test_a_png_that_would_not_be_read_as_stored(tmp_path: Path, depth: int, colour: int):
  (tmp_path / "a.png").write_bytes(png_bytes(4, 4, depth, colour))
  refused(tmp_path / "a.png", "save it as" if colour == 3 else "Save it as")


@pytest.mark.parametrize("dtype", ["complex64", "int64", "uint64"])
def test_a_geotiff_of_a_type_that_no_sensor_has(tmp_path: Path, dtype: str):
  refused(write_tif(tmp_path / "a.tif", numbers(1, 2, 2, dtype=dtype)), f"of type {dtype}")


def test_a_tiff_of_several_images(tmp_path: Path):
  page = Image.fromarray(numbers(3, 4, dtype="uint8"))
  page.save(tmp_path / "a.tif", save_all=True, append_images=[page])
  refused(tmp_path / "a.tif", "holds 2 images")


@functools.cache
def sound(suffix: str) -> bytes:
  """A small sound file."""
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / f"a{suffix}"
    if suffix == ".tif":
      write_tif(path, numbers(1, 6, 6, dtype="uint8"), compress="deflate")
    elif suffix == ".png":
      Image.fromarray(numbers(6, 6, dtype="uint8")).save(path)
    else:
      np.save(path, numbers(6, 6, dtype="uint8"))
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".tif", ".png", ".npy"])
@QUICK
@given(data=st.data())
def test_damaged_files_raise_nothing_but_image_errors(tmp_path: Path, suffix: str, data):
  content = bytearray(sound(suffix))
  for _ in range(data.draw(st.integers(1, 4))):
    content[data.draw(st.integers(6, len(content) - 1))] = data.draw(st.integers(0, 255))
  path = tmp_path / f"a{suffix}"
  path.write_bytes(content)
  try:
    raster = read_raster(str(path), max_pixels=10**6)
  except ImageError as error:
    assert str(path) in str(error)
  else:
    assert raster.values.ndim == 3 and raster.values.size <= 10**6


# Headers


def test_a_header_is_that_of_the_image_without_its_pixels(tmp_path: Path):
  write_tif(tmp_path / "a.tif", numbers(3, 5, 7), nodata=7)
  Image.fromarray(numbers(5, 7, 3, dtype="uint8")).save(tmp_path / "a.png")
  np.save(tmp_path / "a.npy", numbers(5, 7, 3, dtype=">i4"))
  for name, dtype, nodata in (
    ("a.tif", "uint16", 7),
    ("a.png", "uint8", None),
    ("a.npy", "int32", None),
  ):
    header, raster = read_header(str(tmp_path / name)), read_raster(str(tmp_path / name))
    assert (header.shape, header.count, header.dtype, header.nodata) == ((5, 7), 3, dtype, nodata)
    assert (header.path, header.crs) == (raster.path, raster.crs)
    np.testing.assert_array_equal(header.transform, raster.transform)
  assert read_header(str(tmp_path / "a.tif")).transform == UTM


def test_a_header_is_read_where_the_pixels_are_damaged(tmp_path: Path):
  content = bytearray(png_bytes(20, 30))
  content[45] ^= 1  # within the compressed pixels
  (tmp_path / "a.png").write_bytes(content)
  assert read_header(str(tmp_path / "a.png")).shape == (30, 20)
  refused(tmp_path / "a.png", "damaged")
  (tmp_path / "b.png").write_bytes(b"text")
  with pytest.raises(ImageError, match="promises PNG"):
    read_header(str(tmp_path / "b.png"))


# Bands of one scene


def scene(folder: Path, **sizes: int) -> dict[str, str]:
  """Single-band files of the given sizes that cover one area of 120 m."""
  return {
    name: write_tif(
      folder / f"{name}.tif", numbers(1, size, size),
      transform=(120 / size, 0, 500000, 0, -120 / size, 4000000),
    )
    for name, size in sizes.items()
  }  # fmt: skip


def test_coarser_bands_repeat_their_pixels_in_the_given_order(tmp_path: Path):
  paths = scene(tmp_path, coarse=2, fine=12, middle=6)
  raster = read_bands([paths["coarse"], paths["fine"], paths["middle"]], "nearest")
  assert raster.values.shape == (12, 12, 3) and raster.values.dtype == np.uint16
  assert raster.transform == UTM
  for band, (name, factor) in enumerate([("coarse", 6), ("fine", 1), ("middle", 2)]):
    expected = np.kron(read_raster(paths[name]).values[..., 0], np.ones((factor, factor)))
    np.testing.assert_array_equal(raster.values[..., band], expected)


def test_bilinear_keeps_a_plane_between_the_outer_pixel_centres(tmp_path: Path):
  x = (np.arange(4) + 0.5) * 30
  plane = (2 * x[None, :] + 3 * x[:, None] + 5).astype(np.float32)
  coarse = write_tif(tmp_path / "c.tif", plane[None], transform=(30, 0, 0, 0, -30, 0))
  fine = write_tif(
    tmp_path / "f.tif", np.zeros((1, 12, 12), np.float32), transform=(10, 0, 0, 0, -10, 0)
  )
  values = read_bands([coarse, fine], "bilinear").values[..., 0]
  at = (np.arange(12) + 0.5) * 10
  inside = (at >= x[0]) & (at <= x[-1])
  expected = 2 * at[None, :] + 3 * at[:, None] + 5
  np.testing.assert_allclose(
    values[np.ix_(inside, inside)], expected[np.ix_(inside, inside)], rtol=1e-6
  )
  assert values[0, 0] == plane[0, 0] and values[-1, -1] == plane[-1, -1]


def test_bilinear_rounds_to_the_stored_type_by_hand(tmp_path: Path):
  # Weights of centres 1/4 and 3/4 between 10 and 20: 12.5 and 17.5, and rint is half to even.
  coarse = write_tif(
    tmp_path / "c.tif", np.array([[[10, 20]]], np.uint8), transform=(20, 0, 0, 0, -20, 0)
  )
  fine = write_tif(
    tmp_path / "f.tif", np.zeros((1, 2, 4), np.uint8), transform=(10, 0, 0, 0, -10, 0)
  )
  values = read_bands([fine, coarse], "bilinear").values[..., 1]
  np.testing.assert_array_equal(values, [[10, 12, 18, 20]] * 2)


def test_bilinear_mixes_no_nodata_into_its_neighbours(tmp_path: Path):
  coarse = np.array([[[100, 100, 0], [100, 100, 100]]], np.uint16)
  paths = [
    write_tif(tmp_path / "c.tif", coarse, transform=(20, 0, 0, 0, -20, 0), nodata=0),
    write_tif(tmp_path / "f.tif", np.ones((1, 4, 6), np.uint16), transform=(10, 0, 0, 0, -10, 0)),
  ]
  values = read_bands(paths, "bilinear").values[..., 0]
  np.testing.assert_array_equal(values, np.kron(coarse[0], np.ones((2, 2))))


def test_bands_that_are_not_of_one_scene(tmp_path: Path):
  fine = scene(tmp_path, fine=12)["fine"]
  cases = {
    "no whole fraction": {"bands": numbers(1, 5, 5), "transform": (24, 0, 500000, 0, -24, 4000000)},
    "does not cover": {"bands": numbers(1, 6, 6), "transform": (20, 0, 500020, 0, -20, 4000000)},
    "not in the EPSG:32633": {"bands": numbers(1, 12, 12), "crs": "EPSG:32634"},
    "not the uint16": {"bands": numbers(1, 12, 12, dtype="int16")},
    "has 2 bands": {"bands": numbers(2, 12, 12)},
  }
  for words, options in cases.items():
    other = write_tif(tmp_path / "other.tif", **options)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=words):
      read_bands([fine, other], "nearest")
  with pytest.raises(ImageError, match="no band"):
    read_bands([], "nearest")


def test_the_limit_holds_for_the_stack(tmp_path: Path):
  paths = list(scene(tmp_path, a=12, b=12).values())
  assert read_bands(paths, "nearest", max_pixels=288).values.shape == (12, 12, 2)
  with pytest.raises(ImageError, match="limit"):
    read_bands(paths, "nearest", max_pixels=287)


@needs_geotiff
def test_a_real_bigearthnet_scene_stacks_on_its_10_m_grid():
  folder = next((GEOTIFF / "bigearthnet_v1_example").glob("BigEarthNet-S2-Example/*/"))
  paths = [str(folder / f"{folder.name}_{band}.tif") for band in ("B01", "B02", "B05")]
  raster = read_bands(paths, "nearest")
  assert raster.values.shape == (120, 120, 3)
  for band, (path, factor) in enumerate(zip(paths, (6, 1, 2), strict=True)):
    with rasterio.open(path) as file:
      np.testing.assert_array_equal(raster.values[::factor, ::factor, band], file.read(1))
