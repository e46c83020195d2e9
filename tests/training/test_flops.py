"""FLOPs by arithmetic: against XLA's own count, published counts, and sums by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax import Array

from xjepa_jax.config import HeadConfig
from xjepa_jax.model.gradients import DIRECTIONS, oriented_gradients
from xjepa_jax.model.inputs import SensorInput
from xjepa_jax.model.layout import CanonicalLayout, Source, token_parts
from xjepa_jax.model.local import LOCAL_MLP_RATIO, PARTS, PIECES, LocalNetwork, features, structure
from xjepa_jax.model.statistics import STATISTICS_CELLS, STATISTICS_PIECES, statistics
from xjepa_jax.model.trunk import BlockSpec
from xjepa_jax.sensors import Band, Sensor
from xjepa_jax.training import flops
from xjepa_jax.training.device_peaks import peak_flops

WIDTH, HEADS, TOKENS, RATIO = 128, 4, 96, 4
LAYER = {
  "qkv": (WIDTH, 3 * WIDTH),
  "out": (WIDTH, WIDTH),
  "up": (WIDTH, RATIO * WIDTH),
  "down": (RATIO * WIDTH, WIDTH),
}


def layer(weights: dict[str, Array], x: Array) -> Array:
  queries, keys, values = jnp.split((x @ weights["qkv"]).reshape(TOKENS, HEADS, -1), 3, axis=-1)
  scores = jnp.einsum("nhd,mhd->hnm", queries, keys)
  mixed = jnp.einsum("hnm,mhd->nhd", jax.nn.softmax(scores), values)
  x = x + mixed.reshape(TOKENS, WIDTH) @ weights["out"]
  return x + jax.nn.relu(x @ weights["up"]) @ weights["down"]


def counted(function: Callable[..., Any], *shapes: Any) -> float:
  cost = jax.jit(function).lower(*shapes).compile().cost_analysis()
  assert cost is not None
  return cost["flops"]


def test_a_layer_forward_and_backward_is_what_xla_counts() -> None:
  weights = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in LAYER.items()}
  x = jax.ShapeDtypeStruct((TOKENS, WIDTH), jnp.float32)
  ours = flops.block(WIDTH, RATIO, TOKENS)
  assert counted(layer, weights, x) == pytest.approx(ours, rel=0.03)

  def loss(weights: dict[str, Array], x: Array) -> Array:
    return jnp.square(layer(weights, x)).sum()

  backward = jax.value_and_grad(loss, argnums=(0, 1))
  assert counted(backward, weights, x) == pytest.approx(3 * ours, rel=0.03)


def test_a_stem_is_what_xla_counts() -> None:
  patches = jax.ShapeDtypeStruct((TOKENS, 8 * 8 * 12), jnp.float32)
  weight = jax.ShapeDtypeStruct((8 * 8 * 12, WIDTH), jnp.float32)
  assert counted(jnp.matmul, patches, weight) == flops.stem(TOKENS, 8, 12, WIDTH)


def test_vit_base_has_its_published_17_6_billion_multiply_adds() -> None:
  # ViT-B/16 at 224 pixels with a class token, as timm lists it.
  total = flops.stem(196, 16, 3, 768) + flops.trunk(768, 4, 12, 197)
  assert total / 2 == pytest.approx(17.58e9, rel=0.003)


def test_a_predictor_counts_each_query_with_what_it_sees() -> None:
  context, targets, blocks, width = 20, 24, 4, 64
  seen = sum([context] * context) + sum([context + targets // blocks] * targets)
  tokens = context + targets
  by_hand = 2 * 2 * width * seen + tokens * 2 * width * width * (4 + 2 * 3)
  by_hand = 5 * by_hand + 2 * 96 * width * (context + targets)
  assert flops.predictor(96, width, 3, 5, context, targets, blocks) == pytest.approx(by_hand)


def test_shared_queries_see_the_context_and_targets_see_both() -> None:
  width, queries, context, targets = 32, 16, 20, 24
  memory = queries + context
  layers = 2 * flops.block(width, 4, memory)
  cross = 2 * width * width * (2 * targets + 2 * memory) + 4 * targets * memory * width
  cross += 2 * 2 * targets * width * 4 * width
  ends = 2 * 96 * width * (context + targets)
  found = flops.query_predictor(96, width, 4, 2, context, targets, queries)
  assert found == pytest.approx(layers + cross + ends)


def test_a_head_projects_each_cell_and_its_hidden_layer_too() -> None:
  assert flops.head(192, 512, cells=64) == 64 * 2 * 192 * (512 // 64)
  assert flops.head(192, 512, 96, cells=64) == 64 * 2 * (192 * 96 + 96 * (512 // 64))
  assert flops.head(192, 256, 96) == 2 * (192 * 96 + 96 * 256)


def test_gradients_of_an_image_are_what_xla_counts() -> None:
  images = jax.ShapeDtypeStruct((1, 64, 96, 12), jnp.float32)
  ours = flops.gradients(64, 96, 12, 16, DIRECTIONS)
  # What is no product, differences and directions, comes on top.
  assert ours < counted(lambda x: oriented_gradients(x, 16), images) < 1.2 * ours


def test_statistics_of_an_image_are_what_xla_counts() -> None:
  images = jax.ShapeDtypeStruct((1, 64, 96, 12), jnp.float32)
  ours = flops.statistics(64, 96, 12, STATISTICS_PIECES, STATISTICS_CELLS, DIRECTIONS)
  assert ours < counted(statistics, images) < 1.3 * ours


@pytest.mark.parametrize("grid", [(8, 8), (32, 32)])
def test_a_canonical_layout_is_what_xla_counts(grid: tuple[int, int]) -> None:
  head, tokens = HeadConfig(pooling="canonical", cells=16, numbers=4, size=512), grid[0] * grid[1]
  layout = CanonicalLayout(head, {"a": 3}, {"tokens": Source(WIDTH, grid)}, nnx.Rngs(0))
  images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  seen = jax.ShapeDtypeStruct((1, tokens, WIDTH), jnp.float32)
  whole = counted(lambda x, y: layout("a", x, y, None), images, seen)
  gradients = counted(lambda x: oriented_gradients(x, 16), images)
  split = token_parts(16, grid)
  assert split == max(16 // grid[0], 1)
  ours = flops.canonical(16, 4, DIRECTIONS) + flops.addition(WIDTH, tokens, 16, 4, split)
  assert whole - gradients == pytest.approx(ours, rel=0.05)


def test_the_local_network_of_an_image_is_what_xla_counts() -> None:
  given = SensorInput(Sensor("s", (Band("a", 10), Band("b", 10)), "float32", "dB"), 64, 96, 8)
  spec = BlockSpec(16, 1, LOCAL_MLP_RATIO)
  network = LocalNetwork({"s": given}, spec, 1, WIDTH, nnx.Rngs(0))
  images = jax.ShapeDtypeStruct((1, 64, 96, 2), jnp.float32)
  whole = counted(lambda x: network.tokens(network({"s": x})["s"], None), images)
  described = counted(lambda x: structure(x, (32, 48)), images)
  ours = flops.structure(64, 96, 2, 32, 48, DIRECTIONS)
  assert ours < described < 1.2 * ours
  patches = 8 * 12
  ours = flops.local(PIECES**2 * features(2), 16, 16, 1, PARTS**2 * patches, patches, WIDTH)
  assert whole - described == pytest.approx(ours, rel=0.1)


def test_a_step_is_the_sum_of_its_parts_and_grows_with_the_batch() -> None:
  sizes = {
    "contexts": [(8, 12), (8, 2)],
    "targets": [(8, 12), (8, 2)],
    "routes": [2, 2],
    "tokens": 64,
    "context_tokens": 26,
    "target_tokens": 40,
    "blocks": 4,
    "width": 192,
    "depth": 3,
    "mlp_ratio": 4,
    "predictor_width": 96,
    "predictor_depth": 2,
    "heads": [flops.head(192, 256)],
  }
  one = flops.step(pairs=1, **sizes)  # type: ignore[arg-type]
  by_hand = 0.0
  for bands in (12, 2):
    by_hand += 2 * 64 * 64 * bands * 192 + 3 * flops.block(192, 4, 64)  # target, forward only
    by_hand += 2 * (2 * 26 * 64 * bands * 192)  # stem: forward, and the gradient of its weights
    by_hand += 3 * (3 * flops.block(192, 4, 26) + 2 * 192 * 256)
    by_hand += 3 * flops.predictor(192, 96, 4, 2, 26, 80, 8)
  assert one == pytest.approx(by_hand)
  assert flops.step(pairs=64, **sizes) == pytest.approx(64 * one)  # type: ignore[arg-type]
  more = flops.step(pairs=1, **sizes, images=[1e6, 2e6])  # type: ignore[arg-type]
  assert more == pytest.approx(one + 3e6)  # forward only
  more = flops.step(pairs=1, **sizes, parts=1e6)  # type: ignore[arg-type]
  assert more == pytest.approx(one + 2 * (3 + 1) * 1e6)  # both contexts, and both targets


@pytest.mark.parametrize(
  ("kind", "peak"),
  [
    ("TPU v4", 275e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5", 459e12),
    ("TPU v5p", 459e12),
    ("TPU v6 lite", 918e12),
    ("NVIDIA A100-SXM4-80GB", 312e12),
    ("NVIDIA H100 80GB HBM3", 989.4e12),
    ("NVIDIA H100 PCIe", 756e12),
    ("NVIDIA H200", 989.4e12),
    ("NVIDIA L40S", 362e12),
    ("NVIDIA L4", 121e12),
    ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", None),
    ("TPU v99", None),
    ("cpu", None),
  ],
)
def test_the_peak_of_a_device_is_found_by_its_kind(kind: str, peak: float | None) -> None:
  assert peak_flops(kind) == peak


def test_float32_products_have_a_peak_of_their_own() -> None:
  assert peak_flops("NVIDIA H100 80GB HBM3", "float32") == 494.7e12
  assert peak_flops("TPU v5 lite", "float32") == 197e12
  assert peak_flops("TPU v5 lite", "float64") is None
