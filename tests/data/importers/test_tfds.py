"""Tests of the TFDS importer, on directories laid out as TFDS prepares them."""

from __future__ import annotations

import argparse
import io
import json
import pathlib
import pickle
import struct

import google_crc32c
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import example_serializer

from xjepa_jax.data.import_plan import plan_import
from xjepa_jax.data.importers import tfds as importer
from xjepa_jax.errors import ArchiveError, DataError, SensorError

NAMES = [f"LCZ {i}" for i in range(17)]
SHARDS = {"train": [4, 3], "validation": [2]}
SO2SAT = ["s1=sentinel1:so2sat_s1", "s2=sentinel2:so2sat_s2"]


def so2sat_features() -> tfds.features.FeaturesDict:
  """The features of so2sat/all (tensorflow.org/datasets/catalog/so2sat), and a few more kinds."""
  return tfds.features.FeaturesDict(
    {
      "label": tfds.features.ClassLabel(names=NAMES),
      "sample_id": np.int64,
      "sentinel1": tfds.features.Tensor(shape=(32, 32, 8), dtype=np.float32),
      "sentinel2": tfds.features.Tensor(shape=(32, 32, 10), dtype=np.float32),
      "tags": tfds.features.Sequence(tfds.features.Text()),
      "more": {
        "picture": tfds.features.Image(shape=(None, None, 3)),
        "broken": tfds.features.Image(shape=(None, None, 1)),
        "exact": tfds.features.Tensor(shape=(8, 8, 2), dtype=np.float64),
        "counts": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint16),
        "labels": tfds.features.Sequence(tfds.features.ClassLabel(names=NAMES)),
      },
    }
  )


def values(number: int, size: int, bands: int, sign: int = 1) -> np.ndarray:
  r, c, b = np.ogrid[:size, :size, :bands]
  return (sign * (number * 10 + b + r / 64 + c / 4096)).astype(np.float32)


def picture(number: int) -> np.ndarray:
  r, c, b = np.ogrid[:6, :5, :3]
  return (number + 10 * r + 3 * c + 80 * b).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "PNG")
  return file.getvalue()


def example(number: int) -> dict[str, object]:
  return {
    "label": (number * 5) % 17,
    "sample_id": number,
    "sentinel1": values(number, 32, 8, -1),
    "sentinel2": values(number, 32, 10),
    "tags": [b"one", b"two"][: number % 3],
    "more": {
      "picture": png(picture(number)),
      "broken": b"an image that nobody asks for is not decoded",
      "exact": np.full((8, 8, 2), number / 3),
      "counts": np.arange(64, dtype=np.uint16).reshape(8, 8, 1) + 60_000 + number,
      "labels": np.array([1, number % 17]),
    },
  }


def masked_crc(data: bytes) -> bytes:
  crc = google_crc32c.value(data)
  return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def write_shard(path: pathlib.Path, records: list[bytes]) -> None:
  if "array_record" in path.name:
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
      writer.write(record)
    writer.close()
    return
  with path.open("wb") as file:
    for record in records:
      length = struct.pack("<Q", len(record))
      file.write(length + masked_crc(length) + record + masked_crc(record))


def write_dataset(root: pathlib.Path, kind: str = "tfrecord") -> pathlib.Path:
  features = so2sat_features()
  serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
  directory = root / "so2sat" / "all" / "2.1.0"
  directory.mkdir(parents=True)
  number = 0
  for split, lengths in SHARDS.items():
    for i, length in enumerate(lengths):
      name = f"so2sat-{split}.{kind}-{i:05d}-of-{len(lengths):05d}"
      records = [
        serializer.get_tf_example(example(number + k)).SerializeToString() for k in range(length)
      ]
      write_shard(directory / name, records)
      number += length
  features.save_metadata(str(directory))
  info = {
    "name": "so2sat",
    "configName": "all",
    "version": "2.1.0",
    "fileFormat": kind,
    "splits": [
      {
        "name": split,
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "shardLengths": [str(length) for length in lengths],
        "numBytes": "1",
      }
      for split, lengths in SHARDS.items()
    ],
  }
  (directory / "dataset_info.json").write_text(json.dumps(info))
  (directory / "features.json").write_text(json.dumps(features.to_json()))
  return directory


def arguments(src: object, sensor: list[str] = SO2SAT, label: str = "label") -> argparse.Namespace:
  parser = argparse.ArgumentParser()
  importer.add_arguments(parser)
  given = [word for text in sensor for word in ("--sensor", text)]
  args = parser.parse_args([*given, "--label", label])
  shared = {"src": str(src), "misaligned": "refuse", "resample": "nearest", "seed": 0}
  for key, value in shared.items():
    setattr(args, key, value)
  return args


@pytest.mark.parametrize("kind", ["tfrecord", "array_record"])
def test_every_value_and_label_comes_back_from_both_formats(tmp_path, kind: str) -> None:
  archive = importer.open_archive(arguments(write_dataset(tmp_path, kind)))
  assert archive.name == "so2sat_all"
  assert {split: len(entries) for split, entries in archive.splits.items()} == {
    "train": 7,
    "validation": 2,
  }
  read = pickle.loads(pickle.dumps(archive.read))
  entries = [*archive.splits["train"], *archive.splits["validation"]]
  for number, entry in enumerate(entries):
    pair = read(entry)
    np.testing.assert_array_equal(pair.observations["s1"].values, values(number, 32, 8, -1))
    np.testing.assert_array_equal(pair.observations["s2"].values, values(number, 32, 10))
    assert pair.labels == (f"LCZ {(number * 5) % 17}",)
  assert entries[5].pair_id == "train_0000005" and entries[8].pair_id == "validation_0000001"


def test_nested_features_of_other_kinds_are_read(tmp_path) -> None:
  sensor = ["a=more/picture:rgb", "b=more/exact:sentinel1_rtc", "c=more/counts:grey"]
  archive = importer.open_archive(arguments(write_dataset(tmp_path), sensor, "more/labels"))
  pair = archive.read(archive.splits["train"][4])
  np.testing.assert_array_equal(pair.observations["a"].values, picture(4))
  assert pair.observations["b"].values.dtype.name == archive.sensors["b"].dtype == "float32"
  assert pair.observations["b"].values[0, 0, 0] == np.float32(4 / 3)
  assert archive.sensors["c"].dtype == "uint16"
  assert pair.observations["c"].values[1, 2, 0] == 60_000 + 4 + 10
  assert pair.labels == ("LCZ 1", "LCZ 4")


def test_texts_can_be_labels(tmp_path) -> None:
  archive = importer.open_archive(arguments(write_dataset(tmp_path), label="tags"))
  labels = [archive.read(entry).labels for entry in archive.splits["train"][:3]]
  assert labels == [(), ("one",), ("one", "two")]


def test_an_import_can_be_planned(tmp_path) -> None:
  archive = importer.open_archive(arguments(write_dataset(tmp_path)))
  plan = plan_import(archive, 10**6, "bytes")
  assert plan.pairs == 9 and not plan.unreadable and plan.format.shapes["s1"] == (32, 32)


def shard(directory: pathlib.Path, number: int) -> pathlib.Path:
  return sorted(directory.glob("so2sat-train.*-of-00002"))[number]


def flip(path: pathlib.Path, at: int) -> None:
  content = bytearray(path.read_bytes())
  content[at] ^= 1
  path.write_bytes(content)


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "empty"])
def test_a_damaged_tfrecord_shard_is_left_out_and_the_others_are_imported(
  tmp_path, damage: str
) -> None:
  directory = write_dataset(tmp_path)
  path = shard(directory, 0)
  if damage == "flip":
    flip(path, 1000)
  elif damage == "missing":
    path.unlink()
  else:
    path.write_bytes(path.read_bytes()[: 1000 if damage == "cut" else 0])
  archive = importer.open_archive(arguments(directory))
  assert [e.pair_id for e in archive.splits["train"]] == [f"train_{i:07d}" for i in (4, 5, 6)]
  np.testing.assert_array_equal(
    archive.read(archive.splits["train"][0]).observations["s2"].values, values(4, 32, 10)
  )
  (skip,) = archive.skipped
  assert path.name in skip.pair_id and path.name in skip.reason


def test_a_record_damaged_after_it_was_indexed_is_an_error_of_that_pair(tmp_path) -> None:
  directory = write_dataset(tmp_path)
  importer.open_archive(arguments(directory))
  flip(shard(directory, 0), 1000)
  archive = importer.open_archive(arguments(directory))
  with pytest.raises(DataError, match="record 0"):
    archive.read(archive.splits["train"][0])
  archive.read(archive.splits["train"][1])


@pytest.mark.parametrize("damage", ["cut", "missing", "empty"])
def test_a_damaged_array_record_shard_is_left_out(tmp_path, damage: str) -> None:
  directory = write_dataset(tmp_path, "array_record")
  path = shard(directory, 1)
  if damage == "missing":
    path.unlink()
  else:
    path.write_bytes(path.read_bytes()[: -1000 if damage == "cut" else 0])
  archive = importer.open_archive(arguments(directory))
  assert len(archive.splits["train"]) == 4
  assert path.name in archive.skipped[0].reason


def test_an_intact_record_of_another_data_set_is_an_error_of_that_pair(tmp_path) -> None:
  directory = write_dataset(tmp_path)
  write_shard(shard(directory, 0), [b"no example at all"] * 4)
  archive = importer.open_archive(arguments(directory))
  with pytest.raises(DataError, match="train_0000002"):
    archive.read(archive.splits["train"][2])


def test_a_shard_with_other_records_than_described_is_left_out(tmp_path) -> None:
  directory = write_dataset(tmp_path)
  write_shard(shard(directory, 0), [b"one"])
  archive = importer.open_archive(arguments(directory))
  assert "holds 1 records" in archive.skipped[0].reason and "says 4" in archive.skipped[0].reason


@pytest.mark.parametrize(
  ("sensor", "label", "error", "expected"),
  [
    ([], "label", ArchiveError, "more/counts, more/exact, more/picture, sentinel1, sentinel2"),
    (["s1=sentinel1"], "label", ArchiveError, "KEY=FEATURE:PRESET"),
    (["s1=sentinel9:rgb"], "label", ArchiveError, "no feature 'sentinel9'"),
    (["s1=sentinel1:sentinel1_grd"], "label", ArchiveError, r"\(H, W, 2\)"),
    (["s1=label:grey"], "label", ArchiveError, "'label'"),
    (["s1=sentinel1:sentinel1_gdr"], "label", SensorError, "Did you mean"),
    (["S1=sentinel1:so2sat_s1"], "label", SensorError, "lower-case"),
    ([SO2SAT[0], "s1=sentinel2:so2sat_s2"], "label", SensorError, "twice"),
    (SO2SAT, "labels", ArchiveError, "no feature 'labels'"),
    (SO2SAT, "sample_id", ArchiveError, "classes or texts"),
  ],
)
def test_options_that_do_not_fit_are_refused(
  tmp_path, sensor: list[str], label: str, error: type[Exception], expected: str
) -> None:
  with pytest.raises(error, match=expected):
    importer.open_archive(arguments(write_dataset(tmp_path), sensor, label))


def test_a_class_from_outside_tfds_is_not_imported(tmp_path) -> None:
  directory = write_dataset(tmp_path)
  path = directory / "features.json"
  path.write_text(
    path.read_text().replace(
      "tensorflow_datasets.core.features.class_label_feature.ClassLabel", "antigravity.ClassLabel"
    )
  )
  with pytest.raises(ArchiveError, match=r"antigravity\.ClassLabel"):
    importer.open_archive(arguments(directory))


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"a": 1}', '{"fileFormat": "riegeli"}'])
def test_a_foreign_or_damaged_directory_is_refused(tmp_path, name: str, content: str) -> None:
  directory = write_dataset(tmp_path)
  if content is None:
    (directory / name).unlink()
  else:
    (directory / name).write_text(content)
  with pytest.raises(ArchiveError, match=str(directory)):
    importer.open_archive(arguments(directory))


def test_a_folder_of_something_else_is_refused(tmp_path) -> None:
  with pytest.raises(ArchiveError, match=r"dataset_info\.json and features\.json"):
    importer.open_archive(arguments(tmp_path))
