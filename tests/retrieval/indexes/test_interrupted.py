"""A build that is killed: the same command ends in an index that answers as an undisturbed one."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.retrieval.indexes import archive as archives
from xjepa_jax.errors import InUseError, SearchIndexError
from xjepa_jax.processes.locking import holding
from xjepa_jax.retrieval.embedding.files import EmbeddingFiles
from xjepa_jax.retrieval.index import main
from xjepa_jax.retrieval.indexes import directory as directories
from xjepa_jax.retrieval.indexes import pgvector_index, qdrant_points

ROWS = 6000
# Of the client without a server, which has neither indexes nor settings of a search.
pytestmark = pytest.mark.filterwarnings("ignore:.*ocal (Qdrant|mode)")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingFiles:
  """More rows than a batch of an upload."""
  archive = archives.make(ROWS, 32)
  return archives.embeddings(archive, str(tmp_path_factory.mktemp("many") / "embeddings"))


def begun(out: Path) -> bool:
  """Building has begun."""
  return Path(f"{out}.building").exists()


def writing(out: Path) -> bool:
  """Files of the index are being written."""
  building = Path(f"{out}.building")
  with contextlib.suppress(OSError):
    return any(path.is_file() for path in building.rglob("*"))
  return False


def test_an_index_that_another_process_is_building_is_left_to_it(
  many: EmbeddingFiles, tmp_path: Path
) -> None:
  out = tmp_path / "index"
  unfinished = tmp_path / "index.building" / "vectors.npy"
  unfinished.parent.mkdir()
  unfinished.write_bytes(b"being written")
  with (
    holding(f"{out}.lock", "the index"),
    pytest.raises(InUseError, match=rf"the index {out} is in use by process"),
  ):
    directories.build_index(many, str(out), "exact", {})
  assert unfinished.read_bytes() == b"being written"
  directories.build_index(many, str(out), "exact", {})
  assert {path.name for path in tmp_path.iterdir()} == {"index"}


@pytest.mark.parametrize("moment", [begun, writing])
@pytest.mark.parametrize("backend", ["exact", "faiss", "qdrant"])
def test_a_killed_build_is_done_by_the_same_command(
  backend: str, moment: Callable[[Path], bool], many: EmbeddingFiles, tmp_path: Path
) -> None:
  config = tmp_path / "settings.json"
  config.write_text('{"flat_below": 100, "lists": 32}' if backend == "faiss" else "{}")
  command = ["--embeddings", many.directory, "--backend", backend, "--config", str(config)]
  out = tmp_path / "killed"
  kill_at(lambda: moment(out), [*command, "--out", str(out)])
  assert not out.exists()
  with pytest.raises(SearchIndexError, match=r"interrupted.*Rebuild it"):
    directories.open_index(str(out))
  assert main([*command, "--out", str(out)]) == 0
  assert main([*command, "--out", str(tmp_path / "undisturbed")]) == 0
  assert_alike(str(out), str(tmp_path / "undisturbed"), many)
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    *("killed", "settings.json", "undisturbed")
  ]


def test_a_killed_upload_to_postgres_goes_on_with_the_rows_that_are_missing(
  many: EmbeddingFiles, tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(pgvector_index, "_BATCH", 500)
  command = ["--embeddings", many.directory, "--backend", "pgvector", "--server", postgres]
  out, config = tmp_path / "killed", tmp_path / "settings.json"
  config.write_text('{"table": "killed", "exact": true}')
  with counting(postgres, "killed_") as rows:
    kill_at(
      lambda: rows() >= 500,
      [*command, "--config", str(config), "--out", str(out)],
      "import xjepa_jax.retrieval.indexes.pgvector_index as p; p._BATCH = 500; ",
    )
    there = rows()
  assert 500 <= there < ROWS and there % 500 == 0
  sent = []
  copy = pgvector_index.PgvectorIndex._copy

  def counted(self: Any, connection: Any, table: Any, first: int) -> None:
    sent.append((first, len(table)))
    copy(self, connection, table, first)

  monkeypatch.setattr(pgvector_index.PgvectorIndex, "_copy", counted)
  assert main([*command, "--config", str(config), "--out", str(out)]) == 0
  assert sent[0][0] == there and sum(number for _, number in sent) == ROWS - there
  config.write_text('{"table": "undisturbed", "exact": true}')
  undisturbed = str(tmp_path / "undisturbed")
  assert main([*command, "--config", str(config), "--out", undisturbed]) == 0
  assert_alike(str(out), undisturbed, many)


def test_an_interrupted_upload_to_qdrant_goes_on_with_the_batches_that_are_missing(
  many: EmbeddingFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
  qdrant_client = pytest.importorskip("qdrant_client")
  from xjepa_jax.retrieval.indexes.qdrant_index import QdrantIndex

  monkeypatch.setattr(qdrant_points, "BATCH", 700)
  client = qdrant_client.QdrantClient(":memory:")
  upload, sent = client.upload_collection, []

  def failing(*args: Any, ids: range, **options: Any) -> None:
    sent.append(ids)
    if ids.start == 2 * 700:  # a part of the third batch arrives, the answer does not
      upload(*args, **{**options, "ids": ids[:100], "vectors": options["vectors"][:100],
                       "payload": options["payload"][:100]})  # fmt: skip
      raise ConnectionError("reset by peer")
    upload(*args, ids=ids, **options)

  monkeypatch.setattr(client, "upload_collection", failing)
  with pytest.raises(SearchIndexError, match=r"reset by peer.*same command again: it continues"):
    QdrantIndex(client=client).build(many)

  def recording(*args: Any, ids: range, **options: Any) -> None:
    sent.append(ids)
    upload(*args, ids=ids, **options)

  monkeypatch.setattr(client, "upload_collection", recording)
  sent.clear()
  continued = QdrantIndex(client=client)
  continued.build(many)
  assert sent[0].start == 2 * 700 and sum(map(len, sent)) == ROWS - 2 * 700
  undisturbed = QdrantIndex(client=qdrant_client.QdrantClient(":memory:"))
  undisturbed.build(many)
  queries = many.vectors_of(range(0, ROWS, 500))
  one, other = continued.search(queries, 10), undisturbed.search(queries, 10)
  np.testing.assert_array_equal(one.rows, other.rows)


def kill_at(moment: Callable[[], bool], arguments: list[str], prelude: str = "") -> None:
  """Runs the command in a process of its own and kills it (signal 9) as soon as `moment` comes."""
  code = f"{prelude}import sys; from xjepa_jax.retrieval.index import main; sys.exit(main())"
  process = subprocess.Popen([sys.executable, "-c", code, *arguments])
  limit = time.monotonic() + 60
  while process.poll() is None and not moment() and time.monotonic() < limit:
    time.sleep(0.0005)
  process.kill()
  assert process.wait() == -9, "the command ended before it was killed"


@contextlib.contextmanager
def counting(postgres: str, prefix: str) -> Iterator[Callable[[], int]]:
  """How many rows there are in the table of this prefix; 0 if there is none."""
  psycopg = pytest.importorskip("psycopg")
  with psycopg.connect(postgres, autocommit=True) as connection:

    def rows() -> int:
      found = connection.execute(
        "SELECT tablename FROM pg_tables WHERE tablename LIKE %s", (prefix + "%",)
      ).fetchone()
      if not found:
        return 0
      return int(connection.execute(f'SELECT count(*) FROM "{found[0]}"').fetchone()[0])

    yield rows


def assert_alike(one: str, other: str, files: EmbeddingFiles) -> None:
  """Two indexes give the same hits."""
  queries = files.vectors_of(range(0, len(files), 200))
  found = []
  for directory in (one, other):
    index = directories.open_index(directory)
    found.append(index.search(queries, 10))
    index.close()
  np.testing.assert_array_equal(found[0].rows, found[1].rows)
  np.testing.assert_array_equal(found[0].scores, found[1].scores)
