"""Trains an encoder, evaluates it, exports it and writes a report.

example: python -m xjepa_jax.main --config=configs/optical_sar.py --workdir=runs/optical_sar

  --config=FILE.py[:PRESET]   a file of configs/, and one of its presets
  --config.KEY=VALUE          change one key: --config.training.steps=2000
  --workdir=DIR               where checkpoints, metrics, encoder and report are written.
                              The same command continues a run that was interrupted
  --extend                    continue a run for more steps: give a larger training.steps; the
                              schedules of learning rate and weight decay follow it
  --plan                      print config, parameters, operations, memory and mesh, and exit
  --plan --topology=NAME      the same for other machines, such as v5p-128, 2xv5p-128 or h100-8:
                              memory, communication and predicted time per step

To run several processes, start the same command in each. Slurm, Open MPI, Cloud TPU and the
variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID are recognised; elsewhere
give these flags:

  --coordinator=HOST:PORT     address of process 0; the default port is 8476
  --processes=N --process=I   number of processes, and the number of this one, from 0

Exit status: 0 when the run is done, or was stopped by SIGTERM and saved; 1 after an error; 13 when
another process was lost or nothing progressed; 130 after Ctrl-C. After a SIGTERM, 13 and 130 the
same command continues.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
import traceback
from logging import Formatter

from absl import app, flags, logging
from ml_collections import config_flags

from xjepa_jax import command_line
from xjepa_jax.config import Config, ProcessesConfig, resolve
from xjepa_jax.errors import ConfigError, WriteError, XJepaError
from xjepa_jax.paths import user_path
from xjepa_jax.processes import (
  barriers,
  cluster,
  log,
  lost_processes,
  output,
  preemption,
  profile_signal,
  shutdown,
)
from xjepa_jax.processes.devices import check_devices

_CONFIG = config_flags.DEFINE_config_file("config", help_string="Config file, FILE[:PRESET]")
_WORKDIR = flags.DEFINE_string("workdir", "", "Directory of the run; default runs/NAME")
_EXTEND = flags.DEFINE_bool("extend", False, "Go on for more steps than the run began with")
_PLAN = flags.DEFINE_bool("plan", False, "Print what would be run, and exit")
_TOPOLOGY = flags.DEFINE_string("topology", "", "Machines to plan for, such as v5p-128")
_COORDINATOR = flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0")
_PROCESSES = flags.DEFINE_integer("processes", None, "Number of processes", lower_bound=1)
_PROCESS = flags.DEFINE_integer("process", None, "Number of this process, from 0", lower_bound=0)
_END_SECONDS = 4 * 3600.0  # how long processes wait for the first one to finish the report
_ORBAX = f"{os.sep}orbax{os.sep}"  # in the path of the source of all Orbax log records
_BEGAN = time.monotonic()  # goodput counts from here


def _default_workdir() -> str:
  """runs/NAME, from the names of the config file and preset."""
  path, _, preset = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
  name = os.path.splitext(os.path.basename(path))[0]
  return f"runs/{name}_{preset}" if preset else f"runs/{name}"


def main(argv: list[str]) -> int:
  """Run what the flags ask for, and return the exit status."""
  profile_signal.heed()
  try:
    status = _main(argv)
    log.note_end(status)
    return status
  except Exception:
    log.note(traceback.format_exc(), "error")
    log.note_end(1)
    raise
  finally:
    log.close_log()


def _main(argv: list[str]) -> int:
  if not flags.FLAGS["verbosity"].present:
    _log_in_words()
  flagged = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
  try:
    config = _config(argv)
    others = cluster.asked(*flagged)
  except XJepaError as error:
    return _refuse(error, *flagged)
  waits = config.processes
  try:
    if others is not None:
      cluster.join(others, waits.join_seconds, waits.lost_seconds)
    if barriers.processes() > 1:
      lost_processes.notice_losses("" if _PLAN.value else _workdir(), waits.lost_seconds)
    with preemption.heeding():
      _run(config)
      # The first process writes report and export alone; the others stay connected until then.
      barriers.wait_for_all("the end", _END_SECONDS)
    cluster.leave()
  except XJepaError as error:
    return shutdown.fail_for_others(error, waits.lost_seconds)
  except OSError as error:  # a full disk, mostly
    return shutdown.fail(
      1,
      f"error: {error}. Checkpoints that were finished are intact; the same command continues.",
    )
  except KeyboardInterrupt:
    return shutdown.fail(130, "interrupted: the same command continues from the last checkpoint")
  except Exception as error:
    # A process that is alone prints the usual traceback; otherwise the others have to be told.
    if not barriers.connected():
      raise
    return shutdown.fail_for_others(error, waits.lost_seconds)
  return 0


def _config(argv: list[str]) -> Config:
  if len(argv) > 1:
    raise ConfigError(f"unknown arguments {' '.join(argv[1:])}; see --help.")
  if _CONFIG.value is None:
    raise ConfigError("no --config given; for example --config=configs/optical_sar.py.")
  if _TOPOLOGY.value and not _PLAN.value:
    raise ConfigError(f"--topology={_TOPOLOGY.value} belongs to --plan; a run takes what is here.")
  return resolve(_CONFIG.value)


def _workdir() -> str:
  return user_path(_WORKDIR.value) or (_default_workdir() if _CONFIG.value else "")


def _run(config: Config) -> None:
  if _PLAN.value:
    _print_plan(config)
    return
  from xjepa_jax.run import run  # imports JAX, which takes a second; --help should not wait for it

  run(config, _workdir(), _BEGAN, _EXTEND.value)


def _refuse(error: XJepaError, coordinator: str, processes: int | None, process: int | None) -> int:
  """Report a command line error; of several processes with the same error, only one prints it."""
  waits = ProcessesConfig()
  with contextlib.suppress(XJepaError):
    others = cluster.asked(coordinator, processes, process)
    if others is not None:
      cluster.join(others, waits.join_seconds, waits.lost_seconds)
  return shutdown.fail(1, f"error: {error}")


def _log_in_words() -> None:
  """Log warnings as plain sentences, without time and source location.

  Messages of Orbax and asyncio, which only Orbax uses, are dropped: `Checkpoints` reports what
  matters about a save, and the rest lists every file, every wait and the stacks of its threads.
  After a failed save, TensorStore's callbacks for its other files find Orbax's event loop closed,
  so that error is dropped as well.
  """
  logging.set_verbosity(logging.WARNING)
  handler = logging.get_absl_handler()
  handler.addFilter(lambda record: record.name != "asyncio" and _ORBAX not in record.pathname)
  handler.setFormatter(Formatter("%(levelname)s: %(message)s"))
  sys.unraisablehook = _tell_unraisable


def _tell_unraisable(raised: sys.UnraisableHookArgs) -> None:
  if raised.object is not None or str(raised.exc_value) != "Event loop is closed":
    sys.__unraisablehook__(raised)


def _print_plan(config: Config) -> None:
  if _TOPOLOGY.value:
    from xjepa_jax.scaling.describe import describe, plan

    if barriers.is_first():
      print("\n".join(describe(plan(config, _TOPOLOGY.value))))
    return
  import xjepa_jax.run  # noqa: F401, because the plan measures the memory of what a run imports
  from xjepa_jax.training.experiment import open_experiment
  from xjepa_jax.training.plan import describe_plan
  from xjepa_jax.training.setup import simulate_if_asked

  check_devices()
  simulate_if_asked(config)
  lines = describe_plan(open_experiment(config))
  if barriers.is_first():
    print("\n".join(lines))


def _parse(argv: list[str]) -> list[str]:
  argv = ["--help" if argument == "-h" else argument for argument in argv]
  try:
    return command_line.parse(argv)
  except ConfigError as error:
    given = {name: command_line.value_of(argv, name) for name in ("processes", "process")}
    numbers = {name: int(text) if text.isdecimal() else None for name, text in given.items()}
    sys.exit(_refuse(error, command_line.value_of(argv, "coordinator"), **numbers))
  except SystemExit as ended:  # absl exits with 1 even after a help that was requested
    sys.exit(0 if any(re.fullmatch("--?(help.*|[?])", each) for each in argv) else ended.code)


def _check_printed() -> None:
  """Exit with 1 if a requested help or plan could not be printed."""
  try:
    output.check_printed()
  except WriteError as error:
    shutdown.end_at_once(1, f"error: {error}")


def cli() -> None:
  """Entry point. After a failure it exits at once: Orbax's threads wait for minutes otherwise."""
  output.guard(optional=not output.asks_for_report(sys.argv[1:], ["--plan"]))
  try:
    app.run(main, flags_parser=_parse)
  except SystemExit as ended:
    if not ended.code:
      _check_printed()
    if not isinstance(ended.code, int) or ended.code == 0:
      raise
    shutdown.end_at_once(ended.code)
  except Exception:
    traceback.print_exc()
    shutdown.end_at_once(1)


if __name__ == "__main__":
  cli()
