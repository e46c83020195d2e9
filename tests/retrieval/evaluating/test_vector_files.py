"""Files of other models: whatever they call their columns, the same vectors; or a reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from xjepa_jax.errors import EvaluationError, TableError
from xjepa_jax.retrieval.evaluating.vector_files import Columns, read_vectors
from xjepa_jax.retrieval.scene_vectors import VectorRows, check_paired, described_by, gather

VECTORS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
IDS, SENSORS = ["a", "b", "a", "c"], ["radar", "radar", "optical", "optical"]


def written(path: Path, **columns: Any) -> str:
  table = pa.table(columns)
  if path.suffix == ".csv":
    csv.write_csv(table, path)
  else:
    parquet.write_table(table, path)
  return str(path)


def lists(kind: pa.DataType) -> pa.Array:
  return pa.array([[float(x) for x in row] for row in VECTORS], kind)


@pytest.mark.parametrize(
  "kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 3), pa.large_list(pa.float32())]
)
@pytest.mark.parametrize("name", ["embedding", "vector", "mine"])
def test_a_parquet_column_of_lists_is_read(tmp_path: Path, kind: Any, name: str) -> None:
  path = written(tmp_path / "x.parquet", id=IDS, sensor=SENSORS, **{name: lists(kind)})
  found = read_vectors(path, Columns(vector="mine" if name == "mine" else ""))
  np.testing.assert_allclose(found.vectors, VECTORS, rtol=1e-6)
  assert (list(found.ids), list(found.sensors)) == (IDS, SENSORS)
  assert list(found.splits) == [""] * 4 and list(found.labels) == [()] * 4


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_id_and_numeric_columns_are_a_vector_in_the_order_of_the_file(
  tmp_path: Path, suffix: str
) -> None:
  columns = {f"f{number}": VECTORS[:, number] for number in (2, 0, 1)}
  path = written(tmp_path / f"x.{suffix}", id=["07", "8", "9", "10"], **columns)
  found = read_vectors(path, sensor="radar")
  np.testing.assert_allclose(found.vectors, VECTORS[:, [2, 0, 1]], rtol=1e-6)
  assert list(found.ids) == ["07", "8", "9", "10"] and set(found.sensors) == {"radar"}


def test_labels_splits_and_chosen_columns_are_read_by_their_names(tmp_path: Path) -> None:
  path = written(
    tmp_path / "x.csv",
    patch=IDS,
    instrument=SENSORS,
    part=["test", "train", "test", ""],
    classes=["water; town", "", "town", "water"],
    cloud=[0.1, 0.2, 0.3, 0.4],
    e0=VECTORS[:, 0],
    e1=VECTORS[:, 1],
  )
  columns = Columns("patch", "instrument", "e?", "classes", "part")
  found = read_vectors(path, columns)
  np.testing.assert_allclose(found.vectors, VECTORS[:, :2], rtol=1e-6)
  assert list(found.labels) == [("water", "town"), (), ("town",), ("water",)]
  assert list(found.splits) == ["test", "train", "test", ""]


@pytest.mark.parametrize(
  ("columns", "said"),
  [
    ({"name": IDS, "f": [1.0] * 4}, r"no column 'id' \(--id-column\); it has name, f"),
    ({"id": IDS, "f": [1.0] * 4}, "name its sensor as SENSOR:"),
    ({"id": IDS, "sensor": SENSORS}, "has no column of vectors"),
    (
      {"id": IDS, "sensor": SENSORS, "f": [1.0, np.inf, 0.0, 1.0]},
      "the vector of row 2 is not of finite numbers",
    ),
    ({"id": IDS, "sensor": SENSORS, "town": list("wxyz")}, "'town' holds string, not numbers"),
    (
      {"id": IDS, "sensor": SENSORS, "vector": [[1.0], [1.0, 2.0], [1.0], [1.0]]},
      "not all of one size: 1, 2",
    ),
  ],
)
def test_a_file_that_cannot_be_used_says_why(
  tmp_path: Path, columns: dict[str, Any], said: str
) -> None:
  path = written(tmp_path / "x.parquet", **columns)
  with pytest.raises(TableError, match=said) as caught:
    read_vectors(path)
  assert path in str(caught.value)


WITH_INDEX = "has a column without a name, as pandas writes its index"


@pytest.mark.parametrize(
  ("more", "options", "said"),
  [
    ({}, {}, WITH_INDEX),
    ({"lon": 13.0, "lat": 48.0}, {}, WITH_INDEX),
    ({"lon": 13.0, "lat": 48.0}, {"index": False}, r"lon, lat, f0, f1, f2 differ by more than num"),
    ({"Unnamed: 0": 7}, {"index": False}, r"Unnamed: 0, f0, f1, f2 differ"),
    ({"year": 2021}, {"index": False}, r"year, f0, f1, f2 differ"),
    ({"g0": 1, "g1": 2}, {"index": False}, r"g0, g1, f0, f1, f2 differ"),
    ({"lon": 13.0}, {"index": False, "sep": ";"}, r"lon, f0, f1, f2 differ"),
  ],
)
def test_columns_that_are_no_part_of_the_vector_are_not_taken_for_it_and_the_ways_out_work(
  tmp_path: Path, more: dict[str, float], options: dict[str, Any], said: str
) -> None:
  frame = pandas.DataFrame({"id": IDS, "sensor": SENSORS, **more})
  frame[["f0", "f1", "f2"]] = VECTORS
  path = tmp_path / "x.csv"
  frame.to_csv(path, **options)
  with pytest.raises(TableError, match=said) as caught:
    read_vectors(path)
  named = re.search(r"--vector '(.+)'", str(caught.value))
  assert named
  found = read_vectors(path, Columns(vector=named[1]))
  np.testing.assert_allclose(found.vectors, VECTORS, rtol=1e-5)
  assert found.taken == "columns f0, f1, f2"
  frame.drop(columns=list(more)).to_csv(path, index=False)
  np.testing.assert_allclose(read_vectors(path).vectors, VECTORS, rtol=1e-5)


@pytest.mark.parametrize(
  "names",
  [["0", "1", "2"], ["dim_8", "dim_9", "dim_10"], ["a", "b", "c"], ["p0_1", "p0_2", "p1_0"]],
)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_columns_of_one_pattern_are_the_vector(
  tmp_path: Path, names: list[str], separator: str
) -> None:
  frame = pandas.DataFrame({"id": IDS, "sensor": SENSORS})
  frame[names] = VECTORS
  frame.to_csv(tmp_path / "x.csv", index=False, sep=separator)
  np.testing.assert_allclose(read_vectors(tmp_path / "x.csv").vectors, VECTORS, rtol=1e-5)


def frame_of(**more: Any) -> pandas.DataFrame:
  frame = pandas.DataFrame({"id": IDS, "sensor": SENSORS})
  frame[["f0", "f1", "f2"]] = VECTORS
  return frame.assign(**more)


def as_lists(path: Path, **options: Any) -> None:
  frame = frame_of()[["id", "sensor"]].assign(embedding=list(map(list, VECTORS.astype(float))))
  getattr(frame, f"to_{path.suffix[1:]}")(path, index=False, **options)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
  ("write", "said", "mend"),
  [
    (as_lists, "'embedding' holds lists as text, such as .*as Parquet", as_lists),
    (
      lambda path: frame_of().to_csv(path, index=False, sep=";", decimal=","),
      "'f0' holds numbers with a comma, such as '.*decimal='.'",
      lambda path: frame_of().to_csv(path, index=False, sep=";", decimal="."),
    ),
    (
      lambda path: frame_of(f1=["1,200.5", "1", "2", "3"]).to_csv(path, index=False),
      "'f1' holds numbers with a comma, such as '1,200.5'",
      lambda path: frame_of().to_csv(path, index=False),
    ),
    (
      lambda path: frame_of(f1=[True, False, True, True]).to_csv(path, index=False),
      "'f1' holds true and false.*write 0 and 1",
      lambda path: frame_of(f1=[1, 0, 1, 1]).to_csv(path, index=False),
    ),
    (
      lambda path: frame_of().iloc[:0].to_csv(path, index=False),
      r"has a header \(id, sensor, f0, f1, f2\) and no rows",
      lambda path: frame_of().to_csv(path, index=False),
    ),
  ],
  ids=["list", "decimal", "thousands", "bool", "header"],
)
def test_columns_of_other_contents_are_named_with_what_to_write_instead(
  tmp_path: Path, write: Any, said: str, mend: Any, named: bool
) -> None:
  pattern = "embedding" if write is as_lists else "f*"
  options = Columns(vector=pattern if named else "")
  path = tmp_path / "x.csv"
  write(path)
  with pytest.raises(TableError, match=said) as caught:
    read_vectors(path, options)
  if "Parquet" in str(caught.value):
    path = tmp_path / "x.parquet"
  mend(path)
  assert read_vectors(path, options).vectors.shape == (4, 3)


def test_a_vector_of_zeros_and_two_coordinates_are_no_vectors(tmp_path: Path) -> None:
  path = tmp_path / "x.csv"
  frame_of(f0=[1, 0, 1, 1], f1=[1, 0, 1, 1], f2=[1, 0, 1, 1]).to_csv(path, index=False)
  with pytest.raises(TableError, match=r"row 2 \(id 'b'\) is all zeros"):
    read_vectors(path)
  frame_of()[["id", "sensor", "f0", "f1"]].rename(columns={"f0": "X", "f1": "Y"}).to_csv(
    path, index=False
  )
  with pytest.raises(TableError, match=r"X, Y, a vector.*--vector '\[XY\]'"):
    read_vectors(path)
  assert read_vectors(path, Columns(vector="[XY]")).vectors.shape == (4, 2)


def test_files_of_one_source_are_aligned_by_the_names_of_their_columns(tmp_path: Path) -> None:
  columns = {f"f{number}": VECTORS[:, number] for number in range(3)}
  one = read_vectors(written(tmp_path / "one.csv", id=list("abcd"), **columns), sensor="radar")
  turned = {name: columns[name] for name in ("f2", "f0", "f1")}
  two = read_vectors(written(tmp_path / "two.csv", id=list("abcd"), **turned), sensor="optical")
  found = gather("mine", [one, two]).vectors
  np.testing.assert_allclose(found["optical"], found["radar"], atol=1e-6)
  other = {f"g{name[1:]}": values for name, values in columns.items()}
  three = read_vectors(written(tmp_path / "3.csv", id=list("abcd"), **other), sensor="optical")
  with pytest.raises(EvaluationError, match="f0, f1, f2 there, g0, g1, g2 here.*the same names"):
    gather("mine", [one, three])


@pytest.mark.parametrize("other", [["0.0", "1.0"], ["p0", "p1"], ["00", "01"]])
def test_ids_that_never_match_are_refused_with_examples_of_both(other: list[str]) -> None:
  def rows(ids: list[str], sensor: str) -> VectorRows:
    return VectorRows(ids, [sensor] * 2, [""] * 2, [()] * 2, VECTORS[:2])

  with pytest.raises(
    EvaluationError, match=rf"radar has '0', '1'; optical has '{other[0]}', '{other[1]}'.*alike"
  ):
    check_paired(gather("mine", [rows(["0", "1"], "radar"), rows(other, "optical")]))
  check_paired(gather("mine", [rows(["0", "1"], "radar"), rows(["1", "2"], "optical")]))
  check_paired(gather("mine", [rows(["0", "1"], "radar")]))


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
  (tmp_path / "x.parquet").write_bytes(b"PAR1 and nothing of the kind")
  (tmp_path / "x.csv").write_text("id,f\na,1,2\n")
  for path in ("x.parquet", "x.csv"):
    with pytest.raises(TableError, match=f"{path}: cannot be read"):
      read_vectors(str(tmp_path / path), sensor="radar")
  with pytest.raises(TableError, match="expected vectors as .csv or .parquet"):
    read_vectors("x.npy")
  with pytest.raises(TableError, match="there is no such file"):
    read_vectors(f"{tmp_path}/none.csv")


def test_rows_of_one_id_are_one_scene_with_vectors_of_length_one(tmp_path: Path) -> None:
  path = written(
    tmp_path / "x.parquet", id=IDS, sensor=SENSORS, vector=lists(pa.list_(pa.float32()))
  )
  scenes = gather("mine", [read_vectors(path)])
  assert scenes.ids == ("a", "b", "c")
  np.testing.assert_array_equal(scenes.present["radar"], [True, True, False])
  np.testing.assert_array_equal(scenes.present["optical"], [True, False, True])
  unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
  np.testing.assert_allclose(scenes.vectors["optical"][[0, 2]], unit[2:], atol=1e-6)
  assert not scenes.vectors["optical"][1].any()
  with pytest.raises(EvaluationError, match="scene 'a' has two vectors of sensor 'radar'"):
    gather("mine", [read_vectors(path), read_vectors(path)])


def test_a_data_set_says_which_scenes_are_of_which_split(tmp_path: Path) -> None:
  path = written(
    tmp_path / "x.parquet", id=IDS, sensor=SENSORS, vector=lists(pa.list_(pa.float32()))
  )
  scenes = gather("mine", [read_vectors(path)])
  known = {"c": ("test", ("water",)), "a": ("validation", ()), "z": ("test", ())}
  found = described_by(scenes, known, "mine")
  assert found.ids == ("a", "c") and list(found.splits) == ["validation", "test"]
  assert found.labels == ((), ("water",))
  np.testing.assert_array_equal(found.vectors["optical"], scenes.vectors["optical"][[0, 2]])
  with pytest.raises(EvaluationError, match="none of its 3 scenes is in the data set, such as 'a'"):
    described_by(scenes, {"z": ("test", ())}, "mine")


def test_ids_and_labels_of_any_type_are_text(tmp_path: Path) -> None:
  columns = {
    "id": pa.array([b"a", b"b"]),
    "sensor": pa.array(["s", "s"]).dictionary_encode(),
    "labels": pa.array([3.0, None]),
    "embedding": pa.array([[1.0, 2.0], [3.0, 4.0]]),
  }
  found = read_vectors(written(tmp_path / "v.parquet", **columns))
  assert (found.ids, found.sensors, found.labels) == (["a", "b"], ["s", "s"], [("3",), ()])
  with pytest.raises(TableError, match="v.parquet: row 1: column 'id' holds a bool"):
    read_vectors(written(tmp_path / "v.parquet", **{**columns, "id": [True, False]}))
