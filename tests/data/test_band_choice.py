"""Which bands of a file are a sensor's, by what the file calls them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio

from xjepa_jax.data.band_choice import bands_of
from xjepa_jax.data.band_stack import read_bands, stacked_header
from xjepa_jax.data.image_formats import RasterHeader
from xjepa_jax.data.raster import read_header
from xjepa_jax.errors import ImageError
from xjepa_jax.sensor_presets import preset
from xjepa_jax.sensors import Sensor

S1, S2, RGB = preset("sentinel1_grd"), preset("sentinel2_l2a"), preset("rgb")
NAMES = S2.band_names
BGRN = S2.select(["B02", "B03", "B04", "B08"])


def header(descriptions: Sequence[str], alpha: int = 0) -> RasterHeader:
  return RasterHeader(
    "a.tif", (4, 4), len(descriptions), "uint16", descriptions=tuple(descriptions), alpha=alpha
  )


@pytest.mark.parametrize(
  ("sensor", "descriptions", "expected"),
  [
    (S2, [f"S2_{name}" for name in NAMES[::-1]], list(range(12, 0, -1))),
    (S2, [f"{name}_20m" for name in NAMES[::-1]], list(range(12, 0, -1))),
    (BGRN, ["B4, central wavelength 665 nm", "B3", "b02", "B8 (NIR)"], [3, 2, 1, 4]),
    (BGRN, ["Red", "green", "BLUE", "nir"], [3, 2, 1, 4]),
    (RGB, ["blue", "green", "red"], [3, 2, 1]),
    (S1, ["Sigma0_VH_db", "Sigma0_VV_db"], [2, 1]),
    (S1, ["angle", "S1_VH", "S1_VV"], [3, 2]),
    (S1, ["VH", "VV", "VV/VH"], [2, 1]),
    # What follows names nothing, or not all: the place decides.
    (S1, ["Gray", ""], [1, 2]),
    (S1, ["Band 1", "Band 2"], [1, 2]),
    (S1, ["VV", ""], [1, 2]),
    (S2, [f"B{number}" for number in range(1, 13)], list(range(1, 13))),  # counted
    (RGB, ["Gray", "", "", ""], [1, 2, 3]),
  ],
)
def test_descriptions_that_name_the_bands_decide(
  sensor: Sensor, descriptions: list[str], expected: list[int]
) -> None:
  alpha = 4 if sensor is RGB and len(descriptions) == 4 else 0
  assert bands_of("x", sensor, header(descriptions, alpha), ()) == expected


@pytest.mark.parametrize(
  ("sensor", "descriptions", "found"),
  [
    (S1, ["HH", "HV"], "band 1 'HH', where sensor 'x' (VV, VH) has VV"),
    (S1, ["", "Sigma0_VV"], "band 2 'Sigma0_VV'"),
    (S2, [*NAMES[:9], "B10", *NAMES[10:]], "band 10 'B10'"),
    (BGRN, ["B1", "B2", "B3", "B4"], "band 1 'B1'"),
  ],
)
def test_a_file_whose_descriptions_name_other_bands_is_refused(
  sensor: Sensor, descriptions: list[str], found: str
) -> None:
  with pytest.raises(ImageError, match=re.escape(found)):
    bands_of("x", sensor, header(descriptions), ())


def band_files(folder: Path, names: Sequence[str], called: Sequence[str]) -> list[str]:
  paths = []
  for number, (name, description) in enumerate(zip(names, called, strict=True)):
    path = folder / f"{name}.tif"
    with rasterio.open(
      path, "w", driver="GTiff", height=4, width=4, count=1, dtype="uint16", crs="EPSG:32633",
      transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6),
    ) as file:  # fmt: skip
      file.write(np.full((1, 4, 4), 100 + number, np.uint16))
      file.set_band_description(1, description)
    paths.append(str(path))
  return paths


def test_files_of_one_band_each_are_ordered_by_their_descriptions(tmp_path: Path) -> None:
  paths = band_files(tmp_path, "abcd", ["B08", "B04", "B03", "B02"])
  stacked = stacked_header([read_header(path) for path in paths])
  image = read_bands(paths, "nearest")
  assert bands_of("x", BGRN, stacked, ()) == bands_of("x", BGRN, image, ()) == [4, 3, 2, 1]
  assert image.values[0, 0].tolist() == [100, 101, 102, 103]


def test_the_command_that_corrects_a_description_works(tmp_path: Path) -> None:
  paths = band_files(tmp_path, "abcd", ["", "", "B05", ""])
  stacked = stacked_header([read_header(path) for path in paths])
  with pytest.raises(ImageError, match=r"c\.tif: calls its band 'B05'") as refused:
    bands_of("x", BGRN, stacked, ())
  (code,) = re.findall(r'python -c "(.*)"', str(refused.value))
  subprocess.run([sys.executable, "-c", code], check=True)
  stacked = stacked_header([read_header(path) for path in paths])
  assert bands_of("x", BGRN, stacked, ()) == [1, 2, 3, 4]


def test_too_few_files_are_called_files(tmp_path: Path) -> None:
  stacked = stacked_header([read_header(p) for p in band_files(tmp_path, "abc", ["", "", ""])])
  with pytest.raises(
    ImageError, match=r"a\.tif to .*c\.tif: are 3 files of one band each"
  ) as found:
    bands_of("x", BGRN, stacked, ())
  assert "--bands x=B02,B03,B04" not in str(found.value)
