"""Paths as people have them: `~` in options, `pathlib.Path`, the umask's mode, missing rights."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from etils import epath

import xjepa_jax
from tests.retrieval.embedding.random_encoder import export_random_encoder
from tests.serve.archives import SIZE, Made, archive_in
from xjepa_jax.config import resolve
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.description import describe
from xjepa_jax.data.importers.bigearthnet_lists import read_subset
from xjepa_jax.data.inspect import inspect
from xjepa_jax.errors import RightsError
from xjepa_jax.paths import user_path
from xjepa_jax.retrieval import search
from xjepa_jax.retrieval.embedding.archives import ArchiveOptions, collect
from xjepa_jax.retrieval.embedding.files import open_embeddings
from xjepa_jax.retrieval.evaluating.sources import Reading, read_source
from xjepa_jax.retrieval.evaluating.vector_files import read_vectors
from xjepa_jax.retrieval.indexes.directory import open_index
from xjepa_jax.retrieval.searching.searcher import open_searcher
from xjepa_jax.sensor_presets import preset
from xjepa_jax.training.manifest import damage, write_manifest

ROOT = Path(__file__).resolve().parents[1]
# Command -> its arguments that are paths.
PATHS = {
  "xjepa_jax.data.importers bigearthnet": {"src", "out"},
  "xjepa_jax.data.importers folders": {"src", "out", "sensors"},
  "xjepa_jax.data.importers manifest": {"src", "out", "sensors"},
  "xjepa_jax.data.importers sen12ms": {"src", "out"},
  "xjepa_jax.data.importers so2sat": {"src", "out"},
  "xjepa_jax.data.importers ssl4eo_s12": {"src", "out"},
  "xjepa_jax.data.importers tfds": {"src", "out"},
  "xjepa_jax.data.folds": {"src", "out"},
  "xjepa_jax.data.inspect": {"directory", "sheet"},
  "xjepa_jax.data.simulate": {"out"},
  "xjepa_jax.retrieval.embed": {"encoder", "archive", "out"},
  "xjepa_jax.retrieval.index": {"embeddings", "out", "config"},
  "xjepa_jax.retrieval.evaluate": {"pairs", "json", "plot"},
  "xjepa_jax.retrieval.search": {
    "index", "embeddings", "encoder", "image", "batch", "out", "gallery", "explain",
  },
  "xjepa_jax.serve": {"index", "embeddings", "encoder", "export"},
}  # fmt: skip


class Parsed(Exception):
  """Where a command parses its arguments."""

  def __init__(self, parser: argparse.ArgumentParser):
    self.parser = parser


def parser_of(command: str, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
  """A command's parser, or that of a subcommand."""

  def parsed(self: argparse.ArgumentParser, *_: object) -> None:
    raise Parsed(self)

  module, _, name = command.partition(" ")
  imported = importlib.import_module(f"{module}.__main__" if name or "serve" in module else module)
  with monkeypatch.context() as patch, pytest.raises(Parsed) as caught:
    patch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    imported.main([])
  found: argparse.ArgumentParser = caught.value.parser
  if name:
    (subcommands,) = (each for each in found._actions if isinstance(each.choices, dict))
    found = subcommands.choices[name]  # type: ignore[index]
  return found


@pytest.mark.parametrize("command", PATHS)
def test_every_argument_that_is_a_path_is_taken_as_one(
  command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  actions = parser_of(command, monkeypatch)._actions
  assert {action.dest for action in actions if action.type is user_path} == PATHS[command]
  named = {
    action.dest
    for action in actions
    if action.type is None
    and action.nargs != 0
    and action.metavar in ("FILE", "DIR", "PNG", "JSON")
  }
  assert not named


def test_a_path_may_begin_with_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setenv("HOME", "/home/somebody")
  assert user_path("~/x") == "/home/somebody/x"
  for same in ("x/~/y", "./~", "gs://bucket/~x", "", "/a"):
    assert user_path(same) == same


def test_a_home_folder_is_found_within_arguments_of_several_parts(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setenv("HOME", str(tmp_path))
  lines = "id,sensor,f0,f1\na,s1,1,2\na,s2,2,1\n"
  (tmp_path / "both.csv").write_text(lines)
  (tmp_path / "one.csv").write_text("id,f0,f1\na,1,2\n")
  for given in ("theirs=~/both.csv", "theirs=s1:~/one.csv,s2:~/one.csv", "~/both.csv"):
    assert read_source(given, Reading("", ())).scenes.ids == ("a",)
  name = "S2A_MSIL2A_20170613T101031_0_45"
  (tmp_path / "test.csv").write_text(f"{name}\n")
  assert read_subset(["test=~/test.csv"]) == {name: "test"}
  config = resolve({"data": {"directories": ("~/pairs", "gs://a/b")}, "routes": ("s1->s2",)})
  assert config.data.directories == (f"{tmp_path}/pairs", "gs://a/b")


def test_the_main_command_finds_home_folders(tmp_path: Path) -> None:
  home = tmp_path / "home"
  home.mkdir()
  (home / "config.py").write_text((ROOT / "tests" / "debug_config.py").read_text())
  done = subprocess.run(
    [
      *(sys.executable, "-m", "xjepa_jax.main", "--config=~/config.py", "--workdir=~/run"),
      "--config.data.directories=('~/nowhere',)",
    ],
    cwd=tmp_path,
    env={**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    timeout=240,
  )
  # It gets as far as the data set, which is not there.
  assert done.returncode == 1 and f"{home}/nowhere" in done.stderr, done.stderr
  assert not (tmp_path / "~").exists()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
  return archive_in(tmp_path_factory.getbasetemp())


@pytest.mark.parametrize(
  "use",
  [
    lambda made: xjepa_jax.load_encoder(Path(made.encoder)).heads,
    lambda made: len(PairDataset(Path(made.pairs), None)),
    lambda made: describe(Path(made.pairs)).name,
    lambda made: inspect(Path(made.pairs)) == [],
    lambda made: len(open_embeddings(Path(made.embeddings))),
    lambda made: len(open_index(Path(made.index), Path(made.embeddings))),
    lambda made: open_searcher(Path(made.index), Path(made.encoder), Path(made.embeddings)).sensors,
    lambda made: len(read_vectors(Path(made.embeddings, "parts", "part-00000.parquet")).ids),
  ],
  ids=["encoder", "pairs", "describe", "inspect", "embeddings", "index", "searcher", "vectors"],
)
def test_functions_that_take_a_path_take_one_of_pathlib(
  made: Made, use: Callable[[Made], Any]
) -> None:
  assert use(made)


def test_an_encoder_is_written_and_read_by_a_path_of_pathlib(made: Made, tmp_path: Path) -> None:
  sensors = dict(describe(made.pairs).format.sensors)
  export_random_encoder(tmp_path / "encoder", sensors, SIZE)
  assert xjepa_jax.load_encoder(tmp_path / "encoder").heads


# Rights


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_all_that_is_written_has_the_mode_of_the_umask(
  made: Made, tmp_path: Path, mask: int
) -> None:
  sensors = dict(describe(made.pairs).format.sensors)
  before = os.umask(mask)
  try:
    export_random_encoder(str(tmp_path / "encoder"), sensors, SIZE)
  finally:
    os.umask(before)
  modes = {stat.S_IMODE(path.stat().st_mode) for path in files(tmp_path / "encoder")}
  assert modes == {0o666 & ~mask}


def test_all_of_an_archive_has_the_mode_of_the_umask(made: Made) -> None:
  before = os.umask(0)
  os.umask(before)
  for folder in (made.pairs, made.encoder, made.embeddings, made.index):
    for path in files(Path(folder)):
      assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~before, path


def files(folder: Path) -> list[Path]:
  return [path for path in folder.rglob("*") if path.is_file()]


@contextlib.contextmanager
def without_roots_power() -> Iterator[None]:
  """As a user whom modes bind; root is not."""
  if os.geteuid() != 0:
    yield
    return
  os.seteuid(65534)
  try:
    yield
  finally:
    os.seteuid(0)


@pytest.fixture
def copies(made: Made) -> Iterator[Made]:
  """Copies that everybody may read, in a folder that everybody may enter, unlike pytest's."""
  with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0o755)
    found = Made(*(f"{folder}/{name}" for name in ("pairs", "encoder", "embeddings", "index")))
    for before, after in zip(vars(made).values(), vars(found).values(), strict=True):
      shutil.copytree(before, after)
    for path in Path(folder).rglob("*"):
      path.chmod(0o755 if path.is_dir() else 0o644)
    yield found


@pytest.mark.parametrize(
  ("closed", "use"),
  [
    ("encoder/manifest.json", lambda made: xjepa_jax.load_encoder(made.encoder)),
    ("encoder/encoder.json", lambda made: xjepa_jax.load_encoder(made.encoder)),
    ("encoder", lambda made: xjepa_jax.load_encoder(made.encoder)),
    ("encoder/arrays", lambda made: xjepa_jax.load_encoder(made.encoder)),
    ("embeddings", lambda made: open_embeddings(made.embeddings)),
    ("embeddings/manifest.json", lambda made: open_embeddings(made.embeddings)),
    ("embeddings/parts/part-00000.parquet", lambda made: open_embeddings(made.embeddings)),
    ("index", lambda made: open_index(made.index)),
    ("index/index.json", lambda made: open_index(made.index)),
    ("index/vectors.npy", lambda made: open_index(made.index)),
    ("embeddings", lambda made: open_index(made.index)),
    ("pairs", lambda made: describe(made.pairs)),
    ("pairs", lambda made: collect(made.pairs, ArchiveOptions({"s1": preset("sentinel1_grd")}))),
    ("pairs/sensors.json", lambda made: describe(made.pairs)),
    ("pairs/dataset_info.json", lambda made: PairDataset(made.pairs, None)),
  ],
)
def test_a_missing_right_is_named_with_the_command_that_gives_it_and_not_taken_for_damage(
  copies: Made, closed: str, use: Callable[[Made], Any]
) -> None:
  path = Path(copies.encoder).parent / closed
  path.chmod(0)
  with pytest.raises(RightsError) as caught, without_roots_power():
    use(copies)
  said = str(caught.value)
  assert said.startswith(f"{path}: the user ") and "has no right to" in said
  assert "nothing says that it is damaged" in said
  chmod, right, named = said.split()[-3:]
  assert (chmod, named) == ("chmod", str(path))
  subprocess.run([chmod, right, named], check=True, timeout=30)
  with without_roots_power():
    use(copies)


def test_a_checkpoint_that_may_not_be_read_is_not_taken_for_damaged(copies: Made) -> None:
  directory = epath.Path(copies.index)
  write_manifest(directory)
  Path(copies.index, "index.json").chmod(0)
  with pytest.raises(RightsError, match="index.json: the user"), without_roots_power():
    damage(directory)
  assert damage(directory, spare=("index.json",)) == ""


def test_an_encoder_is_read_without_what_is_for_other_tools_alone(copies: Made) -> None:
  Path(copies.encoder, "encoder.safetensors").chmod(0)
  with without_roots_power():
    assert xjepa_jax.load_encoder(copies.encoder).heads


def test_a_search_that_needs_no_encoder_goes_on_without_and_one_that_does_says_why(
  made: Made, copies: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  argv = ["--index", copies.index, "--query-sensor", "s1", "--format", "json"]
  described = Path(made.encoder, "encoder.json")  # of the encoder that the embeddings name
  mode = described.stat().st_mode
  described.chmod(0)
  try:
    with without_roots_power():
      assert search.main([*argv, "--id", "simulated-0-0000007", "--k", "3"]) == 0
      printed = capsys.readouterr()
      assert search.main([*argv, "--image", "image.npy"]) == 1
  finally:
    described.chmod(mode)
  (answer,) = json.loads(printed.out)
  assert len(answer["hits"]) == 3
  assert "Note: hits have no confidence" in printed.err and "has no right to" in printed.err
  refused = capsys.readouterr().err
  assert "--encoder" in refused and "has no right to" in refused


def test_an_edited_model_card_is_no_damage(copies: Made) -> None:
  Path(copies.encoder, "README.md").write_text("# Ours\n\nFor all of the group.\n")
  assert xjepa_jax.load_encoder(copies.encoder).heads
