"""A picture of queries and their answers: per row, the query and the best of the other sensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from xjepa_jax.data import sheet
from xjepa_jax.report.findings import Answer, Example
from xjepa_jax.report.table import arrow

SIDE = 132  # pixels, the side of a tile
FRAME = 6  # pixels, the frame around the tile of the true scene
_MARGIN = 16
_BETWEEN = 2 * FRAME + 4
_AFTER_QUERY = 40
_TITLE = 56
_CAPTION = 40
_ROW = SIDE + _CAPTION + 12


class Place(NamedTuple):
  """The position of a tile: pixels of its upper left corner, without frame."""

  left: int
  top: int


def examples_of(
  direction: str,
  scores: np.ndarray,
  queries: Sequence[int],
  ids: Sequence[str],
  picture: Callable[[str, int], np.ndarray],
  count: int = 5,
) -> tuple[Example, ...]:
  """Return queries with the best answers to each, as a report shows them.

  Args:
    direction: "a->b": the query's sensor and the archive's.
    scores: (Q, A) scores of the shown queries for every scene of the archive; among equal scores
      the lower number comes first, as in `xjepa_jax.retrieval.ranking`.
    queries: (Q,) number of each query's own scene in the archive.
    ids: (A,) ids of the archive's scenes.
    picture: (sensor, number of a scene) -> (H, W, 3) uint8.
    count: number of answers shown.
  """
  asking, answering = direction.split("->")
  found = []
  for row, own in zip(np.asarray(scores), queries, strict=True):
    order = np.argsort(-row, kind="stable")  # equal scores keep the order of the archive
    answers = tuple(
      Answer(picture(answering, int(i)), ids[i], float(row[i]), bool(i == own))
      for i in order[:count]
    )
    rank = int(np.flatnonzero(order == own)[0]) + 1
    found.append(Example(direction, picture(asking, int(own)), ids[own], answers, rank, len(order)))
  return tuple(found)


def retrieval_grid(examples: Sequence[Example]) -> Image.Image:
  """Draw all queries, one direction after another, with the true scenes framed in green and ticked.

  Raises:
    ValueError: there is no example.
  """
  if not examples:
    raise ValueError("a retrieval grid needs at least one example")
  width, height = _size(examples)
  image = Image.new("RGB", (width, height), sheet.PAPER)
  draw = ImageDraw.Draw(image)
  titled = set()
  for number, example in enumerate(examples):
    top = place(examples, number, 0).top
    if example.direction not in titled:
      titled.add(example.direction)
      _title(draw, example, top - FRAME - 34)
    _query(image, draw, example, place(examples, number, 0))
    for rank, answer in enumerate(example.answers, 1):
      _answer(image, draw, rank, answer, place(examples, number, rank))
  return image


def place(examples: Sequence[Example], number: int, column: int) -> Place:
  """Return the position of a tile of example `number`: column 0 is the query, column r rank r."""
  left = _MARGIN + FRAME
  if column:
    left += SIDE + _AFTER_QUERY + (column - 1) * (SIDE + _BETWEEN)
  directions = list(dict.fromkeys(example.direction for example in examples))
  section = directions.index(examples[number].direction)
  before = [
    other
    for i, other in enumerate(examples)
    if directions.index(other.direction) < section
    or (other.direction == examples[number].direction and i < number)
  ]
  return Place(left, _MARGIN + (section + 1) * _TITLE + FRAME + len(before) * _ROW)


def _size(examples: Sequence[Example]) -> tuple[int, int]:
  columns = max(len(example.answers) for example in examples)
  right = place(examples, 0, columns).left + SIDE + FRAME + _MARGIN
  sections = len({example.direction for example in examples})
  return right, 2 * _MARGIN + sections * _TITLE + len(examples) * _ROW


def _title(draw: ImageDraw.ImageDraw, example: Example, top: int) -> None:
  asking, answering = example.direction.split("->")
  left = _MARGIN + FRAME
  face = sheet.font(19, bold=True)
  draw.text((left, top), arrow(example.direction), sheet.INK, face)
  said = f"query of {asking}, then the best of {example.archive_size:,} scenes of {answering}"
  offset = draw.textlength(arrow(example.direction), face) + 14
  draw.text((left + offset, top + 4), said, sheet.FAINT, sheet.font(14))


def _query(image: Image.Image, draw: ImageDraw.ImageDraw, example: Example, at: Place) -> None:
  image.paste(sheet.tile(example.picture, SIDE), at)
  face = sheet.font(13)
  text = sheet.fitted(draw, example.pair_id, SIDE + _AFTER_QUERY - 12, face)
  draw.text((at.left, at.top + SIDE + 8), text, sheet.INK, face)
  rank = f"own scene at {example.true_rank:,}"
  colour = sheet.TRUE if example.true_rank <= len(example.answers) else sheet.FAINT
  draw.text((at.left, at.top + SIDE + 25), rank, colour, sheet.font(13, bold=True))
  line = at.left + SIDE + _AFTER_QUERY // 2 - FRAME // 2
  draw.line((line, at.top, line, at.top + SIDE), (205, 209, 214), 2)


def _answer(
  image: Image.Image, draw: ImageDraw.ImageDraw, rank: int, answer: Answer, at: Place
) -> None:
  if answer.true:
    far = (at.left + SIDE + FRAME - 1, at.top + SIDE + FRAME - 1)
    draw.rectangle((at.left - FRAME, at.top - FRAME, *far), sheet.TRUE)
  image.paste(sheet.tile(answer.picture, SIDE), at)
  text = f"{rank}{'  ✓ own scene' if answer.true else ''}"
  colour = sheet.TRUE if answer.true else sheet.INK
  draw.text((at.left, at.top + SIDE + 8), text, colour, sheet.font(13, bold=True))
  draw.text((at.left, at.top + SIDE + 25), f"{answer.score:.3f}", sheet.FAINT, sheet.font(13))
