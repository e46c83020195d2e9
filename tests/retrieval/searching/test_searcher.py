"""What a searcher says beside the hits: how many passed, and how sure it is, if it can be."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.serve.archives import Made, archive_in, sar
from xjepa_jax.retrieval.confidence import fit_confidence, to_json
from xjepa_jax.retrieval.indexes.base import Filter
from xjepa_jax.retrieval.indexes.filters import FilterColumns
from xjepa_jax.retrieval.searching.answers import Query
from xjepa_jax.retrieval.searching.searcher import Searcher, open_searcher
from xjepa_jax.serve.archive import Archive
from xjepa_jax.serve.asking import Question


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
  return archive_in(tmp_path_factory.getbasetemp())


@pytest.fixture
def searcher(made: Made) -> Searcher:
  """Its encoder has confidences of all directions across sensors."""
  searcher = open_searcher(made.index)
  assert searcher.encoder is not None
  scores = np.random.default_rng(0).uniform(-1, 1, (40, 40)) + 0.5 * np.eye(40)
  fitted = fit_confidence(scores, np.arange(40))
  assert fitted is not None
  a, b = searcher.sensors
  head = searcher.files.description.encoder["head"]
  confidence = {head: {f"{a}->{b}": to_json(fitted), f"{b}->{a}": to_json(fitted)}}
  described = {**searcher.encoder.description, "confidence": confidence}
  searcher.encoder.description = described
  return searcher


def confidences(searcher: Searcher, query: Query) -> set[bool]:
  """Whether hits of the other sensor have one."""
  others = tuple(key for key in searcher.sensors if key != query.sensor)
  (answer,) = searcher.answer([query], 5, Filter(sensors=others))
  return {hit.confidence is not None for hit in answer.hits}


def test_there_are_confidences_for_one_example_and_for_no_mixture(searcher: Searcher) -> None:
  name = "simulated-0-00000"
  one, two, three = (
    searcher.files.find(f"{name}{number}", searcher.sensors[0])[0] for number in ("03", "14", "05")
  )
  assert confidences(searcher, searcher.query_of_rows([one])) == {True}
  assert confidences(searcher, searcher.query_of_rows([one, two])) == {False}
  assert confidences(searcher, searcher.query_of_rows([one], [three])) == {False}


def test_there_are_confidences_for_an_upload_alone(
  searcher: Searcher, tmp_path_factory: pytest.TempPathFactory
) -> None:
  path = str(tmp_path_factory.mktemp("upload") / "radar.npy")
  np.save(path, sar(11))
  archive = Archive(searcher)
  upload, _ = archive.query_of_upload(path)
  row = searcher.files.find("simulated-0-0000003", upload.sensor)[0]
  for question, sure in ((Question(), True), (Question(like=(row,)), False)):
    asked = dataclasses.replace(question, sensor="*other", k=5)
    hits = archive.ask(asked, upload).hits
    assert {hit.confidence is not None for hit in hits} == {sure}
  archive.close()


def test_rows_are_counted_without_looking_at_them_where_nothing_is_asked(
  searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
  def looked_at(*_: object) -> None:
    raise AssertionError("nothing is to be read or compared")

  with monkeypatch.context() as patched:
    patched.setattr(FilterColumns, "mask", looked_at)
    patched.setattr(FilterColumns, "with_rows_of", looked_at)
    assert searcher.count(None) == searcher.count(Filter()) == len(searcher.files)


def test_a_filter_is_evaluated_once_for_the_index_and_the_count(
  made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
  computed = []
  compute = FilterColumns._compute

  def counted(self: FilterColumns, filter: Filter) -> np.ndarray:
    computed.append(filter)
    return compute(self, filter)

  monkeypatch.setattr(FilterColumns, "_compute", counted)
  searcher = open_searcher(made.index)
  box = Filter(bbox=(-0.001, -0.006, 0.006, 0.001))
  (answer,) = searcher.answer([searcher.query_of_rows([3])], 5, box)
  assert computed == [box] and 0 < answer.among < len(searcher.files)
