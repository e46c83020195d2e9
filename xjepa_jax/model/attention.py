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
  # Heads first: the products are then of whole matrices, for which XLA needs to copy less.
  first = jnp.swapaxes(queries, -2, -3) * (1.0 / math.sqrt(queries.shape[-1]))
  logits = [jnp.einsum("...hqd,...hkd->...hqk", first, jnp.swapaxes(each, -2, -3)) for each in keys]
  weights = jax.nn.softmax(jnp.concatenate(logits, axis=-1).astype(jnp.float32), axis=-1)
  weights = weights.astype(queries.dtype)
  ends = [sum(each.shape[-3] for each in keys[: i + 1]) for i in range(len(keys) - 1)]
  parts = jnp.split(weights, ends, axis=-1)
  found = sum(
    (
      jnp.einsum("...hqk,...hkd->...hqd", part, jnp.swapaxes(each, -2, -3))
      for part, each in zip(parts, values, strict=True)
    ),
    start=jnp.zeros((), queries.dtype),
  )
  return jnp.swapaxes(found, -2, -3)


def attend_in_blocks(queries: Array, keys: Array, values: Array, count: int, size: int) -> Array:
  """Attention of a context to itself, and of blocks of tokens to the context and to themselves.

  As `attend` with a mask would give it, without computing what is masked and without copies of the
  context's keys for each block; one softmax serves all tokens.

  Args:
    queries, keys, values: (..., n + count * size, heads, d), the context's n tokens first.
    count, size: number of blocks, and tokens of each.

  Returns:
    As `queries`.
  """
  q, k, v = (jnp.swapaxes(each, -2, -3) for each in (queries, keys, values))
  q = q * (1.0 / math.sqrt(q.shape[-1]))
  n = q.shape[-2] - count * size

  def own(x: Array) -> Array:
    """(..., heads, J, m, what) of the blocks."""
    return x[..., n:, :].reshape(*x.shape[:-2], count, size, x.shape[-1])

  def rows(x: Array) -> Array:
    """(..., heads, J m, what) again."""
    return x.reshape(*x.shape[:-3], count * size, x.shape[-1])

  to_context = jnp.einsum("...qd,...kd->...qk", q, k[..., :n, :])
  to_own = rows(jnp.einsum("...qd,...kd->...qk", own(q), own(k)))
  to_own = jnp.pad(
    to_own, [(0, 0)] * (to_own.ndim - 2) + [(n, 0), (0, 0)], constant_values=-jnp.inf
  )
  logits = jnp.concatenate([to_context, to_own], axis=-1).astype(jnp.float32)
  weights = jax.nn.softmax(logits, axis=-1).astype(q.dtype)
  found = jnp.einsum("...qk,...kd->...qd", weights[..., :n], v[..., :n, :])
  of_own = rows(jnp.einsum("...qk,...kd->...qd", own(weights[..., n:]), own(v)))
  found = jnp.concatenate([found[..., :n, :], found[..., n:, :] + of_own], axis=-2)
  return jnp.swapaxes(found, -2, -3)


def _fused(queries: Array, keys: Array, values: Array) -> Array:
  lead = queries.shape[:-3]
  flat = [each.reshape(-1, *each.shape[-3:]) for each in (queries, keys, values)]
  return jax.nn.dot_product_attention(*flat, implementation="cudnn").reshape(
    *lead, *queries.shape[-3:]
  )
