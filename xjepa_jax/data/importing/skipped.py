"""What an import leaves out: by reason, for people, and how much of it is let pass."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from xjepa_jax.data.archive import Skip
from xjepa_jax.errors import ArchiveError

MAX_SKIPPED = 0.05  # of the pairs, unless another share is asked for
_SHOWN = 8  # reasons, of which an archive has few
_OWN = re.compile(r"""'[^']*'|"[^"]*"|\S*[/\\]\S*|\S+\.\w{2,4}\b|[-+]?\d[\d.,]*""")


def skipped_lines(skipped: Sequence[Skip], kept: int) -> list[str]:
  """Lines for people: how many pairs fall out, and why, the most frequent reason first.

  Args:
    skipped: what falls out.
    kept: number of pairs that do not.
  """
  lost = sum(skip.pairs for skip in skipped)
  if not lost:
    return []
  lines = [f"{lost:,} of {lost + kept:,} pairs skipped"]
  groups: dict[str, list[Skip]] = {}
  for skip in skipped:  # names and numbers differ from pair to pair, the reason does not
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
  """Refuses an import of which some pairs' values contradict their sensors, unless asked for.

  Args:
    skipped: what falls out.
    let_pass: whether that is meant.
    unfinished: directory of what was written until they were met; empty beforehand.

  Raises:
    ArchiveError: some do.
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
  """Refuses an import that loses a larger share of its pairs than was asked for.

  Args:
    skipped: what falls out.
    kept: number of pairs that do not.
    most: share of all pairs that may fall out.
    way_on: the option that lets more pass, up to its value: "give --max-skipped".

  Raises:
    ArchiveError: more fall out. Odd ones do not count: `check_odd` asks for them.
  """
  skipped = [skip for skip in skipped if not skip.odd]
  lost = sum(skip.pairs for skip in skipped)
  total = lost + kept
  if lost > most * total * (1 + 1e-9):  # .07 * 100 is above 7
    share = math.ceil(1000 * lost / total - 1e-9) / 1000
    reason = skipped_lines(skipped, kept)[1].strip()
    raise ArchiveError(
      f"{lost:,} of {total:,} pairs ({lost / total:.1%}) fall out, more than {most:.1%}. Most "
      f"often: {reason} Mend the archive, or, if that is meant, {way_on} {share:g}."
    )
