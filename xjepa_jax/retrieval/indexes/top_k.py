"""Exact search for the k largest inner products with an archive sharded over a mesh.

A full sort of the scores would cost more than the products. Scores are therefore reduced in groups
of 64 neighbours: the k groups with the largest maxima contain the k largest scores, because each of
these lies in a group whose maximum is at least as large. Among equal scores the lower row comes
first, here as everywhere: `lax.top_k` takes the first of equals, and the chosen groups are sorted
before it is applied.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_GROUP = 64
# Rows per block. On a CPU the scores of 64 queries then fit into a core's cache (2 MiB). An
# accelerator has no such cache, and starts a kernel for every block.
_BLOCK = {"cpu": 1 << 13}
_BLOCK_ELSEWHERE = 1 << 17
# With fewer queries, reading the archive dominates, and splitting it into blocks would copy it.
_FEW = 8
_NONE = -jnp.inf


def block_rows(mesh: Mesh) -> int:
  """Rows per block on the mesh's devices."""
  return _BLOCK.get(mesh.devices.flat[0].platform, _BLOCK_ELSEWHERE)


def place(values: np.ndarray, mesh: Mesh) -> jax.Array:
  """Shards an array along its first axis over all devices, padded with zeros to equal shards.

  Args:
    values: (N, ...), the same in every process; each reads only what its devices need.
    mesh: all of its axes share the rows.

  Returns:
    (devices * n, ...), with n a multiple of a group, and of a block if n is larger than that.
  """
  devices, block = mesh.size, block_rows(mesh)
  rows = -(-max(len(values), 1) // devices)
  unit = block if rows > block else _GROUP
  rows = -(-rows // unit) * unit

  def shard(where: tuple[slice, ...] | None) -> np.ndarray:
    start = where[0].start or 0 if where else 0
    found = values[start : start + rows]
    if len(found) == rows:
      return np.ascontiguousarray(found)
    whole = np.zeros((rows, *values.shape[1:]), values.dtype)
    whole[: len(found)] = found
    return whole

  sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
  return jax.make_array_from_callback((devices * rows, *values.shape[1:]), sharding, shard)


@functools.lru_cache(maxsize=32)
def searcher(
  mesh: Mesh, k: int, recall: float
) -> Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
  """The compiled search.

  Args:
    mesh: mesh on which `place` put the archive.
    k: hits per query.
    recall: 1 for the exact result. Less lets a TPU take the maxima of bins with `lax.approx_max_k`
      (Chern et al., 2022), with this expected fraction of the true hits; other devices stay exact.

  Returns:
    A function of the archive (A, K) float32, the mask of rows that may be hits (A,) bool, both laid
    out by `place`, and the replicated queries (Q, K) float32. It returns scores (Q, k) float32,
    -inf where no row is left, and rows (Q, k) int32.
  """
  platform, block = mesh.devices.flat[0].platform, block_rows(mesh)
  axes = mesh.axis_names
  approximate = recall < 1 and platform == "tpu"

  def shard_search(
    archive: jax.Array, allowed: jax.Array, queries: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    rows, count = len(archive), len(queries)

    def look(archive: jax.Array, allowed: jax.Array) -> tuple[jax.Array, jax.Array]:
      scores = jnp.where(allowed, _products(queries, archive), _NONE)
      if approximate:
        return lax.approx_max_k(scores, min(k, len(archive)), recall_target=recall)
      return _largest(scores, min(k, len(archive)))

    if approximate or count < _FEW or rows <= block:
      best, at = look(archive, allowed)
    else:

      def step(
        found: tuple[jax.Array, jax.Array], some: tuple[jax.Array, jax.Array, jax.Array]
      ) -> tuple[tuple[jax.Array, jax.Array], None]:
        number, part, part_allowed = some
        scores, places = look(part, part_allowed)
        return _merge(found, (scores, places + number * block), k), None

      nothing = jnp.full((count, k), _NONE), jnp.zeros((count, k), jnp.int32)
      blocks = rows // block
      (best, at), _ = lax.scan(
        step,
        # shard_map wants a scan's carry to vary over the mesh if its result does.
        jax.tree.map(lambda x: lax.pcast(x, axes, to="varying"), nothing),
        (
          jnp.arange(blocks),
          archive.reshape(blocks, block, -1),
          allowed.reshape(blocks, block),
        ),
      )
    return best, at + lax.axis_index(axes) * rows

  rows, whole = PartitionSpec(axes), PartitionSpec()
  answers = PartitionSpec(None, axes)
  sharded = jax.shard_map(
    shard_search, mesh=mesh, in_specs=(rows, rows, whole), out_specs=(answers, answers)
  )

  def search(
    archive: jax.Array, allowed: jax.Array, queries: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    scores, at = sharded(archive, allowed, queries)
    nothing = jnp.full((len(queries), k), _NONE), jnp.zeros((len(queries), k), jnp.int32)
    # Selects the k best over all shards; merging with empty hits pads to k.
    return _merge((scores, at), nothing, k)

  return jax.jit(search, out_shardings=NamedSharding(mesh, whole))


def _products(queries: jax.Array, archive: jax.Array) -> jax.Array:
  """(Q, A) float32. At less than the highest precision GPUs and TPUs would round the factors."""
  return lax.dot_general(
    queries,
    archive,
    (((1,), (1,)), ((), ())),
    precision=lax.Precision.HIGHEST,
    preferred_element_type=jnp.float32,
  )


def _largest(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
  """The k largest scores of each row (Q, A), and their positions."""
  queries, archive = scores.shape
  groups = archive // _GROUP
  if groups <= k:
    return lax.top_k(scores, k)
  grouped = scores.reshape(queries, groups, _GROUP)
  _, chosen = lax.top_k(grouped.max(axis=-1), k)
  # In row order again, so that `top_k` prefers the lower row among equals.
  chosen = jnp.sort(chosen, axis=-1)
  candidates = jnp.take_along_axis(grouped, chosen[:, :, None], axis=1).reshape(queries, -1)
  best, at = lax.top_k(candidates, k)
  return best, jnp.take_along_axis(chosen, at // _GROUP, axis=1) * _GROUP + at % _GROUP


def _merge(
  first: tuple[jax.Array, jax.Array], second: tuple[jax.Array, jax.Array], k: int
) -> tuple[jax.Array, jax.Array]:
  """The k best of two lists of scores and rows; among equals those of the first list."""
  scores, rows = (jnp.concatenate(both, axis=1) for both in zip(first, second, strict=True))
  best, at = lax.top_k(scores, k)
  return best, jnp.take_along_axis(rows, at, axis=1)
