"""Scaled dot-product attention, over all tokens or over a context plus blocks of queries.

Logits and softmax are float32 whatever the type of the activations. The block form computes what
a masked `attend` would give, without copying the context's keys for each block, so the predictor
encodes a context once for all of its target blocks.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from xjepa_jax.model.fill import HIDDEN
from xjepa_jax.model.layers import exact


def attend(
  queries: Array,
  keys: Array,
  values: Array,
  implementation: str = "xla",
  shown: Array | None = None,
) -> Array:
  """softmax(Q K' / sqrt(d)) V; logits and softmax are float32.

  Args:
    queries: (..., Q, heads, d).
    keys, values: (..., K, heads, d).
    implementation: "xla", or "cudnn" for the fused kernel of NVIDIA GPUs (bfloat16).
    shown: (..., K) bool, the keys that take part; None means all.

  Returns:
    (..., Q, heads, d).
  """
  if implementation == "cudnn":
    return _fused(queries, keys, values, shown)
  # Heads first: each product is then one of whole matrices, which XLA computes with fewer copies.
  q, k, v = (jnp.swapaxes(each, -2, -3) for each in (queries, keys, values))
  logits = _of_shown(_logits(q * (1.0 / math.sqrt(q.shape[-1])), k), shown)
  weights = jax.nn.softmax(logits, axis=-1).astype(q.dtype)
  return jnp.swapaxes(_weighted(weights, v), -2, -3)


def attend_in_blocks(
  queries: Array,
  keys: Array,
  values: Array,
  count: int,
  size: int,
  shown: Array | None = None,
) -> Array:
  """Attention of a context to itself, and of blocks of tokens to the context and to themselves.

  Gives what `attend` with a mask would, without computing the masked logits and without copying
  the context's keys for each block; one softmax serves all tokens.

  Args:
    queries, keys, values: (..., n + count * size, heads, d), the context's n tokens first.
    count, size: number of blocks, and tokens per block.
    shown: (..., n) bool, the context tokens that take part; None means all.

  Returns:
    An array of the same shape as `queries`.
  """
  q, k, v = (jnp.swapaxes(each, -2, -3) for each in (queries, keys, values))
  q = q * (1.0 / math.sqrt(q.shape[-1]))
  n = q.shape[-2] - count * size

  def own(x: Array) -> Array:
    """Select the blocks: (..., heads, J, m, columns)."""
    return x[..., n:, :].reshape(*x.shape[:-2], count, size, x.shape[-1])

  def rows(x: Array) -> Array:
    """Flatten the blocks again: (..., heads, J m, columns)."""
    return x.reshape(*x.shape[:-3], count * size, x.shape[-1])

  to_context = _of_shown(_logits(q, k[..., :n, :]), shown)
  to_own = rows(_logits(own(q), own(k)))
  # The context's own rows have no block, and exp(-inf) gives these entries a weight of exactly 0.
  to_own = jnp.pad(
    to_own, [(0, 0)] * (to_own.ndim - 2) + [(n, 0), (0, 0)], constant_values=-jnp.inf
  )
  logits = jnp.concatenate([to_context, to_own], axis=-1)
  weights = jax.nn.softmax(logits, axis=-1).astype(q.dtype)
  found = _weighted(weights[..., :n], v[..., :n, :])
  of_own = rows(_weighted(own(weights[..., n:]), own(v)))
  found = jnp.concatenate([found[..., :n, :], found[..., n:, :] + of_own], axis=-2)
  return jnp.swapaxes(found, -2, -3)


def _of_shown(logits: Array, shown: Array | None) -> Array:
  """Lower the logits (..., heads, Q, K) of keys that are not shown (..., K) until they weigh 0."""
  return logits if shown is None else jnp.where(shown[..., None, None, :], logits, HIDDEN)


@jax.custom_vjp
def _logits(queries: Array, keys: Array) -> Array:
  """(..., Q, K) float32 products of (..., Q, d) and (..., K, d).

  The logits are not rounded to bfloat16, which would resolve a logit of 10 only to 0.06. Their
  gradients are rounded, like those of all activations, so that the products of the backward pass
  have operands of one type.
  """
  return jnp.einsum(
    "...qd,...kd->...qk",
    queries,
    keys,
    precision=exact(queries),
    preferred_element_type=jnp.float32,
  )


def _logits_forward(queries: Array, keys: Array) -> tuple[Array, tuple[Array, Array]]:
  return _logits(queries, keys), (queries, keys)


def _logits_backward(kept: tuple[Array, Array], given: Array) -> tuple[Array, Array]:
  queries, keys = kept
  given, precision = given.astype(queries.dtype), exact(queries)
  return (
    jnp.einsum("...qk,...kd->...qd", given, keys, precision=precision),
    jnp.einsum("...qk,...qd->...kd", given, queries, precision=precision),
  )


_logits.defvjp(_logits_forward, _logits_backward)


def _weighted(weights: Array, values: Array) -> Array:
  return jnp.einsum("...qk,...kd->...qd", weights, values, precision=exact(values))


def _fused(queries: Array, keys: Array, values: Array, shown: Array | None) -> Array:
  # `jax.nn.dot_product_attention` takes a single batch axis.
  q, k, v = (each.reshape(-1, *each.shape[-3:]) for each in (queries, keys, values))
  mask = None
  if shown is not None:
    count, rows = keys.shape[-3], queries.shape[-3]
    mask = jnp.broadcast_to(shown.reshape(-1, 1, 1, count), (len(q), 1, rows, count))
  found = jax.nn.dot_product_attention(q, k, v, mask=mask, implementation="cudnn")
  return found.reshape(queries.shape)
