"""Object storage that is slow, answers 503 or cuts answers: the same bytes, or an error by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec.config
import numpy as np
import pytest

from tests.fault.faulty_s3 import BUCKET, Faults, FaultyServer, forget_clients, serving
from xjepa_jax.data import shard_index, storage
from xjepa_jax.data.batch_source import BatchSource
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.order import Order
from xjepa_jax.errors import CutShortError, DataError, WriteError

SHARD = r"tfrecord-\d+-of-\d+$"  # not its index
MIXED: dict[str, Any] = {"refused": 0.05, "broken": 0.1, "slow": 0.02}
BATCH = 16


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyServer]:
  with serving() as found:
    yield found


@pytest.fixture(scope="module")
def address(server: FaultyServer, simulated: str) -> str:
  """Of the simulated pairs, put there by other means than the package's."""
  import s3fs

  files = s3fs.S3FileSystem(use_listings_cache=False)
  for path in Path(simulated).iterdir():
    files.pipe_file(f"{BUCKET}/pairs/{path.name}", path.read_bytes())
  return f"s3://{BUCKET}/pairs"


def batches(directory: str, bad_records: int = 0) -> list[dict[str, Any]]:
  """An epoch of them."""
  with PairDataset(directory, bad_records=bad_records) as dataset:
    source = BatchSource([dataset], Order([len(dataset)], seed=1), BATCH, range(BATCH))
    return [source[step] for step in range(len(dataset) // BATCH)]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
  """Clients that try twice, and wait for an answer no longer than a second."""
  monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
  monkeypatch.setattr("s3fs.S3FileSystem.retries", 2)
  settings = {"config_kwargs": {"read_timeout": 1}}
  monkeypatch.setitem(fsspec.config.conf, "s3", settings)
  forget_clients()
  yield
  forget_clients()


def assert_local(found: list[dict[str, Any]], simulated: str) -> None:
  for batch, expected in zip(found, batches(simulated), strict=True):
    for part in ("valid", "dataset", "record"):
      np.testing.assert_array_equal(batch[part], expected[part])
    for part in ("values", "present"):
      for key in expected[part]:
        np.testing.assert_array_equal(batch[part][key], expected[part][key])


@pytest.mark.parametrize(
  "faults",
  [
    Faults(slow=0.05),
    Faults(refused=0.1),
    Faults(broken=0.2),
    Faults(short=0.3, only=SHARD),
    Faults(**MIXED),
  ],
  ids=["slow", "refused", "broken", "short", "mixed"],
)
def test_every_batch_is_the_local_one_whatever_the_server_does_now_and_then(
  server: FaultyServer, address: str, simulated: str, faults: Faults
) -> None:
  with server.doing(faults):
    found = batches(address)
  assert faults.slow or sum(faults.done.values()) > 5
  assert_local(found, simulated)


@pytest.mark.usefixtures("impatient")
def test_answers_that_never_come_are_asked_for_again(
  server: FaultyServer, address: str, simulated: str
) -> None:
  with server.doing(Faults(stalled=0.03, stall=60, only=SHARD)) as faults:
    assert_local(batches(address), simulated)
  assert faults.done["stalled"] > 0


def test_an_index_that_is_missing_is_built_and_kept_whole(
  server: FaultyServer, address: str, simulated: str
) -> None:
  import s3fs

  name = sorted(each.name for each in Path(simulated).glob("*-train.*.index"))[0]
  files = s3fs.S3FileSystem(use_listings_cache=False)
  files.rm_file(f"{address}/{name}")
  with server.doing(Faults(**MIXED, seed=3)) as faults, PairDataset(address) as dataset:
    assert len(dataset) == 128
  assert sum(faults.done.values()) > 0
  assert files.cat_file(f"{address}/{name}") == (Path(simulated) / name).read_bytes()


def ways(path: str) -> dict[str, Callable[[], object]]:
  return {
    "size": lambda: storage.size(path),
    "exists": lambda: storage.exists(path),
    "read_file": lambda: storage.read_file(path),
    "read_range": lambda: storage.read_range(path, 0, 40),
    "read_ranges": lambda: storage.read_ranges([(path, 0, 40)]),
    "build": lambda: shard_index.build(path),
    "write_file": lambda: storage.write_file(path + "-new", b"content"),
  }


def shard_of(address: str, simulated: str) -> str:
  (first, *_) = sorted(each.name for each in Path(simulated).glob("*-train.*-of-*[0-9]"))
  return f"{address}/{first}"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("way", list(ways("")))
def test_a_server_that_refuses_everything_is_named_with_what_it_said(
  server: FaultyServer, address: str, simulated: str, way: str
) -> None:
  path = shard_of(address, simulated)
  kind = WriteError if way == "write_file" else DataError
  said = "Service Unavailable|Please reduce your request rate"
  with server.doing(Faults(refused=1)), pytest.raises(kind, match=f"^{path}.*({said})"):
    ways(path)[way]()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", ["broken", "short"])
@pytest.mark.parametrize("way", ["read_file", "read_range", "read_ranges", "build"])
def test_answers_that_are_always_cut_are_named_and_nothing_of_them_is_used(
  server: FaultyServer, address: str, simulated: str, kind: str, way: str
) -> None:
  path = shard_of(address, simulated)
  with server.doing(Faults(**{kind: 1.0})), pytest.raises(DataError, match=f"^{path}"):  # type: ignore[arg-type]
    ways(path)[way]()


@pytest.mark.usefixtures("impatient")
def test_a_server_that_is_gone_is_not_taken_for_damaged_records(
  server: FaultyServer, address: str, simulated: str
) -> None:
  with PairDataset(address, bad_records=128) as dataset:
    source = BatchSource([dataset], Order([128], seed=1), BATCH, range(BATCH))
    source[0]
    with (
      server.doing(Faults(refused=1, only=SHARD)),
      pytest.raises(CutShortError, match=f"^{address}/.*reduce your request rate"),
    ):
      source[0]
    assert source[0]["record"].tolist() == Order([128], seed=1).places(np.arange(16))[1].tolist()
