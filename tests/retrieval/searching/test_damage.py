"""A damaged part of the embeddings is refused before anything of it is used, and not before."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.retrieval.indexes import archive as archives
from xjepa_jax.errors import EmbeddingError
from xjepa_jax.retrieval.indexes.directory import build_index
from xjepa_jax.retrieval.search import main
from xjepa_jax.retrieval.searching.answers import Query
from xjepa_jax.retrieval.searching.searcher import Searcher, open_searcher

ROWS = 300  # in three parts
NAMED = r"part-00002\.parquet has other bytes than were written.*Copy the file again"


@dataclasses.dataclass(frozen=True)
class Damaged:
  """An index whose embeddings have a flipped bit in the last part."""

  index: str
  vectors: np.ndarray
  part: Path


@pytest.fixture
def damaged(tmp_path: Path) -> Damaged:
  archive = archives.make(ROWS)
  files = archives.embeddings(archive, str(tmp_path / "embeddings"))
  build_index(files, str(tmp_path / "index"), "exact", {})
  part = tmp_path / "embeddings" / "parts" / "part-00002.parquet"
  content = bytearray(part.read_bytes())
  content[len(content) // 2] ^= 4
  part.write_bytes(content)
  return Damaged(str(tmp_path / "index"), archive.vectors, part)


def ask(searcher: Searcher, vector: np.ndarray) -> list[int]:
  """The row that is nearest."""
  (answer,) = searcher.answer([Query("", "radar", vector)], 1)
  return [hit.row for hit in answer.hits]


def test_answers_of_undamaged_parts_are_given(damaged: Damaged) -> None:
  searcher = open_searcher(damaged.index)
  for row in (0, 150):
    assert ask(searcher, damaged.vectors[row]) == [row]


@pytest.mark.parametrize(
  "use",
  [
    lambda searcher, vectors: ask(searcher, vectors[250]),
    lambda searcher, vectors: searcher.query_of_rows([250]),
    lambda searcher, vectors: searcher.query_of_id("scene 3", "radar"),
    lambda searcher, vectors: list(searcher.files.tables(columns=["sensor"])),
  ],
  ids=["a hit", "an example", "an id", "a column"],
)
def test_whatever_reads_the_damaged_part_is_refused(
  damaged: Damaged, use: Callable[[Searcher, np.ndarray], object]
) -> None:
  searcher = open_searcher(damaged.index)
  for _ in range(2):  # it is not taken for compared because it was refused once
    with pytest.raises(EmbeddingError, match=NAMED):
      use(searcher, damaged.vectors)


def test_verifying_compares_all_parts_first(
  damaged: Damaged, capsys: pytest.CaptureFixture[str]
) -> None:
  with pytest.raises(EmbeddingError, match=NAMED):
    open_searcher(damaged.index, verify=True)
  assert main(["--index", damaged.index, "--at", "12", "90", "--verify"]) == 1
  assert "part-00002.parquet" in capsys.readouterr().err


def test_a_part_of_another_size_and_a_changed_description_are_refused_at_once(
  damaged: Damaged,
) -> None:
  content = damaged.part.read_bytes()
  damaged.part.write_bytes(content[:-1])
  with pytest.raises(EmbeddingError, match=r"part-00002\.parquet has \d+ bytes and had"):
    open_searcher(damaged.index)
  damaged.part.write_bytes(content)
  description = damaged.part.parents[1] / "description.json"
  description.write_text(description.read_text().replace("radar", "rador"))
  with pytest.raises(EmbeddingError, match=r"description\.json has other bytes"):
    open_searcher(damaged.index)
