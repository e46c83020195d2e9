"""The k largest inner products with an archive that is sharded over a mesh, exactly.

A full sort of the scores costs more than the products. So scores are looked at in groups of 64
neighbours: the k groups with the largest maxima hold the k largest scores, for each of these lies
in a group whose maximum is at least as large. Of equal scores the lower row comes first, here as
everywhere: `lax.top_k` takes the first of equals, and groups are put back in order before it.
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
# Rows whose scores are made and looked at before the next: of 64 queries they fit a core's cache
# (2 MiB). An accelerator has no such cache, and starts a kernel for every block.
_BLOCK = {"cpu": 1 << 13}
_BLOCK_ELSEWHERE = 1 << 17
# With fewer queries the time goes into reading the archive, and blocks of it would be copied.
_FEW = 8
_NONE = -jnp.inf


def block_rows(mesh: Mesh) -> int:
  """Rows of a block on the mesh's devices."""
  return _BLOCK.get(mesh.devices.flat[0].platform, _BLOCK_ELSEWHERE)


def place(values: np.ndarray, mesh: Mesh) -> jax.Array:
  """An array cut along its first axis over all devices, padded with zeros to equal shards.

  Args:
    values: (N, ...), the same in every process, which reads only what its devices get.
    mesh: all of its axes share the rows.

  Returns:
    (devices * n, ...), n a multiple of a group, and of a block if it is larger.
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
    mesh: that `place` put the archive on.
    k: hits of a query.
    recall: 1 for the exact answer. Less lets a TPU take the maxima of bins by `lax.approx_max_k`
      (Chern et al., 2022), with this expected share of the true hits; other devices stay exact.

  Returns:
    A function of the archive (A, K) float32, which of its rows may be hits (A,) bool, and queries
    (Q, K) float32, all as `place` lays them, the queries replicated. It gives scores (Q, k)
    float32, -inf where no row is left, and rows (Q, k) int32.
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
    return _merge((scores, at), nothing, k)

  return jax.jit(search, out_shardings=NamedSharding(mesh, whole))


def _products(queries: jax.Array, archive: jax.Array) -> jax.Array:
  """(Q, A) float32; the highest precision, for GPUs and TPUs would round the factors otherwise."""
  return lax.dot_general(
    queries,
    archive,
    (((1,), (1,)), ((), ())),
    precision=lax.Precision.HIGHEST,
    preferred_element_type=jnp.float32,
  )


def _largest(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
  """The k largest of each row (Q, A), and where they are."""
  queries, archive = scores.shape
  groups = archive // _GROUP
  if groups <= k:
    return lax.top_k(scores, k)
  grouped = scores.reshape(queries, groups, _GROUP)
  _, chosen = lax.top_k(grouped.max(axis=-1), k)
  chosen = jnp.sort(chosen, axis=-1)
  candidates = jnp.take_along_axis(grouped, chosen[:, :, None], axis=1).reshape(queries, -1)
  best, at = lax.top_k(candidates, k)
  return best, jnp.take_along_axis(chosen, at // _GROUP, axis=1) * _GROUP + at % _GROUP


def _merge(
  first: tuple[jax.Array, jax.Array], second: tuple[jax.Array, jax.Array], k: int
) -> tuple[jax.Array, jax.Array]:
  """The k best of two lists of scores and rows; of equals those of the first."""
  scores, rows = (jnp.concatenate(both, axis=1) for both in zip(first, second, strict=True))
  best, at = lax.top_k(scores, k)
  return best, jnp.take_along_axis(rows, at, axis=1)
