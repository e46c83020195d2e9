"""The report of a run: one page that shows everything, and the files that it is made of.

index.html      everything, in one file that needs no other files and no network
metrics.json    every number
retrieval.png   queries and their answers
tokens.png      tokens as colours
curves.png      losses, geometry and retrieval over steps
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from html import escape

from xjepa_jax.data import sheet, storage
from xjepa_jax.report import curves, metrics_file, sections
from xjepa_jax.report.findings import Findings
from xjepa_jax.report.page_style import CSS
from xjepa_jax.report.retrieval_grid import retrieval_grid
from xjepa_jax.report.token_maps import token_sheet

PAGE, METRICS = "index.html", "metrics.json"
RETRIEVAL, TOKENS, CURVES = "retrieval.png", "tokens.png", "curves.png"
# The page may load nothing that is not in the file itself, and may run no script.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(
  directory: str, findings: Findings, pictures: Mapping[str, bytes] | None = None
) -> str:
  """Write a report; a picture without content is left out, and so is its section.

  Args:
    directory: the report's folder, created if missing, or an address such as gs://...
    findings: what to show.
    pictures: pictures of the findings, as returned by `draw`; None draws them.

  Returns:
    The path of the page, which is written last.

  Raises:
    ValueError: tokens do not fill their grid.
    OSError: a file cannot be written.
  """
  pictures = draw(findings) if pictures is None else pictures
  if not storage.is_remote(directory):
    os.makedirs(directory, exist_ok=True)
  metrics_file.write_metrics(f"{directory}/{METRICS}", findings)
  for name, content in pictures.items():
    storage.write_file(f"{directory}/{name}", content)
  # The page comes last, so that where there is one, the report is complete.
  path = f"{directory}/{PAGE}"
  storage.write_file(path, render(findings, pictures).encode())
  return path


def draw(findings: Findings) -> dict[str, bytes]:
  """Draw the report's pictures, file name -> PNG, leaving out those without content."""
  found = {}
  if findings.examples:
    found[RETRIEVAL] = sheet.png(retrieval_grid(findings.examples))
  if any(pair.tokens for pair in findings.token_maps):
    found[TOKENS] = sheet.png(token_sheet(findings.token_maps))
  figure = curves.curves(findings.history, _levels(findings))
  if figure is not None:
    found[CURVES] = curves.png(figure)
  return found


def render(findings: Findings, pictures: Mapping[str, bytes]) -> str:
  """Render the page as HTML: without scripts or external resources, and with all text escaped.

  Args:
    findings: what to show.
    pictures: as returned by `draw`.
  """
  parts = {
    "results": ("Results", sections.results(findings)),
    "retrieval": ("What was found", sections.retrieval(findings, pictures.get(RETRIEVAL))),
    "geometry": ("The space", sections.geometry(findings)),
    "prediction": ("What prediction knows", sections.prediction(findings)),
    "tokens": ("What tokens tell apart", sections.tokens(findings, pictures.get(TOKENS))),
    "curves": ("The course of training", sections.course(findings, pictures.get(CURVES))),
    "run": ("The run", sections.run(findings)),
  }
  parts = {name: part for name, part in parts.items() if part[1]}
  links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, (title, _) in parts.items())
  body = "\n".join(
    f'<section aria-labelledby="{name}">\n<h2 id="{name}">{title}</h2>\n{content}\n</section>'
    for name, (title, content) in parts.items()
  )
  return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(findings.title)}</title>
<style>{CSS}</style>
</head>
<body>
<header>
<h1>{escape(findings.title)}</h1>
{sections.lead(findings)}
{sections.verdict(findings)}
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>
{body}
</main>
</body>
</html>
"""


def _levels(findings: Findings) -> dict[str, float]:
  """Return chance's R@1, averaged over directions, as a horizontal line for the curves."""
  values = [
    row["recall@1"] for row in findings.summary if row.get("name") == "chance" and "recall@1" in row
  ]
  mean = sum(values) / len(values) if values else math.nan
  return {"chance": mean} if math.isfinite(mean) else {}
