"""Detection of a run whose retrieval gets worse while its loss falls.

The best step is kept and exported, so nothing is lost but time. But if three quarters of a run are
wasted, one of its terms works against retrieval, and the loss does not show it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

SCORE = "validation/score"
LOSS = "validation/loss/total"
SHARE = "geometry/position_share/"
# Consecutive evaluations that have to be below the best; a single one may be an accident.
WINDOW = 2
# Standard errors of a hit rate over the validation pairs by which they have to be below. One is
# enough, because evaluations of one run use the same pairs and so differ by less than two samples
# of pairs would.
ERRORS = 1.0
QUERIES = 100  # assumed number of pairs where it is unknown, with a single sensor
# Tokens encode their position if it explains a fifth of their variance, and twice as much as at its
# lowest. On 70 real pairs a default run went from .01 at step 100 to .38 and .53, and its retrieval
# fell all the while.
SHARE_LARGE = 0.2
SHARE_GROWN = 2.0


def worsening(rows: Sequence[Mapping[str, float]]) -> str:
  """Describe in words how a run's evaluations get worse; "" if they do not.

  Args:
    rows: the evaluations so far, in the order of their steps, each with "step", SCORE, LOSS,
      "chance/queries" and "geometry/position_share/SENSOR", where they exist.
  """
  said = [*_falling_score(rows), *_growing_share(rows)]
  if not said:
    return ""
  return (
    f"The run gets worse (step {int(rows[-1]['step']):,}): {'; '.join(said)}. The best step is "
    "kept and exported. Try: to end there (training.steps); each term left out in turn, to find "
    "the one that does it; less weight for terms of heads that are not searched."
  )


def _falling_score(rows: Sequence[Mapping[str, float]]) -> Iterator[str]:
  scored = [row for row in rows if math.isfinite(row.get(SCORE, math.nan))]
  if len(scored) <= WINDOW:
    return
  best = max(scored, key=lambda row: row[SCORE])
  highest = best[SCORE]
  queries = max(best.get("chance/queries", QUERIES), 1)
  error = math.sqrt(max(highest * (1 - highest), 0) / queries)
  # Near a score of 1 the binomial error vanishes, but a difference of one query is not a fall.
  clear = highest - max(ERRORS * error, 1 / queries)
  recent = scored[-WINDOW:]
  if all(row[SCORE] < clear for row in recent):
    words = (
      f"the validation score is {recent[-1][SCORE]:.3f} and was {highest:.3f} at step "
      f"{int(best['step']):,}"
    )
    before, now = best.get(LOSS, math.nan), recent[-1].get(LOSS, math.nan)
    if now < before:
      words += f", while the loss on the same pairs fell from {before:.4g} to {now:.4g}"
    elif now > before:
      words += f", and the loss on the same pairs rose from {before:.4g} to {now:.4g}"
    yield words


def _growing_share(rows: Sequence[Mapping[str, float]]) -> Iterator[str]:
  for name, now in rows[-1].items() if rows else ():
    if not name.startswith(SHARE):
      continue
    least = min(rows[:-1], key=lambda row: row.get(name, math.inf), default={})
    before = least.get(name, math.inf)
    if now >= SHARE_LARGE and now >= SHARE_GROWN * before:
      yield (
        f"tokens of {name.removeprefix(SHARE)} say where they lie: their place explains "
        f"{now:.0%} of their variance, and {before:.0%} at step {int(least['step']):,}"
      )
