"""Published retrieval protocols as data: which split queries which, and what counts as relevant.

A metric can only be compared with others that follow the same protocol. `uncertain` records what a
paper leaves open, and how that is handled here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from xjepa_jax.errors import EvaluationError, did_you_mean

LOCATION, LABELS = "location", "labels"


@dataclasses.dataclass(frozen=True)
class Protocol:
  """An evaluation protocol.

  Attributes:
    name: name on the command line and in a config.
    title: one-line description.
    queries, archive: split of the queries, and split that is searched.
    relevant: LOCATION, only the co-located scene; or LABELS, every scene that shares a label with
      the query.
    leave_out: what is not ranked: "query", the query's own image; "scene", its scene in all
      sensors.
    headline: metrics shown in its table; the first is the one to quote.
    cuts: all cut-offs k that are measured.
    whole: whether the whole ranking is measured too, for mAP.
    source: publication.
    uncertain: what the source leaves open, and how that is handled here.
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
    """The same protocol between other splits; "" keeps the published one."""
    return dataclasses.replace(
      self, queries=queries or self.queries, archive=archive or self.archive
    )

  def words(self) -> dict[str, str]:
    """A description for tables and reports."""
    found = {
      "protocol": f"{self.name}: {self.title}",
      "splits": f"queries {self.queries!r}, archive {self.archive!r}",
      "published": self.source,
    }
    return {**found, "uncertain": self.uncertain} if self.uncertain else found

  def in_splits(self, names: Mapping[str, str]) -> Protocol:
    """The same protocol with splits renamed: usual name -> the data set's name."""
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
    EvaluationError: there is none; the message suggests the nearest name.
  """
  if name in PROTOCOLS:
    return PROTOCOLS[name]
  hint = did_you_mean(name, PROTOCOLS)
  raise EvaluationError(f"no protocol {name!r}; there are {', '.join(PROTOCOLS)}.{hint}")
