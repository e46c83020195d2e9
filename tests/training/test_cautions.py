"""What goes on and should be known is said."""

from __future__ import annotations

import dataclasses

import jax
import pytest
from jax.sharding import AbstractMesh

from tests.training.conftest import Small
from xjepa_jax.training.cautions import cautions
from xjepa_jax.training.experiment import Experiment


def parts(small: Small, accumulate: int) -> Experiment:
  training = dataclasses.replace(small.config.training, accumulate=accumulate)
  config = dataclasses.replace(small.config, training=training)
  return dataclasses.replace(small.experiment, config=config)


def test_terms_that_compare_samples_are_named_where_a_batch_is_cut_into_parts(small: Small) -> None:
  assert list(cautions(parts(small, 1))) == []
  (said,) = cautions(parts(small, 4))
  assert said.startswith("training.accumulate is 4: vicreg see 2 samples at a time and not 8")


@pytest.mark.parametrize(("fsdp", "whole"), [(8, False), (5, True)])
def test_a_mesh_that_does_not_divide_the_width_is_named(
  small: Small, fsdp: int, whole: bool
) -> None:
  mesh = AbstractMesh((1, fsdp, 1), ("replica", "fsdp", "tensor"))
  experiment = dataclasses.replace(small.experiment, mesh=mesh)  # type: ignore[arg-type]
  said = list(cautions(experiment))
  assert len(said) == whole
  if whole:
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(small.state.params))
    assert f"of {total / 1e6:,.1f} MB of parameters are whole on every device" in said[0]
