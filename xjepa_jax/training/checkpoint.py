"""Checkpoints, saved while training goes on, whole or not at all, and restored onto any mesh.

Orbax writes them. This module adds a manifest of checksums, so that a damaged checkpoint is noticed
and set aside rather than loaded, and checks that a run's directory keeps the config that it began
with. Every decision that depends on files is made by the first process alone, so that processes
never differ in what they do next.
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

# Orbax's flag for barriers with names and time-outs, and its suffix of unfinished directories. Both
# are internal to Orbax and may change with its version.
_NAMED_BARRIERS = "experimental_orbax_use_distributed_barrier"
_TEMPORARY = ".orbax-checkpoint-tmp"


class Checkpoints:
  """The checkpoints of one run, in `<workdir>/checkpoints/<step>`.

  All processes have to make the same calls. Close it, or use it in a `with` statement.
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
    """Open a run's directory, and create it if it does not exist.

    Args:
      workdir: a local directory that all processes see, or an address in object storage.
      config: the run's config, as nested mappings of JSON's types; ignored if `read_only`.
      settings: how often a checkpoint is due and which ones are kept; None takes the defaults. The
        first step for which `save` is called is always saved, so that a directory that cannot hold
        a checkpoint is noticed early.
      best, mode: the metric whose best checkpoint is kept whatever its age; see `Preservation`.
      read_only: write, rename and delete nothing; for programs other than the run.
      data: returns what identifies the run's data; see `claim_workdir`.
      extend: lets the run have more steps than it began with; see `claim_workdir`.

    Raises:
      CheckpointError: the directory belongs to another config or other data, or cannot be used.
    """
    settings = settings or CheckpointConfig()
    workdir = workdir if is_remote(workdir) else os.path.abspath(workdir)
    self.directory = epath.Path(workdir) / "checkpoints"
    self._config = config
    self._read_only = read_only
    self._preservation = Preservation(settings.keep, settings.keep_every, best, mode)
    self._saving = -1  # the step that is being written
    if not read_only:
      first_decides(lambda: claim_workdir(workdir, config, data and data(), extend))
      first_decides(lambda: settle(self.directory))
      first_decides(lambda: set_aside_damaged(self.directory, _first_saves(config, settings.every)))
    with self._in_words("cannot be opened"):
      _use_named_barriers()
      self._manager = ocp.CheckpointManager(
        self.directory,
        # Without named handlers, Orbax cannot tell what a checkpoint holds before the first save.
        handler_registry=ocp.handlers.create_default_handler_registry(
          state=ocp.handlers.StandardCheckpointHandler(),
          about=ocp.handlers.JsonCheckpointHandler(),
        ),
        options=ocp.CheckpointManagerOptions(
          save_interval_steps=settings.every,
          preservation_policy=self._preservation,
          best_fn=lambda metrics: 0.0,  # Orbax stores metrics only if it is given a best_fn
          cleanup_tmp_directories=not read_only,
          read_only=read_only,
          # Orbax calls this on the first process once all files exist, before the final rename.
          async_options=ocp.AsyncOptions(post_finalization_callback=self._write_manifest),
        ),
      )

  @property
  def steps(self) -> list[int]:
    """Steps with a checkpoint in ascending order, including the one that is being written."""
    return sorted(self._manager.all_steps())

  @property
  def latest(self) -> int | None:
    """The last step with a checkpoint, or None."""
    return max(self.steps, default=None)

  @property
  def best(self) -> int | None:
    """The step of the best checkpoint by the chosen metric, or None if no checkpoint has it.

    A damaged checkpoint that would be the best is set aside, as in `restore`.
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
    """Save a state if its step is due; writing continues in the background.

    The state's arrays are copied before this returns, so the next step may reuse their memory.

    Args:
      step: number of steps done.
      state: a pytree of arrays.
      metrics: the results of evaluating this state.
      force: save even if the step is not due.
      replace: save even if this step has a checkpoint, which is deleted once the new one is
        complete.

    Returns:
      Whether a save has begun. It has not if this step has a checkpoint that is not to be replaced.

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
    """Restore the state of a step onto the mesh of the target's shardings.

    Args:
      target: `jax.ShapeDtypeStruct`s with shardings, as `abstract_state(..., mesh)` returns them.
      step: the step to restore; None takes the last one whose files match their checksums. Damaged
        ones after it are set aside as `<step>.bad`, with a warning.

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
    except Exception as error:  # Orbax, TensorStore and file systems share no base class
      raise CheckpointError(
        f"{self.directory / str(chosen)}: its files are as they were written, and yet it cannot be "
        f"loaded ({type(error).__name__}: {error}). It was saved with {self._saved_with(chosen)}."
      ) from error

  def about(self, step: int) -> dict[str, Any]:
    """Return the config, versions and metrics that a checkpoint was saved with.

    Raises:
      CheckpointError: the checkpoint has no readable description.
    """
    try:
      about = json.loads((self.directory / str(step) / "about" / "metadata").read_text())
    except (OSError, ValueError) as error:
      raise CheckpointError(
        f"{self.directory / str(step)}: has no readable description ({error})."
      ) from error
    return {**about, "metrics": self.metrics(step)}

  def metrics(self, step: int) -> dict[str, float]:
    """Return the evaluation results of a checkpoint's state; {} if it was not evaluated."""
    return dict(self._manager.metrics(step) or {})

  def wait(self) -> None:
    """Wait until the running save is on disk.

    Raises:
      CheckpointError: the save failed.
    """
    with self._writing():
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Wait for the running save, and stop the background threads."""
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
      logging.warning("%s", failure)  # a failed save must not hide the error that ended the run

  def _check(self, step: int, target: Any) -> None:
    """Name the differing arrays; Orbax would restore a part of them or print whole trees."""
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
      # Orbax has already removed from its list the checkpoints that the failed one would replace.
      with contextlib.suppress(Exception):
        self._manager.reload()
      raise

  @contextlib.contextmanager
  def _in_words(self, what: str) -> Iterator[None]:
    """Report a failure in one paragraph, where Orbax would print the stacks of its threads."""
    try:
      yield
    except XJepaError:
      raise
    except Exception as error:  # an OSError, or an Orbax or TensorStore error that wraps one
      raise CheckpointError(
        f"{self.directory}: {what} ({_reason(error)}). The checkpoints that were finished before "
        "are intact. Make room or check the rights to the directory, and start again with the "
        "same command."
      ) from error


def _reason(error: Exception) -> str:
  """Return the system's message if TensorStore's text holds its code, else the first line."""
  if code := re.search(r"\[[^]]*os_error_code='(\d+)'", str(error)):
    return os.strerror(int(code[1]))
  first_line = (str(error).splitlines() or [""])[0]
  return f"{type(error).__name__}: {first_line[:300]}"


def _use_named_barriers() -> None:
  """Make Orbax use barriers with time-outs; by default it waits for devices, without a limit."""
  if barriers.processes() > 1 and _NAMED_BARRIERS in flags.FLAGS:
    if not flags.FLAGS.is_parsed():  # the program is not an absl app
      flags.FLAGS.mark_as_parsed()
    flags.FLAGS[_NAMED_BARRIERS].value = True


class _Info:
  """The attributes of a checkpoint that `Preservation` reads."""

  def __init__(self, step: int, metrics: Mapping[str, float] | None):
    self.step, self.metrics = step, metrics


def _first_saves(config: Mapping[str, Any], every: int) -> int:
  """Return the first step after the initial state at which a run saves.

  Evaluated states are saved too, and so is the last step.
  """
  evaluated = config.get("evaluation", {}).get("every", 0)
  last = config.get("training", {}).get("steps", 0)
  return min(step for step in (every, evaluated, last and last - 1) if step > 0)
