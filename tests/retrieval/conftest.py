"""Real archives, embedded by an encoder with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.retrieval.embedding.random_encoder import export_random_encoder
from xjepa_jax.data.importers.__main__ import main as import_pairs
from xjepa_jax.retrieval.embed import main
from xjepa_jax.sensor_presets import preset


@pytest.fixture(scope="session")
def real_embeddings(
  shared_data: Path, compiled: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
  """Embeddings of the GeoTIFF samples of four archives and of OMBRIA's test split, by name."""
  folder = tmp_path_factory.mktemp("real")
  geotiff = shared_data / "geotiff"
  optical = preset("sentinel2_l2a").select(["B04", "B03", "B02"])
  encoder = str(folder / "encoder")
  export_random_encoder(encoder, {"optical": optical, "radar": preset("sentinel1_grd")}, 112)
  ben = geotiff / "bigearthnet_v1_example" / "BigEarthNet-S2-Example"
  lines = [
    f"{patch.name},{';'.join(f'{patch}/{patch.name}_{band}.tif' for band in optical.band_names)}"
    for patch in sorted(ben.iterdir())
  ]
  table = folder / "ben.csv"
  table.write_text("\n".join(["id,optical", *lines]) + "\n")
  s2 = list(preset("sentinel2_l2a").band_names)
  with_b10 = [*s2[:10], "B10", *s2[10:]]
  archives = {
    "bigearthnet": (str(table), "--sensor", "optical", "--allow-outside"),
    "terramesh": (
      *(str(geotiff / "terramesh"), *_both("S2L2A/*", "S1RTC/*")),
      *("--bands", f"optical={','.join(s2)}"),
    ),
    "sen12mscr": (
      *(str(geotiff / "sen12mscr"), *_both("s2_*/*", "s1/*")),
      *("--bands", f"optical={','.join(with_b10)}"),
    ),
    "sen1floods11": (str(geotiff / "sen1floods11_sample"), *_both("S2/*", "S1/*")),
  }
  for name, (archive, *more) in archives.items():
    _embed(encoder, archive, str(folder / name), *more)
  pairs, encoder = str(folder / "pairs"), str(folder / "ombria encoder")
  source = ["--src", str(shared_data / "ombria" / "pairs.csv"), "--out", pairs]
  sensors = [
    "--sensor",
    "s1=grey",
    "--sensor",
    "s2=rgb",
    "--nodata",
    "s1=255",
    "--nodata",
    "s2=0",
    "--ungeoreferenced",
  ]
  assert import_pairs(["manifest", *source, *sensors]) == 0
  export_random_encoder(encoder, {"s1": preset("grey"), "s2": preset("rgb")}, 112)
  _embed(encoder, pairs, str(folder / "ombria"), "--split", "test")
  return {name: str(folder / name) for name in (*archives, "ombria")}


def _both(optical: str, radar: str) -> tuple[str, ...]:
  return ("--sensor", f"optical={optical}", "--sensor", f"radar={radar}")


def _embed(encoder: str, archive: str, out: str, *more: str) -> None:
  named = ["--encoder", encoder, "--archive", archive, "--out", out]
  assert main([*named, "--batch", "2", "--part-rows", "64", *more]) == 0
