"""Trains an encoder, evaluates it, exports it and reports.

example: python -m xjepa_jax.main --config=configs/optical_sar.py --workdir=runs/optical_sar

  --config=FILE.py[:PRESET]   a file of configs/, and which of its presets
  --config.KEY=VALUE          one key changed: --config.training.steps=2000
  --workdir=DIR               what the run writes: checkpoints, metrics, encoder, report.
                              The same command continues a run that was interrupted
  --plan                      print config, parameters, operations, memory and mesh, and end
"""

from __future__ import annotations

import os
import re
import sys
from logging import Formatter

from absl import app, flags, logging
from ml_collections import config_flags

from xjepa_jax import command_line
from xjepa_jax.config import Config, resolve
from xjepa_jax.errors import ConfigError, XJepaError

_CONFIG = config_flags.DEFINE_config_file("config", help_string="File of the config, FILE[:PRESET]")
_WORKDIR = flags.DEFINE_string("workdir", "", "Directory of the run; runs/NAME if not given")
_PLAN = flags.DEFINE_bool("plan", False, "Print what would be run, and end")
_ORBAX = f"{os.sep}orbax{os.sep}"


def _default_workdir() -> str:
  """runs/NAME of the config's file and preset."""
  path, _, preset = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
  name = os.path.splitext(os.path.basename(path))[0]
  return f"runs/{name}_{preset}" if preset else f"runs/{name}"


def main(argv: list[str]) -> int:
  """Runs what the flags say; returns the exit status."""
  if not flags.FLAGS["verbosity"].present:
    _log_in_words()
  try:
    if len(argv) > 1:
      raise ConfigError(f"unknown arguments {' '.join(argv[1:])}; see --help.")
    if _CONFIG.value is None:
      raise ConfigError("no --config given; for example --config=configs/optical_sar.py.")
    config = resolve(_CONFIG.value)
    if _PLAN.value:
      _print_plan(config)
    else:
      from xjepa_jax.run import run  # JAX takes a second to import: not for a --help

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


def _log_in_words() -> None:
  """Warnings as they read, without time and place.

  Of Orbax nothing, nor of asyncio, which only it uses: what matters of a save is told by
  `Checkpoints`, and the rest is every file, every wait, and the stacks of its threads.
  """
  logging.set_verbosity(logging.WARNING)
  handler = logging.get_absl_handler()
  handler.addFilter(lambda record: record.name != "asyncio" and _ORBAX not in record.pathname)
  handler.setFormatter(Formatter("%(levelname)s: %(message)s"))


def _print_plan(config: Config) -> None:
  import xjepa_jax.run  # noqa: F401, for the plan measures what a run will have loaded
  from xjepa_jax.training.experiment import open_experiment
  from xjepa_jax.training.plan import describe_plan
  from xjepa_jax.training.preparation import simulate_if_asked

  simulate_if_asked(config)
  for line in describe_plan(open_experiment(config)):
    print(line)


def _parse(argv: list[str]) -> list[str]:
  argv = ["--help" if argument == "-h" else argument for argument in argv]
  try:
    return command_line.parse(argv)
  except ConfigError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)
  except SystemExit as ended:  # absl ends with 1 after a help that was asked for
    sys.exit(0 if any(re.fullmatch("--?(help.*|[?])", each) for each in argv) else ended.code)


def cli() -> None:
  """The command."""
  app.run(main, flags_parser=_parse)


if __name__ == "__main__":
  cli()
