"""A complete run: from a config to a trained, evaluated, exported encoder and its report.

`run` is what the command and Python callers share. Everything that is likely to fail (directory,
devices, data, services) is opened before anything is compiled, and a run continues from whatever an
earlier start with the same config left in its directory.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence

from xjepa_jax.config import Config, to_dict
from xjepa_jax.objective.term import Term
from xjepa_jax.paths import StrPath
from xjepa_jax.processes import barriers, locking, log
from xjepa_jax.processes.devices import check_devices
from xjepa_jax.report.conclusion import Trained, conclude
from xjepa_jax.report.glance import glance
from xjepa_jax.retrieval.encoder_choice import choose, encoders
from xjepa_jax.retrieval.end_evaluation import check_protocol
from xjepa_jax.retrieval.evaluation import Validation
from xjepa_jax.training import canonical
from xjepa_jax.training.checkpoint import Checkpoints
from xjepa_jax.training.config_warnings import config_warnings
from xjepa_jax.training.consensus import check_same_config, first_decides
from xjepa_jax.training.experiment import Experiment, open_experiment
from xjepa_jax.training.goodput import Goodput
from xjepa_jax.training.json_lines import read_history
from xjepa_jax.training.loop import Outcome, is_due, train
from xjepa_jax.training.plan import peak_rate, step_flops
from xjepa_jax.training.process_memory import give_back
from xjepa_jax.training.progress import Progress, say
from xjepa_jax.training.reached import PROGRESS, read_reached
from xjepa_jax.training.setup import (
  check_workdir,
  simulate_if_asked,
  use_compilation_cache,
)
from xjepa_jax.training.splits import data_digests, split_sizes
from xjepa_jax.training.state import TrainState
from xjepa_jax.training.writers import Writers, open_files, open_services
from xjepa_jax.versions import versions

Row = dict[str, float]  # one row of metrics.jsonl
_LOCK = "run.lock"


def run(
  config: Config,
  workdir: StrPath,
  began: float | None = None,
  extend: bool = False,
  terms: Mapping[str, type[Term]] | None = None,
) -> str:
  """Train or continue a run, then evaluate, export and report.

  Args:
    config: resolved config.
    workdir: directory of the run; may contain the results of an earlier start with this config.
    began: start time of the program, by `time.monotonic`; None means now.
    extend: continue an existing run to the config's larger number of steps.
    terms: additional terms of the objective, by the names that the config uses.

  Returns:
    The path of the report's page; "" if all processes were stopped before the last step, and on
    all processes but the first.

  Raises:
    XJepaError: bad input or a missing resource, explained in one paragraph.
  """
  workdir = os.fspath(workdir)
  began = time.monotonic() if began is None else began
  check_workdir(workdir)
  check_same_config(to_dict(config))
  check_devices()
  use_compilation_cache(workdir)
  simulate_if_asked(config)
  experiment = open_experiment(config, terms=terms)
  check_protocol(experiment)
  with (
    # Everything that may be refused, such as a locked directory or a port, comes before compiling.
    _alone(workdir),
    _checkpoints(config, workdir, extend) as checkpoints,
    _goodput(workdir, began) as goodput,
    _services(config, workdir) as writers,
  ):
    for warning in config_warnings(experiment, split_sizes(config, config.data.train)):
      say(f"Note: {warning}")
    state = _first_state(experiment, checkpoints, workdir, goodput)
    if barriers.is_first():
      # Rows from the next step on belong to steps that will be repeated, and are dropped.
      writers.add(open_files(workdir, int(state.step) + 1, config.telemetry.tensorboard))
    trained = _train(experiment, state, checkpoints, writers, goodput, workdir)
    if trained is None:
      return ""
    with goodput.spending("report"):
      return conclude(experiment, trained, writers, workdir)


@contextlib.contextmanager
def _alone(workdir: str) -> Iterator[None]:
  """Allow one run at a time per directory; the first process holds the lock for all of them."""
  with contextlib.ExitStack() as held:

    def hold() -> None:
      os.makedirs(workdir, exist_ok=True)
      lock = locking.holding(f"{workdir}/{_LOCK}", f"the working directory {workdir}")
      held.enter_context(lock)

    first_decides(hold)
    _open_log(workdir)
    yield


def _open_log(workdir: str) -> None:
  """Open this process's log; it is closed when the process ends or starts another run."""
  log.open_log(f"{workdir}/logs", barriers.process())
  versioned = ", ".join(f"{name} {version}" for name, version in versions().items())
  log.note(
    f"Process {barriers.process()} of {barriers.processes()} starts; {versioned}",
    more={"pid": os.getpid(), "host": socket.gethostname()},
  )


def _goodput(workdir: str, began: float) -> Goodput:
  """Goodput is counted in every process, and written by the first."""
  return Goodput(f"{workdir}/goodput.jsonl" if barriers.is_first() else "", began)


def _checkpoints(config: Config, workdir: str, extend: bool) -> Checkpoints:
  return Checkpoints(
    workdir,
    to_dict(config),
    config.checkpoint,
    best="validation/score",
    data=lambda: data_digests(config),
    extend=extend,
  )


def _first_state(
  experiment: Experiment, checkpoints: Checkpoints, workdir: str, goodput: Goodput
) -> TrainState:
  """A new state with fitted closed-form layouts, or the state of the last intact checkpoint."""
  config = experiment.config
  if not first_decides(lambda: None if checkpoints.latest is None else "continue"):
    with goodput.spending("compile"):
      state = experiment.new_state()
      for name, found in canonical.fit(experiment, canonical.fitted_heads(config.heads)).items():
        state = canonical.put(state, name, found.maps)
        say(f"heads.{name}: {found}")
      give_back()  # the memory that compilation took
    return state
  with goodput.spending("restore"):
    state = checkpoints.restore(experiment.abstract_state())
  say(f"Continuing {workdir} after step {int(state.step):,}{_step_back(workdir, int(state.step))}")
  return state


def _step_back(workdir: str, step: int) -> str:
  """Explain that the run continues from before its last saved step; "" if it does not."""
  reached = read_reached(workdir) or 0
  if reached <= step:
    return ""
  return (
    f", the last with a checkpoint that is whole; step {reached:,} was saved ({PROGRESS}) and is "
    "computed again"
  )


def _services(config: Config, workdir: str) -> Writers:
  """Open the first process's network services before anything is compiled, so they fail early."""
  settings = config.telemetry
  opened = Writers()

  def open_them() -> None:
    opened.add(
      open_services(
        workdir,
        wandb=settings.wandb,
        prometheus_port=settings.prometheus_port,
        prometheus_address=settings.prometheus_address,
        config=to_dict(config),
      )
    )

  first_decides(open_them)
  return opened


def _train(
  experiment: Experiment,
  state: TrainState,
  checkpoints: Checkpoints,
  writers: Writers,
  goodput: Goodput,
  workdir: str,
) -> Trained | None:
  """Train to the last step or a collapse; return the best state, or None after SIGTERM."""
  first = int(state.step)
  history = _history(workdir, first)
  validation = Validation(experiment, history)

  with _progress(experiment, first) as progress:

    def evaluate(state: TrainState, step: int) -> tuple[dict[str, float], str]:
      measured = validation(state, step)
      if validation.latest is not None:
        encoder = encoders(state)[validation.chosen]
        writers.images(step, glance(experiment, encoder, validation.latest, bool(writers)))
      for warning in validation.warnings:
        progress.message(warning)
      return measured

    outcome = train(
      experiment,
      state,
      checkpoints,
      writers,
      progress,
      goodput,
      evaluate,
      workdir,
      validation.verdict,
      unmeasured=_is_unmeasured(experiment, history, first),
    )
    rate = progress.rate or 0.0
  if barriers.is_first():  # the other processes know only their own start
    say(goodput.line())
  if outcome.preempted and not outcome.stopped:
    say(
      f"Stopped by SIGTERM after step {int(outcome.state.step):,}, which is saved; the same "
      "command continues"
    )
    return None
  if outcome.stopped:
    say(
      f"Stopped after step {int(outcome.state.step):,}, for the space has collapsed "
      "(telemetry.stop_on_collapse)"
    )
  state, encoder = _best_state(experiment, outcome, checkpoints)
  return Trained(
    state=state,
    encoder=encoder,
    last=int(outcome.state.step),
    verdict=outcome.verdict,
    warnings=validation.warnings,
    timing={"pairs_per_second": rate, **_timing(goodput)},
  )


def _progress(experiment: Experiment, first: int) -> Progress:
  settings = experiment.config.training
  return Progress(
    settings.steps,
    settings.batch,
    first=first,
    flops=step_flops(experiment),
    peak=peak_rate(experiment),
    stream=None if barriers.is_first() else open(os.devnull, "w"),
  )


def _timing(goodput: Goodput) -> dict[str, float]:
  """Seconds of this start's steps (with data waits) and compilation; goodput of all starts."""
  seconds, scalars = goodput.seconds(), goodput.scalars()
  return {
    "training_seconds": seconds["steps"] + seconds["repeated"] + seconds["data"],
    "compile_seconds": seconds["compile"],
    **{key: value for key, value in scalars.items() if key != "goodput/data_wait"},
  }


def _best_state(
  experiment: Experiment, outcome: Outcome, checkpoints: Checkpoints
) -> tuple[TrainState, str]:
  """The state with the best validation score and its better encoder; the last state if no step has
  a score."""
  asked = experiment.config.evaluation.encoder
  last, best = int(outcome.state.step), checkpoints.best
  if best is None:
    encoder = choose(asked, {})
    say(
      f"No step has a score on the validation split; the last, {last:,}, is evaluated and "
      f"exported, {encoder} encoder"
    )
    return outcome.state, encoder
  encoder = choose(asked, checkpoints.metrics(best))
  say(
    f"Step {best:,}, {encoder} encoder, was the best on the validation split; it is evaluated and "
    "exported"
  )
  if best == last:
    return outcome.state, encoder
  state: TrainState = checkpoints.restore(experiment.abstract_state(), best)
  return state, encoder


def _is_unmeasured(experiment: Experiment, history: Sequence[Row], step: int) -> bool:
  """Whether this step is due for evaluation and lacks it: the run is new, or an earlier start was
  asked to stop at this step and had no time."""

  def decide() -> str:
    measured = any(
      row["step"] == step and any(key.startswith("geometry/") for key in row) for row in history
    )
    return "due" if is_due(experiment.config, step) and not measured else ""

  return bool(first_decides(decide))


def _history(workdir: str, last: int) -> list[Row]:
  """The metrics that an earlier start recorded, up to a step."""
  path = f"{workdir}/metrics.jsonl"
  rows = read_history(path) if os.path.exists(path) else []
  return [row for row in rows if row["step"] <= last]
