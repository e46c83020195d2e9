"""An exported encoder gives what was evaluated, on any devices, and nothing damaged is read."""

from __future__ import annotations

import json
import os
import pickle
import pickletools
import random
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from etils import epath
from safetensors import safe_open

import xjepa_jax
from tests.conftest import FinishedRun
from xjepa_jax import export
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.errors import ExportError
from xjepa_jax.retrieval.evaluation import Evaluation, evaluate
from xjepa_jax.retrieval.predictions import predicted_outputs
from xjepa_jax.training.checkpoint import Checkpoints
from xjepa_jax.training.experiment import open_experiment
from xjepa_jax.training.manifest import write_manifest

ROOT = Path(__file__).resolve().parents[1]
# Programs compile for minutes on a machine that is busy with something else.
pytestmark = [pytest.mark.usefixtures("compiled_quickly"), pytest.mark.timeout(900)]
SENSORS = ("s1", "s2")


@pytest.fixture(scope="module")
def encoder(finished_run: FinishedRun) -> export.LoadedEncoder:
  return xjepa_jax.load_encoder(f"{finished_run.workdir}/encoder")


@pytest.fixture(scope="module")
def images(simulated: str) -> dict[str, np.ndarray]:
  """sensor -> (16, 16, 16, C) of the test split, as stored."""
  with PairDataset(simulated, "test") as dataset:
    pairs = [dataset[number] for number in range(len(dataset))]
  return {key: np.stack([pair.observations[key].values for pair in pairs]) for key in SENSORS}


@pytest.fixture(scope="module")
def evaluated(finished_run: FinishedRun) -> Evaluation:
  """The test split measured by the checkpoint that was exported."""
  described = json.loads(Path(finished_run.workdir, "encoder", "encoder.json").read_text())
  experiment = open_experiment(finished_run.config)
  with Checkpoints(finished_run.workdir, {}, read_only=True) as checkpoints:
    state = checkpoints.restore(experiment.abstract_state(), described["training"]["steps"])
  predicted = predicted_outputs(experiment, state, "test")
  return evaluate(experiment, state, "test", predicted)[described["training"]["encoder"]]


@pytest.fixture
def copy(finished_run: FinishedRun, tmp_path: Path) -> Path:
  """A copy of the exported encoder's directory."""
  return Path(shutil.copytree(f"{finished_run.workdir}/encoder", tmp_path / "encoder"))


def test_descriptors_are_those_of_the_evaluation_and_have_length_one(
  encoder: export.LoadedEncoder, images: dict[str, np.ndarray], evaluated: Evaluation
) -> None:
  for head, size in encoder.heads.items():
    for sensor in SENSORS:
      found = encoder.describe({sensor: images[sensor]}, head)
      assert found.shape == (16, size) and found.dtype == np.float32
      np.testing.assert_allclose(found, evaluated.descriptors[head][sensor], atol=1e-5)
      np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
  default = encoder.describe({"s1": images["s1"]})
  np.testing.assert_array_equal(default, encoder.describe({"s1": images["s1"]}, "layout"))


def test_the_predictor_is_read_when_asked_for_and_predicts_as_the_run_did(
  finished_run: FinishedRun, encoder: export.LoadedEncoder, images: dict[str, np.ndarray]
) -> None:
  assert encoder.predicts() == ()
  with pytest.raises(ExportError, match="s1 to s2 cannot be predicted; .*predicts nothing"):
    encoder.describe({"s1": images["s1"]}, to="s2")
  predicting = xjepa_jax.load_encoder(f"{finished_run.workdir}/encoder", predictor=True)
  assert predicting.predicts() == (("s1", "s2"), ("s2", "s1"))
  plain = predicting.describe({"s2": images["s2"]})
  np.testing.assert_array_equal(plain, encoder.describe({"s2": images["s2"]}))
  predicted = predicting.describe({"s1": images["s1"]}, to="s2")
  np.testing.assert_allclose(np.linalg.norm(predicted, axis=1), 1, atol=1e-5)
  report = json.loads(Path(finished_run.workdir, "report", "metrics.json").read_text())
  (row,) = [
    each
    for each in report["summary"]
    if each["name"] == "X-JEPA, layout, predict-then-search" and each["direction"] == "s1->s2"
  ]
  scores = predicted @ plain.T
  places = 1 + np.sum(scores > np.diag(scores)[:, None], axis=1)
  assert np.mean(places <= 5) == pytest.approx(row["recall@5"])
  assert np.mean(1 / places) == pytest.approx(row["mrr"], abs=1e-6)
  with pytest.raises(ExportError, match="s1 to s1 cannot be predicted"):
    predicting.describe({"s1": images["s1"]}, to="s1")


def test_one_device_gives_what_eight_do_and_batches_may_be_of_any_size(
  finished_run: FinishedRun,
  encoder: export.LoadedEncoder,
  images: dict[str, np.ndarray],
  compiled: str,
  tmp_path: Path,
) -> None:
  assert jax.local_device_count() == 8
  whole = encoder.describe({"s2": images["s2"]})
  for rows in (slice(0, 3), slice(5, 6), slice(4, 15)):
    part = encoder.describe({"s2": images["s2"][rows]})
    np.testing.assert_allclose(part, whole[rows], atol=1e-5)
  assert encoder.describe({"s2": images["s2"][:0]}).shape == (0, 32)
  np.save(tmp_path / "images.npy", images["s2"][:5])
  code = (
    "import jax, numpy, xjepa_jax\n"
    "assert jax.local_device_count() == 1\n"
    f"encoder = xjepa_jax.load_encoder({finished_run.workdir + '/encoder'!r})\n"
    f"found = encoder.describe({{'s2': numpy.load({str(tmp_path / 'images.npy')!r})}})\n"
    f"numpy.save({str(tmp_path / 'found.npy')!r}, found)\n"
  )
  subprocess.run(
    [sys.executable, "-c", code],
    check=True,
    timeout=600,
    cwd=ROOT,
    env={**os.environ, "XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": compiled},
  )
  np.testing.assert_allclose(np.load(tmp_path / "found.npy"), whole[:5], atol=1e-5)


def test_tokens_have_a_row_for_every_patch(
  encoder: export.LoadedEncoder, images: dict[str, np.ndarray]
) -> None:
  tokens = encoder.tokens({"s1": images["s1"][:3]})
  assert tokens.shape == (3, 16, 32) and tokens.dtype == np.float32
  assert np.isfinite(tokens).all()
  assert not np.allclose(tokens[:, 0], tokens[:, 1], atol=1e-3)


def test_images_larger_than_the_encoders_are_cut_in_the_middle(
  encoder: export.LoadedEncoder, images: dict[str, np.ndarray]
) -> None:
  larger = np.pad(images["s1"][:2], ((0, 0), (2, 2), (4, 4), (0, 0)), mode="edge")
  np.testing.assert_allclose(
    encoder.describe({"s1": larger}), encoder.describe({"s1": images["s1"][:2]}), atol=1e-5
  )


def test_calls_of_the_same_shape_compile_once(
  encoder: export.LoadedEncoder, images: dict[str, np.ndarray]
) -> None:
  encoder.describe({"s1": images["s1"]})
  with jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
    compilations: list[Any] = []
    patch.setattr("jax._src.compiler.compile_or_get_cached", lambda *a, **_: compilations.append(a))
    for _ in range(2):
      encoder.describe({"s1": images["s1"][::-1].copy()})
  assert not compilations


def test_safetensors_holds_the_same_arrays(copy: Path, encoder: export.LoadedEncoder) -> None:
  from flax import traverse_util

  loaded = {"encoder": encoder._encoder, "centre": encoder._centre}
  arrays = traverse_util.flatten_dict(loaded, sep="/")
  with safe_open(copy / "encoder.safetensors", "np") as file:
    assert file.metadata() == {"format": export.FORMAT}
    assert set(file.keys()) == set(arrays)
    for key, value in arrays.items():
      np.testing.assert_array_equal(file.get_tensor(key), np.asarray(value))


def test_nothing_is_unpickled(
  copy: Path, images: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
  def refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("unpickled")

  for path in copy.rglob("*"):
    if path.is_file():
      with pytest.raises(Exception, match="."):  # noqa: B017, pickletools raises several
        list(pickletools.genops(path.read_bytes()))
  for name in ("load", "loads", "Unpickler"):
    monkeypatch.setattr(pickle, name, refuse)
  monkeypatch.setattr(np, "load", refuse)
  xjepa_jax.load_encoder(str(copy)).describe({"s1": images["s1"]})


def files(directory: Path) -> list[Path]:
  return sorted(path for path in directory.rglob("*") if path.is_file())


def test_a_flipped_byte_anywhere_is_refused_by_name(copy: Path) -> None:
  chance = random.Random(0)
  for path in files(copy):
    if path.name == export.CARD:  # which people may edit
      continue
    content = path.read_bytes()
    for place in {0, len(content) // 2, len(content) - 1, chance.randrange(len(content))}:
      flipped = bytearray(content)
      flipped[place] ^= 1 << chance.randrange(8)
      path.write_bytes(flipped)
      with pytest.raises(ExportError) as caught:
        xjepa_jax.load_encoder(str(copy))
      assert str(copy) in str(caught.value)
      if path.name != "manifest.json":
        assert str(path.relative_to(copy)) in str(caught.value)
    path.write_bytes(content)
  xjepa_jax.load_encoder(str(copy))


def test_a_missing_file_is_refused_by_name(copy: Path) -> None:
  for path in files(copy):
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(ExportError, match=path.name):
      xjepa_jax.load_encoder(str(copy))
    path.write_bytes(content)


def rewritten(copy: Path, **keys: Any) -> str:
  """The directory with other keys in `encoder.json`, as another program might write it."""
  path = copy / "encoder.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))
  write_manifest(epath.Path(copy))
  return str(copy)


def test_what_another_version_wrote_is_refused(copy: Path) -> None:
  with pytest.raises(
    ExportError,
    match="format 'xjepa_jax encoder 1', expected 'xjepa_jax enc.* 3'.*version of xjepa_jax that "
    "wrote it.*or run its config again.*main --config",
  ):
    xjepa_jax.load_encoder(rewritten(copy, format="xjepa_jax encoder 1"))
  config = json.loads((copy / "encoder.json").read_text())["config"]
  config["model"]["width"] = 64
  with pytest.raises(ExportError, match=r"Stored and described: .*float32\[32\], float32\[64\]"):
    xjepa_jax.load_encoder(rewritten(copy, format=export.FORMAT, config=config))
  (copy / "encoder.json").write_text("[]")
  with pytest.raises(ExportError, match="not an encoder of this version"):
    write_manifest(epath.Path(copy))
    xjepa_jax.load_encoder(str(copy))


def of_format_2(copy: Path, **head: Any) -> str:
  """The directory as the format before this one had it, with keys that are no more."""
  config = json.loads((copy / "encoder.json").read_text())["config"]
  config["objective"]["psa"] = {"term": "psa", "width": 64}
  config["mask"]["same"] = True
  config["heads"]["layout"].update(head)
  for each in config["heads"].values():
    del each["numbers"], each["fitted"]
  return rewritten(copy, format=export.BEFORE, config=config)


def test_an_encoder_of_the_format_before_is_read_without_its_predictor(
  copy: Path, encoder: export.LoadedEncoder, images: dict[str, np.ndarray]
) -> None:
  shutil.rmtree(copy / "predictor")  # that it is another is not even noticed
  (copy / "predictor").mkdir()
  found = xjepa_jax.load_encoder(of_format_2(copy), predictor=True)
  for head in encoder.heads:
    expected = encoder.describe({"s2": images["s2"]}, head)
    np.testing.assert_array_equal(found.describe({"s2": images["s2"]}, head), expected)
  assert found.predicts() == ()
  with pytest.raises(ExportError, match="predicts nothing.*of an older format none is read"):
    found.describe({"s1": images["s1"]}, to="s2")


def test_an_encoder_of_the_format_before_whose_cells_are_others_now_is_refused(copy: Path) -> None:
  with pytest.raises(
    ExportError, match=r"'layout' do not divide its 4 x 4 tokens.*or run its config again"
  ):
    xjepa_jax.load_encoder(of_format_2(copy, cells=3, size=27))


def test_patches_of_a_head_that_pools_tokens_are_the_tokens(
  encoder: export.LoadedEncoder, images: dict[str, np.ndarray]
) -> None:
  for head in encoder.heads:
    rows, columns = encoder.patch_grid(head)
    assert (rows, columns) == (4, 4) and encoder.has_tokens
    assert encoder.patches({"s1": images["s1"]}, head).shape[1] == rows * columns


def test_what_is_no_local_directory_is_refused(tmp_path: Path) -> None:
  with pytest.raises(ExportError, match="nowhere: there is no such directory"):
    xjepa_jax.load_encoder(f"{tmp_path}/nowhere")
  with pytest.raises(ExportError, match=r"it has no manifest\.json"):
    xjepa_jax.load_encoder(str(tmp_path))
  with pytest.raises(ExportError, match="gs://bucket/encoder.*mounted disk"):
    xjepa_jax.load_encoder("gs://bucket/encoder")


@pytest.mark.parametrize(
  ("change", "said"),
  [
    (lambda x: {"s3": x["s1"]}, "images of s3: give those of one of s1, s2"),
    (lambda x: x, "images of s1, s2: give those of one of"),
    (lambda _: {}, "images of no sensor"),
    (lambda x: {1: x["s1"]}, "images of 1: give those of one of s1, s2"),
    (lambda x: x["s1"], "images are a ndarray; expected them by their sensor, one of s1, s2"),
    (lambda x: [x["s1"]], "images are a list; expected them by their sensor"),
    (lambda _: None, "images are a NoneType; expected them by their sensor"),
    (lambda _: {"s1": []}, r"shape \(0,\); expected \(B, H, W, 2\)"),
    (lambda x: {"s1": [x["s1"][0], x["s1"][0][:8]]}, "'s1' are no array .*all of one size"),
    (lambda _: {"s1": [[1, 2], [3]]}, "'s1' are no array"),
    (lambda _: {"s1": "image.tif"}, r"shape \(\); expected"),
    (lambda x: {"s1": x["s1"][..., :1]}, r"\(B, H, W, 2\).*the bands VV, VH"),
    (lambda x: {"s1": x["s1"][0]}, r"shape \(16, 16, 2\); expected \(B, H, W, 2\)"),
    (lambda x: {"s1": x["s1"][:, :8]}, "H >= 16, W >= 16"),
    (lambda x: {"s2": x["s2"].astype(np.float32)}, "are float32; .* stored as uint16.*unscaled"),
  ],
)
def test_images_that_do_not_fit_are_refused(
  encoder: export.LoadedEncoder, images: dict[str, np.ndarray], change: Any, said: str
) -> None:
  with pytest.raises(ExportError, match=said):
    encoder.describe(change(images))


def test_of_no_images_there_are_no_descriptors_tokens_and_patches(
  encoder: export.LoadedEncoder, images: dict[str, np.ndarray]
) -> None:
  for call in (encoder.describe, encoder.tokens, encoder.patches):
    one, none = (call({"s2": images["s2"][:count]}) for count in (1, 0))
    assert none.shape == (0, *one.shape[1:]) and none.dtype == one.dtype


def test_an_unknown_head_is_refused(
  encoder: export.LoadedEncoder, images: dict[str, np.ndarray]
) -> None:
  with pytest.raises(ExportError, match="no head 'cross'; this encoder has layout, semantic"):
    encoder.describe(images, "cross")


def exported_again(encoder: export.LoadedEncoder, directory: Path, card: str) -> None:
  centre = {
    head: {key: np.asarray(value) for key, value in by_sensor.items()}
    for head, by_sensor in encoder._centre.items()
  }
  export.export_encoder(
    str(directory), encoder._model, encoder._encoder, centre, "semantic", {}, card
  )


def only(until: Any, last: int, module: Any, *names: str) -> types.SimpleNamespace:
  """A module of which some functions may be called a number of times."""
  counted = {name: until(last, getattr(module, name)) for name in names}
  return types.SimpleNamespace(**{**vars(module), **counted})


def test_an_export_over_another_is_the_old_one_or_the_new_wherever_it_is_killed(
  copy: Path, encoder: export.LoadedEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
  class Killed(BaseException):
    """What no handler of the export catches."""

  whole = copy.parent / "whole"
  shutil.copytree(copy, whole)
  steps = 0

  def until(last: int, function: Any) -> Any:
    def counted(*arguments: Any, **options: Any) -> Any:
      nonlocal steps
      steps += 1
      if steps > last:
        raise Killed
      return function(*arguments, **options)

    return counted

  heads = []
  for last in range(20):
    shutil.rmtree(copy, ignore_errors=True)
    for left in copy.parent.glob("encoder.*"):
      shutil.rmtree(left)
    shutil.copytree(whole, copy)
    steps = 0
    with monkeypatch.context() as patch:
      for name in ("save_file", "write_manifest"):
        patch.setattr(export, name, until(last, getattr(export, name)))
      patch.setattr(export, "os", only(until, last, os, "rename", "makedirs"))
      patch.setattr(export, "shutil", only(until, last, shutil, "rmtree"))
      try:
        exported_again(encoder, copy, "again")
      except Killed:
        pass
      else:
        break
    heads.append(xjepa_jax.load_encoder(str(copy)).head)
    exported_again(encoder, copy, "and again")  # what a killed one left is in nobody's way
    assert xjepa_jax.load_encoder(str(copy)).head == "semantic"
    assert sorted(each.name for each in copy.parent.iterdir()) == ["encoder", "whole"]
  assert set(heads) == {"layout", "semantic"} and heads == sorted(heads)
