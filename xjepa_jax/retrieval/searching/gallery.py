"""Answers as one picture: a row per query, with the query's own picture first if there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from xjepa_jax.data import sheet
from xjepa_jax.data.plain_text import one_line
from xjepa_jax.retrieval.searching.answers import Answer, Hit

SIDE = 132  # pixels, the side of a tile
_MARGIN = 16
_BETWEEN = 10
_TITLE = 30
_CAPTION = 56
_ROW = _TITLE + SIDE + _CAPTION


def gallery(
  answers: Sequence[Answer],
  pictures: Callable[[int], np.ndarray],
  queries: Sequence[np.ndarray | None],
  most: int = 10,
) -> Image.Image:
  """Draw the best hits of every query, with rank, score, confidence, id and time below each.

  Args:
    answers: the answers to all queries.
    pictures: row of the archive -> (H, W, 3) uint8.
    queries: per answer, the query's picture, or None.
    most: largest number of hits shown per query.
  """
  shown = max((min(len(answer.hits), most) for answer in answers), default=0)
  width = 2 * _MARGIN + (shown + 1) * (SIDE + _BETWEEN) - _BETWEEN
  image = Image.new("RGB", (width, 2 * _MARGIN + len(answers) * _ROW), sheet.PAPER)
  draw = ImageDraw.Draw(image)
  for number, (answer, query) in enumerate(zip(answers, queries, strict=True)):
    top = _MARGIN + number * _ROW
    title = (
      f"{one_line(answer.query.title)}: the best {len(answer.hits[:most])} of {answer.among:,}"
    )
    face = sheet.font(15, bold=True)
    draw.text((_MARGIN, top), sheet.fitted(draw, title, width - 2 * _MARGIN, face), sheet.INK, face)
    if query is not None:
      image.paste(sheet.tile(query, SIDE), (_MARGIN, top + _TITLE))
      _lines(draw, _MARGIN, top + _TITLE + SIDE, ("query", answer.query.sensor, ""))
    for hit in answer.hits[:most]:
      left = _MARGIN + hit.rank * (SIDE + _BETWEEN)
      image.paste(sheet.tile(pictures(hit.row), SIDE), (left, top + _TITLE))
      _lines(draw, left, top + _TITLE + SIDE, _caption(hit))
  return image


def _caption(hit: Hit) -> tuple[str, str, str]:
  worth = f"{hit.rank}   {hit.score:.3f}"
  if hit.confidence is not None:
    worth += f"   {hit.confidence:.0%}"
  return worth, one_line(hit.id), f"{hit.sensor} {hit.time:%Y-%m-%d}" if hit.time else hit.sensor


def _lines(draw: ImageDraw.ImageDraw, left: int, top: int, lines: tuple[str, str, str]) -> None:
  for number, line in enumerate(lines):
    face = sheet.font(12, bold=number == 0)
    colour = sheet.INK if number == 0 else sheet.FAINT
    at = (left, top + 4 + 16 * number)
    draw.text(at, sheet.fitted(draw, line, SIDE, face), colour, face)
