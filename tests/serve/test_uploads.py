"""Uploads: an image asks as its tile would; what is too large, damaged or hostile is refused."""

from __future__ import annotations

import io
import json
import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from fastapi.testclient import TestClient
from PIL import Image

from tests.serve.archives import SIZE, Made, optical, sar
from tests.serve.conftest import LIMITS
from xjepa_jax.retrieval.searching.searcher import open_searcher
from xjepa_jax.serve.app import create_app
from xjepa_jax.serve.archive import Archive
from xjepa_jax.serve.security import Access
from xjepa_jax.serve.uploads import safe_name

PLACED = {"crs": "EPSG:32633", "transform": (10, 0, 5e5, 0, -10, 5e6)}


@pytest.fixture(autouse=True)
def nothing_is_left(
  tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
  """Whatever happens, no upload stays on the disk; other servers' uploads lie elsewhere."""
  folder = tmp_path_factory.mktemp("uploads")
  monkeypatch.setattr(tempfile, "tempdir", str(folder))
  yield
  assert not list(folder.glob("xjepa-upload-*"))


def npy(values: np.ndarray) -> bytes:
  file = io.BytesIO()
  np.save(file, values, allow_pickle=True)
  return file.getvalue()


def png(width: int, height: int) -> bytes:
  """A PNG of which only the header tells the truth about its size."""

  def chunk(kind: bytes, content: bytes) -> bytes:
    end = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + end

  header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
  body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
  return b"\x89PNG\r\n\x1a\n" + body


def row_of(client: TestClient, number: int, values: np.ndarray) -> int:
  """The row of the tile that shows a scene, by its number and its bands."""
  for row in range(120):
    tile, _ = client.get(f"/tiles/{row}.json").json()
    optical_tile = tile["sensor"] == client.get("/archive.json").json()["sensors"][1]
    if tile["id"].endswith(f"-{number:07d}") and optical_tile == (values.shape[-1] > 2):
      return row
  raise AssertionError(f"no tile of scene {number}")


@pytest.mark.parametrize("see", [optical, sar])
def test_an_uploaded_tile_asks_as_the_tile_itself(
  client: TestClient, see: Callable[[int], np.ndarray]
) -> None:
  values = see(17)
  answer = client.post("/uploads?name=mine.npy", content=npy(values))
  assert answer.status_code == 200, answer.text
  found = answer.json()
  assert found["title"] == "mine.npy"
  asked = {"upload": found["upload"], "sensor": found["sensor"], "k": 1}
  (best,) = client.get("/search.json", params=asked).json()["hits"]
  assert best["row"] == row_of(client, 17, values) and best["score"] > 0.999
  picture = client.get(f"/uploads/{found['upload']}.png")
  assert Image.open(io.BytesIO(picture.content)).size == (SIZE, SIZE)


def test_an_upload_goes_with_examples(client: TestClient, archive: Archive) -> None:
  found = client.post("/uploads?name=a.npy", content=npy(sar(3))).json()
  plain = client.get("/search.json", params={"upload": found["upload"], "k": 9}).json()["hits"]
  unlike = plain[0]["row"]
  asked = {"upload": found["upload"], "unlike": unlike, "k": 9}
  turned = client.get("/search.json", params=asked).json()["hits"]
  assert unlike not in [hit["row"] for hit in turned]


def test_an_upload_in_other_units_is_refused_unless_they_are_trusted(client: TestClient) -> None:
  linear = npy((10 ** (sar(3) / 10)).astype(np.float32))
  answer = client.post("/uploads?name=linear.npy", content=linear)
  assert answer.status_code == 422
  said = answer.json()["error"]
  assert "linear power" in said and "trust its units" in said and said.startswith("linear.npy:")
  trusted = client.post("/uploads?name=linear.npy&trust_units=true", content=linear)
  assert trusted.status_code == 200, trusted.text


def test_an_upload_with_an_offset_asks_as_the_tile_without(client: TestClient) -> None:
  values = npy(optical(17) + np.uint16(1000))
  answer = client.post("/uploads?name=late.npy", content=values)
  assert answer.status_code == 200 and "+1000" in answer.json()["title"]  # said, not refused
  found = client.post("/uploads?name=late.npy&offset=-1000", content=values).json()
  asked = {"upload": found["upload"], "sensor": found["sensor"], "k": 1}
  (best,) = client.get("/search.json", params=asked).json()["hits"]
  assert best["id"].endswith("-0000017") and best["score"] > 0.999
  for offset in ("nan", "inf", "x"):
    assert client.post(f"/uploads?name=a.npy&offset={offset}", content=values).status_code == 422


def test_an_upload_and_examples_that_are_not_there_are_refused(client: TestClient) -> None:
  found = client.post("/uploads?name=a.npy", content=npy(sar(3))).json()
  answer = client.get("/search.json", params={"upload": found["upload"], "like": 99999})
  assert answer.status_code == 422 and "row 99999" in answer.json()["error"]


def test_a_geotiff_is_taken(client: TestClient, tmp_path: Path) -> None:
  import rasterio

  values = sar(5)
  path = tmp_path / "sar.tif"
  with rasterio.open(
    path, "w", driver="GTiff", height=SIZE, width=SIZE, count=2, dtype="float32", **PLACED
  ) as file:
    file.write(np.moveaxis(values, -1, 0))
  answer = client.post("/uploads?name=sar.tif", content=path.read_bytes())
  assert answer.status_code == 200, answer.text


def test_a_pickle_is_not_loaded(client: TestClient, tmp_path: Path) -> None:
  class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
      return os.mkdir, (str(tmp_path / "owned"),)

  content = npy(np.array([Hostile()], dtype=object))
  answer = client.post("/uploads?name=a.npy", content=content)
  assert answer.status_code == 422 and not (tmp_path / "owned").exists()


VRT = b'<VRTDataset rasterXSize="9" rasterYSize="9"><SourceFilename>/etc/passwd</SourceFilename>'


@pytest.mark.parametrize(
  ("name", "content", "complaint"),
  [
    ("a.vrt", VRT, "upload one of"),
    ("a.tif", VRT, "promises GeoTIFF"),
    ("a.png", b"\x89PNG\r\n\x1a\n", "cannot be read"),
    ("a.png", b"<svg onload=alert(1)>", "promises PNG"),
    ("a.png", png(100_000, 100_000), "more than the limit"),
    ("a.png", png(10, 10), "a.png"),
    ("a.npy", npy(np.zeros((SIZE, SIZE, 5), np.float32)), "no sensor"),
    ("a.npy", npy(np.zeros((300, 300, 2), np.uint8)), "more than the limit"),
    ("a.npy", npy(np.zeros((SIZE, SIZE, 2), np.float32))[:-9], "cut short"),
    ("a.npy", npy(np.full((SIZE, SIZE, 2), np.nan, np.float32)), "seen"),
    ("a.npy", b"", "empty"),
    ("a", b"x", "upload one of"),
    ("../../etc/cron.d/a", b"x", "upload one of"),
    ("<img src=x>.npy", npy(np.zeros((4, 4, 2), np.float32)), "_img src_x_.npy: is 4 x 4"),
  ],
)
def test_what_is_no_image_for_the_encoder_is_refused(
  client: TestClient, name: str, content: bytes, complaint: str
) -> None:
  answer = client.post("/uploads", params={"name": name}, content=content)
  assert answer.status_code == 422
  said = answer.json()["error"]
  assert complaint.lower() in said.lower()
  assert tempfile.gettempdir() not in said  # nothing of the server's folders


def test_a_header_of_a_billion_pixels_is_refused_before_they_are_read(
  client: TestClient, tmp_path: Path
) -> None:
  import rasterio

  path = tmp_path / "huge.tif"
  with rasterio.open(
    path, "w", driver="GTiff", height=40_000, width=25_000, count=1, dtype="uint8",
    tiled=True, blockxsize=2048, blockysize=2048, sparse_ok=True, **PLACED,
  ):  # fmt: skip
    pass
  answer = client.post("/uploads?name=huge.tif", content=path.read_bytes())
  assert answer.status_code == 422
  assert "more than the limit" in answer.json()["error"]


def test_more_bytes_than_the_cap_are_refused_declared_or_not(client: TestClient) -> None:
  large = b"\x93NUMPY" + bytes(LIMITS.bytes)
  for content in (large, iter([large[:1000]] * (LIMITS.bytes // 900))):
    answer = client.post("/uploads?name=a.npy", content=content)
    assert answer.status_code == 413 and "larger than" in answer.json()["error"]


def test_without_an_encoder_nothing_can_be_uploaded(made: Made) -> None:
  searcher = open_searcher(made.index)
  searcher.encoder = None
  archive = Archive(searcher)
  app = create_app(archive, Access("127.0.0.1", 8080), LIMITS)
  client = TestClient(app, base_url="http://127.0.0.1:8080")
  assert client.get("/archive.json").json()["uploads"] == []
  answer = client.post("/uploads?name=a.npy", content=npy(sar(1)))
  assert "encoder" in answer.json()["error"]
  # The data set itself says how its sensors are shown.
  image = Image.open(io.BytesIO(archive.picture(0)[0]))
  assert image.getcolors(20) is None
  assert json.loads(client.get("/search.json?like=2&k=3").content)["hits"]


@pytest.mark.parametrize(
  ("given", "shown"),
  [
    ("a b.tif", "a b.tif"),
    ("C:\\x\\y.PNG", "y.PNG"),
    ("/etc/a.npy", "a.npy"),
    ("é\n.tif", "é_.tif"),
  ],
)
def test_a_name_is_shown_without_folders_and_control_characters(given: str, shown: str) -> None:
  assert safe_name(given) == shown


def test_a_command_that_mends_an_upload_names_its_owner_s_file_and_no_folder_of_the_server(
  client: TestClient, tmp_path: Path
) -> None:
  path = tmp_path / "coarse.tif"
  with rasterio.open(
    path, "w", driver="GTiff", height=SIZE, width=SIZE, count=2, dtype="float32",
    crs="EPSG:32633", transform=rasterio.Affine(60, 0, 5e5, 0, -60, 5e6),
  ) as file:  # fmt: skip
    file.write(np.moveaxis(sar(3), -1, 0))
  answer = client.post("/uploads?name=coarse.tif", content=path.read_bytes())
  assert answer.status_code == 422
  said = answer.json()["error"]
  assert "coarse.tif resampled/coarse.tif" in said and "mkdir -p resampled" in said
  assert "xjepa-upload" not in said and tempfile.gettempdir() + "/" not in said
