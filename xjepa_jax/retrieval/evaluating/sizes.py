"""The cost of smaller descriptors: retrieval against bytes per scene, as a table and a plot.

Queries stay float32 except for Hamming distances, because only the archive has to be small.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter

from xjepa_jax.errors import EvaluationError
from xjepa_jax.retrieval.directions import evaluate_vectors
from xjepa_jax.retrieval.evaluating.evaluation_table import aligned, metric_name
from xjepa_jax.retrieval.protocol_rows import directions_of
from xjepa_jax.retrieval.protocols import Protocol
from xjepa_jax.retrieval.quantise import KINDS, archive_side, bytes_a_vector, cut, query_side
from xjepa_jax.retrieval.relevance import label_sets
from xjepa_jax.retrieval.row import Measures, Row
from xjepa_jax.retrieval.scene_vectors import SceneVectors

METRICS = ("recall@1", "recall@10", "map_reachable@10", "f1_item@5")
# Colours of Okabe and Ito, which colour-blind readers can distinguish.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
_MARKERS = "os^Dv"


@dataclasses.dataclass(frozen=True)
class Size:
  """Measurements of one descriptor size.

  Attributes:
    kind: storage type of a number, one of `KINDS`.
    numbers: length of the vector, whole or cut.
    bytes: bytes per scene.
    metrics: means over the cross-sensor directions, or over all directions if there is one sensor.
    directions: "a->b" -> the same metrics for each direction.
  """

  kind: str
  numbers: int
  bytes: int
  metrics: dict[str, float]
  directions: dict[str, dict[str, float]]

  def to_json(self) -> dict[str, Any]:
    """A JSON object."""
    return dataclasses.asdict(self)


def size_rows(
  protocol: Protocol, scenes: SceneVectors, kinds: str, prefixes: Sequence[int]
) -> list[Size]:
  """Measures every kind of storage at every vector length, the longest first.

  Args:
    protocol: chooses queries and archive. The metrics are METRICS, for the co-located scene, and
      for labels if scenes have any.
    scenes: the scenes and their vectors.
    kinds: "all", or names separated by commas.
    prefixes: lengths that vectors are cut to, in addition to the whole.

  Raises:
    EvaluationError: a kind is unknown, a prefix too long, or nothing can be measured.
  """
  chosen = KINDS if kinds == "all" else tuple(each.strip() for each in kinds.split(","))
  labels = label_sets(scenes.labels)
  found = []
  for size in sorted({*prefixes, scenes.dimensions}, reverse=True):
    shorter = {key: cut(vectors, size) for key, vectors in scenes.vectors.items()}
    for kind in chosen:
      archive = {key: archive_side(vectors, kind) for key, vectors in shorter.items()}
      asking = {key: query_side(vectors, kind) for key, vectors in shorter.items()}
      rows = [
        evaluate_vectors(
          direction,
          asking[direction.query],
          archive[direction.archive],
          labels,
          Measures((1, 5, 10)),
        )
        for direction in directions_of(protocol, scenes)
      ]
      found.append(_size(kind, size, [row for row in rows if row is not None]))
  return found


def sizes_table(found: Sequence[tuple[str, Sequence[Size]]], protocol: Protocol) -> str:
  """The table for a terminal.

  Args:
    found: (name, sizes) of each source.
    protocol: the protocol by which they were measured.
  """
  metrics = _measured(found)
  header = ["", "stored as", "numbers", "bytes a scene", *map(metric_name, metrics)]
  body = [
    [
      name,
      size.kind,
      str(size.numbers),
      f"{size.bytes:,}",
      *(f"{100 * size.metrics[each]:.1f}" if each in size.metrics else "–" for each in metrics),
    ]
    for name, sizes in found
    for size in sizes
  ]
  title = f"sizes of descriptors ({protocol.name}'s splits; means over directions, per cent)"
  return "\n".join([title, *aligned([header, *body])])


def sizes_figure(found: Sequence[tuple[str, Sequence[Size]]], protocol: Protocol) -> Figure:
  """Each metric against bytes per scene, with one line per kind through the vector lengths."""
  metrics = _measured(found)
  figure = Figure(figsize=(5.4 * len(metrics), 3.8 * len(found)), dpi=120)
  figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))  # inches
  FigureCanvasAgg(figure)
  axes = figure.subplots(len(found), len(metrics), squeeze=False)
  for line, (name, sizes) in zip(axes, found, strict=True):
    for axis, metric in zip(line, metrics, strict=True):
      for number, kind in enumerate(dict.fromkeys(size.kind for size in sizes)):
        of = [size for size in sizes if size.kind == kind and metric in size.metrics]
        axis.plot(
          [size.bytes for size in of],
          [size.metrics[metric] for size in of],
          color=_COLOURS[number % len(_COLOURS)],
          marker=_MARKERS[number % len(_MARKERS)],
          label=kind,
        )
      axis.set_xscale("log", base=2)
      axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
      axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
      axis.set_ylim(0, 1.1 * max(size.metrics.get(metric, 0.0) for size in sizes) or 1)
      axis.set_title(f"{name}: {metric_name(metric)}", fontsize=10)
      axis.set_xlabel("bytes a scene")
      axis.grid(alpha=0.3)
    line[0].legend(frameon=False, fontsize=8)
  figure.suptitle(f"Retrieval against size ({protocol.name})", fontsize=11)
  return figure


def write_plot(path: str, found: Sequence[tuple[str, Sequence[Size]]], protocol: Protocol) -> None:
  """Writes the figure as a PNG.

  Raises:
    EvaluationError: it cannot be written.
  """
  file = io.BytesIO()
  # Without Matplotlib's version in the file, equal figures give equal bytes.
  sizes_figure(found, protocol).savefig(file, format="png", metadata={"Software": None})
  try:
    with open(path, "wb") as out:
      out.write(file.getvalue())
  except OSError as error:
    raise EvaluationError(f"{path}: cannot be written ({error.strerror}).") from error


def _size(kind: str, size: int, rows: Sequence[Row]) -> Size:
  across = [row for row in rows if row.query != row.archive] or list(rows)
  if not across:
    raise EvaluationError("no direction can be measured: labels, or a second sensor, are needed.")
  directions = {
    f"{row.query}->{row.archive}": {
      name: row.metrics[name] for name in METRICS if name in row.metrics
    }
    for row in across
  }
  shared = [name for name in METRICS if all(name in each for each in directions.values())]
  return Size(
    kind=kind,
    numbers=size,
    bytes=bytes_a_vector(size, kind),
    metrics={name: float(np.mean([each[name] for each in directions.values()])) for name in shared},
    directions=directions,
  )


def _measured(found: Sequence[tuple[str, Sequence[Size]]]) -> list[str]:
  return [
    name for name in METRICS if any(name in size.metrics for _, sizes in found for size in sizes)
  ]
