"""A checkpoint comes back bit for bit, on any mesh, or is refused; nothing saved is ever lost."""

from __future__ import annotations

import errno
import json
import logging
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tests.training.parameters import init_few, paths
from xjepa_jax.config import CheckpointConfig
from xjepa_jax.errors import CheckpointError
from xjepa_jax.training.checkpoint import Checkpoints
from xjepa_jax.training.manifest import MANIFEST, damage
from xjepa_jax.training.mesh import make_mesh
from xjepa_jax.training.optimizer import optimizer
from xjepa_jax.training.state import TrainState, abstract_state
from xjepa_jax.training.target import momentum_schedule

CONFIG = {"model": {"width": 16}, "checkpoint": {"keep": 3}, "routes": ["a->b"]}
DAMAGED = "is damaged"


def opened(
  workdir: Path,
  config: Mapping[str, Any],
  every: int = 1,
  keep: int = 3,
  keep_every: int = 0,
  **options: Any,
) -> Checkpoints:
  return Checkpoints(str(workdir), config, CheckpointConfig(every, keep, keep_every), **options)


def small(step: int, mesh: Mesh | None = None) -> dict[str, Any]:
  """A state of two arrays that depends on the step; nothing has to be compiled for it."""
  mesh = mesh or make_mesh(1, 8, 1)
  rng = np.random.default_rng(step)
  return {
    "step": jax.device_put(np.int32(step), NamedSharding(mesh, PartitionSpec())),
    "kernel": jax.device_put(
      rng.normal(size=(64, 32)).astype(np.float32), NamedSharding(mesh, PartitionSpec("fsdp"))
    ),
  }


def target_of(state: Any) -> Any:
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def assert_same_bits(one: Any, other: Any) -> None:
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(_bits(a), _bits(b)), one, other)


def _bits(array: Any) -> np.ndarray:
  return np.frombuffer(np.asarray(array).tobytes(), np.uint8)


def fill(workdir: Path, steps: list[int], **options: Any) -> None:
  with opened(workdir, CONFIG, **options) as checkpoints:
    for step in steps:
      assert checkpoints.save(step, small(step))


def largest_file(directory: Path) -> Path:
  return max((p for p in directory.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(path: Path, position: int | None = None) -> None:
  content = bytearray(path.read_bytes())
  content[len(content) // 2 if position is None else position] ^= 0x10
  path.write_bytes(content)


def names(workdir: Path) -> set[str]:
  return {path.name for path in (workdir / "checkpoints").iterdir()}


def random_state(target: Any) -> Any:
  """Random bits in place of each array of a target."""
  rng = np.random.default_rng(0)

  def fill_one(leaf: Any) -> jax.Array:
    bits = rng.bytes(leaf.size * leaf.dtype.itemsize)
    return jax.device_put(np.frombuffer(bits, leaf.dtype).reshape(leaf.shape), leaf.sharding)

  return jax.tree.map(fill_one, target)


def test_a_state_comes_back_bit_for_bit_on_every_mesh(tmp_path: Path) -> None:
  tx = optimizer(1e-2, 0, 10, momentum_schedule("constant", 0.9))
  meshes = [make_mesh(1, 8, 1), make_mesh(2, 2, 2), make_mesh(1, 1, 1, jax.devices()[:1])]
  targets = [abstract_state(init_few, tx, mesh) for mesh in meshes]
  state = original = random_state(targets[0])
  for number, target in enumerate([*targets[1:], targets[0]]):
    with opened(tmp_path, CONFIG) as checkpoints:
      assert checkpoints.save(number, state, force=True)
      state = checkpoints.restore(target)
    assert isinstance(state, TrainState)
    assert_same_bits(state, original)
    for leaf, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(target), strict=True):
      assert leaf.sharding == wanted.sharding and leaf.dtype == wanted.dtype
  assert len(paths(state.opt_state)) > len(paths(state.params))


def test_odd_values_survive(tmp_path: Path) -> None:
  state = {"x": jnp.asarray([np.nan, -np.inf, -0.0, 1e-45, 3.0], jnp.float32)}
  with opened(tmp_path, CONFIG) as checkpoints:
    checkpoints.save(0, state)
    assert_same_bits(checkpoints.restore(target_of(state)), state)


def test_a_step_may_take_over_the_memory_of_what_is_being_saved(tmp_path: Path) -> None:
  step = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 7, s), donate_argnums=0)
  with opened(tmp_path, CONFIG) as checkpoints:
    for n in range(3):
      state = small(n)
      target = target_of(state)
      assert checkpoints.save(n, state)
      step(state)
      assert_same_bits(checkpoints.restore(target), small(n))


def test_it_saves_at_the_first_call_then_every_so_many_steps_and_when_forced(
  tmp_path: Path,
) -> None:
  state = small(0)
  with opened(tmp_path, CONFIG, every=4, keep=9) as checkpoints:
    assert [n for n in range(1, 11) if checkpoints.save(n, state)] == [1, 4, 8]
    assert checkpoints.save(10, state, force=True)
    assert not checkpoints.save(10, state, force=True)
    assert checkpoints.steps == [1, 4, 8, 10] and checkpoints.latest == 10


def test_a_checkpoint_is_replaced_if_asked_and_the_step_written_last_is_told(
  tmp_path: Path,
) -> None:
  with opened(tmp_path, CONFIG, best="recall") as checkpoints:
    assert checkpoints.save(1, small(1)) and checkpoints.save(2, small(2))
    assert checkpoints.best is None
    assert checkpoints.save(2, small(2), {"recall": 0.5}, force=True, replace=True)
    assert checkpoints.best == 2 and checkpoints.steps == [1, 2]
  assert json.loads((tmp_path / "progress.json").read_text()) == {"step": 2}


def test_a_checkpoint_is_there_again_if_its_replacement_fails_or_is_never_whole(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  folder = tmp_path / "checkpoints"
  with opened(tmp_path, CONFIG, keep=1, best="recall") as checkpoints:
    assert checkpoints.save(2, small(2))

  def fail(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")

  with opened(tmp_path, CONFIG, keep=1, best="recall") as checkpoints:
    with monkeypatch.context() as patched:
      patched.setattr(checkpoints._manager, "save", fail)
      with pytest.raises(CheckpointError, match="No space left"):
        checkpoints.save(2, small(3), {"recall": 0.5}, force=True, replace=True)
    assert [path.name for path in folder.iterdir()] == ["2.before"]  # as a kill would leave it
  with opened(tmp_path, CONFIG, keep=1, best="recall") as checkpoints:
    assert_same_bits(checkpoints.restore(target_of(small(0))), small(2))
    assert checkpoints.save(2, small(3), {"recall": 0.5}, force=True, replace=True)
  assert [path.name for path in folder.iterdir()] == ["2"]
  with opened(tmp_path, CONFIG, keep=1, best="recall") as checkpoints:
    assert checkpoints.best == 2
    assert_same_bits(checkpoints.restore(target_of(small(0))), small(3))


def test_the_last_ones_every_so_many_and_the_best_are_kept_across_a_restart(tmp_path: Path) -> None:
  recall: Mapping[int, float] = {3: 0.5, 4: 0.9, 7: 0.2, 8: float("nan")}
  for steps in (range(1, 6), range(6, 12)):
    options: dict[str, Any] = {"keep": 2, "keep_every": 5, "best": "recall"}
    with opened(tmp_path, CONFIG, **options) as checkpoints:
      for n in steps:
        metrics = {"recall": recall[n], "loss": 1.0} if n in recall else None
        assert checkpoints.save(n, small(n), metrics)
  assert names(tmp_path) == {"4", "5", "10", "11"}
  with opened(tmp_path, CONFIG, keep=2, best="recall", read_only=True) as checkpoints:
    assert checkpoints.best == 4
    about = checkpoints.about(4)
  assert about["metrics"] == {"recall": 0.9, "loss": 1.0} and about["config"] == CONFIG
  assert about["versions"]["jax"] == jax.__version__


@pytest.mark.parametrize("read_only", [False, True])
def test_of_a_damaged_best_the_next_best_takes_the_place(tmp_path: Path, read_only: bool) -> None:
  with opened(tmp_path, CONFIG, keep=3, best="recall") as checkpoints:
    for n, recall in enumerate([0.7, 0.9, 0.2]):
      checkpoints.save(n, small(n), {"recall": recall})
  with opened(tmp_path, CONFIG, keep=3, best="recall", read_only=read_only) as checkpoints:
    assert checkpoints.best == 1
    flip(largest_file(tmp_path / "checkpoints" / "1" / "state"))
    assert checkpoints.best == 0
    assert checkpoints.restore(target_of(small(0)), 0)["step"] == 0
  assert names(tmp_path) == ({"0", "1", "2"} if read_only else {"0", "1.bad", "2"})


def test_the_least_is_best_where_that_is_asked_for(tmp_path: Path) -> None:
  with opened(tmp_path, CONFIG, keep=1, best="loss", mode="min") as checkpoints:
    for n, loss in enumerate([3.0, 1.0, 2.0, 5.0]):
      checkpoints.save(n, small(n), {"loss": loss})
    assert checkpoints.best == 1 and checkpoints.steps == [1, 3]


def test_the_manifest_is_there_before_the_checkpoint_has_its_name_and_has_every_file(
  tmp_path: Path,
) -> None:
  fill(tmp_path, [0])
  checkpoint = tmp_path / "checkpoints" / "0"
  listed = json.loads((checkpoint / MANIFEST).read_text())["files"]
  files = {str(p.relative_to(checkpoint)) for p in checkpoint.rglob("*") if p.is_file()}
  # Orbax writes the last two when it commits, which is after the manifest.
  assert files - {MANIFEST} - set(listed) == {"_CHECKPOINT_METADATA", "commit_success.txt"}
  commit = (checkpoint / "commit_success.txt").stat().st_mtime_ns
  assert (checkpoint / MANIFEST).stat().st_mtime_ns <= commit


def test_any_flipped_byte_and_any_lost_byte_is_found(tmp_path: Path) -> None:
  from etils import epath

  fill(tmp_path, [0])
  checkpoint = tmp_path / "checkpoints" / "0"
  rng = np.random.default_rng(0)
  listed = [*json.loads((checkpoint / MANIFEST).read_text())["files"], MANIFEST]
  assert damage(epath.Path(checkpoint)) == ""
  for name in listed:
    path = checkpoint / name
    content = path.read_bytes()
    flip(path, int(rng.integers(len(content))))
    assert damage(epath.Path(checkpoint)), name
    path.write_bytes(content[:-1])
    # The manifest's last byte closes it; of others the size is compared even if nothing is read.
    assert damage(epath.Path(checkpoint), most_bytes=0), name
    path.unlink()
    assert damage(epath.Path(checkpoint)), name
    path.write_bytes(content)
  assert damage(epath.Path(checkpoint)) == ""


def test_a_flipped_byte_sets_the_checkpoint_aside_and_the_one_before_is_used(
  tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
  fill(tmp_path, [1, 2])
  bad = tmp_path / "checkpoints" / "2"
  flip(largest_file(bad / "state"))
  before = {p.relative_to(bad): p.read_bytes() for p in bad.rglob("*") if p.is_file()}
  with caplog.at_level(logging.WARNING), opened(tmp_path, CONFIG) as checkpoints:
    assert_same_bits(checkpoints.restore(target_of(small(0))), small(1))
    assert checkpoints.latest == 1
    assert names(tmp_path) == {"1", "2.bad"}
    # The run comes by step 2 again, and it is damaged again.
    assert checkpoints.save(2, small(2))
    checkpoints.wait()
    flip(largest_file(tmp_path / "checkpoints" / "2" / "state"))
    checkpoints.restore(target_of(small(0)))
  assert names(tmp_path) == {"1", "2.bad", "2.bad-2"}
  aside = tmp_path / "checkpoints" / "2.bad"
  assert {p.relative_to(aside): p.read_bytes() for p in aside.rglob("*") if p.is_file()} == before
  said = [record.getMessage() for record in caplog.records if DAMAGED in record.getMessage()]
  assert len(said) == 2 and "set aside as 2.bad" in said[0] and "nothing was deleted" in said[0]


@pytest.mark.parametrize("name", ["metrics/metrics", "about/metadata", "state/_METADATA", MANIFEST])
def test_a_file_cut_short_sets_the_checkpoint_aside_when_the_directory_is_opened(
  tmp_path: Path, name: str
) -> None:
  fill(tmp_path, [1, 2])
  path = tmp_path / "checkpoints" / "2" / name
  path.write_bytes(path.read_bytes()[:-2])
  with opened(tmp_path, CONFIG) as checkpoints:
    assert checkpoints.latest == 1
    assert_same_bits(checkpoints.restore(target_of(small(0))), small(1))
  assert names(tmp_path) == {"1", "2.bad"}


@pytest.mark.parametrize("content", [b"", b"\xff{"])
def test_what_orbax_writes_after_the_manifest_does_not_change_what_is_loaded(
  tmp_path: Path, content: bytes
) -> None:
  fill(tmp_path, [1])
  for name in ("_CHECKPOINT_METADATA", "commit_success.txt"):
    (tmp_path / "checkpoints" / "1" / name).write_bytes(content)
  with opened(tmp_path, CONFIG) as checkpoints:
    assert_same_bits(checkpoints.restore(target_of(small(0))), small(1))


def test_a_step_asked_for_by_number_is_that_or_an_error(tmp_path: Path) -> None:
  fill(tmp_path, [1, 2])
  with opened(tmp_path, CONFIG) as checkpoints:
    flip(largest_file(tmp_path / "checkpoints" / "1" / "state"))
    with pytest.raises(CheckpointError, match=r"checkpoints/1: is damaged: state/.*SHA-256"):
      checkpoints.restore(target_of(small(0)), step=1)
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 7; there are \[1, 2\]"):
      checkpoints.restore(target_of(small(0)), step=7)
    assert_same_bits(checkpoints.restore(target_of(small(0)), step=2), small(2))
  assert names(tmp_path) == {"1", "2"}


def test_when_all_are_damaged_it_says_so_and_does_not_start_anew(tmp_path: Path) -> None:
  fill(tmp_path, [1, 2])
  with opened(tmp_path, CONFIG) as checkpoints:
    for step in ("1", "2"):
      flip(largest_file(tmp_path / "checkpoints" / step / "state"))
    with pytest.raises(CheckpointError, match="no checkpoint that is whole"):
      checkpoints.restore(target_of(small(0)))
  with pytest.raises(CheckpointError, match="no checkpoint that is whole"):
    opened(tmp_path, CONFIG)
  assert names(tmp_path) == {"1.bad", "2.bad"}


@pytest.mark.parametrize("renamed", [False, True])
def test_when_all_are_gone_it_says_what_was_saved_and_does_not_start_anew(
  tmp_path: Path, renamed: bool
) -> None:
  workdir = tmp_path / "run"
  fill(workdir, [0, 12])
  if renamed:
    for step in ("0", "12"):
      (workdir / "checkpoints" / step).rename(workdir / "checkpoints" / f"{step}-mine")
  else:
    (workdir / "checkpoints").rename(tmp_path / "elsewhere")
  with pytest.raises(CheckpointError, match="progress.json says that step 12 was saved") as error:
    opened(workdir, CONFIG)
  assert ("It holds 0-mine, 12-mine. " in str(error.value)) == renamed
  # What the message says helps: a copy put back, or the directory moved away.
  kept = workdir / "checkpoints" / "12-mine" if renamed else tmp_path / "elsewhere" / "12"
  (workdir / "checkpoints").mkdir(exist_ok=True)
  kept.rename(workdir / "checkpoints" / "12")
  with opened(workdir, CONFIG) as checkpoints:
    assert checkpoints.latest == 12
  workdir.rename(tmp_path / "old")
  with opened(workdir, CONFIG) as checkpoints:
    assert checkpoints.latest is None


def test_the_results_of_a_finished_run_without_steps_are_not_begun_anew_either(
  tmp_path: Path,
) -> None:
  fill(tmp_path, [0])
  (tmp_path / "checkpoints").rename(tmp_path / "elsewhere")
  with opened(tmp_path, CONFIG) as checkpoints:  # killed at its first save, as it may be
    assert checkpoints.latest is None
  (tmp_path / "encoder").mkdir()
  with pytest.raises(CheckpointError, match="though encoder/ of a finished run is there"):
    opened(tmp_path, CONFIG)


@pytest.mark.parametrize("name", ["metrics.jsonl", "goodput.jsonl"])
@pytest.mark.parametrize(
  ("config", "killed", "lost"),
  [
    ({}, 20, 21),  # the next save but the beginning's waits for that to be whole
    ({"evaluation": {"every": 5}}, 5, 6),  # what is measured is saved too
    ({"training": {"steps": 12}}, 11, 12),  # and so is the last step
  ],
)
def test_what_was_measured_shows_that_checkpoints_are_gone_but_not_of_a_run_killed_before_any(
  tmp_path: Path, name: str, config: dict[str, Any], killed: int, lost: int
) -> None:
  workdir = tmp_path / "run"
  workdir.mkdir()

  def write(last: int) -> bytes:
    content = "".join(json.dumps({"step": step, "a": 1}) + "\n" for step in (1, last))
    (workdir / name).write_text(content)
    return (workdir / name).read_bytes()

  write(killed)
  with opened(workdir, config, every=20) as checkpoints:
    assert checkpoints.latest is None
  before = write(lost)
  with pytest.raises(CheckpointError, match=rf"though {name} goes as far as step {lost}"):
    opened(workdir, config, every=20)
  assert (workdir / name).read_bytes() == before
  workdir.rename(tmp_path / "away")  # as the message says
  with opened(workdir, config, every=20) as checkpoints:
    assert checkpoints.latest is None


def test_a_step_that_cannot_be_read_is_refused_by_the_files_name(tmp_path: Path) -> None:
  fill(tmp_path, [0])
  (tmp_path / "checkpoints").rename(tmp_path / "elsewhere")
  (tmp_path / "progress.json").write_text("12")
  with pytest.raises(CheckpointError, match="progress.json: holds something else.*or remove it"):
    opened(tmp_path, CONFIG)


def test_the_config_of_the_checkpoints_counts_where_that_of_the_directory_is_gone(
  tmp_path: Path,
) -> None:
  fill(tmp_path, [0, 12])
  (tmp_path / "config.json").unlink()
  with pytest.raises(CheckpointError, match="model.width: 16, 32"):
    opened(tmp_path, {**CONFIG, "model": {"width": 32}})
  fill(tmp_path, [13])
  assert json.loads((tmp_path / "config.json").read_text()) == CONFIG


def test_a_damaged_config_of_a_checkpoint_does_not_count(tmp_path: Path) -> None:
  fill(tmp_path, [0, 12])
  (tmp_path / "config.json").unlink()
  about = tmp_path / "checkpoints" / "12" / "about" / "metadata"
  about.write_text(about.read_text().replace("16", "17"))
  fill(tmp_path, [1])
  assert json.loads((tmp_path / "config.json").read_text()) == CONFIG
  assert "12.bad" in names(tmp_path)


def test_a_save_that_was_interrupted_is_no_checkpoint(tmp_path: Path) -> None:
  fill(tmp_path, [1])
  (tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
  with opened(tmp_path, CONFIG) as checkpoints:
    assert checkpoints.latest == 1
    assert checkpoints.save(2, small(2))
  assert names(tmp_path) == {"1", "2"}


def test_a_reader_changes_nothing(tmp_path: Path) -> None:
  fill(tmp_path, [1, 2])
  flip(largest_file(tmp_path / "checkpoints" / "2" / "state"))
  before = sorted(str(p) for p in tmp_path.rglob("*"))
  with opened(tmp_path, {"another": 1}, read_only=True) as checkpoints:
    assert_same_bits(checkpoints.restore(target_of(small(0))), small(1))
    assert not checkpoints.save(5, small(5))
  assert sorted(str(p) for p in tmp_path.rglob("*")) == before


def test_another_state_is_refused_array_by_array(tmp_path: Path) -> None:
  fill(tmp_path, [1])
  target = target_of(small(0))
  target["kernel"] = jax.ShapeDtypeStruct((64, 16), jnp.float32, sharding=target["kernel"].sharding)
  target["bias"] = target["step"]
  with (
    opened(tmp_path, CONFIG) as checkpoints,
    pytest.raises(
      CheckpointError,
      match=r"bias: absent, int32\[\]; kernel: float32\[64, 32\], float32\[64, 16\]",
    ),
  ):
    checkpoints.restore(target)
  assert names(tmp_path) == {"1"}


def test_a_directory_that_cannot_be_written_is_one_paragraph(tmp_path: Path) -> None:
  (tmp_path / "file").write_text("")
  with pytest.raises(CheckpointError, match="cannot be used as a working directory") as error:
    Checkpoints(str(tmp_path / "file" / "run"), CONFIG)
  assert "\n" not in str(error.value)


FULL_DISK = """
import os, resource, signal, sys
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
from tests.training.test_checkpoint import CONFIG, assert_same_bits, opened, small, target_of
from xjepa_jax.errors import CheckpointError
import jax.numpy as jnp, numpy as np

big = {"step": small(2)["step"], "kernel": jnp.asarray(np.random.default_rng(0).normal(size=2**19))}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
checkpoints = opened(sys.argv[1], CONFIG, keep=1)
checkpoints.save(1, small(1))
checkpoints.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
  checkpoints.save(2, big)
  checkpoints.wait()
except CheckpointError as error:
  assert "\\n" not in str(error) and "step 2 could not be written" in str(error), error
  assert "intact" in str(error), error
else:
  raise SystemExit("the full disk went unnoticed")
assert checkpoints.latest == 1, checkpoints.steps
assert_same_bits(checkpoints.restore(target_of(small(0))), small(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert checkpoints.save(2, small(2))  # there is room again
checkpoints.close()
print("went on")
"""


def test_a_full_disk_leaves_the_last_checkpoint_and_training_can_go_on(tmp_path: Path) -> None:
  done = subprocess.run(
    [sys.executable, "-c", FULL_DISK, str(tmp_path)],
    cwd=Path(__file__).resolve().parents[2],
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.stdout.splitlines()[-1:] == ["went on"], done.stderr[-3000:]
  assert names(tmp_path) == {"2"}
