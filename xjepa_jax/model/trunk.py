"""A pre-norm transformer whose layers are stacked and scanned.

One scanned layer keeps the time to compile independent of the depth. Unrolling all layers runs
7 % faster on a CPU but takes 1.5 times the memory (docs/architecture.md, decision 12).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from xjepa_jax.model.activation import ACTIVATIONS, on_cpu
from xjepa_jax.model.activation_sharding import keep_samples
from xjepa_jax.model.attention import attend
from xjepa_jax.model.layers import LayerNorm, Linear
from xjepa_jax.model.positions import rotate

# The named intermediates of a layer that the backward pass keeps (`checkpoint_name` below sets the
# names); everything else is recomputed.
_KEPT = ("qkv", "attended", "between", "up")
_REMAT = {
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  "full": None,  # save nothing but the layer's input
  "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
    names_which_can_be_saved=[],
    names_which_can_be_offloaded=list(_KEPT),
    offload_src="device",
    offload_dst="pinned_host",
  ),
}


@dataclasses.dataclass(frozen=True)
class BlockSpec:
  """Settings shared by all layers of a transformer.

  Attributes:
    width, heads: token width D, and the number of attention heads.
    mlp_ratio: hidden width of the MLP divided by D.
    activation: activation of the MLP, one of ACTIVATIONS.
    attention: attention implementation, see `attend`.
    remat: "none", "dots" or "full": how much the backward pass recomputes; "offload" keeps the
      named products in host memory instead.
    unroll: layers per iteration of the scan.
    dtype: the type in which products are computed; parameters are float32.
  """

  width: int
  heads: int
  mlp_ratio: float = 4.0
  activation: str = "gelu"
  attention: str = "xla"
  remat: str = "none"
  unroll: int = 1
  dtype: Any = jnp.float32

  @property
  def hidden(self) -> int:
    """Width of the MLP's hidden layer."""
    return int(self.width * self.mlp_ratio)

  def linear(self, inputs: int, outputs: int, rngs: nnx.Rngs) -> Linear:
    """A linear projection, initialised like the vision transformers' (Xavier uniform)."""
    return Linear(
      inputs,
      outputs,
      kernel_init=nnx.initializers.xavier_uniform(),
      dtype=self.dtype,
      param_dtype=jnp.float32,
      rngs=rngs,
    )

  def norm(self, rngs: nnx.Rngs) -> LayerNorm:
    """A layer norm over D, with mean and variance in float32."""
    return LayerNorm(self.width, epsilon=1e-6, dtype=self.dtype, param_dtype=jnp.float32, rngs=rngs)


class Attention(nnx.Module):
  """The projections around `attend`; the caller decides which tokens attend to which."""

  def __init__(self, spec: BlockSpec, rngs: nnx.Rngs):
    self.qkv = spec.linear(spec.width, 3 * spec.width, rngs)
    self.out = spec.linear(spec.width, spec.width, rngs)
    self.heads = spec.heads

  def project(self, x: Array, places: Array | None = None) -> tuple[Array, Array, Array]:
    """Queries, keys and values (..., N, heads, d) of (..., N, D), rotated if places are given."""
    joint = checkpoint_name(self.qkv(x), "qkv")
    # Heads are the outermost axis: a device that holds a slice of the columns then has queries,
    # keys and values of its own heads, and attention needs no communication.
    parts = joint.reshape(*joint.shape[:-1], self.heads, 3, -1)
    # Split rather than indexed: the gradient of indexing is a sum of three padded arrays.
    queries, keys, values = (part.squeeze(-2) for part in jnp.split(parts, 3, axis=-2))
    if places is not None:
      queries, keys = rotate(queries, places), rotate(keys, places)
    return queries, keys, values

  def merge(self, x: Array) -> Array:
    """Concatenate the heads (..., N, heads, d) and project to (..., N, D)."""
    return self.out(checkpoint_name(x.reshape(*x.shape[:-2], -1), "attended"))


class Mlp(nnx.Module):
  """Two linear projections with an activation in between."""

  def __init__(self, spec: BlockSpec, rngs: nnx.Rngs):
    self.up = spec.linear(spec.width, spec.hidden, rngs)
    self.down = spec.linear(spec.hidden, spec.width, rngs)
    self.activation = spec.activation

  def __call__(self, x: Array) -> Array:
    return self.down(ACTIVATIONS[self.activation](checkpoint_name(self.up(x), "up")))


class Block(nnx.Module):
  """One layer: self-attention over the tokens shown, then an MLP, each with a residual."""

  def __init__(self, spec: BlockSpec, rngs: nnx.Rngs):
    self.norm1 = spec.norm(rngs)
    self.attention = Attention(spec, rngs)
    self.norm2 = spec.norm(rngs)
    self.mlp = Mlp(spec, rngs)
    self.implementation = spec.attention

  def __call__(self, x: Array, places: Array | None = None, shown: Array | None = None) -> Array:
    queries, keys, values = self.attention.project(self.norm1(x), places)
    x = x + self.attention.merge(attend(queries, keys, values, self.implementation, shown))
    x = checkpoint_name(x, "between")
    return x + self.mlp(self.norm2(x))


class Trunk(nnx.Module):
  """`depth` identical layers, their parameters stacked along a leading axis and scanned.

  Args:
    depth: number of layers; with 0 the trunk is the identity.
    spec: settings of each layer.
    layer: kind of layer: a module built from (spec, rngs) whose call maps (x, *what) to x.
    rngs: random streams for the initial weights.
  """

  def __init__(
    self,
    depth: int,
    spec: BlockSpec,
    rngs: nnx.Rngs,
    layer: Callable[[BlockSpec, nnx.Rngs], nnx.Module] = Block,
  ):
    self.depth = depth
    self.remat = spec.remat
    self.unroll = spec.unroll
    if depth:
      self.blocks = _stack(depth, lambda rngs: layer(spec, rngs), rngs)

  def __call__(self, x: Any, *what: Any) -> Any:
    """Apply all layers to x; `what` is passed to each of them unchanged."""
    if not self.depth:
      return x
    definition, parameters = nnx.split(self.blocks)

    def layer(x: Any, parameters: Any) -> tuple[Any, None]:
      x = nnx.merge(definition, parameters)(keep_samples(x), *what)
      return keep_samples(x), None

    if self.remat != "none":
      layer = jax.checkpoint(layer, policy=_REMAT[self.remat], prevent_cse=False)
    elif on_cpu():
      # A scan copies everything a layer keeps onto stacks and back. On a CPU that takes longer than
      # recomputing norms, attention weights and activations: this saves 7 to 12 % of both passes.
      kept = jax.checkpoint_policies.save_only_these_names(*_KEPT)
      layer = jax.checkpoint(layer, policy=kept, prevent_cse=False)
    return jax.lax.scan(layer, keep_samples(x), parameters, unroll=min(self.unroll, self.depth))[0]


def _stack(depth: int, build: Callable[[nnx.Rngs], Any], rngs: nnx.Rngs) -> Any:
  @nnx.split_rngs(splits=depth)
  @nnx.vmap(in_axes=0, out_axes=0)
  def stacked(rngs: nnx.Rngs) -> Any:
    return build(rngs)

  return stacked(rngs)
