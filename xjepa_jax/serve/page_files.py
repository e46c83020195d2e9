"""The page's own files, and whether the third-party ones are installed beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "page")
INDEX = "index.html"
TYPES = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".json": "application/json",
  ".svg": "image/svg+xml",
  ".txt": "text/plain; charset=utf-8",
}
# Files in vendor/ that each part of the page needs; `make page` puts them there.
_NEEDS = {
  "map": (
    "maplibre-gl.mjs",
    "maplibre-gl-worker.mjs",
    "maplibre-gl.css",
    "topojson-client.mjs",
    "countries-50m.json",
  ),
  "scatter": ("regl-scatterplot.js",),
}


def vendored() -> dict[str, bool]:
  """Return whether the map and the scatter plot have their third-party scripts."""
  return {part: all(map(_there, names)) for part, names in _NEEDS.items()}


def page_files() -> Iterator[str]:
  """Yield the paths of all files but the index, relative to the page's folder, with "/"."""
  for folder, _, names in sorted(os.walk(PAGE)):
    for name in sorted(names):
      path = os.path.relpath(os.path.join(folder, name), PAGE).replace(os.sep, "/")
      if path != INDEX and os.path.splitext(name)[1] in TYPES:
        yield path


def _there(name: str) -> bool:
  return os.path.isfile(os.path.join(PAGE, "vendor", name))
