"""Figures of how the code is divided: what a reader has to open, jump between and look up.

  python -m benchmarks.house            # of this checkout
  python -m benchmarks.house --json     # the same for a program

Lines are counted as they stand. A file's importers are the other files of the package that import
it or a name from it; a public function is used by the files that import it by name or reach it
through its module. Figures are of `xjepa_jax`, tests apart.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import statistics
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "xjepa_jax"


def main(argv: list[str] | None = None) -> None:
  """Prints the figures."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.house", description=(__doc__ or "").splitlines()[0]
  )
  parser.add_argument("--json", action="store_true", help="as JSON")
  args = parser.parse_args(argv)
  found = figures()
  print(
    json.dumps(found, indent=1) if args.json else "\n".join(f"{k}: {v}" for k, v in found.items())
  )


def figures() -> dict[str, float | int | str]:
  """Every figure by name."""
  texts = {module_of(path): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
  trees = {name: ast.parse(text) for name, text in texts.items()}
  lines = {name: text.count("\n") for name, text in texts.items()}
  importers, users = _uses(trees)
  functions = [
    (node.end_lineno or node.lineno) - node.lineno + 1
    for tree in trees.values()
    for node in ast.walk(tree)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
  ]
  rooms: Counter[str] = Counter()
  in_rooms: Counter[str] = Counter()
  for name, count in lines.items():
    rooms[name.split(".")[1] if "." in name else name] += count
    in_rooms[name.rpartition(".")[0]] += 1
  total = sum(lines.values())
  ((room, largest),) = rooms.most_common(1)
  ((crowded, most),) = in_rooms.most_common(1)
  tests = sum(path.read_text().count("\n") for path in (ROOT / "tests").rglob("*.py"))
  return {
    "files": len(texts),
    "lines": total,
    "lines of tests": tests,
    "median lines a file": statistics.median(lines.values()),
    "files over 350 lines": sum(count > 350 for count in lines.values()),
    "files with one importer": sum(len(by) == 1 for by in importers.values()),
    "public functions used by one other file": sum(len(by) == 1 for by in users.values()),
    "largest room": f"{room}, {largest / total:.0%}",
    "most files in a folder": f"{crowded}, {most}",
    "comment lines": f"{sum(map(comments, texts.values())) / total:.1%}",
    "median lines a function": statistics.median(functions),
    "imports inside functions": sum(_inner_imports(tree) for tree in trees.values()),
    "Any in annotations": sum(
      text.count("Any") - text.count("import Any") for text in texts.values()
    ),
  }


def module_of(path: Path) -> str:
  """The dotted name of a file of the package."""
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def comments(text: str) -> int:
  """Lines that hold a comment, but for those that speak to a tool."""
  tokens = tokenize.generate_tokens(io.StringIO(text).readline)
  told = ("# noqa", "# type:", "# fmt:", "# pragma")
  return sum(t.type == tokenize.COMMENT and not t.string.startswith(told) for t in tokens)


def _inner_imports(tree: ast.Module) -> int:
  outer = {id(node) for node in tree.body}
  checking = [
    node for top in tree.body if isinstance(top, ast.If | ast.Try) for node in ast.walk(top)
  ]
  outer |= {id(node) for node in checking}
  return sum(
    isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in outer
    for node in ast.walk(tree)
  )


def _imports(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
  """(module, name imported from it or "", what it is called here)."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for alias in node.names:
        yield alias.name, "", alias.asname or alias.name
    elif isinstance(node, ast.ImportFrom) and node.module:
      for alias in node.names:
        yield node.module, alias.name, alias.asname or alias.name


def _uses(
  trees: dict[str, ast.Module],
) -> tuple[dict[str, set[str]], dict[tuple[str, str], set[str]]]:
  """Module -> the other modules that import it, and public function -> those that use it."""
  public = {
    (name, node.name)
    for name, tree in trees.items()
    for node in tree.body
    if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
  }
  importers: dict[str, set[str]] = {name: set() for name in trees}
  users: dict[tuple[str, str], set[str]] = defaultdict(set)
  for name, tree in trees.items():
    modules: dict[str, str] = {}  # what a module is called here -> its name
    for module, member, here in _imports(tree):
      whole = f"{module}.{member}" if member else module
      if whole in trees:
        modules[here] = whole
      target = whole if whole in trees else module
      if target in trees and target != name:
        importers[target].add(name)
      if (module, member) in public and module != name:
        users[module, member].add(name)
    for node in ast.walk(tree):
      if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        used = (modules.get(node.value.id, ""), node.attr)
        if used in public:
          users[used].add(name)
  return importers, users


if __name__ == "__main__":
  main()
