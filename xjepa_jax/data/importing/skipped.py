"""What an import leaves out: grouped by reason, for people, and limited to a share of the pairs."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from xjepa_jax.data.archive import Skip
from xjepa_jax.errors import ArchiveError

MAX_SKIPPED = 0.05  # default share of the pairs
_SHOWN = 8  # reasons; an archive has few
# Names, paths and numbers, which differ from pair to pair in otherwise equal reasons.
_OWN = re.compile(r"""'[^']*'|"[^"]*"|\S*[/\\]\S*|\S+\.\w{2,4}\b|[-+]?\d[\d.,]*""")


def skipped_lines(skipped: Sequence[Skip], kept: int) -> list[str]:
  """Lines for people: how many pairs are skipped, and why, the most frequent reason first.

  Args:
    skipped: what is left out.
    kept: number of pairs that are not.
  """
  lost = sum(skip.pairs for skip in skipped)
  if not lost:
    return []
  lines = [f"{lost:,} of {lost + kept:,} pairs skipped"]
  groups: dict[str, list[Skip]] = {}
  for skip in skipped:
    groups.setdefault(_OWN.sub("", skip.reason), []).append(skip)
  counted = sorted(groups.values(), key=lambda group: -sum(skip.pairs for skip in group))
  for group in counted[:_SHOWN]:
    count, first = sum(skip.pairs for skip in group), group[0]
    example = f"{count:,}, the first {first.pair_id}" if count > 1 else first.pair_id
    lines.append(f"  {example}: {first.reason}")
  if len(counted) > _SHOWN:
    lines.append(f"  and {len(counted) - _SHOWN:,} other reasons")
  return lines


def check_odd(skipped: Sequence[Skip], let_pass: bool, unfinished: str = "") -> None:
  """Refuse an import with pairs whose values contradict their sensors, unless the user accepts it.

  Args:
    skipped: what is left out.
    let_pass: whether the user accepts losing such pairs.
    unfinished: directory of the shards written so far; empty before anything is written.

  Raises:
    ArchiveError: there are such pairs and they are not accepted.
  """
  odd = [skip for skip in skipped if skip.odd]
  if odd and not let_pass:
    named = "; ".join(f"{skip.pair_id}: {skip.reason}" for skip in odd[:_SHOWN])
    more = f"; and {len(odd) - _SHOWN:,} more" if len(odd) > _SHOWN else ""
    ways = (
      "Correct them and continue with --resume; or finish with --resume --skip-odd to leave them "
      "out, or with --resume --trust-units to take them as they are. Another product or nodata "
      f"value makes another import: delete {unfinished} then, and start again."
      if unfinished
      else "Correct them, give --skip-odd to leave them out, or --trust-units to take them as they "
      "are."
    )
    raise ArchiveError(
      f"the values of {len(odd):,} pairs contradict their sensors: {named}{more} {ways}"
    )


def check_skipped(skipped: Sequence[Skip], kept: int, most: float, way_on: str) -> None:
  """Refuse an import that loses a larger share of its pairs than allowed.

  Args:
    skipped: what is left out.
    kept: number of pairs that are not.
    most: largest share of all pairs that may be left out.
    way_on: option that allows more, up to its value: "give --max-skipped".

  Raises:
    ArchiveError: more are left out. Odd pairs do not count here: `check_odd` handles them.
  """
  skipped = [skip for skip in skipped if not skip.odd]
  lost = sum(skip.pairs for skip in skipped)
  total = lost + kept
  if lost > most * total * (1 + 1e-9):  # floating point is inexact: .07 * 100 is above 7
    share = math.ceil(1000 * lost / total - 1e-9) / 1000
    reason = skipped_lines(skipped, kept)[1].strip()
    raise ArchiveError(
      f"{lost:,} of {total:,} pairs ({lost / total:.1%}) fall out, more than {most:.1%}. Most "
      f"often: {reason} Mend the archive, or, if that is meant, {way_on} {share:g}."
    )
