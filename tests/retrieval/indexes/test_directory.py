"""An index on the disk: opened whole or refused by name, and never half replaced."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.retrieval.indexes import archive as archives
from xjepa_jax.errors import SearchIndexError
from xjepa_jax.retrieval.embedding.files import EmbeddingFiles, open_embeddings
from xjepa_jax.retrieval.index import main
from xjepa_jax.retrieval.indexes import backends
from xjepa_jax.retrieval.indexes import directory as directories
from xjepa_jax.retrieval.indexes.description import read_description

BACKENDS = ("exact", "faiss", "qdrant", "pgvector")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
  """A name."""
  return str(request.param)


@pytest.fixture
def settings(backend: str, request: pytest.FixtureRequest) -> dict:
  """Of that back end."""
  if backend == "pgvector":
    return {"server": request.getfixturevalue("postgres"), "exact": True, "table": "stored"}
  return {}


@pytest.fixture
def stored(files: EmbeddingFiles, tmp_path: Path, backend: str, settings: dict) -> str:
  """The directory of an index of `files`."""
  out = str(tmp_path / "index")
  directories.build_index(files, out, backend, settings)
  return out


def test_an_index_is_opened_again_and_answers_alike(
  stored: str, files: EmbeddingFiles, archive: archives.Archive, backend: str
) -> None:
  first = read_description(stored)
  rows, scores = archives.answers(archive, archive.vectors[:4], 5, archives.Filter())
  for _ in range(2):  # opening changes no file
    index = directories.open_index(stored)
    assert (index.backend, len(index), index.sensors) == (backend, 1500, ("optical", "radar"))
    hits = index.search(archive.vectors[:4], 5)
    index.close()
    np.testing.assert_array_equal(hits.rows, rows)
    np.testing.assert_allclose(hits.scores, scores, atol=1e-5)
  assert (first.count, first.fingerprint) == (1500, files.fingerprint)
  assert sorted(os.listdir(os.path.dirname(stored))) == ["index"]  # nothing is left beside it


def test_a_flipped_bit_in_any_file_is_refused_by_name(stored: str, backend: str) -> None:
  rng = np.random.default_rng(0)
  paths = [path for path in Path(stored).rglob("*") if path.is_file() and path.stat().st_size]
  assert len(paths) > 1
  for path in paths:
    content = path.read_bytes()
    for _ in range(5 if path.name == "index.json" else 1):
      at, bit = rng.integers(len(content)), 1 << rng.integers(8)
      path.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
      with pytest.raises(SearchIndexError, match=r"xjepa_jax.retrieval.index --embeddings") as said:
        directories.open_index(stored)
      assert str(path) in str(said.value)
    path.write_bytes(content)
  directories.open_index(stored).close()


def test_a_file_that_is_cut_or_gone_is_refused_by_name(stored: str) -> None:
  name = next(iter(read_description(stored).files))
  path = Path(stored) / name
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(SearchIndexError, match="bytes, .* were written"):
    directories.open_index(stored)
  path.unlink()
  with pytest.raises(SearchIndexError, match=f"{name}: cannot be read"):
    directories.open_index(stored)


@pytest.fixture
def movable(archive: archives.Archive, tmp_path: Path) -> Path:
  """Embeddings of its own and an exact index of them."""
  files = archives.embeddings(archive, str(tmp_path / "embeddings"))
  directories.build_index(files, str(tmp_path / "index"), "exact", {})
  return tmp_path


def test_an_index_of_embeddings_that_changed_is_refused(movable: Path) -> None:
  archives.write(archives.make(1500, seed=1), str(movable / "embeddings"))
  with pytest.raises(SearchIndexError, match="other embeddings .* --embeddings .*--backend exact"):
    directories.open_index(str(movable / "index"))


def test_an_index_moves_with_its_embeddings_or_is_told_where_they_are(movable: Path) -> None:
  there = movable / "there"
  there.mkdir()
  shutil.move(movable / "embeddings", there / "embeddings")
  with pytest.raises(SearchIndexError, match="not there .* say where they are"):
    directories.open_index(str(movable / "index"))
  directories.open_index(str(movable / "index"), str(there / "embeddings")).close()
  shutil.move(movable / "index", there / "index")
  directories.open_index(str(there / "index")).close()


def test_a_directory_of_something_else_is_left_alone(
  files: EmbeddingFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  (tmp_path / "mine").write_text("work of years")
  assert main(["--embeddings", files.directory, "--out", str(tmp_path)]) == 1
  assert "holds something that is no index" in capsys.readouterr().err
  assert os.listdir(tmp_path) == ["mine"]
  with pytest.raises(SearchIndexError, match=r"has no index.json"):
    directories.open_index(str(tmp_path))


def test_the_command_builds_once_and_again_only_if_asked_or_needed(
  movable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  out = movable / "made"
  command = ["--embeddings", str(movable / "embeddings"), "--out", str(out)]
  assert main(command) == 0
  assert "exact index of 1,500 vectors of 16 numbers" in capsys.readouterr().out
  assert main(command) == 0
  assert "already" in capsys.readouterr().out
  assert main([*command, "--rebuild"]) == 0
  assert "1,500 vectors" in capsys.readouterr().out
  (out / "vectors.npy").write_bytes(b"")
  assert main(command) == 0
  directories.open_index(str(out)).close()
  assert main([*command, "--preset", "approximate"]) == 0
  assert read_description(str(out)).settings == {"recall": 0.99}


def test_settings_come_from_preset_config_and_options(
  files: EmbeddingFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  pytest.importorskip("faiss")
  config = tmp_path / "settings.json"
  command = ["--embeddings", files.directory, "--out", str(tmp_path / "index")]
  command += ["--backend", "faiss", "--preset", "rabitq", "--config", str(config)]
  config.write_text('{"flat_below": 100, "lists": 16}')
  assert main(command) == 0
  found = read_description(str(tmp_path / "index")).settings
  assert (found["kind"], found["lists"]) == ("rabitq", 16) and 1 <= found["nprobe"] <= 16
  for text, said in (
    ('{"list": 16}', "Did you mean 'lists'"),
    ('{"lists": "16"}', "expected a int"),
    ("[]", "JSON object"),
    ("{", "cannot be read as JSON"),
  ):
    config.write_text(text)
    assert main(command) == 1
    assert said in capsys.readouterr().err
  assert main([*command[:4], "--preset", "best"]) == 1
  assert "no preset 'best'; there are exact, approximate" in capsys.readouterr().err
  assert main([*command[:4], "--server", "http://localhost"]) == 1
  assert "it is a directory" in capsys.readouterr().err


def test_without_a_back_end_named_the_size_decides_and_is_said(
  movable: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
  pytest.importorskip("faiss")
  command = ["--embeddings", str(movable / "embeddings"), "--out", str(movable / "made")]
  assert main(command) == 0
  assert "Back end exact, for 1,500 vectors are no more than 1,000,000" in capsys.readouterr().out
  monkeypatch.setattr("xjepa_jax.retrieval.index._EXACT_UP_TO", 1499)
  assert main(command) == 0
  assert "Back end faiss, for 1,500 vectors are more than 1,499" in capsys.readouterr().out
  assert read_description(str(movable / "made")).backend == "faiss"
  monkeypatch.setattr("xjepa_jax.retrieval.index.importlib.util.find_spec", lambda name: None)
  assert main(command) == 0
  assert "Back end exact, for faiss is not installed" in capsys.readouterr().out
  assert read_description(str(movable / "made")).backend == "exact"
  assert main([*command, "--backend", "faiss"]) == 0  # whatever the size, as it is named
  assert "Back end" not in capsys.readouterr().out


def test_a_recall_that_is_not_reached_is_told(
  movable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  pytest.importorskip("faiss")
  config = movable / "settings.json"
  config.write_text('{"flat_below": 100, "lists": 16, "refine": 1}')
  command = ["--embeddings", str(movable / "embeddings"), "--out", str(movable / "made")]
  command += ["--backend", "faiss", "--config", str(config)]
  assert main([*command, "--preset", "rabitq"]) == 0
  assert "Warning: of the true ten best, " in capsys.readouterr().out
  assert main([*command, "--preset", "flat"]) == 0
  assert "Warning" not in capsys.readouterr().out


def test_an_exact_index_is_written_a_part_at_a_time(
  files: EmbeddingFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  def all_at_once(self: EmbeddingFiles) -> np.ndarray:
    raise MemoryError

  expected = files.vectors()
  monkeypatch.setattr(EmbeddingFiles, "vectors", all_at_once)
  directories.build_index(files, str(tmp_path / "index"), "exact", {})
  found = np.load(tmp_path / "index" / "vectors.npy")
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, expected)


def test_an_index_is_described_in_json_that_anyone_can_read(movable: Path) -> None:
  content = json.loads((movable / "index" / "index.json").read_text())
  assert content["format"] == "xjepa_jax index 1"
  assert content["embeddings"] == "../embeddings"
  assert content["fingerprint"] == open_embeddings(str(movable / "embeddings")).fingerprint
  assert set(content["files"]) == {"vectors.npy", "rows.parquet"}


def test_the_command_names_the_back_ends_and_presets_that_there_are(
  capsys: pytest.CaptureFixture[str],
) -> None:
  with pytest.raises(SystemExit):
    main(["--help"])
  said = " ".join(capsys.readouterr().out.split())
  assert ",".join(backends.BACKENDS) in said
  for name, presets in backends.PRESETS.items():
    assert f"{name}: {', '.join(presets)}" in said
    for preset in presets:
      assert backends.preset_settings(name, preset)
    assert backends.preset_settings(name, None) == backends.preset_settings(name, presets[0])


def test_a_server_that_is_not_there_or_a_password_in_its_address_is_told(
  files: EmbeddingFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  command = ["--embeddings", files.directory, "--out", str(tmp_path / "index")]
  assert main([*command, "--backend", "pgvector"]) == 1
  assert "needs a server: --server postgresql://" in capsys.readouterr().err
  address = "postgresql://me:secret@localhost/db"
  assert main([*command, "--backend", "pgvector", "--server", address]) == 1
  assert "PGPASSWORD" in capsys.readouterr().err
  assert main([*command, "--backend", "pgvector", "--server", "host=127.0.0.1 port=9"]) == 1
  assert "PostgreSQL did not answer" in capsys.readouterr().err
  assert main([*command, "--backend", "qdrant", "--server", "http://127.0.0.1:9"]) == 1
  assert "Qdrant did not answer" in capsys.readouterr().err
  assert not (tmp_path / "index").exists()
