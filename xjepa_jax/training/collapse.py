"""Detection of a collapsing descriptor space, with the evidence in numbers and what to try.

A verdict needs two kinds of evidence, and both have to last: retrieval of co-located scenes that is
no better than chance, and a geometry that explains it. A healthy run may show either for a while
early on: a low rank before the encoder has learnt, or retrieval that is only about to rise. With a
single sensor there is no co-located scene to find; there a rank that stays low is enough.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

# In trials on real pairs (batches of 64), a bare latent loss had RankMe 2.9 and retrieval at chance
# after 300 and after 500 steps, and healthy objectives had 8.3 to 18 after 500. After 50 steps the
# healthy ones found far more than chance; a bare one made no progress from step 50 to 300.
MIN_STEP = 150
RANK_LOW = 5.0
# For small descriptors, for which a rank of 5 would be good: a quarter of the dimensions.
RANK_SHARE = 0.25
# Measurements in a row that must agree; a single one may be an accident of the validation pairs.
WINDOW = 2
# A rank that has grown by a quarter within the window is recovering. The number is our choice.
RISING = 1.25
# In the same trials, the gap between sensors tripled while the bare loss fell. With descriptors
# that keep the layout, the gap of the bare loss stayed at .93 of the spread from step 50 to 300,
# while that of the default objective fell from .59 to .23.
GAP_LARGE = 0.75
GAP_SHRINKING = 0.9
# A cosine below which a prediction fits its own scene no better than others. It is our choice.
POSITIONAL_LOW = 0.01
# Hit rates this close to chance count as no retrieval: up to twice chance, or within two standard
# errors of it (95 %, one-sided, would be 1.6).
CHANCE_TIMES = 2.0
CHANCE_ERRORS = 2.0


@dataclasses.dataclass(frozen=True)
class Measurement:
  """The results on validation pairs at one step.

  Attributes:
    step: steps trained so far.
    dimensions: K, the size of a descriptor.
    geometry: as named by `describe_geometry`: "rankme/a", "gap_relative/a-b", "positional/a->b".
    recall: direction between two sensors -> R@k of the co-located scene, 0 to 1, at one k.
    chance: direction -> the recall expected by chance, k / archive size.
    queries: number of queries that each R@k is averaged over.
  """

  step: int
  dimensions: int
  geometry: Mapping[str, float]
  recall: Mapping[str, float]
  chance: Mapping[str, float]
  queries: int


@dataclasses.dataclass(frozen=True)
class Verdict:
  """A collapse, described for people.

  Attributes:
    step: the step at which it was found.
    evidence: the measurements, one clause each, with their numbers.
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
  """Decide whether the last measurements show a collapse.

  Args:
    history: all measurements of a run, in the order of their steps.
    min_step: no verdict is given on earlier steps. It should be at least the length of the warm-up,
      because little is learnt until then.

  Returns:
    A verdict, or None unless each of the last `WINDOW` measurements has evidence of both kinds.
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
  """Whether the mean hit rate over all directions is hardly above chance."""
  if not measurement.recall:
    return False
  recall = sum(measurement.recall.values()) / len(measurement.recall)
  chance = sum(measurement.chance.values()) / len(measurement.chance)
  error = math.sqrt(chance * (1 - chance) / max(measurement.queries, 1))
  return recall <= max(CHANCE_TIMES * chance, chance + CHANCE_ERRORS * error)


def _low_rank(recent: Sequence[Measurement]) -> tuple[str, tuple[str, ...]] | None:
  """Return evidence if the lowest rank among the sensors is low and not rising."""
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
  """Return evidence if two sensors lie apart and are not coming closer."""
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
  """Return evidence if no route's predictions depend on the scene."""
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
  """Return the extreme value of one kind of measurement and its owner, or NaN if there is none.

  Comparisons with NaN are false, so a kind that was not measured is never evidence.
  """
  found = [
    (value, name.removeprefix(prefix))
    for name, value in geometry.items()
    if name.startswith(prefix)
  ]
  return choose(found, default=(math.nan, ""))
