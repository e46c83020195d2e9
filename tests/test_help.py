"""Every command's --help: at once, for it imports nothing heavy, and with an example in it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What takes longer to import than a help may take.
HEAVY = {
  "faiss",
  "fastapi",
  "flax",
  "grain",
  "jax",
  "matplotlib",
  "optax",
  "orbax",
  "pyarrow",
  "rasterio",
  "scipy",
  "tensorflow",
  "tensorflow_datasets",
  "torch",
}


def commands() -> Iterator[str]:
  """Every module that can be run, and every importer by its name."""
  for path in sorted((ROOT / "xjepa_jax").rglob("*.py")):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    if path.name == "__main__.py":
      yield module.removesuffix(".__main__")
    elif 'if __name__ == "__main__":' in path.read_text():
      yield module
    elif path.parent.name == "importers" and "\nSUMMARY = " in path.read_text():
      yield f"xjepa_jax.data.importers {path.stem}"


def test_the_commands_are_found() -> None:
  assert {
    "xjepa_jax.main",
    "xjepa_jax.data.importers",
    "xjepa_jax.data.importers bigearthnet",
    "xjepa_jax.data.inspect",
    "xjepa_jax.data.simulate",
  } <= set(commands())


@pytest.mark.parametrize("command", list(commands()))
def test_help_shows_an_example_and_imports_nothing_heavy(
  command: str, record_property: Callable[[str, object], None]
) -> None:
  line = [sys.executable, "-X", "importtime", "-m", *command.split(), "--help"]
  started = time.monotonic()
  ended = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60)
  record_property("seconds", time.monotonic() - started)  # told, and not judged on a busy machine
  assert ended.returncode == 0, ended.stderr
  words = " ".join(ended.stdout.split())
  assert re.search(rf"example: python -m {re.escape(command)}\b", words), ended.stdout
  imported = set(re.findall(r"^import time:.*\| +(\w+)", ended.stderr, re.MULTILINE))
  assert "xjepa_jax" in imported and not HEAVY & imported
