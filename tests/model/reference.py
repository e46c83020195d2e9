"""Transformers in plain NumPy and float64, from their definitions; parameters as `split` gives."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

Array = Any


def drawn(shapes: Any, seed: int = 0) -> Any:
  """Normal float32 values of these shapes: 0.3 around 0, or around 1 for the scales of norms."""
  rng = np.random.default_rng(seed)

  def draw(path: Any, leaf: Any) -> Array:
    middle = float(path[-1].key == "scale")
    return (middle + 0.3 * rng.standard_normal(leaf.shape)).astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def wide(tree: Any) -> Any:
  """The same in float64."""
  return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def layer(tree: Any, number: int) -> Any:
  """One layer's parameters out of a stack's."""
  return jax.tree.map(lambda x: x[number], tree)


def depth(stack: Any) -> int:
  """How many layers a stack has."""
  return len(jax.tree.leaves(stack)[0])


def linear(p: Any, x: Array) -> Array:
  return x @ p["kernel"] + p["bias"]


def layer_norm(p: Any, x: Array) -> Array:
  centred = x - x.mean(-1, keepdims=True)
  return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def gelu(x: Array) -> Array:
  return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def mlp(p: Any, x: Array) -> Array:
  return linear(p["down"], gelu(linear(p["up"], x)))


def sincos(places: Array, width: int) -> Array:
  """(N, 2) places to (N, width): sines and cosines of the row, then of the column."""
  table = np.zeros((len(places), width))
  for token, (row, column) in enumerate(places):
    for k in range(width // 4):
      rate = 10_000.0 ** (-k / (width // 4))
      quarters = [np.sin(row * rate), np.cos(row * rate), np.sin(column * rate)]
      for number, value in enumerate([*quarters, np.cos(column * rate)]):
        table[token, number * (width // 4) + k] = value
  return table


def rotated(x: Array, places: Array) -> Array:
  """(N, d) of one head at (N, 2) places: pairs of numbers as complex ones, turned."""
  quarter = x.shape[-1] // 4
  halves = []
  for axis in range(2):
    half = x[:, 2 * quarter * axis : 2 * quarter * (axis + 1)]
    turns = np.exp(1j * places[:, axis, None] * 100.0 ** (-np.arange(quarter) / quarter))
    turned = (half[:, :quarter] + 1j * half[:, quarter:]) * turns
    halves += [turned.real, turned.imag]
  return np.concatenate(halves, -1)


def softmax_attention(queries: Array, keys: Array, values: Array, allowed: Array = True) -> Array:
  """(Q, d), (K, d), (K, d) to (Q, d); `allowed` (Q, K) says who may look at whom."""
  scores = np.where(allowed, queries @ keys.T / np.sqrt(queries.shape[-1]), -np.inf)
  weights = np.exp(scores - scores.max(-1, keepdims=True))
  return weights / weights.sum(-1, keepdims=True) @ values


def attention(
  p: Any, x: Array, memory: Array, heads: int, allowed: Array = True, places: Array = None
) -> Array:
  """(N, D) tokens looking at a memory (K, D); the projections' columns are (head, q k v, d)."""
  size = x.shape[-1] // heads
  asking, asked = linear(p["qkv"], x), linear(p["qkv"], memory)
  found = []
  for head in range(heads):
    first = 3 * size * head
    queries = asking[:, first : first + size]
    keys, values = asked[:, first + size :][:, :size], asked[:, first + 2 * size :][:, :size]
    if places is not None:
      queries, keys = rotated(queries, places), rotated(keys, places)
    found.append(softmax_attention(queries, keys, values, allowed))
  return linear(p["out"], np.concatenate(found, -1))


def block(p: Any, x: Array, heads: int, allowed: Array = True, places: Array = None) -> Array:
  """A pre-norm layer over (N, D) tokens."""
  normed = layer_norm(p["norm1"], x)
  x = x + attention(p["attention"], normed, normed, heads, allowed, places)
  return x + mlp(p["mlp"], layer_norm(p["norm2"], x))


def trunk(stack: Any, x: Array, heads: int, allowed: Array = True, places: Array = None) -> Array:
  """All layers of a stack, one after the other."""
  for number in range(depth(stack)):
    x = block(layer(stack, number), x, heads, allowed, places)
  return x


def patches(image: Array, side: int) -> Array:
  """(H, W, C) to (N, side * side, C), pixel by pixel."""
  height, width, bands = image.shape
  found = []
  for top in range(0, height, side):
    for left in range(0, width, side):
      pixels = [image[top + i, left + j] for i in range(side) for j in range(side)]
      found.append(np.reshape(pixels, (side * side, bands)))
  return np.stack(found)
