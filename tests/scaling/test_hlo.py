"""Collectives of small programs: one written by hand, and some whose messages are known."""

# ruff: noqa: E501 (lines of HLO)
from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from tests.compiling import compile_quickly
from xjepa_jax.scaling.hlo import collectives, size_in_bytes
from xjepa_jax.training.mesh import make_mesh

MESH = {"replica": 2, "fsdp": 4, "tensor": 1}
TEXT = """HloModule step, entry_computation_layout={(f32[4]{0})->f32[16]{0}}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%fused (p: f32[8]) -> f32[2] {
  %p = f32[8]{0} parameter(0)
  %at = s32[] constant(2)
  ROOT %piece = f32[2]{0} dynamic-slice(%p, %at), dynamic_slice_sizes={2}
}

%body (t: (s32[], bf16[8])) -> (s32[], bf16[8]) {
  %t = (s32[], bf16[8]{0:T(8,128)(2,1)}) parameter(0)
  %x = bf16[8]{0} get-tuple-element(%t), index=1
  %gathered = bf16[32]{0} all-gather(%x), replica_groups=[2,4]<=[8], dimensions={0}, metadata={op_name="jit(step)/layer/dot"}
  %i = s32[] get-tuple-element(%t), index=0
  ROOT %out = (s32[], bf16[8]{0}) tuple(%i, %x)
}

%condition (c: (s32[], bf16[8])) -> pred[] {
  %c = (s32[], bf16[8]{0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%c), index=0
  %n = s32[] constant(5)
  ROOT %less = pred[] compare(%i.1, %n), direction=LT
}

ENTRY %main (start: f32[4]) -> f32[2] {
  %start = f32[4]{0} parameter(0)
  %pair = (s32[], bf16[8]{0}) tuple(%start)
  %loop = (s32[], bf16[8]{0}) while(%pair), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"6"}}
  %again = (s32[], bf16[8]{0}) while(%pair), condition=%condition, body=%body
  %big = f32[8]{0} broadcast(%start)
  %both = (f32[8]{0}, /*index=1*/f32[4]{0}) all-reduce(%big, /*index=1*/%start), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  %first = f32[8]{0} get-tuple-element(%both), index=0
  %second = f32[4]{0} get-tuple-element(%both), index=1
  %sent = f32[4]{0} collective-permute(%second), source_target_pairs={{0,4},{4,0}}
  %alone = f32[4]{0} all-reduce(%second), replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}, to_apply=%add
  ROOT %result = f32[2]{0} fusion(%first), kind=kLoop, calls=%fused
}
"""


def test_a_program_by_hand_is_counted_through_loops_tuples_and_slices() -> None:
  found = {(each.op, each.count): each for each in collectives(TEXT, MESH)}
  assert set(found) == {
    ("all-gather", 6 + 5),  # told, and counted from the loop's condition
    ("reduce-scatter", 1),
    ("all-reduce", 1),
    ("collective-permute", 1),
  }
  gather = found["all-gather", 11]
  assert (gather.size, gather.members, gather.axes) == (4 * 8 * 2, 4, ("fsdp",))
  assert gather.at == "jit(step)/layer/dot" and gather.wire == 11 * 64 * 3 / 4
  scatter = found["reduce-scatter", 1]
  assert scatter.summed and (scatter.size, scatter.members) == (32, 4)
  assert found["all-reduce", 1].size == 16 and not found["all-reduce", 1].summed
  assert found["collective-permute", 1].axes == ("replica",)


def test_bytes_of_types() -> None:
  assert size_in_bytes("(f32[2,3]{1,0}, bf16[4]{0:T(8,128)(2,1)}, pred[], u32[]{:S(2)})") == 37
  assert size_in_bytes("f8e4m3fn[16]{0}") == 16 and size_in_bytes("s4[3]") == 1


def test_fully_sharded_products_gather_weights_and_scatter_gradients() -> None:
  mesh = make_mesh(2, 4, 1)
  weights = NamedSharding(mesh, P(None, "fsdp"))
  rows = NamedSharding(mesh, P(("replica", "fsdp")))

  def step(w: jax.Array, x: jax.Array) -> jax.Array:
    def layer(x: jax.Array, w: jax.Array) -> tuple[jax.Array, None]:
      x = jax.lax.with_sharding_constraint(jnp.tanh(x @ w), rows)
      return x, None

    return w - jax.grad(lambda w: jnp.square(jax.lax.scan(layer, x, w)[0]).sum())(w)

  lowered = jax.jit(step, in_shardings=(weights, rows), out_shardings=weights).lower(
    jax.ShapeDtypeStruct((5, 32, 32), np.float32), jax.ShapeDtypeStruct((16, 32), np.float32)
  )
  found = collectives(compile_quickly(lowered).as_text(), dict(mesh.shape))
  totals: dict[tuple[str, tuple[str, ...]], int] = {}
  for each in found:
    key = (each.op, each.axes)
    totals[key] = totals.get(key, 0) + each.count * each.size
  matrix = 32 * 32 * 4
  assert totals == {
    ("all-gather", ("fsdp",)): 2 * 5 * matrix,
    ("reduce-scatter", ("fsdp",)): 5 * matrix,
    ("all-reduce", ("replica",)): 5 * matrix // 4,
  }
