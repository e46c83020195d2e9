"""Says that a space is collapsing, by which numbers, and what to try.

Two kinds of evidence are needed, and both have to last: retrieval of co-located scenes that cannot
be told from chance, and a geometry that explains it. A healthy run may have either for a while
early on: a low rank before the encoder has learnt, or retrieval that is only about to rise. Of one
sensor alone there is no co-located scene to find: there a rank that stays low is enough.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

# In trials on real pairs, a bare latent loss had RankMe 2.9 and retrieval at chance after 300 and
# after 500 steps, and healthy objectives had 8.3 to 18 (500 steps, batches of 64). Healthy ones
# found far more than chance after 50 steps; a bare one stood still from 50 to 300.
MIN_STEP = 150
RANK_LOW = 5.0
# For small descriptors, where 5 would be a good rank: a quarter of the dimensions.
RANK_SHARE = 0.25
# Two measurements in a row: one may be an accident of the validation pairs.
WINDOW = 2
# A rank that has grown by a quarter within the window is on its way; our choice.
RISING = 1.25
# In the same trials, the gap between sensors tripled while the bare loss fell. With descriptors
# that keep the layout it stayed at .93 of the spread from step 50 to 300, while the default's fell
# from .59 to .23.
GAP_LARGE = 0.75
GAP_SHRINKING = 0.9
# A prediction that fits its own scene better than others by less than this cosine; our choice.
POSITIONAL_LOW = 0.01
# Hit rates this close to chance are no retrieval: twice chance, or within two standard errors of
# it (95 %, one-sided: 1.6).
CHANCE_TIMES = 2.0
CHANCE_ERRORS = 2.0


@dataclasses.dataclass(frozen=True)
class Measurement:
  """What was measured on validation pairs at one step.

  Attributes:
    step: steps trained so far.
    dimensions: K, the descriptors' size.
    geometry: as `describe_geometry` names it: "rankme/a", "gap_relative/a-b", "positional/a->b".
    recall: direction between two sensors -> R@k of the co-located scene, 0 to 1, at one k.
    chance: direction -> what chance gives: k / archive.
    queries: how many queries each R@k is a mean of.
  """

  step: int
  dimensions: int
  geometry: Mapping[str, float]
  recall: Mapping[str, float]
  chance: Mapping[str, float]
  queries: int


@dataclasses.dataclass(frozen=True)
class Verdict:
  """A collapse, for people.

  Attributes:
    step: at which it was seen.
    evidence: what was measured, one clause each, with the numbers.
    remedies: what to try, the likeliest first.
  """

  step: int
  evidence: tuple[str, ...]
  remedies: tuple[str, ...]

  def __str__(self) -> str:
    return (
      f"The space is collapsing (step {self.step}): {'; '.join(self.evidence)}. "
      f"A falling loss does not contradict it. Try: {'; '.join(self.remedies)}."
    )


def diagnose(history: Sequence[Measurement], min_step: int = MIN_STEP) -> Verdict | None:
  """Whether the last measurements show a collapse.

  Args:
    history: all measurements of a run, in the order of their steps.
    min_step: nothing is said of earlier steps; at least the warm-up's length, for until then
      little is learnt.

  Returns:
    None if there is no evidence of both kinds in each of the last `WINDOW` measurements.
  """
  recent = history[-WINDOW:]
  if len(recent) < WINDOW or recent[0].step < min_step:
    return None
  last, rank = recent[-1], _low_rank(recent)
  signs = [sign for sign in (rank, _gap(recent), _positional(recent)) if sign]
  convicts = all(map(_at_chance, recent)) and signs if last.recall else rank
  if not convicts:
    return None
  remedies = dict.fromkeys(remedy for _, remedies in signs for remedy in remedies)
  evidence = (*_retrieval(last), *(words for words, _ in signs))
  return Verdict(last.step, evidence, tuple(remedies))


def _retrieval(last: Measurement) -> Iterator[str]:
  if last.recall:
    best = max(last.recall, key=lambda direction: last.recall[direction])
    yield (
      f"retrieval of co-located scenes is near chance (best: {best} {last.recall[best]:.1%}, "
      f"chance {last.chance[best]:.1%}, {last.queries} queries)"
    )


def _at_chance(measurement: Measurement) -> bool:
  """The mean hit rate of all directions is hardly above chance."""
  if not measurement.recall:
    return False
  recall = sum(measurement.recall.values()) / len(measurement.recall)
  chance = sum(measurement.chance.values()) / len(measurement.chance)
  error = math.sqrt(chance * (1 - chance) / max(measurement.queries, 1))
  return recall <= max(CHANCE_TIMES * chance, chance + CHANCE_ERRORS * error)


def _low_rank(recent: Sequence[Measurement]) -> tuple[str, tuple[str, ...]] | None:
  """Every sensor's worst rank is low, and not rising."""
  ranks = [_extreme(min, measurement.geometry, "rankme/") for measurement in recent]
  floor = min(RANK_LOW, RANK_SHARE * recent[-1].dimensions)
  (before, _), (now, sensor) = ranks[0], ranks[-1]
  if not all(rank < floor for rank, _ in ranks) or now > RISING * before:
    return None
  return (
    f"descriptors of {sensor} fill {now:.1f} of {recent[-1].dimensions} dimensions (RankMe; "
    f"{before:.1f} at step {recent[0].step})",
    (
      "add a term that keeps the space open: `vicreg` on pooled descriptors, `sigreg`, or "
      "`contrastive`, or raise its weight",
      "let the target lag more (target.lag)",
      "lower the learning rate",
    ),
  )


def _gap(recent: Sequence[Measurement]) -> tuple[str, tuple[str, ...]] | None:
  """Two sensors lie apart, and are not coming closer."""
  for name, now in recent[-1].geometry.items():
    before = recent[0].geometry.get(name, math.inf)
    if not name.startswith("gap_relative/") or now < max(GAP_LARGE, GAP_SHRINKING * before):
      continue
    return (
      f"the gap between {name.removeprefix('gap_relative/')} is {now:.2f} of their spread, and was "
      f"{before:.2f} at step {recent[0].step}",
      (
        "add a term that pulls co-located descriptors together: `vicreg`, `cosine` or "
        "`contrastive`, or raise its weight",
        "train the routes within a sensor as well as those across",
      ),
    )
  return None


def _positional(recent: Sequence[Measurement]) -> tuple[str, tuple[str, ...]] | None:
  """No route's predictions know the scene."""
  best = [_extreme(max, measurement.geometry, "positional/") for measurement in recent]
  if not all(difference < POSITIONAL_LOW for difference, _ in best):
    return None
  difference, route = best[-1]
  return (
    f"predictions know their position and not their scene (best: {route}, {difference:.3f} in "
    "cosine)",
    ("apply `vicreg` to pooled descriptors, or to tokens centred at each position",),
  )


def _extreme(
  choose: Callable[..., tuple[float, str]], geometry: Mapping[str, float], prefix: str
) -> tuple[float, str]:
  """The chosen one of the measurements of a kind, and whose it is; NaN, below nothing, if none."""
  found = [
    (value, name.removeprefix(prefix))
    for name, value in geometry.items()
    if name.startswith(prefix)
  ]
  return choose(found, default=(math.nan, ""))
