"""Batches: the same whatever the mesh, the threads, the processes, and the step begun with."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.import_plan import plan_import
from xjepa_jax.data.pipeline import Pipeline, Reading, local_rows
from xjepa_jax.data.simulate import simulated_archive
from xjepa_jax.data.writer import write_dataset
from xjepa_jax.errors import CorruptRecordError, DatasetError, SensorError


def take(pipeline: Pipeline, count: int, start: int = 0) -> list[tuple[int, Any]]:
  found = []
  with pipeline:
    batches = pipeline.batches(start)
    for step, batch in batches:
      found.append((step, batch))
      if len(found) == count:
        break
    batches.close()
  return found


def assert_same(one: Any, other: Any) -> None:
  jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture
def train(simulated: str) -> PairDataset:
  return PairDataset(simulated, "train")


def test_a_batch_holds_the_values_of_the_pairs_it_names(train: PairDataset) -> None:
  for _, batch in take(Pipeline(train, batch=16), 5):
    assert batch["valid"].all() and all(batch["present"][key].all() for key in ("s1", "s2"))
    for row, number in enumerate(batch["record"]):
      for key, observation in train[int(number)].observations.items():
        np.testing.assert_array_equal(batch["values"][key][row], observation.values)


def test_values_travel_raw(train: PairDataset) -> None:
  ((_, batch),) = take(Pipeline(train, batch=4), 1)
  assert batch["values"]["s2"].dtype == np.uint16
  assert batch["values"]["s1"].dtype == np.float32


def test_an_epoch_has_every_pair_once(train: PairDataset) -> None:
  records = [batch["record"] for _, batch in take(Pipeline(train, batch=16), 16)]
  for epoch in np.concatenate(records).reshape(2, 128):
    assert sorted(epoch) == list(range(128))


def test_batches_from_a_step_on_are_those_of_the_whole_run(train: PairDataset) -> None:
  whole = take(Pipeline(train, batch=10, seed=5), 30)
  for start in (1, 13, 29):
    for (step, batch), (again, other) in zip(
      take(Pipeline(train, batch=10, seed=5), 30 - start, start), whole[start:], strict=True
    ):
      assert step == again
      assert_same(batch, other)


@pytest.mark.parametrize(
  "reading", [Reading(1, 1), Reading(4, 9), Reading(workers=1), Reading(prefetch=6, workers=3)]
)
def test_threads_and_worker_processes_do_not_change_the_batches(
  train: PairDataset, reading: Reading
) -> None:
  expected = take(Pipeline(train, batch=16), 20, start=3)
  found = take(Pipeline(train, batch=16, reading=reading), 20, start=3)
  for (step, batch), (again, other) in zip(found, expected, strict=True):
    assert step == again
    assert_same(batch, other)


def test_a_finite_pipeline_ends_with_rows_that_are_not_valid(train: PairDataset) -> None:
  pipeline = Pipeline(train, batch=50, shuffle=False, once=True)
  assert pipeline.steps == 3
  batches = take(pipeline, 99)
  assert [step for step, _ in batches] == [0, 1, 2]
  last = batches[-1][1]
  np.testing.assert_array_equal(last["valid"], np.arange(50) < 28)
  np.testing.assert_array_equal(last["values"]["s1"][28:], 0)
  assert not last["present"]["s2"][28:].any()
  seen = np.concatenate([batch["record"][batch["valid"]] for _, batch in batches])
  np.testing.assert_array_equal(seen, np.arange(128))


@pytest.mark.parametrize("axes", [{"fsdp": 8}, {"replica": 2, "fsdp": 2, "tensor": 2}])
def test_a_global_array_on_a_mesh_is_the_batch_on_the_host(
  train: PairDataset, axes: dict[str, int]
) -> None:
  mesh = jax.make_mesh(tuple(axes.values()), tuple(axes))
  batch_axes = tuple(axis for axis in axes if axis != "tensor")
  sharding = NamedSharding(mesh, PartitionSpec(batch_axes))
  placed = take(Pipeline(train, batch=16, sharding=sharding), 3)
  host = take(Pipeline(train, batch=16), 3)
  for (_, batch), (_, expected) in zip(placed, host, strict=True):
    for array in jax.tree.leaves(batch):
      assert array.sharding.is_equivalent_to(sharding, array.ndim)
    assert_same(batch, expected)
    assert batch["values"]["s2"].dtype == np.uint16


def test_the_two_halves_of_a_sharding_read_different_rows() -> None:
  half = jax.devices()[:4]
  mesh = jax.sharding.Mesh(np.array(half), ("fsdp",))
  sharding = NamedSharding(mesh, PartitionSpec("fsdp"))
  assert local_rows(sharding, 12) == tuple(range(12))
  with pytest.raises(DatasetError, match="batch 10 does not divide"):
    local_rows(sharding, 10)


def test_bands_come_by_name_and_in_the_order_asked_for(train: PairDataset) -> None:
  bands = {"s1": ("VH", "VV"), "s2": ("B8A", "B02")}
  pipeline = Pipeline(train, batch=8, bands=bands)
  assert pipeline.sensors["s2"].band_names == ("B8A", "B02")
  ((_, batch),) = take(pipeline, 1)
  ((_, whole),) = take(Pipeline(train, batch=8), 1)
  np.testing.assert_array_equal(batch["values"]["s1"], whole["values"]["s1"][..., ::-1])
  np.testing.assert_array_equal(batch["values"]["s2"], whole["values"]["s2"][..., [8, 1]])


def test_sensors_can_be_left_out_and_unknown_ones_are_refused(train: PairDataset) -> None:
  ((_, batch),) = take(Pipeline(train, batch=8, sensors=["s2"]), 1)
  assert list(batch["values"]) == ["s2"]
  with pytest.raises(DatasetError, match="no data set has the sensor 's3'"):
    Pipeline(train, batch=8, sensors=["s3"])
  with pytest.raises(SensorError, match="no band 'HH'"):
    Pipeline(train, batch=8, bands={"s1": ["HH"]})


def write(directory: Path, **options: Any) -> PairDataset:
  plan = plan_import(simulated_archive(**options), 10**6, "bytes")
  write_dataset(plan, str(directory))
  return PairDataset(str(directory))


def test_data_sets_are_mixed_by_weight(train: PairDataset, tmp_path: Path) -> None:
  other = write(tmp_path / "other", pairs=20, size=16, seed=9)
  found = take(Pipeline([train, other], batch=20, weights=[0.75, 0.25]), 4)
  for _, batch in found:
    assert (batch["dataset"] == 1).sum() == 5
    for row in range(20):
      dataset = (train, other)[batch["dataset"][row]]
      pair = dataset[int(batch["record"][row])]
      np.testing.assert_array_equal(batch["values"]["s1"][row], pair.observations["s1"].values)


def test_data_sets_that_mean_something_else_by_a_sensor_are_not_mixed(
  train: PairDataset, tmp_path: Path
) -> None:
  with pytest.raises(DatasetError, match="image size is .16, 16. in .* and .24, 24. in"):
    Pipeline([train, write(tmp_path / "other", pairs=20, size=24)], batch=8)


def test_the_numbers_that_make_no_sense_are_refused(train: PairDataset) -> None:
  with pytest.raises(DatasetError, match="batch 0"):
    Pipeline(train, batch=0)
  with pytest.raises(DatasetError, match="once: 2 data sets"):
    Pipeline([train, train], batch=8, once=True)


def test_a_damaged_record_stops_the_iterator_with_its_name(tmp_path: Path) -> None:
  dataset = write(tmp_path / "pairs", pairs=20, size=16)
  shard = Path(dataset.records.shards[0])
  content = bytearray(shard.read_bytes())
  content[len(content) // 2] ^= 1
  shard.write_bytes(content)
  with pytest.raises(CorruptRecordError, match=f"{shard.name}: record"):
    take(Pipeline(PairDataset(str(tmp_path / "pairs")), batch=8), 9)


def test_iterators_leave_no_thread_behind(train: PairDataset) -> None:
  take(Pipeline(train, batch=8), 2)  # whatever starts once and stays has started
  before = set(threading.enumerate())
  for _ in range(5):
    take(Pipeline(train, batch=8, reading=Reading(4, 8)), 3)
  for thread in set(threading.enumerate()) - before:
    thread.join(timeout=20)
    assert not thread.is_alive()


def test_a_script_that_leaves_its_iterator_open_still_ends(simulated: str) -> None:
  code = (
    "from xjepa_jax.data.dataset import PairDataset\n"
    "from xjepa_jax.data.pipeline import Pipeline\n"
    f"batches = Pipeline(PairDataset({simulated!r}), batch=8).batches()\n"
    "print(next(batches)[0])\n"
  )
  ended = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
  )
  assert ended.stdout == "0\n"


def test_reading_is_chosen_from_the_machine_and_bounded() -> None:
  assert [Reading.choose(1 << 20, cores).threads for cores in (1, 2, 4, 16)] == [1, 2, 2, 8]
  large = Reading.choose(300 << 20, cores=64)
  assert large.prefetch * (300 << 20) <= 600 << 20
  assert Reading.choose(1 << 20, cores=64).threads <= 16
