"""Folds for cross-validation: a table's pairs split by group, so that neighbours stay together.

  python -m xjepa_jax.data.folds --src pairs.csv --out folds --group adjacency_group --folds 5

A small data set has a small validation split: on 70 pairs a hit rate of 73 % has a standard error
of 5 points, so a choice based on it follows noise. Over all folds every pair is tested once, by a
model that saw none of its group. A group is what must stay in one fold: scenes that border each
other, or dates of one place. In the table `fold_I.csv` fold I is the split "test", the next fold is
"validation" and the others are "train"; the manifest importer reads it. With --keep test, rows of
that split keep it in all tables, for a final test, and fold I is "validation".
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence

from xjepa_jax.data.importing.splits import split_name
from xjepa_jax.data.tables import cell_names, cell_text, csv_text, read_columns, read_rows
from xjepa_jax.errors import OptionError, TableError, XJepaError
from xjepa_jax.paths import StrPath, user_path
from xjepa_jax.processes.output import run_command

SPLIT = "split"


def folds_of(groups: Mapping[str, int], folds: int, seed: int = 0) -> dict[str, int]:
  """Group -> fold number, from 0: the largest group first, each to the smallest fold so far.

  The sizes of two folds differ by at most the size of the largest group (Graham 1969, longest
  processing time first); with many small groups, by at most the size of one of these. The result
  depends on the seed and not on the order of the groups.

  Args:
    groups: name -> number of pairs in the group.
    folds: number of folds; at least 2, and at most the number of groups.
    seed: seed of the order among groups of equal size.

  Raises:
    OptionError: there are fewer groups than folds, or fewer than 2 folds.
  """
  if not 2 <= folds <= len(groups):
    raise OptionError(
      f"--folds is {folds}; expected from 2 to {len(groups)}, the number of groups."
    )
  sizes = [0] * folds
  found = {}
  for group in sorted(groups, key=lambda group: (-groups[group], _lot(group, seed))):
    fold = sizes.index(min(sizes))
    sizes[fold] += groups[group]
    found[group] = fold
  return found


def _lot(group: str, seed: int) -> str:
  # Python's own hash of a string differs from process to process.
  return hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()


def write_folds(
  src: StrPath, out: StrPath, group: str, folds: int, keep: Sequence[str] = (), seed: int = 0
) -> list[Counter[str]]:
  """Write one table per fold; relative file paths in it are rewritten for the new folder.

  Args:
    src: a table of pairs for the manifest importer, .csv or .parquet.
    out: folder of the tables; created if it does not exist.
    group: column that names each pair's group. A pair without one is a group of its own.
    folds: number of folds.
    keep: splits whose rows stay in that split in all tables.
    seed: see `folds_of`.

  Returns:
    For each table, the number of pairs in each split.

  Raises:
    TableError: the table cannot be read, lacks a column, or has no row outside `keep`.
    OptionError: see `folds_of`.
    OSError: a table cannot be written.
  """
  src = os.fspath(src)
  out = os.fspath(out)
  columns, rows = _read(src, group)
  kept = {split_name(name) for name in keep}
  dealt = [row for row in rows if _split(row) not in kept]
  if not dealt:
    raise TableError(f"{src}: has no row besides those of the split {', '.join(sorted(kept))}.")
  fold_of = folds_of(Counter(_group(row, group) for row in dealt), folds, seed)
  os.makedirs(out, exist_ok=True)
  _move_paths(rows, os.path.dirname(os.path.abspath(src)), os.path.abspath(out))
  counts = []
  for number in range(folds):
    for row in rows:
      if _split(row) not in kept:
        away = (fold_of[_group(row, group)] - number) % folds
        # A column of its own, because the next fold needs the original split again.
        row["fold split"] = _named(away, bool(kept))
    counts.append(Counter(row.get("fold split", _split(row)) for row in rows))
    with open(f"{out}/fold_{number}.csv", "w", encoding="utf-8", newline="") as file:
      found = [{**row, SPLIT: row.get("fold split", row[SPLIT])} for row in rows]
      file.write(csv_text([columns, *([row[name] for name in columns] for row in found)]))
  return counts


def _named(away: int, kept: bool) -> str:
  """Split of a fold that is `away` folds after the one the table is named after."""
  if kept:
    return "train" if away else "validation"
  return {0: "test", 1: "validation"}.get(away, "train")


def _read(src: str, group: str) -> tuple[list[str], list[dict[str, str]]]:
  """The columns, "split" among them, and the rows as text."""
  columns = read_columns(src)
  for column in ("pair_id", group):
    if column not in columns:
      raise TableError(f"{src}: has no column {column!r}; its columns are {', '.join(columns)}.")
  rows = []
  for where, row in read_rows(src, columns, set(columns)):
    try:
      rows.append({column: _cell(row, column) for column in columns} | _with_split(row))
    except ValueError as error:
      raise TableError(f"{src}: {where}: {error}.") from error
  return [*columns, *([] if SPLIT in columns else [SPLIT])], rows


def _cell(row: Mapping[str, object], column: str) -> str:
  """A cell as text; lists are joined with ";", as the manifest importer expects them."""
  if isinstance(row[column], list):
    return ";".join(cell_names(row, column, ";"))
  return cell_text(row, column)


def _with_split(row: Mapping[str, object]) -> dict[str, str]:
  return {} if SPLIT in row else {SPLIT: ""}


def _split(row: Mapping[str, str]) -> str:
  return split_name(row[SPLIT]) if row[SPLIT] else ""


def _group(row: Mapping[str, str], column: str) -> str:
  return row[column] or f"pair {row['pair_id']}"


def _move_paths(rows: Sequence[dict[str, str]], before: str, after: str) -> None:
  """Rewrite cells that name a file relative to folder `before` so that they hold from `after`."""
  if os.path.realpath(before) == os.path.realpath(after):
    return
  for row in rows:
    for column, cell in row.items():
      if cell and os.path.isfile(os.path.join(before, cell)):
        row[column] = os.path.relpath(os.path.join(before, cell), after)


def main(argv: list[str] | None = None) -> int:
  """Write the tables and print their sizes; returns the exit status."""
  parser = argparse.ArgumentParser(
    prog="python -m xjepa_jax.data.folds",
    description="Cut a table of pairs into folds by group, one table a fold, for cross-validation.",
    epilog="example: python -m xjepa_jax.data.folds --src pairs.csv --out folds "
    "--group adjacency_group --folds 5",
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument(
    "--src", type=user_path, required=True, help="table of pairs, .csv or .parquet"
  )
  parser.add_argument("--out", type=user_path, required=True, help="folder of the tables")
  parser.add_argument("--group", required=True, help="column of what must not be torn apart")
  parser.add_argument("--folds", type=int, default=5, help="how many")
  parser.add_argument("--keep", action="append", default=[], help="a split that stays as it is")
  parser.add_argument("--seed", type=int, default=0, help="of the order of groups of one size")
  args = parser.parse_args(argv)
  try:
    counts = write_folds(args.src, args.out, args.group, args.folds, args.keep, args.seed)
  except (XJepaError, OSError, ValueError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  for number, found in enumerate(counts):
    sizes = ", ".join(f"{split or 'no split'} {count:,}" for split, count in found.items())
    print(f"{args.out}/fold_{number}.csv: {sizes}")
  if os.path.realpath(args.out) != os.path.realpath(os.path.dirname(os.path.abspath(args.src))):
    print("Import them with --allow-outside, for their files lie in another folder.")
  return 0


if __name__ == "__main__":
  run_command(main, optional=True)
