"""Where every array of a state lies, against a table written by hand."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from tests.training.parameters import init_params, paths
from xjepa_jax.config import default_config, resolve
from xjepa_jax.errors import ConfigError
from xjepa_jax.model import xjepa
from xjepa_jax.model.inputs import sensor_inputs
from xjepa_jax.objective.table import build
from xjepa_jax.sensors import Band, Sensor
from xjepa_jax.training.mesh import (
  PARAMETER_AXES,
  AxisRules,
  batch_sharding,
  make_mesh,
  parameter_shardings,
  replicated,
  slices_along_replica,
)
from xjepa_jax.training.optimizer import DECAY_RULES, decay_factors, optimizer
from xjepa_jax.training.target import momentum_schedule

SENSOR = Sensor("a camera", (Band("red", 10.0), Band("green", 10.0)), "uint8", "counts")

# Axes not named here lie whole on every device.
GOLDEN = {
  "encoder/trunk/blocks/attention/qkv/kernel": P(None, "fsdp", "tensor"),
  "encoder/trunk/blocks/attention/qkv/bias": P(None, "tensor"),
  "encoder/trunk/blocks/attention/out/kernel": P(None, "tensor", "fsdp"),
  "encoder/trunk/blocks/attention/out/bias": P(None, None),
  "encoder/trunk/blocks/mlp/up/kernel": P(None, "fsdp", "tensor"),
  "encoder/trunk/blocks/mlp/up/bias": P(None, "tensor"),
  "encoder/trunk/blocks/mlp/down/kernel": P(None, "tensor", "fsdp"),
  "encoder/trunk/blocks/mlp/down/bias": P(None, None),
  "encoder/trunk/blocks/norm1/scale": P(None, None),
  "encoder/trunk/blocks/norm1/bias": P(None, None),
  "encoder/trunk/register_tokens": P(None, None),
  "encoder/stems/radar/project/kernel": P(None, "fsdp"),
  "encoder/stems/radar/project/bias": P(None),
  "encoder/stems/optical/project/kernel": P(None, "fsdp"),
  "encoder/heads/layout/project/kernel": P("fsdp", None),
  "encoder/heads/layout/project/bias": P(None),
  "predictor/enter/kernel": P("fsdp", None),
  "predictor/leave/kernel": P(None, "fsdp"),
  "predictor/mask_token": P(None),
  "predictor/shared_queries": P(None, None),
  "predictor/sensor_tags/radar": P(None),
  "predictor/sensor_tags/optical": P(None),
  "objective/contrastive/log_scale": P(),
}


def golden(name: str) -> P:
  for start in ("predictor/blocks/", "encoder/own/radar/blocks/"):
    name = name.replace(start, "encoder/trunk/blocks/")
  return GOLDEN[name]


def test_every_parameter_lies_where_the_table_says() -> None:
  mesh = make_mesh(2, 2, 2)
  shardings = paths(parameter_shardings(mesh, jax.eval_shape(init_params, jax.random.key(0))))
  for name, sharding in shardings.items():
    assert sharding.spec == golden(name), name
  assert {name for name in shardings if "blocks" not in name} <= GOLDEN.keys()


def test_moments_averages_and_gradient_sums_lie_where_their_parameters_do() -> None:
  tx = optax.MultiSteps(
    optimizer(1e-3, 0, 10, momentum_schedule("constant", 0.9), clip=1.0), 2
  ).gradient_transformation()
  params = jax.eval_shape(init_params, jax.random.key(0))
  state = jax.eval_shape(tx.init, params)
  shardings = paths(parameter_shardings(make_mesh(2, 2, 2), state))
  of_parameters = 0
  for name, sharding in shardings.items():
    named = [parameter for parameter in paths(params) if name.endswith(f"/{parameter}")]
    of_parameters += len(named)
    assert sharding.spec == (golden(named[0]) if named else P()), name
  encoder = len(paths(params["encoder"]))
  assert of_parameters == 3 * len(paths(params)) + encoder  # mu, nu, sums; the target encoder


def parameters_of(stem: str, predictor: str, pooling: str, local: int) -> Any:
  config = default_config()
  config.model.update(preset="debug", stem=stem, registers=2, shared_layers=1, local=local)
  config.predictor.kind = predictor
  config.heads.semantic.update(pooling=pooling, size=64, hidden=8 * (pooling == "attention"))
  sensors = dict.fromkeys(("one", "another"), SENSOR)
  inputs = sensor_inputs(sensors, dict.fromkeys(sensors, (64, 64)), config.model.patch)
  model = xjepa.build(resolve(config), inputs, (("one", "another"),), jnp.float32)
  learned = build({"contrastive": {"learn_temperature": True}}).init(jax.random.key(0))
  return {**jax.eval_shape(model.init, jax.random.key(0)), "objective": learned}


MODELS = [("joint", "narrow", "attention", 0), ("bands", "queries", "canonical", 16)]


@pytest.mark.parametrize("settings", MODELS)
def test_every_parameter_of_the_model_has_a_place_and_a_decay(settings: Any) -> None:
  params = parameters_of(*settings)
  shardings = paths(parameter_shardings(make_mesh(2, 2, 2), params))
  factors = paths(decay_factors(params))
  assert shardings.keys() == factors.keys() == paths(params).keys()
  for name, leaf in paths(params).items():
    matrix = name.endswith("kernel") and "/maps/" not in name
    assert factors[name] == float(matrix), name
    assert not matrix or "fsdp" in shardings[name].spec or min(leaf.shape[-2:]) % 2, name


@pytest.mark.parametrize("rules", [PARAMETER_AXES, DECAY_RULES], ids=["axes", "decay"])
def test_every_rule_is_of_some_parameter(rules: Any) -> None:
  names = {name for settings in MODELS for name in paths(parameters_of(*settings))}
  first = {next(pattern for pattern, _ in rules if re.search(pattern, name)) for name in names}
  assert first == {pattern for pattern, _ in rules}


def test_a_dimension_that_the_mesh_axis_does_not_divide_is_whole() -> None:
  mesh = make_mesh(1, 8, 1)
  tree = {
    "up": {"kernel": jax.ShapeDtypeStruct((12, 64), np.float32)},
    "down": {"kernel": jax.ShapeDtypeStruct((64, 16), np.float32)},
  }
  shardings = parameter_shardings(mesh, tree)
  assert shardings["up"]["kernel"].spec == P(None, "tensor")
  assert shardings["down"]["kernel"].spec == P("tensor", "fsdp")


def test_an_unknown_parameter_is_named() -> None:
  tree = {"encoder": {"gate": jax.ShapeDtypeStruct((4,), np.float32)}}
  with pytest.raises(ConfigError, match="'encoder/gate'"):
    parameter_shardings(make_mesh(), tree)


def test_rules_that_cut_two_dimensions_along_one_axis_are_refused() -> None:
  tree = {"up": {"kernel": jax.ShapeDtypeStruct((16, 64), np.float32)}}
  with pytest.raises(ConfigError, match="'up/kernel'.*'fsdp'"):
    parameter_shardings(make_mesh(), tree, AxisRules(mlp="fsdp"))


def test_a_batch_is_cut_over_replica_and_fsdp_and_not_over_tensor() -> None:
  mesh = make_mesh(2, -1, 2)
  assert dict(mesh.shape) == {"replica": 2, "fsdp": 2, "tensor": 2}
  batch = jax.device_put(np.arange(8), batch_sharding(mesh))
  assert {shard.data.shape for shard in batch.addressable_shards} == {(2,)}
  assert len({str(shard.index) for shard in batch.addressable_shards}) == 4
  assert jax.device_put(np.arange(8), replicated(mesh)).addressable_shards[0].data.shape == (8,)
  assert make_mesh(devices=jax.devices()[:1]).size == 1


@pytest.mark.parametrize(
  ("sizes", "complaint"),
  [
    ((3, -1, 1), r"'mesh\.fsdp' is -1.*8 devices.*no multiple of the 3"),
    ((2, 2, 1), r"mesh\.replica = 2, mesh\.fsdp = 2, mesh\.tensor = 1 need 4 devices.*8"),
    ((-1, -1, 1), r"'mesh\.replica' and 'mesh\.fsdp' are -1"),
    ((1, 8, 0), r"'mesh\.tensor' is 0"),
  ],
)
def test_sizes_that_do_not_fit_the_devices_are_refused(
  sizes: tuple[int, int, int], complaint: str
) -> None:
  with pytest.raises(ConfigError, match=complaint):
    make_mesh(*sizes)


@dataclasses.dataclass(frozen=True)
class Fake:
  """What JAX looks at of a device of several slices."""

  id: int
  slice_index: int
  platform: str = "cpu"
  device_kind: str = "cpu"
  process_index: int = 0


def test_slices_lie_along_replica_in_whatever_order_devices_come() -> None:
  devices = [Fake(n, slice_index=n % 2) for n in range(16)]
  found = slices_along_replica((4, 2, 2), 2, devices)
  assert found.shape == (4, 2, 2)
  assert {each.id for each in found.ravel()} == set(range(16))
  for half in (found[:2], found[2:]):
    assert len({each.slice_index for each in half.ravel()}) == 1


def test_a_tpu_slice_is_not_cut_by_another_axis() -> None:
  devices = [Fake(n, n // 4, platform="tpu", device_kind="TPU v5p") for n in range(8)]
  with pytest.raises(ConfigError, match=r"'mesh.replica' is 1 and there are 2 TPU slices"):
    make_mesh(1, 8, 1, devices)
