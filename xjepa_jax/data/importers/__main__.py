"""Runs an importer: python -m xjepa_jax.data.importers NAME --src ARCHIVE --out DIRECTORY"""

from __future__ import annotations

import argparse
import importlib

from xjepa_jax.data.importing import command
from xjepa_jax.processes.output import run_command

NAMES = ("manifest", "folders", "bigearthnet", "sen12ms", "ssl4eo_s12", "so2sat", "tfds")


def main(argv: list[str] | None = None) -> int:
  """Run one import; returns the exit status."""
  parser = argparse.ArgumentParser(
    prog="python -m xjepa_jax.data.importers",
    description="Import an archive of co-located scenes as a data set of pairs.",
    epilog="example: python -m xjepa_jax.data.importers manifest --src pairs.csv --out data/mine "
    "--sensor s1=sentinel1_grd --sensor s2=sentinel2_l2a",
  )
  importers = parser.add_subparsers(dest="importer", required=True, metavar="NAME")
  modules = {}
  for name in NAMES:
    module = importlib.import_module(f"xjepa_jax.data.importers.{name}")
    modules[name] = module
    one = importers.add_parser(
      name,
      help=module.SUMMARY,
      description=module.SUMMARY,
      epilog=f"example: {module.EXAMPLE}",
      formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.add_import_arguments(one)
    module.add_arguments(one)
  args = parser.parse_args(argv)
  return command.run(modules[args.importer].open_archive, args)


if __name__ == "__main__":
  run_command(main, optional=True, reports=["--dry-run"])
