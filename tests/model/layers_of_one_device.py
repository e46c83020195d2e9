"""Says, in a process of one device, how far layers are from JAX's own products and gradients.

A worker of test_layers.py, whose process has eight devices, on which leading axes are not merged.
"""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from tests.compiling import compiled
from xjepa_jax.model.trunk import BlockSpec


def furthest(found: Any, expected: Any) -> float:
  """The largest difference, as a share of the largest number of the array that it is in."""
  shares = jax.tree.map(lambda a, b: jnp.abs(a - b).max() / jnp.abs(b).max(), found, expected)
  return float(max(jax.tree.leaves(shares)))


def main() -> None:
  """Prints what was found as JSON."""
  keys = jax.random.split(jax.random.key(0), 4)
  x, wanted = jax.random.normal(keys[0], (2, 3, 5, 8)), jax.random.normal(keys[1], (2, 3, 5, 6))
  kernel, bias = jax.random.normal(keys[2], (8, 6)), jax.random.normal(keys[3], (6,))

  def ours(x: Array, kernel: Array, bias: Array) -> Array:
    linear = BlockSpec(8, 2).linear(8, 6, nnx.Rngs(0))
    nnx.update(linear, {"kernel": kernel, "bias": bias})
    return linear(x)

  def plain(x: Array, kernel: Array, bias: Array) -> Array:
    return jnp.dot(x, kernel, precision="highest") + bias

  def both(call: Any) -> Any:
    value, pull = jax.vjp(call, x, kernel, bias)
    return value, pull(wanted)

  found, expected = compiled(lambda: both(ours)), compiled(lambda: both(plain))
  print(
    json.dumps(
      {
        "devices": jax.device_count(),
        "value": furthest(found[0], expected[0]),
        "gradients": [furthest(a, b) for a, b in zip(found[1], expected[1], strict=True)],
      }
    )
  )


if __name__ == "__main__":
  main()
