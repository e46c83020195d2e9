"""Answers drawn to PNG files: a gallery of hits, and an explanation of the best one."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

from xjepa_jax.data import sheet
from xjepa_jax.data.pictures import picture
from xjepa_jax.data.plain_text import one_line
from xjepa_jax.errors import SearchError, WriteError
from xjepa_jax.paths import StrPath
from xjepa_jax.retrieval.searching.answers import Answer, Query
from xjepa_jax.retrieval.searching.explain import explanation, similarities
from xjepa_jax.retrieval.searching.gallery import gallery
from xjepa_jax.retrieval.searching.searcher import Searcher


def draw_gallery(path: StrPath, searcher: Searcher, answers: Sequence[Answer]) -> None:
  """Write queries and their hits as a picture.

  Raises:
    WriteError: the file cannot be written.
  """
  path = os.fspath(path)
  pictures = searcher.pictures
  queries = [_picture(searcher, answer.query) for answer in answers]
  _write(path, gallery(answers, pictures.picture, queries))


def draw_explanation(path: StrPath, searcher: Searcher, answer: Answer) -> None:
  """Write a picture of the patches that match between a query and its best hit.

  Raises:
    SearchError: there is no hit, the query does not have exactly one example, or there is no
      encoder.
    XJepaError: the source of a tile no longer exists.
    WriteError: the file cannot be written.
  """
  path = os.fspath(path)
  query = answer.query
  if not answer.hits:
    raise SearchError(f"{query.title}: nothing was found, so there is nothing to explain.")
  if searcher.encoder is None:
    raise SearchError("to explain a hit takes the encoder that made the embeddings: --encoder.")
  if query.image is None and len(query.rows) != 1:
    raise SearchError(f"{query.title}: to explain a hit takes one example, not {len(query.rows)}.")
  encoder, pictures, hit = searcher.encoder, searcher.pictures, answer.hits[0]
  asked = query.image if query.image is not None else pictures.values(query.rows[0])
  found = pictures.values(hit.row)
  head = searcher.files.description.encoder["head"]
  # Both images were accepted before, as a query and by `embed`, so they are not judged again.
  patches = [
    encoder.patches({sensor: values[None]}, head, trust_units=True, unseen="take")[0]
    for sensor, values in ((query.sensor, asked), (hit.sensor, found))
  ]
  shown = [
    picture(encoder.inputs[sensor].sensor, values)
    for sensor, values in ((query.sensor, asked), (hit.sensor, found))
  ]
  title = one_line(
    f"{query.title} ({query.sensor}) and {hit.id} ({hit.sensor}), score {hit.score:.3f}"
  )
  grid = encoder.patch_grid(head)
  _write(path, explanation(shown[0], shown[1], similarities(*patches), (grid, grid), title))


def _picture(searcher: Searcher, query: Query) -> np.ndarray | None:
  if query.image is not None and searcher.encoder is not None:
    return picture(searcher.encoder.inputs[query.sensor].sensor, query.image)
  return searcher.pictures.picture(query.rows[0]) if len(query.rows) == 1 else None


def _write(path: str, image: Image.Image) -> None:
  try:
    with open(path, "wb") as file:
      file.write(sheet.png(image))
  except OSError as error:
    raise WriteError(f"{path}: cannot be written ({error.strerror}).") from error
