"""Images replaced after they were embedded are neither shown nor mixed as those of then."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from tests.retrieval.embedding.random_encoder import export_random_encoder
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.description import describe
from xjepa_jax.data.import_plan import plan_import
from xjepa_jax.data.simulate import simulated_archive
from xjepa_jax.data.writer import write_dataset
from xjepa_jax.errors import ChangedError
from xjepa_jax.retrieval import embed, index, search
from xjepa_jax.retrieval.embedding.digests import files_digest
from xjepa_jax.retrieval.embedding.files import open_embeddings
from xjepa_jax.retrieval.embedding.tile_images import TileImages
from xjepa_jax.retrieval.embedding.writing import write_embeddings
from xjepa_jax.retrieval.searching.searcher import open_searcher
from xjepa_jax.serve.app import create_app
from xjepa_jax.serve.archive import Archive
from xjepa_jax.serve.security import Access
from xjepa_jax.serve.static_export import export_page
from xjepa_jax.serve.uploads import Limits

SIZE = 16


def pairs_of(seed: int, directory: Path) -> Path:
  source = simulated_archive(pairs=20, size=SIZE, seed=seed)
  source = dataclasses.replace(source, name="simulated")
  write_dataset(plan_import(source, shard_bytes=10**6, encoding="bytes"), str(directory))
  return directory


@dataclasses.dataclass(frozen=True)
class Places:
  """An archive of pairs or of npy files, and another one of the same names and sizes."""

  archive: Path
  other: Path
  encoder: str
  out: Path
  built: Path

  def embed(self, *more: str) -> int:
    images = [] if (self.archive / "sensors.json").exists() else [
      "--sensor", "s1=s1/*.npy", "--sensor", "s2=s2/*.npy", "--no-geometry",
    ]  # fmt: skip
    return embed.main(
      ["--encoder", self.encoder, "--archive", str(self.archive), "--out", str(self.out),
       "--part-rows", "4", *images, *more]
    )  # fmt: skip

  def built_index(self) -> Path:
    assert self.embed() == 0
    assert index.main(["--embeddings", str(self.out), "--out", str(self.built)]) == 0
    return self.built


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """Two data sets of pairs, folders of their test images, and an encoder of both."""
  root = tmp_path_factory.mktemp("two")
  for seed, name in enumerate(("pairs", "other-pairs")):
    where = pairs_of(seed, root / name)
    with PairDataset(where, "train") as dataset:
      for number in range(6):
        for key, each in dataset[number].observations.items():
          path = root / name.replace("pairs", "images") / key / f"{number}.npy"
          path.parent.mkdir(parents=True, exist_ok=True)
          np.save(path, each.values)
  export_random_encoder(root / "encoder", dict(describe(root / "pairs").format.sensors), SIZE)
  return root


@pytest.fixture(params=["pairs", "images"])
def places(request: pytest.FixtureRequest, two: Path, tmp_path: Path) -> Places:
  kind = request.param
  shutil.copytree(two / kind, tmp_path / kind)
  shutil.copytree(two / f"other-{kind}", tmp_path / "other")
  return Places(
    tmp_path / kind, tmp_path / "other", str(two / "encoder"), tmp_path / "out", tmp_path / "index"
  )


def all_of_it(places: Places) -> None:
  shutil.rmtree(places.archive)
  shutil.copytree(places.other, places.archive)


def one_split_or_image(places: Places) -> None:
  """What describes the archive stays, and so do all sizes of images."""
  patterns = ("*-train.tfrecord*", "*/3.npy")
  for path in [found for each in patterns for found in places.other.glob(each)]:
    shutil.copy(path, places.archive / path.relative_to(places.other))


CHANGES = [all_of_it, one_split_or_image]


def asked(places: Places) -> list[str]:
  """A query that an image of both changes answers, itself one."""
  files = open_embeddings(str(places.out))
  (row,) = [
    row for row in files.take(range(len(files)))
    if row["sensor"] == "s1" and row["source"] in ("train/3", "s1/3.npy")
  ]  # fmt: skip
  return ["--id", row["id"], "--query-sensor", "s1", "--k", "1"]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("picture", ["--gallery", "--explain"])
def test_a_picture_of_what_was_not_embedded_is_refused_and_the_old_one_put_back_is_drawn(
  places: Places, change: Callable[[Places], None], picture: str, tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
  shutil.copytree(places.archive, tmp_path / "kept")
  command = ["--index", str(places.built_index()), *asked(places), picture]
  assert search.main([*command, str(tmp_path / "before.png")]) == 0
  change(places)
  capsys.readouterr()
  assert search.main([*command, str(tmp_path / "after.png")]) == 1
  error = capsys.readouterr().err
  assert str(places.archive) in error and "Put" in error and "embed" in error
  assert not (tmp_path / "after.png").exists()
  shutil.rmtree(places.archive)
  shutil.copytree(tmp_path / "kept", places.archive)  # with other times of modification
  assert search.main([*command, str(tmp_path / "again.png")]) == 0
  assert (tmp_path / "again.png").read_bytes() == (tmp_path / "before.png").read_bytes()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("open_before", [True, False])
def test_the_page_crosses_out_what_was_not_embedded_and_keeps_no_such_picture(
  places: Places, change: Callable[[Places], None], open_before: bool
) -> None:
  built = str(places.built_index())
  (row,) = open_embeddings(str(places.out)).find(asked(places)[1], "s1")

  def client() -> TestClient:
    archive = Archive(open_searcher(built))
    app = create_app(archive, Access("127.0.0.1", 8080), Limits(10**6, 10**6))
    return TestClient(app, base_url="http://127.0.0.1:8080")

  served = client()
  address = f"/pictures/{served.get('/archive.json').json()['version']}/{row}.png"
  before = client().get(address)
  assert "immutable" in before.headers["cache-control"]
  change(places)
  after = (served if open_before else client()).get(address)
  assert after.status_code == 200 and after.headers["cache-control"] == "no-store"
  assert after.content != before.content
  with pytest.raises(ChangedError, match="Put"):
    export_page(Archive(open_searcher(built)), places.out.parent / "page", None, 3)


def test_an_archive_that_is_embedded_again_has_pictures_at_other_addresses(places: Places) -> None:
  first = Archive(open_searcher(places.built_index())).version
  one_split_or_image(places)
  for path in (places.out, places.built):
    shutil.rmtree(path)
  assert Archive(open_searcher(places.built_index())).version != first


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("whole", [True, False])
def test_images_replaced_between_two_starts_are_refused_by_name_and_all_are_embedded_anew(
  places: Places, change: Callable[[Places], None], whole: bool,
  capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
  assert places.embed(*([] if whole else ["--process", "0", "--processes", "2"])) == 0
  before = {path: path.read_bytes() for path in places.out.rglob("*") if path.is_file()}
  shutil.copytree(places.archive, places.out.parent / "kept")
  change(places)
  capsys.readouterr()
  rest = [] if whole else ["--process", "1", "--processes", "2"]
  assert places.embed(*rest) == 1
  error = capsys.readouterr().err
  assert "other settings" not in error and "--out" in error
  assert f"was begun with other images than {places.archive} has now" in error
  assert "images whose rows are finished are other ones now, such as" in error
  assert before == {path: path.read_bytes() for path in places.out.rglob("*") if path.is_file()}
  new = places.archive.with_name("changed")
  places.archive.rename(new)
  (places.out.parent / "kept").rename(places.archive)  # the images of then are put back
  assert places.embed() == 0 and len(open_embeddings(str(places.out)))
  shutil.rmtree(places.archive)
  new.rename(places.archive)
  shutil.rmtree(places.out)  # or all are embedded again
  assert places.embed() == 0


def test_a_file_more_or_less_is_said_in_numbers(
  two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive = tmp_path / "images"
  shutil.copytree(two / "images", archive)
  places = Places(archive, archive, str(two / "encoder"), tmp_path / "out", tmp_path / "index")
  assert places.embed() == 0
  (archive / "s1" / "0.npy").unlink()
  assert places.embed() == 1
  error = capsys.readouterr().err
  assert "it had 12 tiles and has 11" in error
  assert "1 of the 12 images whose rows are finished are not among them any more" in error
  assert "s1/0.npy" in error


def test_embeddings_of_before_there_were_digests_are_shown_as_they_were(
  two: Path, tmp_path: Path
) -> None:
  archive = tmp_path / "images"
  shutil.copytree(two / "images", archive)
  places = Places(archive, archive, str(two / "encoder"), tmp_path / "out", tmp_path / "index")
  assert places.embed() == 0
  new = open_embeddings(str(places.out))
  old = dataclasses.replace(new.description, digests=False)
  table = pa.concat_tables(list(new.tables())).drop_columns("source_digest")
  write_embeddings(str(tmp_path / "old"), old, [table])
  content = json.loads((tmp_path / "old" / "description.json").read_text())
  assert content.pop("digests") is False
  files = open_embeddings(str(tmp_path / "old"))
  shutil.copy(two / "other-images" / "s1" / "3.npy", archive / "s1" / "3.npy")
  row = next(row for row in files.take(range(len(files))) if row["source"] == "s1/3.npy")
  images = TileImages(old, dict(describe(two / "pairs").format.sensors))
  np.testing.assert_array_equal(images.read(row), np.load(archive / "s1" / "3.npy"))


@pytest.mark.parametrize("size", [10, 1 << 16, 10**6])
@pytest.mark.parametrize("where", [0, -1])
def test_a_digest_is_of_both_ends_and_of_the_size_and_of_no_time(
  tmp_path: Path, size: int, where: int
) -> None:
  content = bytearray(np.random.default_rng(0).bytes(size))
  path, copy = tmp_path / "a", tmp_path / "b"
  path.write_bytes(content)
  copy.write_bytes(content)
  assert files_digest([str(path)]) == files_digest([str(copy)])
  content[where] ^= 1
  copy.write_bytes(content)
  assert files_digest([str(path)]) != files_digest([str(copy)])
  path.write_bytes(bytes(size))
  copy.write_bytes(bytes(size + 1))
  assert files_digest([str(path)]) != files_digest([str(copy)])
