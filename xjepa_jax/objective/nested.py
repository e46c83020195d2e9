"""A descriptor that can be cut: its term sees every beginning that is to serve alone.

Matryoshka representation learning (Kusupati et al., NeurIPS 2022, eq. 1): a weighted sum of the
losses of nested beginnings. Here it is their mean, so that a term's weight keeps its meaning.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective.term import Scalars, Term


def nested(term: Term, head: str) -> Term:
  """The term on the whole descriptor and on its beginnings.

    (loss of the whole + sum over beginnings of weight * loss) / (1 + sum of weights)

  Args:
    term: that looks at the descriptors of a head.
    head: which one. One without beginnings, or none of the model's, leaves the term as it is.

  Returns:
    A term with the same parameters, shared by all sizes. It logs what the whole descriptor's does,
    and each beginning's loss as "prefix/<size>".
  """

  def loss(params: dict[str, Any], outputs: Outputs, key: jax.Array) -> tuple[jax.Array, Scalars]:
    whole, logged = term.loss(params, outputs, key)
    total, weights = whole, 1.0
    for size, weight in outputs.prefixes.get(head, ()):
      part, _ = term.loss(params, _cut(outputs, head, size), key)
      total, weights = total + weight * part, weights + weight
      logged = {**logged, f"prefix/{size}": part}
    return total / weights, logged

  return Term(term.init, loss)


def _cut(outputs: Outputs, head: str, size: int) -> Outputs:
  """Outputs of which one head gives the first `size` numbers of its descriptors only."""
  found = {sensor: values[:, :size] for sensor, values in outputs.descriptors[head].items()}
  return dataclasses.replace(outputs, descriptors={**outputs.descriptors, head: found})
