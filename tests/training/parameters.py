"""Parameters with the names and ranks of the model's, small enough to compile in no time."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

WIDTH, HIDDEN, NARROW, LAYERS, PATCH = 16, 64, 8, 3, 12


def _blocks(width: int) -> dict[str, Any]:
  return {
    "attention": {
      "qkv": {"kernel": (LAYERS, width, 3 * width), "bias": (LAYERS, 3 * width)},
      "out": {"kernel": (LAYERS, width, width), "bias": (LAYERS, width)},
    },
    "mlp": {
      "up": {"kernel": (LAYERS, width, 4 * width), "bias": (LAYERS, 4 * width)},
      "down": {"kernel": (LAYERS, 4 * width, width), "bias": (LAYERS, width)},
    },
    "norm1": {"scale": (LAYERS, width), "bias": (LAYERS, width)},
  }


SHAPES: dict[str, Any] = {
  "encoder": {
    "stems": {
      "radar": {"project": {"kernel": (PATCH, WIDTH), "bias": (WIDTH,)}},
      "optical": {"project": {"kernel": (PATCH + 1, WIDTH)}},
    },
    "own": {"radar": {"blocks": _blocks(WIDTH)}},
    "trunk": {"blocks": _blocks(WIDTH), "register_tokens": (2, WIDTH)},
    "heads": {"layout": {"project": {"kernel": (WIDTH, 10), "bias": (10,)}}},
  },
  "predictor": {
    "enter": {"kernel": (WIDTH, NARROW)},
    "blocks": _blocks(NARROW),
    "leave": {"kernel": (NARROW, WIDTH)},
    "mask_token": (NARROW,),
    "shared_queries": (4, NARROW),
    "sensor_tags": {"radar": (NARROW,), "optical": (NARROW,)},
  },
  "objective": {"contrastive": {"log_scale": ()}},
}


def paths(tree: Any) -> dict[str, Any]:
  """Leaves by path, as in "encoder/trunk/blocks/norm1/scale"."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def init_params(key: jax.Array, shapes: Any = SHAPES) -> Any:
  """Normal values of these shapes, each leaf with a key of its own."""
  leaves, tree = jax.tree.flatten(shapes, is_leaf=lambda node: isinstance(node, tuple))
  keys = jax.random.split(key, len(leaves))
  return jax.tree.unflatten(
    tree,
    [jax.random.normal(k, shape, jnp.float32) for k, shape in zip(keys, leaves, strict=True)],
  )


def init_few(key: jax.Array) -> Any:
  """Five of them, for what has to be compiled."""
  mlp = _blocks(WIDTH)["mlp"]
  return init_params(
    key, {"encoder": {"trunk": {"blocks": {"mlp": mlp}}}, "predictor": {"mask_token": (NARROW,)}}
  )
