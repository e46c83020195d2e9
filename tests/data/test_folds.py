"""Folds by group: none torn apart, all alike in size, and tables that the importer takes."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.folds import folds_of, main, write_folds
from xjepa_jax.data.importers.__main__ import main as import_pairs
from xjepa_jax.errors import OptionError


@given(st.lists(st.integers(1, 40), min_size=5, max_size=60), st.integers(2, 5), st.integers(0, 3))
@settings(deadline=None)
def test_sizes_differ_by_no_more_than_the_largest_group(
  sizes: list[int], folds: int, seed: int
) -> None:
  groups = {f"g{number}": size for number, size in enumerate(sizes)}
  found = folds_of(groups, folds, seed)
  assert found.keys() == groups.keys()
  totals = [0] * folds
  for group, fold in found.items():
    totals[fold] += groups[group]
  assert min(totals) > 0 and max(totals) - min(totals) <= max(sizes)
  shuffled = dict(reversed(groups.items()))
  assert folds_of(shuffled, folds, seed) == found


def test_fewer_groups_than_folds_are_refused() -> None:
  with pytest.raises(OptionError, match="--folds is 3; expected from 2 to 2"):
    folds_of({"a": 1, "b": 1}, 3)


def table(folder: Path, groups: list[str], splits: list[str] | None = None) -> Path:
  """Pairs of one grey and one colour image each, and their groups."""
  folder.mkdir()
  lines = ["pair_id,s1,s2,group" + (",split" if splits else "")]
  rng = np.random.default_rng(0)
  for number, group in enumerate(groups):
    for key, shape in (("s1", (8, 8)), ("s2", (8, 8, 3))):
      image = Image.fromarray(rng.integers(1, 255, shape, np.uint8))
      image.save(folder / f"{key}_{number}.png")
    split = f",{splits[number]}" if splits else ""
    lines.append(f"p{number:03d},s1_{number}.png,s2_{number}.png,{group}{split}")
  (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
  return folder / "pairs.csv"


def rows(path: Path) -> list[dict[str, str]]:
  with path.open(newline="") as file:
    return list(csv.DictReader(file))


GROUPS = [*["a"] * 7, *["b"] * 5, *["c"] * 4, "d", "d", "", "", "", "e", "f", "f"]


def test_no_group_is_in_two_splits_and_every_pair_is_tested_once(tmp_path: Path) -> None:
  src = table(tmp_path / "set", GROUPS)
  write_folds(str(src), str(tmp_path / "folds"), "group", 4)
  tested: Counter[str] = Counter()
  validated: Counter[str] = Counter()
  for number in range(4):
    splits = defaultdict(set)
    found = rows(tmp_path / "folds" / f"fold_{number}.csv")
    assert len(found) == len(GROUPS)
    for row in found:
      if row["group"]:
        splits[row["group"]].add(row["split"])
      tested[row["pair_id"]] += row["split"] == "test"
      validated[row["pair_id"]] += row["split"] == "validation"
    assert all(len(each) == 1 for each in splits.values())
    sizes = Counter(row["split"] for row in found)
    assert set(sizes) == {"train", "validation", "test"} and 5 <= sizes["test"] <= 7
  assert set(tested.values()) == set(validated.values()) == {1}


def test_a_split_that_is_kept_is_the_same_in_all_tables(tmp_path: Path) -> None:
  splits = ["test" if group in ("b", "e") else "val" for group in GROUPS]
  src = table(tmp_path / "set", GROUPS, splits)
  write_folds(str(src), str(tmp_path / "folds"), "group", 3, keep=["test"])
  kept = {f"p{number:03d}" for number, group in enumerate(GROUPS) if group in ("b", "e")}
  for number in range(3):
    found = rows(tmp_path / "folds" / f"fold_{number}.csv")
    assert {row["pair_id"] for row in found if row["split"] == "test"} == kept
    assert {row["split"] for row in found} == {"train", "validation", "test"}


def test_the_importer_takes_a_fold_s_table_from_another_folder(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  src = table(tmp_path / "set", GROUPS)
  folds = tmp_path / "folds"
  assert main(["--src", str(src), "--out", str(folds), "--group", "group", "--folds", "3"]) == 0
  said = capsys.readouterr().out
  assert "fold_2.csv: " in said and "--allow-outside" in said
  out = str(tmp_path / "pairs")
  sensors = ["--sensor", "s1=grey", "--sensor", "s2=rgb", "--allow-outside", "--ungeoreferenced"]
  table_0 = folds / "fold_0.csv"
  assert import_pairs(["manifest", "--src", str(table_0), "--out", out, *sensors]) == 0
  expected = {row["pair_id"] for row in rows(table_0) if row["split"] == "test"}
  with PairDataset(out, "test") as dataset:
    assert {dataset[number].pair_id for number in range(len(dataset))} == expected


def test_files_of_single_bands_and_of_all_are_found_from_another_folder(tmp_path: Path) -> None:
  (tmp_path / "in").mkdir()
  for name in ("a.tif", "b.tif", "whole.tif"):
    (tmp_path / "in" / name).touch()
  rows = "".join(f"p{i},a.tif;b.tif,whole.tif,a.tif;none.tif,g{i}\n" for i in range(6))
  (tmp_path / "in" / "pairs.csv").write_text(f"pair_id,s2,s1,note,place\n{rows}")
  write_folds(str(tmp_path / "in" / "pairs.csv"), str(tmp_path / "out"), "place", 3)
  with open(tmp_path / "out" / "fold_0.csv", encoding="utf-8") as file:
    found = list(csv.DictReader(file))
  assert {row["s2"] for row in found} == {"../in/a.tif;../in/b.tif"}
  assert {row["s1"] for row in found} == {"../in/whole.tif"}
  assert {row["note"] for row in found} == {"a.tif;none.tif"}


def test_what_cannot_be_dealt_out_is_refused_in_one_line(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  src = table(tmp_path / "set", GROUPS, ["test"] * len(GROUPS))
  for options, said in (
    (["--group", "place"], "has no column 'place'; its columns are pair_id, s1, s2, group"),
    (["--group", "group", "--keep", "test"], "has no row besides those of the split test"),
    (["--group", "group", "--folds", "99"], "--folds is 99; expected from 2 to 9"),
    (["--group", "group", "--keep", "9"], "'9' cannot name a split"),
  ):
    assert main(["--src", str(src), "--out", str(tmp_path / "out"), *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_the_real_pairs_fall_into_five_even_folds(shared_data: Path, tmp_path: Path) -> None:
  counts = write_folds(
    str(shared_data / "ombria" / "pairs.csv"), str(tmp_path), "adjacency_group", 5
  )
  assert all(abs(found["test"] - 694 / 5) < 1.5 for found in counts)
