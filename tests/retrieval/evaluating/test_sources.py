"""Sources by their paths: a directory of embeddings, several files as one, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.errors import EmbeddingError, EvaluationError
from xjepa_jax.retrieval.embedding.description import EmbeddingDescription
from xjepa_jax.retrieval.embedding.rows import Rows, part_table
from xjepa_jax.retrieval.embedding.writing import write_embeddings
from xjepa_jax.retrieval.evaluating.sources import Reading, read_source

SENSORS = ("s1", "s2")
ALL = Reading("", ("test",))


def embedded(directory: Path, ids: list[str], quantisation: str) -> np.ndarray:
  """Writes a directory of two vectors a scene, in two parts; returns them (scenes, sensors, K)."""
  rng = np.random.default_rng(0)
  vectors = rng.normal(size=(len(ids), 2, 8)).astype(np.float32)
  vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
  tables = []
  for number, sensor in enumerate(SENSORS):
    count = len(ids)
    rows = Rows(
      ids=ids,
      sensors=[sensor] * count,
      sources=["made up"] * count,
      vectors=vectors[:, number],
      longitude=np.full(count, np.nan),
      latitude=np.full(count, np.nan),
      footprints=None,
      boxes=None,
      windows=np.zeros((count, 4), np.int32),
      valid_fraction=np.ones(count),
      times=[None] * count,
      labels=[["water"]] + [[]] * (count - 1),
    )
    tables.append(part_table(rows, quantisation, False, {}))
  description = EmbeddingDescription(
    {"name": "none", "sha256": "", "head": "layout"}, 8, quantisation, SENSORS,
    {"kind": "pairs", "path": ""}, 2 * len(ids), False,
  )  # fmt: skip
  write_embeddings(str(directory), description, tables)
  return vectors


@pytest.mark.parametrize(("quantisation", "error"), [("float32", 1e-6), ("int8", 0.01)])
def test_a_directory_of_embeddings_is_read_with_its_labels(
  tmp_path: Path, quantisation: str, error: float
) -> None:
  vectors = embedded(tmp_path / "mine", ["a", "b", "c"], quantisation)
  source = read_source(str(tmp_path / "mine"), ALL)
  assert (source.name, source.kind) == ("mine", "embeddings")
  assert source.scenes.ids == ("a", "b", "c") and source.scenes.labels[0] == ("water",)
  for number, sensor in enumerate(SENSORS):
    np.testing.assert_allclose(source.scenes.vectors[sensor], vectors[:, number], atol=error)
  assert not source.scenes.split_known


def test_a_data_set_gives_them_splits_and_leaves_out_scenes_of_others(
  tmp_path: Path, simulated: str, capsys: pytest.CaptureFixture[str]
) -> None:
  with PairDataset(simulated, "test") as pairs:
    known = [pairs[number].pair_id for number in range(3)]
  vectors = embedded(tmp_path / "mine", ["elsewhere", *known], "float32")
  source = read_source(f"named={tmp_path}/mine", Reading(simulated, ("validation", "test")))
  assert source.name == "named" and source.scenes.ids == tuple(known)
  assert set(source.scenes.splits) == {"test"}
  np.testing.assert_allclose(source.scenes.vectors["s2"], vectors[1:, 1], atol=1e-6)
  assert "named: 1 of 4 scenes is left out" in capsys.readouterr().err
  embedded(tmp_path / "all", known, "float32")
  read_source(f"{tmp_path}/all", Reading(simulated, ("test",)))
  assert not capsys.readouterr().out


def test_a_damaged_directory_is_refused_before_it_is_used(tmp_path: Path) -> None:
  embedded(tmp_path / "mine", ["a", "b"], "float32")
  part = next((tmp_path / "mine").rglob("*.parquet"))
  content = bytearray(part.read_bytes())
  content[len(content) // 2] ^= 1
  part.write_bytes(content)
  with pytest.raises(EmbeddingError, match=part.name):
    read_source(str(tmp_path / "mine"), ALL)


def test_an_encoder_needs_pairs_and_stands_alone(tmp_path: Path) -> None:
  (tmp_path / "encoder.json").write_text("{}")
  with pytest.raises(EvaluationError, match="an encoder needs pairs to describe; give --pairs"):
    read_source(str(tmp_path), ALL)
  with pytest.raises(EvaluationError, match="an encoder stands alone"):
    read_source(f"{tmp_path},other.csv", ALL)
  with pytest.raises(EvaluationError, match=r"expected \[NAME=\]PATH"):
    read_source("a=x.csv,,y.csv", ALL)
