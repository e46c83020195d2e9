"""Apply a term to a descriptor and to each of its prefixes that must be usable on its own.

Matryoshka representation learning (Kusupati et al., NeurIPS 2022, eq. 1) takes a weighted sum of
the losses of nested prefixes. Here it is their weighted mean, so that a term's weight keeps its
meaning.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective.term import DESCRIPTORS, Scalars, Term


def nested_loss(
  term: Term, params: dict[str, Any], outputs: Outputs, key: jax.Array
) -> tuple[jax.Array, Scalars]:
  """The term's loss on the whole descriptor and on its prefixes.

    (loss of the whole + sum over prefixes of weight * loss) / (1 + sum of weights)

  A term that does not use descriptors, or uses those of a head without prefixes, keeps its plain
  loss. All sizes share the term's parameters.

  Returns:
    () float32, and what the term logs for the whole descriptor, with each prefix's loss as
    "prefix/<size>".
  """
  whole, logged = term.loss(params, outputs, key)
  if term.needs != DESCRIPTORS:
    return whole, logged
  head = getattr(term, "on")  # noqa: B009, because only terms of descriptors have it
  total, weights = whole, 1.0
  for size, weight in outputs.prefixes.get(head, ()):
    part, _ = term.loss(params, _cut(outputs, head, size), key)
    total, weights = total + weight * part, weights + weight
    logged = {**logged, f"prefix/{size}": part}
  return total / weights, logged


def _cut(outputs: Outputs, head: str, size: int) -> Outputs:
  """Outputs in which one head's descriptors are cut to their first `size` numbers."""
  found = {sensor: values[:, :size] for sensor, values in outputs.descriptors[head].items()}
  return dataclasses.replace(outputs, descriptors={**outputs.descriptors, head: found})
