"""Published ways to measure retrieval, as data: who asks, who is searched, what counts.

A number means something only beside numbers of the same protocol. What a paper leaves open is said
in `uncertain`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from xjepa_jax.errors import EvaluationError, did_you_mean

LOCATION, LABELS = "location", "labels"


@dataclasses.dataclass(frozen=True)
class Protocol:
  """One way to measure.

  Attributes:
    name: by which it is asked for.
    title: in words.
    queries, archive: splits that ask and that are searched.
    relevant: LOCATION, the co-located scene alone; or LABELS, whatever shares one with the query.
    leave_out: what is no answer: "query", the query's own image; "scene", its scene in all sensors.
    headline: the metrics of its table, the first the one that is quoted.
    cuts: all cut-offs k that are measured.
    whole: whether the whole ranking is, for mAP.
    source: where it was published.
    uncertain: what the source leaves open, and what is done here.
  """

  name: str
  title: str
  queries: str
  archive: str
  relevant: str
  leave_out: str
  headline: tuple[str, ...]
  cuts: tuple[int, ...]
  whole: bool
  source: str
  uncertain: str = ""

  def between(self, queries: str = "", archive: str = "") -> Protocol:
    """The same protocol of other splits; "" keeps the published one."""
    return dataclasses.replace(
      self, queries=queries or self.queries, archive=archive or self.archive
    )

  def words(self) -> dict[str, str]:
    """What it is, for people."""
    found = {
      "protocol": f"{self.name}: {self.title}",
      "splits": f"queries {self.queries!r}, archive {self.archive!r}",
      "published": self.source,
    }
    return {**found, "uncertain": self.uncertain} if self.uncertain else found

  def in_splits(self, names: Mapping[str, str]) -> Protocol:
    """The same protocol where a data set calls its splits otherwise: usual name -> its name."""
    return self.between(names.get(self.queries, ""), names.get(self.archive, ""))


_OPEN = (
  "the split of queries and archive is not stated: both are the test split here, and the query's "
  "own image is no answer within a sensor; across sensors its co-located scene is one"
)
_F1 = ("f1_item", "f1_query", "f1_csmae")

PROTOCOLS = {
  each.name: each
  for each in (
    Protocol(
      name="paired-recall",
      title="the co-located scene among the first k",
      queries="test",
      archive="test",
      relevant=LOCATION,
      leave_out="query",
      headline=("recall@1", "recall@5", "recall@10", "mrr"),
      cuts=(1, 5, 10),
      whole=False,
      source="the usual hit rate of cross-modal retrieval; every archive image is a candidate",
    ),
    Protocol(
      name="ben14k-f1@5",
      title="BEN-14K: F1 of the labels of every answer, mean over five answers and queries",
      queries="test",
      archive="test",
      relevant=LABELS,
      leave_out="query",
      headline=("f1_item@5", "f1_query@5", "f1_csmae@5", "precision@5"),
      cuts=(5, 10),
      whole=False,
      source="CR-JEPA, arXiv 2606.00706, table 1",
      uncertain=_OPEN,
    ),
    Protocol(
      name="csmae-f1@10",
      title="BEN-14K: F1 of mean precision and mean recall of the labels of ten answers",
      queries="validation",
      archive="test",
      relevant=LABELS,
      leave_out="query",
      headline=tuple(f"{name}@10" for name in reversed(_F1)),
      cuts=(5, 10),
      whole=False,
      source="CSMAE, arXiv 2401.07782, and the retrieval.py that its authors published",
    ),
    Protocol(
      name="cbrsir-map",
      title="CBRSIR_VS, optical and SAR, 10 classes: mAP of the whole ranking",
      queries="test",
      archive="test",
      relevant=LABELS,
      leave_out="query",
      headline=("map", "precision@5"),
      cuts=(5, 10),
      whole=True,
      source="CR-JEPA, arXiv 2606.00706, section 4: mAP over the whole archive, and P@5",
      uncertain=_OPEN,
    ),
    Protocol(
      name="dsrsid-map",
      title="DSRSID, panchromatic and multispectral, 8 classes: mAP of the whole ranking",
      queries="test",
      archive="test",
      relevant=LABELS,
      leave_out="query",
      headline=("map", "precision@5"),
      cuts=(5, 10),
      whole=True,
      source="5,000 test pairs of 80,000 ask, and are searched in the other sensor, as in the code "
      "of DMCL (Remote Sensing 14(6):1319, 2022); mAP and P@5 as in CR-JEPA, arXiv 2606.00706",
      uncertain="CR-JEPA does not state its split; other papers search the 75,000 training pairs: "
      "give --archive train for those",
    ),
  )
}


def protocol_of(name: str) -> Protocol:
  """The protocol of a name.

  Raises:
    EvaluationError: there is none, with the nearest that is.
  """
  if name in PROTOCOLS:
    return PROTOCOLS[name]
  hint = did_you_mean(name, PROTOCOLS)
  raise EvaluationError(f"no protocol {name!r}; there are {', '.join(PROTOCOLS)}.{hint}")
