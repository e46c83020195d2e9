"""Scaled dot-product attention of queries to one or two sets of keys."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array


def attend(
  queries: Array, keys: Sequence[Array], values: Sequence[Array], implementation: str = "xla"
) -> Array:
  """softmax(Q K' / sqrt(d)) V over all the keys given; the softmax is taken in float32.

  Args:
    queries: (..., Q, heads, d).
    keys, values: sets of (..., K_i, heads, d); the sets are one sequence cut up, so that what is
      shared by many queries need not be copied beside what is not. Their leading dimensions
      broadcast against those of the queries.
    implementation: "xla", or "cudnn" for the fused kernel of NVIDIA GPUs (bfloat16, one set).

  Returns:
    (..., Q, heads, d).
  """
  if implementation == "cudnn" and len(keys) == 1:
    return _fused(queries, keys[0], values[0])
  scale = 1.0 / math.sqrt(queries.shape[-1])
  logits = [jnp.einsum("...qhd,...khd->...hqk", queries * scale, each) for each in keys]
  weights = jax.nn.softmax(jnp.concatenate(logits, axis=-1).astype(jnp.float32), axis=-1)
  weights = weights.astype(queries.dtype)
  ends = [sum(each.shape[-3] for each in keys[: i + 1]) for i in range(len(keys) - 1)]
  parts = jnp.split(weights, ends, axis=-1)
  return sum(
    (
      jnp.einsum("...hqk,...khd->...qhd", part, each)
      for part, each in zip(parts, values, strict=True)
    ),
    start=jnp.zeros((), queries.dtype),
  )


def _fused(queries: Array, keys: Array, values: Array) -> Array:
  lead = queries.shape[:-3]
  flat = [each.reshape(-1, *each.shape[-3:]) for each in (queries, keys, values)]
  return jax.nn.dot_product_attention(*flat, implementation="cudnn").reshape(
    *lead, *queries.shape[-3:]
  )
