"""An encoder without a network by the commands of any other: fitted, exported, searched with."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import xjepa_jax
from configs.linear import get_config
from xjepa_jax.config import Config, resolve
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.import_plan import plan_import
from xjepa_jax.data.simulate import simulated_archive
from xjepa_jax.data.writer import write_dataset
from xjepa_jax.errors import ExportError
from xjepa_jax.loaded_encoder import LoadedEncoder
from xjepa_jax.retrieval.embed import main as embed
from xjepa_jax.retrieval.index import main as index
from xjepa_jax.retrieval.search import main as search
from xjepa_jax.run import run
from xjepa_jax.training import canonical
from xjepa_jax.training.experiment import open_experiment
from xjepa_jax.training.plan import describe_plan
from xjepa_jax.training.target import find_target

pytestmark = [pytest.mark.usefixtures("compiled_quickly"), pytest.mark.timeout(900)]
SENSORS = ("s1", "s2")
PIXELS = 32


@dataclasses.dataclass(frozen=True)
class LinearRun:
  """A run of configs/linear.py on 60 pairs that it simulates, 48 of which it is fitted on."""

  config: Config
  folder: Path
  printed: str
  said: str

  @property
  def workdir(self) -> str:
    """Of the run."""
    return str(self.folder / "run")

  @property
  def pairs(self) -> str:
    """The directory of the data set."""
    return self.config.data.directories[0]


@pytest.fixture(scope="module")
def linear(compiled: str, tmp_path_factory: pytest.TempPathFactory) -> LinearRun:
  folder = tmp_path_factory.mktemp("linear")
  plan = plan_import(simulated_archive(60, PIXELS), shard_bytes=1_000_000, encoding="bytes")
  write_dataset(plan, str(folder / "pairs"))
  config = get_config()
  config.data.directories = (str(folder / "pairs"),)
  config.training.batch = 16
  printed, said = io.StringIO(), io.StringIO()
  resolved = resolve(config)
  with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
    run(resolved, str(folder / "run"))
  return LinearRun(resolved, folder, printed.getvalue(), said.getvalue())


@pytest.fixture(scope="module")
def encoder(linear: LinearRun) -> LoadedEncoder:
  return xjepa_jax.load_encoder(f"{linear.workdir}/encoder", predictor=True)


@pytest.fixture(scope="module")
def images(linear: LinearRun) -> dict[str, np.ndarray]:
  """sensor -> (6, 32, 32, C) of the test split, as stored."""
  with PairDataset(linear.pairs, "test") as dataset:
    pairs = [dataset[number] for number in range(len(dataset))]
  return {key: np.stack([pair.observations[key].values for pair in pairs]) for key in SENSORS}


def rows_of(linear: LinearRun, name: str = "linear") -> dict[str, dict[str, float]]:
  """direction -> the row of a head, or of a beginning of one."""
  report = json.loads(Path(linear.workdir, "report", "metrics.json").read_text())
  return {
    row["direction"]: row
    for row in report["summary"]
    if row["name"] == name and row.get("recall@1") is not None
  }


def test_it_is_fitted_evaluated_reported_and_exported(linear: LinearRun) -> None:
  assert "heads.linear: fitted in closed form on 48 training pairs" in linear.said
  rows = rows_of(linear)
  assert set(rows) >= {"s1->s2", "s2->s1"}
  for way in ("s1->s2", "s2->s1"):
    assert rows[way]["recall@1"] >= 4 / 6  # chance is 1 / 6
    short = [rows_of(linear, f"linear, first {size}")[way]["recall@1"] for size in (60, 252, 508)]
    assert min(short) >= 2 / 6
  assert "width" not in linear.said  # no caution about a network
  described = json.loads(Path(linear.workdir, "encoder", "encoder.json").read_text())
  assert described["format"] == "xjepa_jax encoder 3" and described["head"] == "linear"
  assert not Path(linear.workdir, "encoder", "predictor").exists()


def test_the_exported_encoder_finds_what_the_run_reported(
  linear: LinearRun, encoder: LoadedEncoder, images: dict[str, np.ndarray]
) -> None:
  described = {key: encoder.describe({key: images[key]}) for key in SENSORS}
  for found in described.values():
    assert found.shape == (6, 1020)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
  for way, row in rows_of(linear).items():
    a, b = way.split("->")
    if a == b:
      continue
    scores = described[a] @ described[b].T
    places = (scores > np.diag(scores)[:, None]).sum(axis=1)
    assert np.mean(places == 0) == pytest.approx(row["recall@1"])


def test_it_has_patches_and_no_tokens(
  encoder: LoadedEncoder, images: dict[str, np.ndarray]
) -> None:
  assert not encoder.has_tokens and encoder.predicts() == ()
  with pytest.raises(ExportError, match="no network.*no tokens.*`patches`"):
    encoder.tokens({"s1": images["s1"]})
  for head, cells, numbers in (("linear", 16, 4), ("gradients", 8, 9), ("semantic", 1, 16)):
    assert encoder.patch_grid(head) == (cells, cells)
    patches = encoder.patches({"s1": images["s1"]}, head)
    assert patches.shape == (6, cells**2, numbers) and np.isfinite(patches).all()


def test_a_second_start_does_not_fit_again_and_ends_alike(
  linear: LinearRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
  before = xjepa_jax.load_encoder(f"{linear.workdir}/encoder").description
  monkeypatch.setattr("xjepa_jax.run.canonical.fit", refuse)
  run(linear.config, linear.workdir)
  said = capsys.readouterr()
  assert said.out == linear.printed and "Continuing" in said.err
  after = xjepa_jax.load_encoder(f"{linear.workdir}/encoder").description
  assert after["training"] == before["training"]


def refuse(*_: Any, **__: Any) -> None:
  raise AssertionError("fitted again")


def test_its_plan_has_parameters_and_no_step(linear: LinearRun) -> None:
  lines = list(describe_plan(open_experiment(linear.config)))
  text = "\n".join(lines)
  assert "encoder/layouts/linear/maps/s1/kernel" in text and lines[-1].startswith("No steps")
  assert "32 x 32 pixels, 2 bands\n" in text and "the context sees" not in text


Change = Callable[[np.ndarray], np.ndarray]


def one_band_missing(images: np.ndarray) -> np.ndarray:
  images[..., 0] = 0
  return images


def without_contrast(images: np.ndarray) -> np.ndarray:
  images[:] = images[:, :1, :1]
  return images


def of_fill(images: np.ndarray) -> np.ndarray:
  images[:] = 0
  return images


def half_fill(images: np.ndarray) -> np.ndarray:
  images[:, :, : PIXELS // 2] = 0
  return images


def not_numbers(images: np.ndarray) -> np.ndarray:
  if np.issubdtype(images.dtype, np.floating):
    images[:, 5:9] = np.nan
  return images


@pytest.mark.parametrize(
  "change", [one_band_missing, without_contrast, of_fill, half_fill, not_numbers]
)
@pytest.mark.parametrize("sensor", SENSORS)
def test_whatever_an_image_shows_its_descriptors_are_finite_and_of_length_one(
  encoder: LoadedEncoder, images: dict[str, np.ndarray], sensor: str, change: Change
) -> None:
  shown = change(images[sensor].copy())
  seen = encoder.inputs[sensor].sensor.valid(shown).any(axis=(1, 2))
  assert seen.all() or change is of_fill
  for head in encoder.heads:
    found = encoder.describe({sensor: shown}, head, trust_units=True, min_valid=0, unseen="nan")
    assert np.isfinite(found[seen]).all() and np.isnan(found[~seen]).all()
    np.testing.assert_allclose(np.linalg.norm(found[seen], axis=1), 1, atol=1e-4)


def test_half_an_image_still_finds_its_place(
  encoder: LoadedEncoder, images: dict[str, np.ndarray]
) -> None:
  halves = encoder.describe({"s2": half_fill(images["s2"].copy())})
  scores = halves @ encoder.describe({"s2": images["s2"]}).T
  assert np.mean(scores.argmax(axis=1) == np.arange(6)) >= 5 / 6


def test_its_archive_is_embedded_indexed_searched_and_explained(
  linear: LinearRun, capsys: pytest.CaptureFixture[str]
) -> None:
  encoder = f"{linear.workdir}/encoder"
  embedded, built = str(linear.folder / "embedded"), str(linear.folder / "index")
  drawn = str(linear.folder / "explained.png")
  archive = ["--archive", linear.pairs, "--split", "test"]
  assert embed(["--encoder", encoder, *archive, "--out", embedded]) == 0
  assert index(["--embeddings", embedded, "--out", built, "--backend", "exact"]) == 0
  with PairDataset(linear.pairs, "test") as dataset:
    ids = [dataset[number].pair_id for number in range(len(dataset))]
  capsys.readouterr()
  asked = ["--index", built, "--encoder", encoder]
  ways = ["--query-sensor", "s1", "--sensor", "s2", "--k", "1", "--format", "json"]
  assert search([*asked, "--id", *ids, *ways]) == 0
  answers = json.loads(capsys.readouterr().out)
  assert search([*asked, "--id", ids[0], *ways, "--explain", drawn]) == 0
  found = [answer["hits"][0]["id"] for answer in answers]
  assert np.mean([one == other for one, other in zip(found, ids, strict=True)]) >= 4 / 6
  with Image.open(drawn) as image:
    assert image.width > 600


def test_a_sensor_of_one_band_and_fewer_pairs_than_numbers_are_described(
  linear: LinearRun,
) -> None:
  config = dataclasses.replace(
    linear.config,
    data=dataclasses.replace(linear.config.data, bands=("s1=VV", "s2=B04")),
    heads={name: dataclasses.replace(head, fitted=2) for name, head in linear.config.heads.items()},
  )
  experiment = open_experiment(config)
  state = experiment.new_state()
  for name, fit in canonical.fit(experiment, canonical.fitted_heads(config.heads)).items():
    state = canonical.put(state, name, fit.maps)
  encoder = find_target(state.opt_state)
  for _, batches in experiment.passes("test"):
    for batch in batches:
      found = experiment.describe(encoder, batch)["descriptors"]
      for head, key in itertools.product(("linear", "coarse", "semantic"), SENSORS):
        rows = np.asarray(found[head][key])[:6]
        assert np.isfinite(rows).all() and (np.ptp(rows, axis=0) > 0).any()
