"""Encoders with random weights, which take no training, and GeoTIFFs in any coordinate system."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.retrieval.embedding.random_encoder import export_random_encoder
from xjepa_jax.data.description import describe
from xjepa_jax.sensor_presets import preset

WriteTif = Callable[..., Path]


@pytest.fixture(scope="session")
def pair_encoder(simulated: str, tmp_path_factory: pytest.TempPathFactory) -> str:
  """The directory of an encoder of the simulated pairs' sensors, 16 x 16 pixels."""
  directory = str(tmp_path_factory.mktemp("random") / "encoder")
  export_random_encoder(directory, dict(describe(simulated).format.sensors), 16)
  return directory


@pytest.fixture(scope="session")
def tile_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
  """The directory of an encoder of three optical bands and of dB in VV and VH, 16 x 16 pixels."""
  directory = str(tmp_path_factory.mktemp("random") / "encoder")
  sensors = {
    "optical": preset("sentinel2_l2a").select(["B04", "B03", "B02"]),
    "radar": preset("sentinel1_grd"),
  }
  export_random_encoder(directory, sensors, 16)
  return directory


@pytest.fixture
def write_tif(tmp_path: Path) -> WriteTif:
  """Writes (H, W, C) values as a GeoTIFF below the test's folder."""

  def write(
    name: str,
    values: np.ndarray,
    crs: str | None = "EPSG:32633",
    transform: Sequence[float] = (10, 0, 5e5, 0, -10, 5e6),
    descriptions: Sequence[str] = (),
    **options: Any,
  ) -> Path:
    import rasterio

    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, count = values.shape
    placed = {"crs": crs, "transform": rasterio.Affine(*transform)} if crs else {}
    with rasterio.open(
      path, "w", driver="GTiff", height=height, width=width, count=count, dtype=values.dtype,
      **placed, **options,
    ) as file:  # fmt: skip
      file.write(np.moveaxis(values, -1, 0))
      if descriptions:
        file.descriptions = tuple(descriptions)
    return path

  return write
