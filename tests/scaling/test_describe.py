"""Plans in words: what is warned of, what is proposed, and a step compiled in another process."""

from __future__ import annotations

import dataclasses

import pytest

from configs.linear import get_config
from tests.scaling.conftest import debug_config, preset_config
from xjepa_jax.config import HeadConfig, resolve
from xjepa_jax.errors import ConfigError, TrainingError
from xjepa_jax.scaling import proposal
from xjepa_jax.scaling.blueprint import slots_of
from xjepa_jax.scaling.describe import Plan, describe, plan, shrink
from xjepa_jax.scaling.layout import lay_out
from xjepa_jax.scaling.lowering import lower
from xjepa_jax.scaling.topologies import topology
from xjepa_jax.training.plan import step_flops

FSDP = {"replica": 1, "fsdp": -1, "tensor": 1}


def text(found: Plan) -> str:
  return "\n".join(describe(found))


def test_a_step_is_compiled_for_more_devices_than_there_are_and_described() -> None:
  config = debug_config((1, 16, 1))
  found = plan(config, "v5e-16", use_libtpu=False)
  assert found.compiled and found.compiled.devices == 16 and not found.failed
  assert found.above is not None and abs(found.above) < 0.05
  counted = sum(found.layout.parts.values())
  assert counted <= found.compiled.arguments < counted + 64 * 400
  words = text(found)
  for part in (
    "Topology v5e-16: 16 x TPU v5e, each 17.2 GB",
    "Mesh: replica 1, fsdp 16, tensor 1; 1 pairs a device of a batch of 16",
    "by 16 simulated CPUs",
    "  fsdp           all-gather",
    "MFU",
    "communication-bound",
  ):
    assert part in words, words


def test_what_does_not_fit_is_said_and_a_layout_that_fits_is_proposed() -> None:
  found = plan(preset_config("giant", {"replica": 8, "fsdp": 1}), "v5e-8", compiles=False)
  words = text(found)
  assert "WARNING: a device needs" in words and "does not fit" in words
  other = proposal.propose(found.layout)
  assert other is not None and proposal.fits(other)
  assert other.mesh["fsdp"] * other.mesh["tensor"] > 1
  assert f"Proposed: {' '.join(proposal.changes(found.layout, other))}" in words


def test_a_layout_that_is_fine_has_no_warning() -> None:
  found = plan(preset_config("large", FSDP), "v5p-128", compiles=False)
  assert "WARNING" not in text(found) and found.prediction.bound == "compute"


def test_parameters_that_would_cross_the_network_are_warned_of() -> None:
  found = plan(preset_config("base", FSDP), "2xv5p-128", compiles=False)
  assert "gathered over the network" in text(found)
  apart = preset_config("base", {"replica": 2, "fsdp": 64, "tensor": 1})
  assert "gathered over the network" not in text(plan(apart, "2xv5p-128", compiles=False))


def test_an_axis_that_does_not_divide_the_width_is_warned_of() -> None:
  found = plan(preset_config("tiny", FSDP), "v5p-512", compiles=False)
  assert "does not divide the model's width" in text(found)


def test_4096_devices_are_compiled_as_2048_with_as_many_samples_each() -> None:
  config = preset_config("large", {"replica": 16, "fsdp": 256, "tensor": 1})
  layout = lay_out(config, slots_of(config)[0], topology("v5p-8192"))
  smaller, mesh = shrink(layout)
  assert mesh == {"replica": 16, "fsdp": 128, "tensor": 1}
  assert smaller.training.batch == layout.rows * 16 * 128 == 2048


def test_heads_that_read_images_are_planned_with_the_network() -> None:
  config = preset_config("base", FSDP)
  new = {
    "linear": HeadConfig(pooling="canonical", cells=16, numbers=4, size=1020),
    "gradients": HeadConfig(pooling="gradients", cells=8, size=576),
  }
  with_layouts = dataclasses.replace(config, heads={**config.heads, **new})
  one, other = (plan(each, "v5p-128", compiles=False) for each in (config, with_layouts))
  assert 1 < step_flops(other.layout.experiment) / step_flops(one.layout.experiment) < 1.1
  assert one.layout.temporary <= other.layout.temporary < 1.2 * one.layout.temporary
  assert one.prediction.seconds < other.prediction.seconds < 1.1 * one.prediction.seconds


def test_without_steps_there_is_nothing_to_plan() -> None:
  with pytest.raises(ConfigError, match=r"'training\.steps' is 0.*--plan without --topology"):
    plan(resolve(get_config()), "v5e-8", compiles=False)


def test_a_layout_that_cannot_be_is_refused() -> None:
  with pytest.raises(ConfigError, match=r"training\.batch"):
    plan(debug_config((1, 64, 1)), "v5p-128", compiles=False)
  with pytest.raises(ConfigError, match="the 64 devices are no multiple of the 3"):
    plan(debug_config((3, -1, 1)), "v5p-128", compiles=False)


def test_a_step_that_does_not_compile_says_why() -> None:
  config = debug_config()
  slots = slots_of(config)[0]
  with pytest.raises(TrainingError, match=r"does not compile for 12 devices.*training\.batch"):
    lower(config, slots, {"replica": 3, "fsdp": 4, "tensor": 1}, "gpu")
