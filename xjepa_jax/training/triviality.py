"""A verdict on latent prediction: whether it knows more than positions, in words.

The measurements come from `training.probe`. This module reads them from a row of metrics, so that a
report does not need JAX.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

REAL, OTHER, POSITION, CONSTANT = "real", "other_context", "position", "constant"
PARTS = ("constant", "position", "scene", "rest")
# A loss that rises by less than this share with another sample's context counts as ignoring the
# context. The number is our choice.
IGNORED = 0.01
# Relative rounding of a float32 loss: a predictor of exactly the means is no better than they are.
_ROUNDED = 1e-5


def probed(measured: Mapping[str, float]) -> list[tuple[str, str]]:
  """Return label and route of every loss that `probe` measured, among other metrics."""
  found = []
  for name in measured:
    group, *rest = name.split("/")
    if group == "probe" and rest[1] == REAL:
      found.append((rest[0], rest[2]))
  return found


def triviality(measured: Mapping[str, float], taught: Mapping[str, bool]) -> str:
  """Describe in words the terms that know no more than positions; "" if there are none.

  Args:
    measured: metrics as named by `probe`.
    taught: label -> whether the term has a weight; terms without one are left out.
  """
  said = list(_trivial_routes(measured, taught))
  if not said:
    return ""
  return (
    f"Latent prediction is trivial on validation pairs: {'; '.join(said)}. A falling loss does not "
    "contradict it: targets shrink towards what their places have in common. Try: contexts that "
    "see more of what is asked (mask); other targets; more weight for terms that keep the space "
    "open."
  )


def _trivial_routes(measured: Mapping[str, float], taught: Mapping[str, bool]) -> Iterator[str]:
  for label, route in probed(measured):
    if not taught.get(label, False):
      continue
    real, other, place = (
      measured[f"probe/{label}/{kind}/{route}"] for kind in (REAL, OTHER, POSITION)
    )
    if real < (1 - _ROUNDED) * place:
      continue
    if real >= (1 - IGNORED) * other:
      yield (
        f"{label!r} teaches nothing of {route} (loss {real:.4f}; a guess from position alone "
        f"{place:.4f}; shown another sample's context {other:.4f})"
      )
    else:
      yield (
        f"{label!r} of {route} is not below a guess from position alone (loss {real:.4f}, the "
        f"guess {place:.4f}), though it does look at its context (shown another sample's "
        f"{other:.4f})"
      )
