"""The sections of a report's page. Each function returns HTML, or "" if it has nothing to show."""

from __future__ import annotations

import base64
import math
import struct
from collections import Counter
from collections.abc import Sequence
from html import escape
from itertools import groupby

from xjepa_jax.config import dotted
from xjepa_jax.report.curves import panel_titles
from xjepa_jax.report.findings import Findings, definition
from xjepa_jax.report.table import Cells, arrow, cells, number
from xjepa_jax.training.triviality import CONSTANT, OTHER, PARTS, POSITION, REAL, probed

_KINDS = {
  REAL: "Loss",
  OTHER: "Shown another sample’s context",
  POSITION: "Guess from position",
  CONSTANT: "Guess of one constant",
}


def lead(findings: Findings) -> str:
  """State the main result in a sentence: the first row's R@1, and chance's."""
  rows = [row for row in findings.summary if "recall@1" in row]
  if not rows:
    return ""
  name = rows[0]["name"]
  found = " and ".join(
    f"<strong>{number('recall@1', row['recall@1'])}</strong> of queries "
    f"{escape(arrow(row['direction']))}"
    for row in rows
    if row["name"] == name
  )
  chance = sorted({number("recall@1", row["recall@1"]) for row in rows if row["name"] == "chance"})
  beside = f" Chance would reach {' to '.join(chance)}." if chance else ""
  return f"<p>{escape(name)} ranks the query’s own scene first for {found}.{beside}</p>"


def verdict(findings: Findings) -> str:
  """State whether the embedding space has collapsed, and any warnings."""
  lines = []
  if findings.collapse is not None:
    text = escape(findings.collapse)
    lines.append(
      f'<p class="verdict bad" role="alert"><strong>The space collapsed.</strong> {text}</p>'
    )
  elif findings.geometry:
    lines.append('<p class="verdict">No sign of a collapse of the space was found.</p>')
  lines += [f'<p class="verdict bad" role="alert">{escape(each)}</p>' for each in findings.warnings]
  return "\n".join(lines)


def results(findings: Findings) -> str:
  """Show the table of results, how it was measured, and what its numbers mean."""
  if not findings.summary:
    return ""
  table = cells(findings.summary)
  caption = "Best of each direction in bold green." if table.best else ""
  return "\n".join(
    [
      _results_table(table),
      f'<p class="faint">{caption}</p>' if caption else "",
      _meanings(findings),
      _all_numbers(findings),
    ]
  )


def retrieval(findings: Findings, picture: bytes | None) -> str:
  """Show queries with their answers as a picture, and the same as a table."""
  if picture is None:
    return ""
  directions = Counter(example.direction for example in findings.examples)
  found = sum(example.true_rank <= len(example.answers) for example in findings.examples)
  alt = (
    f"{len(findings.examples)} queries, "
    + ", ".join(f"{count} of {arrow(direction)}" for direction, count in directions.items())
    + f"; the query's own scene is among the answers shown for {found} of them."
  )
  rows = [
    (
      arrow(example.direction),
      example.pair_id,
      f"{example.true_rank:,} of {example.archive_size:,}",
      example.answers[0].pair_id if example.answers else "",
      f"{example.answers[0].score:.3f}" if example.answers else "",
    )
    for example in findings.examples
  ]
  header = ("Direction", "Query", "Own scene at rank", "First answer", "Score")
  caption = (
    "Left the query, then what the other sensor’s archive answers, best first, with its score. "
    "The query’s own scene is framed in green and ticked."
  )
  return _figure(picture, alt, caption, "Queries and answers") + _details(
    "The same as a table", _plain_table(header, rows)
  )


def geometry(findings: Findings) -> str:
  """Show the measures of the embedding space."""
  if not findings.geometry:
    return ""
  rows = [(key, number(key, value)) for key, value in findings.geometry.items()]
  return (
    '<p class="faint">RankMe is the number of dimensions that descriptors effectively use: near 1 '
    "is a collapse. The gap is the distance between the sensors’ means. A falling loss alone "
    "proves nothing.</p>" + _plain_table(("Measure", "Value"), rows, numbers_from=1)
  )


def prediction(findings: Findings) -> str:
  """Show the predictive terms' losses at the last validation, beside guesses that know less."""
  measured = next((row for row in reversed(findings.history) if probed(row)), {})
  rows = []
  for label, route in probed(measured):
    losses = [measured.get(f"probe/{label}/{kind}/{route}") for kind in _KINDS]
    parts = [measured.get(f"targets/{part}/{route}", math.nan) for part in PARTS]
    shares = [number("recall@", part / sum(parts)) for part in parts]  # in per cent
    rows.append((f"{label}, {arrow(route)}", *(number("loss", each) for each in losses), *shares))
  if not rows:
    return ""
  header = ("Term and route", *_KINDS.values(), *(f"Targets: {part}" for part in PARTS))
  return (
    f'<p class="faint">On validation pairs at step {int(measured["step"]):,}. A loss that is not '
    "below that of the best guess from position alone teaches nothing that a table of places does "
    "not say; one that is the same with another sample’s context does not look at it. Targets: "
    "what share of their mean square is the mean of all, of the place, of the scene, and the "
    "rest.</p>" + _plain_table(header, rows, numbers_from=1)
  )


def tokens(findings: Findings, picture: bytes | None) -> str:
  """Show the token maps."""
  if picture is None:
    return ""
  sensors = dict.fromkeys(sensor for pair in findings.token_maps for sensor in pair.tokens)
  alt = (
    f"{len(findings.token_maps)} pairs: pictures of {', '.join(sensors)}, each beside a map that "
    "paints its tokens in three colours."
  )
  caption = (
    "Equal colours are equal directions of the space, in every map, for the components are those "
    "of all sensors’ tokens together. Maps that show the scene’s layout, and agree between "
    "sensors, are what training is for; maps of one hue a sensor mean a gap between sensors, and "
    "the same map for every scene means tokens that know only their place."
  )
  return _figure(picture, alt, caption, "Token maps")


def course(findings: Findings, picture: bytes | None) -> str:
  """Show the curves over steps."""
  if picture is None:
    return ""
  last = max(int(row["step"]) for row in findings.history)
  titles = "; ".join(panel_titles(findings.history))
  alt = f"Curves over {last:,} steps: {titles}."
  caption = "Pale lines are values, strong lines their running means, where there are many."
  return _figure(picture, alt, caption, "Curves")


def run(findings: Findings) -> str:
  """Show timing, versions and configuration."""
  parts = []
  for title, content in (("Timing", findings.timing), ("Versions", findings.versions)):
    if content:
      rows = [(key, number(key, value)) for key, value in content.items()]
      parts.append(f"<h3>{title}</h3>" + _plain_table(("", ""), rows))
  if findings.config:
    rows = [(key, str(value)) for key, value in dotted(findings.config).items()]
    parts.append(_details("Configuration", _plain_table(("Key", "Value"), rows, code=True)))
  return "\n".join(parts)


def _results_table(table: Cells) -> str:
  """Return a table with a group of rows per method."""
  head = "".join(
    f'<th scope="col"{_number_class(i)}>{escape(text) or "Method"}</th>'
    for i, text in enumerate(table.header)
  )
  groups = []
  for name, group in groupby(enumerate(table.rows), key=lambda item: item[1][0]):
    members = list(group)
    first = f'<th scope="rowgroup" rowspan="{len(members)}">{escape(name)}</th>'
    lines = []
    for place, row in members:
      texts = "".join(
        f"<td{_number_class(i, (place, i) in table.best)}>{escape(text)}</td>"
        for i, text in enumerate(row[1:], 1)
      )
      lines.append(f"<tr>{first}{texts}</tr>")
      first = ""
    groups.append(f"<tbody>{''.join(lines)}</tbody>")
  content = f'<table class="results"><thead><tr>{head}</tr></thead>{"".join(groups)}</table>'
  return _scroll(content, "Table of results")


def _number_class(column: int, best: bool = False) -> str:
  return "" if column < 2 else f' class="number{" best" if best else ""}"'


def _meanings(findings: Findings) -> str:
  keys = dict.fromkeys(key for row in findings.summary for key in row)
  meanings = dict.fromkeys(text for key in keys if (text := definition(key)) is not None)
  entries = [(name.replace("_", " "), text) for name, text in findings.protocol.items()]
  entries += [(name, text) for name, _, text in (each.partition(": ") for each in meanings)]
  if not entries:
    return ""
  content = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in entries)
  return _details("How it was measured", f"<dl>{content}</dl>")


def _all_numbers(findings: Findings) -> str:
  """Return every measure of every row, for those that the table of results has no room for."""
  keys = dict.fromkeys(key for row in findings.summary for key in row)
  numbers = [key for key in keys if key not in ("name", "direction")]
  table = cells(findings.summary, numbers)
  if table.header == cells(findings.summary).header:
    return ""
  return _details("All numbers", _results_table(table))


def _plain_table(
  header: tuple[str, ...],
  rows: Sequence[tuple[str, ...]],
  numbers_from: int | None = None,
  code: bool = False,
) -> str:
  """Return a table of texts, whose first column holds the headers of its rows."""
  kinds = [
    ' class="number"' if numbers_from is not None and i >= numbers_from else ""
    for i in range(len(header))
  ]
  head = "".join(
    f'<th scope="col"{kind}>{escape(text)}</th>' for text, kind in zip(header, kinds, strict=True)
  )
  body = []
  for row in rows:
    texts = [f"<code>{escape(text)}</code>" if code else escape(text) for text in row]
    cells_of_row = [f'<th scope="row">{texts[0]}</th>'] + [
      f"<td{kind}>{text}</td>" for text, kind in zip(texts[1:], kinds[1:], strict=True)
    ]
    body.append(f"<tr>{''.join(cells_of_row)}</tr>")
  top = f"<thead><tr>{head}</tr></thead>" if any(header) else ""
  return _scroll(f"<table>{top}<tbody>{''.join(body)}</tbody></table>", "Table")


def _details(title: str, content: str) -> str:
  return f"<details><summary>{escape(title)}</summary>{content}</details>"


def _scroll(content: str, label: str) -> str:
  """Wrap content that may be wider than a phone: it scrolls by itself, also by keyboard."""
  return f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">{content}</div>'


def _figure(picture: bytes, alt: str, caption: str, label: str) -> str:
  width, height = struct.unpack(">II", picture[16:24])  # in the header chunk of a PNG file
  # On a narrow screen the picture keeps a readable width and scrolls sideways.
  data = base64.b64encode(picture).decode("ascii")
  image = (
    f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}" '
    f'style="min-width:min({width}px,44rem)" alt="{escape(alt)}">'
  )
  return f"<figure>{_scroll(image, label)}<figcaption>{escape(caption)}</figcaption></figure>"
