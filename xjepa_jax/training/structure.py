"""Comparison of a checkpoint's arrays with those that are to be restored."""

from __future__ import annotations

from typing import Any

import jax

_SHOWN = 5  # number of differences named in a message


def structure_differences(stored: Any, wanted: Any) -> str:
  """Name the arrays that are absent or differ in shape or dtype; "" if the trees agree.

  Args:
    stored, wanted: trees whose leaves have `shape` and `dtype`; other leaves are ignored.
  """
  then, now = _arrays(stored), _arrays(wanted)
  differing = [
    f"{name}: {then.get(name, 'absent')}, {now.get(name, 'absent')}"
    for name in sorted({**then, **now})
    if then.get(name) != now.get(name)
  ]
  more = f"; and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
  return "; ".join(differing[:_SHOWN]) + more


def _arrays(tree: Any) -> dict[str, str]:
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
    for path, leaf in leaves
    if hasattr(leaf, "shape")
  }
