"""Options go where the compiler knows them, and nowhere else."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from xjepa_jax.training.compiler_options import TABLE, compile_step, compile_with, options_for


def lowered() -> jax.stages.Lowered:
  return jax.jit(lambda x: x @ x).lower(jnp.ones((4, 4)))


@pytest.mark.parametrize("option", [each for each in TABLE if each.devices == "^gpu "])
def test_this_jaxlib_knows_the_options_of_gpus(
  option: tuple[str, bool], capsys: pytest.CaptureFixture[str]
) -> None:
  compile_with(lowered(), {option[0]: option[1]})
  assert capsys.readouterr().err == ""


def test_generations_get_their_own_and_one_device_gets_none() -> None:
  gpu = options_for("gpu", "NVIDIA H100 80GB HBM3", 8)
  assert gpu["xla_gpu_enable_latency_hiding_scheduler"] is True
  assert all(name.startswith("xla_gpu") for name in gpu)
  v5e, v5p = options_for("tpu", "TPU v5 lite", 8), options_for("tpu", "TPU v5", 8)
  assert v5e.keys() - v5p.keys() >= {"xla_tpu_enable_async_collective_fusion"}
  assert v5p and not any("gpu" in name for name in v5e)
  assert options_for("cpu", "cpu", 8) == {} == options_for("gpu", "NVIDIA H100 80GB HBM3", 1)


def test_an_option_that_the_compiler_does_not_know_is_left_out_and_named(
  capsys: pytest.CaptureFixture[str],
) -> None:
  found = compile_with(lowered(), {"xla_gpu_no_such_option": True})
  assert found(jnp.ones((4, 4)))[0, 0] == 4
  assert "does not know xla_gpu_no_such_option" in capsys.readouterr().err


def test_other_failures_are_not_hidden() -> None:
  with pytest.raises(jax.errors.JaxRuntimeError, match="xla_gpu_enable_latency"):
    compile_with(lowered(), {"xla_gpu_enable_latency_hiding_scheduler": "perhaps"})


def test_on_cpus_a_step_is_compiled_as_it_is() -> None:
  assert compile_step(lowered(), jax.devices(), hide=True)(jnp.ones((4, 4)))[0, 0] == 4
