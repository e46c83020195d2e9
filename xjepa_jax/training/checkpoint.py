"""Checkpoints: saved while training goes on, whole or not at all, restored onto any mesh.

Orbax writes them. Added are a manifest of checksums, so that a damaged checkpoint is noticed and
set aside rather than loaded, and a config that has to be the one that the directory began with.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import orbax.checkpoint as ocp
from absl import flags, logging
from etils import epath

from xjepa_jax.config.schema import CheckpointConfig
from xjepa_jax.data.storage import is_remote
from xjepa_jax.errors import CheckpointError, XJepaError
from xjepa_jax.processes import barriers
from xjepa_jax.training.consensus import first_decides
from xjepa_jax.training.manifest import write_manifest
from xjepa_jax.training.preservation import Preservation
from xjepa_jax.training.reached import write_reached
from xjepa_jax.training.replacing import put_aside, settle
from xjepa_jax.training.set_aside import is_sound, set_aside_damaged, sound_step
from xjepa_jax.training.structure import structure_differences
from xjepa_jax.training.workdir import claim_workdir
from xjepa_jax.versions import versions

_NAMED_BARRIERS = "experimental_orbax_use_distributed_barrier"
_TEMPORARY = ".orbax-checkpoint-tmp"


class Checkpoints:
  """The checkpoints of one run, in `<workdir>/checkpoints/<step>`.

  All processes have to make the same calls. To be closed, or used in a `with`.
  """

  def __init__(
    self,
    workdir: str,
    config: Mapping[str, Any],
    settings: CheckpointConfig | None = None,
    best: str = "",
    mode: str = "max",
    read_only: bool = False,
    data: Callable[[], Sequence[Mapping[str, Any]]] | None = None,
    extend: bool = False,
  ):
    """Opens a run's directory, and makes it if it is new.

    Args:
      workdir: a local directory that all processes see, or an address.
      config: the run's, nested mappings of JSON's types; ignored if `read_only`.
      settings: how often a checkpoint is due and which ones stay; None takes the defaults. The
        first step saved is the first that `save` is called for, so that a directory that cannot
        hold a checkpoint is noticed early.
      best, mode: the metric of the checkpoint that stays whatever its age; see `Preservation`.
      read_only: nothing is written, renamed or deleted; for other programs than the run.
      data: gives what tells the run's data from others, and `extend` lets it have more steps than
        it began with; see `claim_workdir`.

    Raises:
      CheckpointError: the directory belongs to another config or other data, or cannot be used.
    """
    settings = settings or CheckpointConfig()
    workdir = workdir if is_remote(workdir) else os.path.abspath(workdir)
    self.directory = epath.Path(workdir) / "checkpoints"
    self._config = config
    self._read_only = read_only
    self._preservation = Preservation(settings.keep, settings.keep_every, best, mode)
    self._saving = -1  # the step being written
    if not read_only:
      first_decides(lambda: claim_workdir(workdir, config, data and data(), extend))
      first_decides(lambda: settle(self.directory))
      first_decides(lambda: set_aside_damaged(self.directory, _first_saves(config, settings.every)))
    with self._in_words("cannot be opened"):
      _use_named_barriers()
      self._manager = ocp.CheckpointManager(
        self.directory,
        # Named, or Orbax cannot tell what a checkpoint holds before the first save.
        handler_registry=ocp.handlers.create_default_handler_registry(
          state=ocp.handlers.StandardCheckpointHandler(),
          about=ocp.handlers.JsonCheckpointHandler(),
        ),
        options=ocp.CheckpointManagerOptions(
          save_interval_steps=settings.every,
          preservation_policy=self._preservation,
          best_fn=lambda metrics: 0.0,  # metrics are stored only if there is one
          cleanup_tmp_directories=not read_only,
          read_only=read_only,
          # Orbax calls it on the first process, when all files are there and before the rename.
          async_options=ocp.AsyncOptions(post_finalization_callback=self._write_manifest),
        ),
      )

  @property
  def steps(self) -> list[int]:
    """Steps with a checkpoint, ascending, with that being written."""
    return sorted(self._manager.all_steps())

  @property
  def latest(self) -> int | None:
    """The last step with a checkpoint."""
    return max(self.steps, default=None)

  @property
  def best(self) -> int | None:
    """The step of the best checkpoint by the metric chosen, None if none has it.

    Those found damaged on the way are set aside, as by `restore`.
    """
    self.wait()
    chosen = first_decides(self._best)
    self._manager.reload()
    return int(chosen) if chosen else None

  def save(
    self,
    step: int,
    state: Any,
    metrics: Mapping[str, float] | None = None,
    force: bool = False,
    replace: bool = False,
  ) -> bool:
    """Saves a state if its step is due; writing goes on in the background.

    The state's arrays are copied before this returns, so the next step may take over their memory.

    Args:
      step: steps done.
      state: a pytree of arrays.
      metrics: what an evaluation of this state gave.
      force: save although it is not due.
      replace: save although this step has a checkpoint, which is deleted when the new one is
        whole.

    Returns:
      Whether a save has begun; not if this step has a checkpoint already, unless it is replaced.

    Raises:
      CheckpointError: this save, or the one before it, failed.
    """
    there = step in self._manager.all_steps()
    if there and not replace:
      return False
    with self._writing():
      if not (there or self._manager.should_save(step) or force):
        return False
      self._manager.wait_until_finished()
      if there:
        first_decides(lambda: put_aside(self.directory, step))
        self._manager.reload()
      self._saving = step
      return self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(state),
          about=ocp.args.JsonSave({"config": self._config, "versions": versions()}),
        ),
        metrics={key: float(value) for key, value in (metrics or {}).items()},
        force=True,
      )

  def restore(self, target: Any, step: int | None = None) -> Any:
    """The state of a step, on the mesh that the target's shardings name.

    Args:
      target: `jax.ShapeDtypeStruct`s with shardings, as `abstract_state(..., mesh)` gives them.
      step: which; None takes the last whose files are as they were written. Those found damaged
        on the way are set aside as `<step>.bad`, with a warning.

    Raises:
      CheckpointError: there is no such checkpoint, it is damaged, or it holds another state.
    """
    self.wait()
    chosen = int(
      first_decides(lambda: str(sound_step(self.directory, self.steps, step, self._read_only)))
    )
    self._manager.reload()
    self._check(chosen, target)
    args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
    try:
      return self._manager.restore(chosen, args=args).state
    except Exception as error:  # of Orbax, TensorStore or a file system
      raise CheckpointError(
        f"{self.directory / str(chosen)}: its files are as they were written, and yet it cannot be "
        f"loaded ({type(error).__name__}: {error}). It was saved with {self._saved_with(chosen)}."
      ) from error

  def about(self, step: int) -> dict[str, Any]:
    """Config, versions and metrics that a checkpoint was saved with.

    Raises:
      CheckpointError: it has none that can be read.
    """
    try:
      about = json.loads((self.directory / str(step) / "about" / "metadata").read_text())
    except (OSError, ValueError) as error:
      raise CheckpointError(
        f"{self.directory / str(step)}: has no readable description ({error})."
      ) from error
    return {**about, "metrics": self.metrics(step)}

  def metrics(self, step: int) -> dict[str, float]:
    """What an evaluation of a checkpoint's state gave; {} if it was not evaluated."""
    return dict(self._manager.metrics(step) or {})

  def wait(self) -> None:
    """Waits until what is being saved is on disk. Raises CheckpointError if it failed."""
    with self._writing():
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits as `wait` does, and ends the threads of the background."""
    try:
      self.wait()
      if barriers.is_first() and not self._read_only:
        settle(self.directory)
    finally:
      self._manager.close()

  def __enter__(self) -> Checkpoints:
    return self

  def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
    try:
      self.close()
    except CheckpointError as failure:
      if kind is None:
        raise
      logging.warning("%s", failure)  # and not instead of what ended the run

  def _check(self, step: int, target: Any) -> None:
    """Names what differs, where Orbax would load a part or print whole trees."""
    stored = self._manager.item_metadata(step).state.tree
    if differing := structure_differences(stored, target):
      raise CheckpointError(
        f"{self.directory / str(step)}: holds another state than is to be restored. In the "
        f"checkpoint and wanted: {differing}. Use the config that it was saved with."
      )

  def _write_manifest(self) -> None:
    step = str(self._saving)
    written = [
      path
      for path in self.directory.iterdir()
      if path.name == step or path.name.startswith(step + _TEMPORARY)
    ]
    if len(written) != 1:
      raise CheckpointError(
        f"{self.directory}: expected one directory of step {step} being written, found "
        f"{[path.name for path in written]}. Does another run write here?"
      )
    write_manifest(written[0])
    write_reached(str(self.directory.parent), self._saving)

  def _best(self) -> str | None:
    infos = {step: _Info(step, self._manager.metrics(step)) for step in self.steps}
    while (best := self._preservation.best_step(list(infos.values()))) is not None:
      if is_sound(self.directory / str(best), self._read_only):
        return str(best)
      del infos[best]
    return None

  def _saved_with(self, step: int) -> str:
    with contextlib.suppress(CheckpointError):
      return ", ".join(f"{name} {v}" for name, v in self.about(step)["versions"].items())
    return "unknown versions"

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    try:
      with self._in_words(f"the checkpoint of step {self._saving} could not be written"):
        yield
    except CheckpointError:
      # Orbax has struck those off its list that were to make room for the one that failed.
      with contextlib.suppress(Exception):
        self._manager.reload()
      raise

  @contextlib.contextmanager
  def _in_words(self, what: str) -> Iterator[None]:
    """Says in one paragraph what went wrong, where Orbax shows the stacks of its threads."""
    try:
      yield
    except XJepaError:
      raise
    except Exception as error:  # an OSError, or what Orbax and TensorStore make of one
      raise CheckpointError(
        f"{self.directory}: {what} ({_reason(error)}). The checkpoints that were finished before "
        "are intact. Make room or check the rights to the directory, and start again with the "
        "same command."
      ) from error


def _reason(error: Exception) -> str:
  """What the system said, where it can be found among what TensorStore says; else the beginning."""
  if code := re.search(r"\[[^]]*os_error_code='(\d+)'", str(error)):
    return os.strerror(int(code[1]))
  first_line = (str(error).splitlines() or [""])[0]
  return f"{type(error).__name__}: {first_line[:300]}"


def _use_named_barriers() -> None:
  """Orbax's barriers are of devices, without a time-out, unless a flag of its own is set."""
  if barriers.processes() > 1 and _NAMED_BARRIERS in flags.FLAGS:
    if not flags.FLAGS.is_parsed():  # in another program than an absl app
      flags.FLAGS.mark_as_parsed()
    flags.FLAGS[_NAMED_BARRIERS].value = True


class _Info:
  """What `Preservation` looks at."""

  def __init__(self, step: int, metrics: Mapping[str, float] | None):
    self.step, self.metrics = step, metrics


def _first_saves(config: Mapping[str, Any], every: int) -> int:
  """The first step, but for the beginning, after which a run saves: what is measured is saved too,
  and so is the last step."""
  evaluated = config.get("evaluation", {}).get("every", 0)
  last = config.get("training", {}).get("steps", 0)
  return min(step for step in (every, evaluated, last and last - 1) if step > 0)
