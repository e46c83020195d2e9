"""Baselines that need no training: raw gradients, and the linear layout.

The linear layout is fitted on training pairs (`training.canonical`). It is ranked exactly as an
encoder is, on the same images and pairs and by the same protocol. A network that finds less is not
worth its training, since the fit takes only seconds.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from xjepa_jax.config import Config, DataConfig, HeadConfig, ModelConfig
from xjepa_jax.export import export_encoder, load_encoder
from xjepa_jax.model.encoder import has_network
from xjepa_jax.retrieval.describe import centres, describe_by_several
from xjepa_jax.retrieval.directions import Row
from xjepa_jax.retrieval.end_evaluation import joined
from xjepa_jax.retrieval.evaluating.encoder_vectors import encoder_vectors
from xjepa_jax.retrieval.protocol_rows import scene_rows
from xjepa_jax.retrieval.protocols import Protocol
from xjepa_jax.retrieval.relevance import label_sets
from xjepa_jax.retrieval.scene_vectors import SceneVectors
from xjepa_jax.training import canonical
from xjepa_jax.training.experiment import Experiment, like, open_experiment

LINEAR, GRADIENTS = "linear", "gradients"
# With the scale that int8 quantisation adds, 1,020 numbers take exactly 1 KiB.
HEADS = {
  LINEAR: HeadConfig(pooling="canonical", cells=16, numbers=4, size=1020),
  GRADIENTS: HeadConfig(pooling="gradients", cells=8, size=576),
}


@dataclasses.dataclass(frozen=True)
class ClosedForm:
  """Table rows, and for each method a description of how it was made."""

  rows: Sequence[Row] = ()
  protocol: dict[str, str] = dataclasses.field(default_factory=dict)


def closed_form(experiment: Experiment, protocol: Protocol) -> ClosedForm:
  """Fits the closed-form baselines and ranks them under a protocol.

  The result is empty if the run itself has no network, or if its config omits these baselines.

  Every process has to call this.
  """
  if not has_network(experiment.config.model) or not experiment.config.evaluation.linear:
    return ClosedForm()
  plain = like(experiment, without_network(experiment.config))
  fitted = _fitted(plain)
  describe, centre = fitted.describe, fitted.centre
  splits = dict.fromkeys((protocol.archive, protocol.queries))
  most = plain.config.evaluation.pairs
  found = {split: describe_by_several(plain, {"": describe}, split, most)[""] for split in splits}
  rows: list[Row] = []
  for head in HEADS:
    scenes = joined(found, head, centre, {})
    labels = label_sets(scenes.labels)
    rows += scene_rows(protocol, scenes, labels, (head, head))
    for size in _beginnings(experiment.config) if head == LINEAR else ():
      name = f"{LINEAR}, first {size}"
      rows += scene_rows(protocol, scenes.cut(size), labels, (name, name))
  return ClosedForm(
    rows,
    fitted.protocol,
  )


def closed_form_vectors(
  directory: str, splits: Sequence[str], train: str, sensors: Sequence[str], most: int
) -> tuple[dict[str, SceneVectors], dict[str, str]]:
  """Closed-form descriptors of a data set's pairs, without a training run.

  Args:
    directory: directory of the data set.
    splits: splits whose pairs are described.
    train: split on whose pairs the linear layout is fitted.
    sensors: sensors to describe.
    most: maximum number of pairs to fit on.

  Returns:
    Descriptors by method ("linear" and "gradients"), and a description of how each was made.

  Raises:
    XJepaError: the pairs cannot be read, or their images cannot be cut into cells.
  """
  data = DataConfig(
    directories=(directory,),
    sensors=tuple(sensors),
    train=train,
    validation=splits[0],
    test=splits[0],
  )
  config = without_network(Config(data=data))
  evaluation = dataclasses.replace(config.evaluation, linear=most)
  plain = open_experiment(dataclasses.replace(config, evaluation=evaluation))
  fitted = _fitted(plain)
  # `encoder_vectors` takes a loaded encoder, so the fit is exported and read back.
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "encoder")
    export_encoder(path, plain.model, fitted.encoder, fitted.centre, LINEAR, {}, "")
    encoder = load_encoder(path)
  return {
    head: encoder_vectors(encoder, directory, splits, head) for head in HEADS
  }, fitted.protocol


@dataclasses.dataclass(frozen=True)
class _Fitted:
  """An encoder with the heads `HEADS`, its describe function, centres, and a description."""

  encoder: Any
  describe: Any
  centre: Mapping[str, Mapping[str, np.ndarray]]
  protocol: dict[str, str]


def _fitted(plain: Experiment) -> _Fitted:
  head = dataclasses.replace(HEADS[LINEAR], fitted=plain.config.evaluation.linear)
  fit = canonical.fit(plain, {LINEAR: head})[LINEAR]
  # The random parameters are only a template, whose maps the fitted ones replace.
  drawn = plain.model.init(jax.random.key(0))["encoder"]
  encoder = canonical.with_maps(drawn, LINEAR, fit.maps)
  describe = functools.partial(plain.describe, encoder)
  (centre, _) = centres(plain, {"": describe})[""]
  protocol = {
    LINEAR: f"{HEADS[LINEAR].size:,} numbers, a KiB as int8; {fit}",
    GRADIENTS: f"{HEADS[GRADIENTS].size} numbers: oriented gradients of 8 x 8 cells as they are",
  }
  return _Fitted(encoder, describe, centre, protocol)


def _beginnings(config: Config) -> Sequence[int]:
  """Prefix sizes of the head ranked first, at which the linear layout is measured too."""
  found = config.heads[config.evaluation.head].prefixes
  return [size for size in found if size < HEADS[LINEAR].size]


def without_network(config: Config) -> Config:
  """The config of the closed-form baselines on the same pairs and images."""
  return dataclasses.replace(
    config,
    model=ModelConfig(preset="none"),
    heads=HEADS,
    objective={},
    training=dataclasses.replace(config.training, steps=0),
    evaluation=dataclasses.replace(config.evaluation, head=LINEAR),
  )


def finds_less(rows: Sequence[Row], plain: Sequence[Row]) -> str:
  """A warning with advice if the network finds less than the linear layout, else "".

  Args:
    rows: the network's rows, by the head ranked first.
    plain: rows of the closed-form baselines for the same directions, `ClosedForm.rows`.
  """
  own = {(row.query, row.archive): row.metrics["recall@1"] for row in rows if _located(row)}
  theirs = {
    (row.query, row.archive): row.metrics["recall@1"]
    for row in plain
    if row.method == LINEAR and _located(row)
  }
  both = [(own[way], theirs[way]) for way in own.keys() & theirs.keys()]
  # Without a common direction both are 0, and the network is not found to be worse.
  network, linear = np.mean(both, axis=0) if both else (0.0, 0.0)
  if network >= linear:
    return ""
  return (
    f"The network finds less than the linear layout, which took no training: R@1 {network:.1%} "
    f"against {linear:.1%}, mean over directions. Search with that (configs/linear.py, the same "
    "data), or start the network from it (a head of the pooling 'canonical', as in "
    "configs/optical_sar.py)."
  )


def _located(row: Row) -> bool:
  return "recall@1" in row.metrics
