"""Trains an encoder, evaluates it, exports it and reports.

example: python -m xjepa_jax.main --config=configs/optical_sar.py --workdir=runs/optical_sar

  --config=FILE.py[:PRESET]   a file of configs/, and which of its presets
  --config.KEY=VALUE          one key changed: --config.training.steps=2000
  --workdir=DIR               what the run writes: checkpoints, metrics, encoder, report.
                              The same command continues a run that was interrupted
  --plan                      print config, parameters, operations, memory and mesh, and end
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from xjepa_jax import command_line
from xjepa_jax.config import Config, resolve, to_dict
from xjepa_jax.errors import CheckpointError, ConfigError, XJepaError

_CONFIG = config_flags.DEFINE_config_file("config", help_string="File of the config, FILE[:PRESET]")
_WORKDIR = flags.DEFINE_string("workdir", "", "Directory of the run; runs/NAME if not given")
_PLAN = flags.DEFINE_bool("plan", False, "Print what would be run, and end")


def run(config: Config, workdir: str) -> str:
  """One run from its config to its report; returns the report's page.

  Raises:
    XJepaError: in one paragraph, what is not as it has to be.
  """
  # JAX takes a second to import: not for a --help.
  import jax

  from xjepa_jax.data.storage import is_remote
  from xjepa_jax.retrieval.evaluate import Validation
  from xjepa_jax.training.checkpoint import Checkpoints
  from xjepa_jax.training.experiment import open_experiment
  from xjepa_jax.training.loop import train
  from xjepa_jax.training.plan import peak_rate, step_flops
  from xjepa_jax.training.progress import Progress
  from xjepa_jax.training.writers import Writers, open_writers

  if is_remote(workdir):
    raise ConfigError(
      f"--workdir={workdir}: a run writes into a directory of this machine or a mounted disk. Copy "
      "it to object storage when it is done."
    )
  _check_writable(workdir)
  _use_compilation_cache(workdir)
  _simulate_if_asked(config)
  experiment = open_experiment(config)
  with Checkpoints(
    workdir,
    to_dict(config),
    every=config.checkpoint.every,
    keep=config.checkpoint.keep,
    keep_every=config.checkpoint.keep_every,
    best="validation/score",
  ) as checkpoints:
    if checkpoints.latest is None:
      state = experiment.new_state()
    else:
      state = checkpoints.restore(experiment.abstract_state())
      _say(f"Continuing {workdir} after step {int(state.step):,}")
    first = int(state.step)
    settings = config.telemetry
    writers = (
      open_writers(
        workdir,
        first=first + 1,
        tensorboard=settings.tensorboard,
        wandb=settings.wandb,
        config=to_dict(config),
      )
      if jax.process_index() == 0
      else Writers(())
    )
    progress = Progress(
      config.training.steps,
      config.training.batch,
      first=first,
      flops=step_flops(experiment),
      peak=peak_rate(experiment),
    )
    with writers, progress:
      validation = Validation(experiment, _history(workdir, first))
      outcome = train(
        experiment,
        state,
        checkpoints,
        writers,
        progress,
        validation,
        workdir,
        validation.verdict,
      )
      rate = progress.rate or 0.0
    if outcome.stopped:
      _say(
        f"Stopped after step {int(outcome.state.step):,}, for the space has collapsed "
        "(telemetry.stop_on_collapse)"
      )
    checkpoints.wait()
    best = checkpoints.best
    chosen = outcome.state
    if best is not None and best != int(outcome.state.step):
      _say(f"Step {best:,} was the best on the validation split; it is evaluated and exported")
      chosen = checkpoints.restore(experiment.abstract_state(), best)
  timing = {
    "pairs_per_second": rate,
    "training_seconds": outcome.seconds,
    "compile_seconds": outcome.compile_seconds,
  }
  return _finish(experiment, chosen, outcome.verdict, workdir, timing)


def _finish(
  experiment: Any, state: Any, verdict: str, workdir: str, timing: Mapping[str, float]
) -> str:
  """Evaluates on the test split, exports, reports; prints the table."""
  import jax

  from xjepa_jax.export import export_encoder
  from xjepa_jax.report.card import model_card
  from xjepa_jax.report.gather import gather
  from xjepa_jax.report.page import write_report
  from xjepa_jax.report.table import text_table
  from xjepa_jax.retrieval.baselines import baseline_rows
  from xjepa_jax.retrieval.evaluate import chosen_encoder, evaluate, first_tokens
  from xjepa_jax.training.mesh import on_every_device

  config = experiment.config
  split, head = config.data.test, config.evaluation.head
  _say(f"Evaluating on the split {split!r}")
  started = time.monotonic()
  evaluation = evaluate(experiment, state, split)
  tokens = first_tokens(experiment, chosen_encoder(experiment, state), split)
  encoder = on_every_device(experiment.mesh, chosen_encoder(experiment, state))
  if jax.process_index():
    return ""
  findings = gather(
    experiment,
    evaluation,
    baseline_rows(experiment, evaluation, split),
    tokens,
    split,
    title=f"X-JEPA: {', '.join(experiment.inputs)}",
    history=_history(workdir),
    verdict=verdict,
    timing={**timing, "evaluation_seconds": time.monotonic() - started},
  )
  page = write_report(f"{workdir}/report", findings)
  summary = {"steps": int(state.step), "results": findings.summary, "geometry": findings.geometry}
  export_encoder(
    f"{workdir}/encoder",
    experiment.model,
    encoder,
    evaluation.centre,
    head,
    summary,
    model_card(experiment.model, findings),
  )
  print(text_table(findings.summary))
  if verdict:
    print(verdict)
  print(f"Encoder: {workdir}/encoder\nReport:  {page}")
  return page


def _simulate_if_asked(config: Config) -> None:
  """Writes the simulated data set, where the config asks for one that is not there yet."""
  from xjepa_jax.data import dataset, storage
  from xjepa_jax.data.import_plan import plan_import
  from xjepa_jax.data.simulate import simulated_archive
  from xjepa_jax.data.writer import write_dataset

  if not config.data.simulate or not config.data.directories:
    return
  (directory, *others) = config.data.directories
  if others:
    raise ConfigError(
      "config key 'data.simulate' is for a single data set, and data.directories names "
      f"{len(others) + 1}; set it to 0."
    )
  if storage.exists(f"{directory}/{dataset.INFO_FILE}"):
    return
  _say(f"Simulating {config.data.simulate:,} pairs into {directory}")
  plan = plan_import(simulated_archive(config.data.simulate), 128_000_000, "bytes")
  write_dataset(plan, directory, os.cpu_count() or 1, resume=os.path.isdir(directory))


def _history(workdir: str, last: float = math.inf) -> list[dict[str, float]]:
  """What was measured up to a step, by this start or an earlier one."""
  from xjepa_jax.training.json_lines import read_history

  path = f"{workdir}/metrics.jsonl"
  rows = read_history(path) if os.path.exists(path) else []
  return [row for row in rows if row["step"] <= last]


def _check_writable(workdir: str) -> None:
  """Refuses at once what would be refused when the first checkpoint is written."""
  place = os.path.abspath(workdir)
  while not os.path.lexists(place):
    place = os.path.dirname(place)
  if not os.path.isdir(place) or not os.access(place, os.W_OK | os.X_OK):
    what = "may not be written" if os.path.isdir(place) else "is a file"
    raise CheckpointError(
      f"{workdir}: cannot be used as a working directory, for {place} {what}. Name one that can be "
      "made and written."
    )


def _use_compilation_cache(workdir: str) -> None:
  """A run that is continued does not compile again."""
  import jax

  if not jax.config.values["jax_compilation_cache_dir"]:
    jax.config.update("jax_compilation_cache_dir", os.path.abspath(f"{workdir}/compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def _default_workdir() -> str:
  """runs/NAME of the config's file and preset."""
  path, _, preset = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
  name = os.path.splitext(os.path.basename(path))[0]
  return f"runs/{name}_{preset}" if preset else f"runs/{name}"


def _say(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


def main(argv: list[str]) -> int:
  """Runs what the flags say; returns the exit status."""
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)  # Orbax tells of every file
  try:
    if len(argv) > 1:
      raise ConfigError(f"unknown arguments {' '.join(argv[1:])}; see --help.")
    if _CONFIG.value is None:
      raise ConfigError("no --config given; for example --config=configs/optical_sar.py.")
    config = resolve(_CONFIG.value)
    if _PLAN.value:
      from xjepa_jax.training.experiment import open_experiment
      from xjepa_jax.training.plan import describe_plan

      _simulate_if_asked(config)
      for line in describe_plan(open_experiment(config)):
        print(line)
      return 0
    run(config, _WORKDIR.value or _default_workdir())
  except XJepaError as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  except OSError as error:  # a full disk, mostly
    print(
      f"error: {error}. Checkpoints that were finished are intact; the same command continues.",
      file=sys.stderr,
    )
    return 1
  except KeyboardInterrupt:
    print("interrupted: the same command continues from the last checkpoint", file=sys.stderr)
    return 130
  return 0


def _parse(argv: list[str]) -> list[str]:
  try:
    return command_line.parse(argv)
  except ConfigError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)


def cli() -> None:
  """The command."""
  app.run(main, flags_parser=_parse)


if __name__ == "__main__":
  cli()
