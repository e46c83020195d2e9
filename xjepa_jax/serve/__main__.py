"""Starts the search page: python -m xjepa_jax.serve --index DIR"""

from __future__ import annotations

from xjepa_jax.processes.output import run_command
from xjepa_jax.serve.command import main

if __name__ == "__main__":
  run_command(main, optional=True)
