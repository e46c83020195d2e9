"""Rules that keep the house in order: imports run one way, no sensor named, all is explained."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "xjepa_jax"
# A room may import from rooms to its left, and from its own.
ORDER = (
  "errors",
  "paths",
  "versions",
  "sensors",
  "sensor_presets",
  "config",
  "processes",
  "data",
  "model",
  "objective",
  "training",
  "scaling",
  "given_images",
  "loaded_encoder",
  "export",
  "retrieval",
  "report",
  "serve",
  "run",
  "command_line",
  "main",
)


def modules() -> Iterator[tuple[Path, ast.Module]]:
  for path in sorted(PACKAGE.rglob("*.py")):
    yield path, ast.parse(path.read_text(), str(path))


def imported(tree: ast.Module) -> Iterator[str]:
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
      yield node.module
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_run_one_way() -> None:
  for path, tree in modules():
    room = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if room == "__init__":
      continue
    assert room in ORDER, f"{path}: add the room {room!r} to the order"
    for name in imported(tree):
      if name.startswith("xjepa_jax."):
        other = name.split(".")[1]
        if other in ORDER:
          assert ORDER.index(other) <= ORDER.index(room), f"{path} imports {name}"


def test_importers_are_used_by_commands_only() -> None:
  for path, tree in modules():
    if "importers" in path.parts or path.name == "simulate.py":
      continue
    assert not any("data.importers" in name for name in imported(tree)), path


def test_no_module_but_presets_importers_and_the_simulation_names_a_sensor() -> None:
  allowed = {
    "sensor_presets.py",
    "simulate.py",
    "scenes.py",
    "optical.py",
    "sar.py",
    "landscape.py",
  }
  named = re.compile(r"""["'](s1|s2|sentinel\d?\w*)["']""", re.IGNORECASE)
  for path, tree in modules():
    if path.name in allowed or "importers" in path.parts:
      continue
    for node in ast.walk(tree):
      if isinstance(node, ast.Constant) and isinstance(node.value, str):
        assert not named.fullmatch(f'"{node.value}"'), f"{path}:{node.lineno} {node.value!r}"


def test_modules_and_what_other_rooms_use_say_what_they_are() -> None:
  """Inside a room a name and its types may be enough."""
  defined: dict[tuple[str, str], tuple[Path, ast.stmt]] = {}
  for path, tree in modules():
    assert ast.get_docstring(tree), path
    dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for top in tree.body:
      if isinstance(top, ast.FunctionDef | ast.ClassDef):
        defined[dotted, top.name] = (path, top)
  for path, tree in modules():
    room = path.relative_to(PACKAGE).parts[0]
    for node in ast.walk(tree):
      if isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
          origin, found = defined.get((node.module, alias.name), (path, None))
          if isinstance(found, ast.FunctionDef | ast.ClassDef):
            same = origin.relative_to(PACKAGE).parts[0] == room
            assert same or ast.get_docstring(found), f"{origin}: {alias.name}"
