"""Curves of a run over steps: losses, the geometry of the embedding space, and retrieval."""

from __future__ import annotations

import dataclasses
import io
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from xjepa_jax.report.table import arrow

# Okabe and Ito's colours, which colour-blind readers can distinguish. Beyond eight lines, dashes
# distinguish them.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
_DASHES = ("-", "--", ":", "-.")
_MOST = 12  # lines of a panel; a reader cannot distinguish more
_SMOOTHED = 200  # number of points from which on a loss is drawn as a running mean
_NAMES = {"loss/total": "total (weighted)", "loss": "total (weighted)"}


@dataclasses.dataclass(frozen=True)
class Panel:
  """One plot.

  Attributes:
    title: the text above it.
    pattern: a regular expression searched for in the keys of the history; the text that it matches
      is left out of a line's name.
    share: whether values are shares, shown in per cent.
    from_zero: whether the axis of values begins at 0, unless some are below.
    smooth: whether to draw a running mean where there are many values.
    but: a regular expression for keys to leave out although the pattern matches.
  """

  title: str
  pattern: str
  share: bool = False
  from_zero: bool = False
  smooth: bool = False
  but: str = ""

  def fits(self, key: str) -> bool:
    """Whether a key's values are plotted in this panel."""
    return bool(re.search(self.pattern, key)) and not (self.but and re.search(self.but, key))


# A key goes to the first panel that matches.
PANELS = (
  Panel("Loss by term", r"^loss(/|$)", smooth=True),
  Panel("Prediction loss by route", r"^(.*/)?route/", smooth=True),
  Panel(
    "Averaged and trained encoder: validation score",
    r"((?<=^validation/averaged)|(?<=^validation/trained))/score$",
    from_zero=True,
  ),
  Panel(
    "Retrieval: R@1",
    r"(/|^)recall@1(?=/|$)",
    share=True,
    from_zero=True,
    but=r"^validation/(averaged|trained)/",
  ),
  Panel("Effective rank (RankMe)", r"(?i)rankme", from_zero=True),
  Panel("Gap between sensors", r"(?i)gap", from_zero=True),
  Panel("Deviation", r"(?i)deviation", from_zero=True),
  Panel("Loss on validation pairs", r"^validation/loss(/|$)"),
  Panel(
    "Loss over that of a guess from position (1: no better)",
    r"^probe/(?=[^/]+/over_position/)|over_position/",
  ),
  Panel("Share of the tokens' variance that place explains", r"position_share", from_zero=True),
  Panel(
    "Position (0: predictions know only their place)",
    r"(?i)position(al)?",
    from_zero=True,
    but=r"^(probe|targets)/",
  ),
)


def curves(
  history: Sequence[Mapping[str, float]],
  levels: Mapping[str, float] | None = None,
  panels: Sequence[Panel] = PANELS,
) -> Figure | None:
  """Draw a figure with a panel for everything in the history, or return None if there is nothing.

  Args:
    history: rows of `metrics.jsonl`, each with "step"; rows need not have the same keys.
    levels: name -> value, drawn as horizontal lines in panels of shares: chance, a baseline.
    panels: the panels to draw.
  """
  lines = _lines(history, panels)
  shown = [panel for panel in panels if lines[panel.title]]
  if not shown:
    return None
  columns = min(len(shown), 2)
  rows = math.ceil(len(shown) / columns)
  figure = Figure(figsize=(5.4 * columns, 3.3 * rows), dpi=120)
  figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))  # inches
  FigureCanvasAgg(figure)
  axes = figure.subplots(rows, columns, squeeze=False).ravel()
  last = max(int(row["step"]) for row in history)
  for axis, panel in zip(axes, shown, strict=False):
    _draw(axis, panel, lines[panel.title], levels or {})
    axis.set_xlim(0, last or 1)  # the same for all panels, so that they can be compared
  for axis in axes[len(shown) :]:
    axis.remove()
  return figure


def panel_titles(
  history: Sequence[Mapping[str, float]], panels: Sequence[Panel] = PANELS
) -> list[str]:
  """Return the titles of the panels that `curves` draws."""
  lines = _lines(history, panels)
  return [panel.title for panel in panels if lines[panel.title]]


def png(figure: Figure) -> bytes:
  """Return a figure as the bytes of a PNG file."""
  file = io.BytesIO()
  # Without the software's name, whose version would change the bytes of an unchanged picture.
  figure.savefig(file, format="png", metadata={"Software": None})
  return file.getvalue()


def _lines(
  history: Sequence[Mapping[str, float]], panels: Sequence[Panel]
) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
  """Return panel title -> line name -> steps and values; the last of a step's values counts."""
  values: dict[str, dict[int, float]] = {}
  for row in history:
    for key, value in row.items():
      if key != "step":
        values.setdefault(key, {})[int(row["step"])] = float(value)
  found: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {p.title: {} for p in panels}
  for key, by_step in values.items():
    panel = next((p for p in panels if p.fits(key)), None)
    if panel is not None and np.isfinite(list(by_step.values())).any():
      steps = np.array(sorted(by_step))
      line = steps, np.array([by_step[step] for step in steps])
      found[panel.title][_name(key, panel)] = line
  return found


def _name(key: str, panel: Panel) -> str:
  if key in _NAMES:
    return _NAMES[key]
  parts = [part for part in re.sub(panel.pattern, "/", key).split("/") if part.strip(" _-")]
  words = [part.strip("_") for part in parts if part not in ("geometry", "validation", "retrieval")]
  return arrow(" ".join(words)) or key


def _draw(
  axis: Axes,
  panel: Panel,
  lines: Mapping[str, tuple[np.ndarray, np.ndarray]],
  levels: Mapping[str, float],
) -> None:
  for number, (name, (steps, values)) in enumerate(list(lines.items())[:_MOST]):
    colour = _COLOURS[number % len(_COLOURS)]
    style = _DASHES[number // len(_COLOURS) % len(_DASHES)]
    few = "o" if np.isfinite(values).sum() <= 30 else None
    if panel.smooth and len(values) >= _SMOOTHED:
      axis.plot(steps, values, color=colour, alpha=0.2, linewidth=0.8)
      values, few = _running_mean(values, len(values) // 50), None
    axis.plot(steps, values, style, color=colour, marker=few, markersize=3.5, label=name)
  if panel.share:
    for number, (name, value) in enumerate(levels.items()):
      axis.axhline(
        value, color="#5f6872", linestyle=_DASHES[1 + number % 3], linewidth=1.1, label=name
      )
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))
  if panel.from_zero and axis.get_ylim()[0] > 0:
    axis.set_ylim(bottom=0)
  title = panel.title
  if len(lines) > _MOST:
    title += f" (first {_MOST} of {len(lines)})"
  axis.set_title(title, loc="left", fontsize=11, fontweight="bold")
  axis.set_xlabel("step", fontsize=9)
  axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
  axis.tick_params(labelsize=9)
  axis.grid(color="#e3e6ea", linewidth=0.7)
  axis.set_axisbelow(True)
  axis.spines[["top", "right"]].set_visible(False)
  axis.legend(fontsize=8, frameon=False, ncols=2 if len(lines) > 4 else 1)


def _running_mean(values: np.ndarray, width: int) -> np.ndarray:
  """Average the finite values within `width` // 2 on either side; NaN where there are none."""
  finite = np.isfinite(values)
  kernel = np.ones(2 * (width // 2) + 1)
  count = np.convolve(finite, kernel, "same")
  total = np.convolve(np.where(finite, values, 0), kernel, "same")
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)
