"""An archive that is replaced while it is open is noticed; nothing old goes with anything new."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.retrieval.indexes import archive as archives
from xjepa_jax.errors import ChangedError, EmbeddingError, XJepaError
from xjepa_jax.retrieval.embedding.files import open_embeddings
from xjepa_jax.retrieval.indexes.directory import build_index
from xjepa_jax.retrieval.searching.answers import Query
from xjepa_jax.retrieval.searching.searcher import Searcher, open_searcher
from xjepa_jax.serve.app import create_app
from xjepa_jax.serve.archive import Archive
from xjepa_jax.serve.security import Access
from xjepa_jax.serve.uploads import Limits

ROWS = 300
RESTART = {"error": "The archive has changed: restart the server."}


@dataclasses.dataclass(frozen=True)
class Places:
  """An archive that is served, and another one of the same size beside it."""

  embeddings: Path
  index: Path
  other_embeddings: Path
  other_index: Path
  vectors: np.ndarray


@pytest.fixture
def places(tmp_path: Path) -> Places:
  embeddings, index, other_embeddings, other_index = (
    tmp_path / name for name in ("embeddings", "index", "other", "other-index")
  )
  vectors = archives.make(ROWS).vectors
  found = Places(embeddings, index, other_embeddings, other_index, vectors)
  for seed, (where, built) in enumerate([(embeddings, index), (other_embeddings, other_index)]):
    files = archives.embeddings(archives.make(ROWS, seed=seed), str(where))
    build_index(files, str(built), "exact", {})
  return found


def swap(path: Path, other: Path) -> None:
  """One directory takes the place of another, as a person does it."""
  path.rename(path.with_name(path.name + ".old"))
  other.rename(path)


def rebuild(index: Path, embeddings: Path) -> None:
  """The command that builds an index is run again, on other embeddings."""
  build_index(open_embeddings(str(embeddings)), str(index), "exact", {})


def copy_over(path: Path, other: Path) -> None:
  """Files are written over, one after another; their inodes stay."""
  shutil.copytree(other, path, dirs_exist_ok=True)


def replace_one_part(path: Path, other: Path) -> None:
  """As a copy that has only begun: the manifest is the old one still."""
  os.replace(other / "parts" / "part-00001.parquet", path / "parts" / "part-00001.parquet")


CHANGES: dict[str, Callable[[Places], None]] = {
  "embeddings swapped": lambda p: swap(p.embeddings, p.other_embeddings),
  "embeddings copied over": lambda p: copy_over(p.embeddings, p.other_embeddings),
  "embeddings gone": lambda p: shutil.rmtree(p.embeddings),
  "index swapped": lambda p: swap(p.index, p.other_index),
  "index rebuilt of others": lambda p: rebuild(p.index, p.other_embeddings),
  "index gone": lambda p: shutil.rmtree(p.index),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("asked_before", [False, True])
def test_a_searcher_that_stays_open_raises_by_the_files_name(
  places: Places, change: Callable[[Places], None], asked_before: bool
) -> None:
  searcher = open_searcher(str(places.index))
  query = Query("", "radar", places.vectors[150])
  if asked_before:
    (answer,) = searcher.answer([query], 1)
    assert [hit.row for hit in answer.hits] == [150]
  change(places)
  with pytest.raises(ChangedError, match=r"(manifest|index)\.json .*start again"):
    searcher.answer([query], 1)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_server_answers_503_to_whatever_is_asked_of_the_archive(
  places: Places, change: Callable[[Places], None]
) -> None:
  app = create_app(
    Archive(open_searcher(str(places.index))),
    Access("127.0.0.1", 8080),
    Limits(bytes=1000, pixels=1000),
  )
  client = TestClient(app, base_url="http://127.0.0.1:8080")
  asked = ("/search.json?like=7", "/archive.json", "/tiles.json", "/tiles/7.json", "/plane.json")
  assert [client.get(each).status_code for each in asked] == [200] * len(asked)
  version = client.get("/archive.json").json()["version"]
  change(places)
  for each in (*asked, "/places.json", f"/pictures/{version}/7.png", "/search.geojson?like=7"):
    answer = client.get(each)
    assert (answer.status_code, answer.json()) == (503, RESTART), each
  assert client.get("/").status_code == 200  # which asks for the rest, and shows the error


USES: dict[str, Callable[[Searcher], object]] = {
  "take": lambda searcher: searcher.files.take([150]),
  "vectors": lambda searcher: searcher.files.vectors_of([150]),
  "all": lambda searcher: searcher.files.vectors(),
  "find": lambda searcher: searcher.query_of_id("scene 75", "radar"),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
@pytest.mark.parametrize("verify", [False, True])
def test_a_part_that_is_replaced_alone_is_never_read_as_the_old_one(
  places: Places, use: Callable[[Searcher], object], verify: bool
) -> None:
  searcher = open_searcher(str(places.index), verify=verify)
  searcher.files.vectors_of([150])
  replace_one_part(places.embeddings, places.other_embeddings)
  with pytest.raises(
    EmbeddingError, match=r"part-00001\.parquet has other bytes than were written"
  ):
    use(searcher)


def test_a_part_that_is_replaced_while_it_is_read_is_noticed(
  places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
  searcher = open_searcher(str(places.index))
  from xjepa_jax.retrieval.embedding import files

  opened = files.open_part

  def open_late(path: str) -> object:
    swap(places.embeddings, places.other_embeddings)
    return opened(path)

  monkeypatch.setattr(files, "open_part", open_late)
  with pytest.raises(ChangedError):
    searcher.files.vectors_of([150])


def test_the_same_bytes_put_there_again_are_the_same_archive(places: Places) -> None:
  searcher = open_searcher(str(places.index))
  query = Query("", "radar", places.vectors[150])
  first = searcher.answer([query], 5)
  for path in (places.embeddings, places.index):
    again = path.with_name("again")
    shutil.copytree(path, again)
    swap(path, again)
  assert searcher.answer([query], 5) == first


def test_embeddings_that_are_replaced_while_an_archive_is_opened_are_noticed(
  places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
  from xjepa_jax.retrieval.searching import searcher as searchers

  opened = searchers.open_index

  def open_slowly(directory: str, embeddings: str | None = None) -> object:
    index = opened(directory, embeddings)
    swap(places.embeddings, places.other_embeddings)
    return index

  monkeypatch.setattr(searchers, "open_index", open_slowly)
  with pytest.raises(XJepaError, match="has changed while .* was opened: start again"):
    open_searcher(str(places.index))
