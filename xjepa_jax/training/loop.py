"""The training loop: every iteration evaluates, saves, takes a batch, steps and writes, in order.

The state is evaluated and saved before the next step because a step donates the state's buffers.
At most two steps are in flight: the host waits for the step before the last one, so batches do not
pile up on the devices. After an interruption the loop continues at the step of the restored state,
with the same batches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from xjepa_jax.config import Config
from xjepa_jax.data.batch_source import Batch
from xjepa_jax.errors import TrainingError
from xjepa_jax.processes import barriers, log, preemption, watchdog
from xjepa_jax.training.checkpoint import Checkpoints
from xjepa_jax.training.compiler_options import compile_step
from xjepa_jax.training.consensus import first_decides
from xjepa_jax.training.experiment import Experiment, device_batch, name_pairs
from xjepa_jax.training.goodput import Goodput
from xjepa_jax.training.memory import memory_scalars
from xjepa_jax.training.mesh import on_every_device
from xjepa_jax.training.process_memory import give_back
from xjepa_jax.training.profiling import Profile
from xjepa_jax.training.progress import Progress
from xjepa_jax.training.state import TrainState
from xjepa_jax.training.step import Step
from xjepa_jax.training.writers import Writers

_SAVE_SECONDS = 1800.0  # the longest that all processes may take to write the last checkpoint
# Measures a state: scalars, and a verdict in words if the embedding space has collapsed.
Evaluate = Callable[[TrainState, int], tuple[dict[str, float], str]]


@dataclasses.dataclass
class Outcome:
  """How a run ended.

  Attributes:
    state: the state after the last step.
    verdict: the verdict of the last evaluation, or "" if all is well.
    stopped: whether the run ended early because of that verdict.
    preempted: whether it ended early because all processes were asked to stop.
  """

  state: TrainState
  verdict: str = ""
  stopped: bool = False
  preempted: bool = False


def train(
  experiment: Experiment,
  state: TrainState,
  checkpoints: Checkpoints,
  writers: Writers,
  progress: Progress,
  goodput: Goodput,
  evaluate: Evaluate,
  workdir: str,
  verdict: str = "",
  unmeasured: bool = False,
) -> Outcome:
  """Train from the state's step to the config's last, or until all processes stop.

  Args:
    experiment: what is trained.
    state: the state to start from.
    checkpoints, writers, progress, goodput: where states, metrics and times are recorded.
    evaluate: measures the state; see `retrieval.evaluation.Validation`.
    workdir: the run's directory, in which profiles are written.
    verdict: the verdict of the last evaluation of an earlier start.
    unmeasured: whether the first state is due for evaluation and has not been evaluated, either
      because the run begins or because an earlier start had no time for it.

  Raises:
    TrainingError: too many updates in a row were not finite.
    CheckpointError: a save failed; the last good checkpoint is intact.
  """
  config = experiment.config
  total = config.training.steps
  first = int(state.step)
  outcome = Outcome(state, verdict)
  step, metrics, earlier = experiment.step, dict[str, Any](), dict[str, Any]()
  profile = Profile(
    config.telemetry.profile,
    config.telemetry.profile_steps,
    f"{workdir}/profile",
    progress.message,
  )
  watched = watchdog.watching(config.processes.hang_seconds, workdir)
  with experiment.training_pipeline() as pipeline, profile, preemption.stepping(), watched:
    batches = pipeline.batches(first)
    for done in range(first, total + 1):
      measured = None
      watchdog.advanced(done)
      log.at(done)
      # Before the first step there is nothing to lose, so a stop ends the process at once, even
      # while the step compiles.
      outcome.preempted = done > first and preemption.agreed(done)
      due = is_due(config, done) and (done > first or unmeasured) and not outcome.preempted
      if due or done % config.checkpoint.every == 0 or done == total:
        jax.block_until_ready(metrics)  # otherwise the pause would hide the time of running steps
      if due:
        with progress.paused(), goodput.spending("evaluation"):
          measured, outcome.verdict = evaluate(state, done)
          give_back()
        writers.scalars(done, measured)
        progress.note(measured)
        if outcome.verdict:
          progress.message(outcome.verdict)
      if config.telemetry.stop_on_collapse and (due or done == first):
        outcome.stopped = _all_stop(outcome.verdict)
      with progress.paused(), goodput.spending("save"):
        ended = done == total or outcome.stopped or outcome.preempted
        late = measured is not None and done == first
        checkpoints.save(done, state, measured, force=ended or measured is not None, replace=late)
      if ended:
        break
      profile.before(done + 1)
      with goodput.spending("data"):
        _, batch = next(batches)
      if done == first:
        with goodput.spending("compile"):
          step = _compiled(experiment, state, batch)
        preemption.agreed(done)  # from here on a request to stop waits until this step is done
      with jax.profiler.StepTraceAnnotation("train", step_num=done):
        # One step runs while the next is dispatched; with more in flight, batches would pile up.
        jax.block_until_ready(earlier)
        earlier = metrics
        goodput.giving(done + 1)
        state, metrics = step(state, device_batch(batch))
        goodput.given(metrics)
      told = (done + 1) % config.telemetry.every == 0 or done in (first, total - 1)
      scalars = _scalars(experiment, metrics, done) if told else None
      progress.update(done + 1, scalars)
      if scalars is not None:
        spent = {**progress.scalars(), **goodput.scalars(), **memory_scalars()}
        writers.scalars(done + 1, {**scalars, **spent})
        goodput.write()
        log.note(progress.line(), more=spent if barriers.is_first() else memory_scalars())
      if told or (done + 1) % config.training.bad_steps == 0:
        _check_finite(state, config.training.bad_steps, pipeline, done)
      _histograms(experiment, state, writers, done + 1)
      profile.after(done + 1, metrics)
    batches.close()
    with goodput.spending("save"):
      checkpoints.wait()
      barriers.wait_for_all("trained", _SAVE_SECONDS)
  outcome.state = state
  return outcome


def is_due(config: Config, step: int) -> bool:
  """Return whether the state after this many steps is evaluated.

  The state before the first step is evaluated too: without it, nothing shows what training adds.
  """
  every = config.evaluation.every
  return bool(every) and (step % every == 0 or step == config.training.steps)


def _all_stop(verdict: str) -> bool:
  """Return the first process's decision: other machines' numbers may differ in the last digits."""
  return bool(first_decides(lambda: verdict[:1]))


def _compiled(experiment: Experiment, state: TrainState, batch: Batch) -> Step:
  """Compile the step before its first run.

  Memory that the compiler frees is returned to the system in between; otherwise it would add to
  the activations at the moment when the run needs most.
  """
  lowered = experiment.step.lower(state, device_batch(batch))  # type: ignore[attr-defined]
  devices = experiment.mesh.devices.ravel()
  step: Step = compile_step(lowered, devices, hide=experiment.config.training.overlap)
  give_back()
  return step


def _scalars(experiment: Experiment, metrics: Mapping[str, Any], step: int) -> dict[str, float]:
  """Copy a step's metrics to the host, and add the values of the schedules at that step."""
  found = {key: float(value) for key, value in jax.device_get(dict(metrics)).items()}
  update = step - (found["skipped/total"] - found["skipped"])  # skipped steps advance no schedule
  found["schedule/learning_rate"] = float(experiment.schedules.learning_rate(update))
  found["schedule/weight_decay"] = float(experiment.schedules.weight_decay(update))
  found["schedule/momentum"] = float(experiment.momentum(update))
  return found


def _check_finite(state: TrainState, limit: int, pipeline: Any, step: int) -> None:
  streak = int(state.streak)
  if streak >= limit:
    raise TrainingError(
      f"step {step}: the last {streak} updates were not finite and were skipped "
      f"(training.bad_steps = {limit}). The state is that of before. The pairs of this step are "
      f"{name_pairs(pipeline, step)}. Look at them with `python -m xjepa_jax.data.inspect`, lower "
      "optimizer.learning_rate, or set optimizer.clip."
    )


def _histograms(experiment: Experiment, state: TrainState, writers: Writers, step: int) -> None:
  every = experiment.config.telemetry.histograms
  if every and step % every == 0:
    leaves = jax.tree_util.tree_leaves_with_path(on_every_device(experiment.mesh, state.params))
    writers.histograms(
      step,
      {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(value)
        for path, value in leaves
      },
    )
