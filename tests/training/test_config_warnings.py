"""What goes on and should be known is said."""

from __future__ import annotations

import dataclasses

import jax
import pytest
from jax.sharding import AbstractMesh

from tests.training.conftest import Small
from xjepa_jax.objective.latent import Latent
from xjepa_jax.objective.objective import Objective
from xjepa_jax.training.config_warnings import config_warnings
from xjepa_jax.training.experiment import Experiment


def parts(small: Small, accumulate: int) -> Experiment:
  training = dataclasses.replace(small.config.training, accumulate=accumulate)
  config = dataclasses.replace(small.config, training=training)
  return dataclasses.replace(small.experiment, config=config)


def batches(small: Small, batch: int, **data: object) -> Experiment:
  """The experiment with batches of another size; the training split has 128 pairs."""
  config = dataclasses.replace(
    small.config,
    training=dataclasses.replace(small.config.training, batch=batch),
    data=dataclasses.replace(small.config.data, **data),  # type: ignore[arg-type]
  )
  return dataclasses.replace(small.experiment, config=config)


def test_terms_that_compare_samples_are_named_where_a_batch_is_cut_into_parts(small: Small) -> None:
  assert list(config_warnings(parts(small, 1))) == []
  (said,) = config_warnings(parts(small, 4))
  assert said.startswith("training.accumulate is 4: vicreg see 2 samples at a time and not 8")


@pytest.mark.parametrize(("fsdp", "whole"), [(8, False), (5, True)])
def test_a_mesh_that_does_not_divide_the_width_is_named(
  small: Small, fsdp: int, whole: bool
) -> None:
  mesh = AbstractMesh((1, fsdp, 1), ("replica", "fsdp", "tensor"))
  experiment = dataclasses.replace(small.experiment, mesh=mesh)  # type: ignore[arg-type]
  said = list(config_warnings(experiment))
  assert len(said) == whole
  if whole:
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(small.state.params))
    assert f"of {total / 1e6:,.1f} MB of parameters are whole on every device" in said[0]


def test_a_batch_larger_than_the_data_set_is_named_with_both_sizes(small: Small) -> None:
  assert list(config_warnings(batches(small, 128), [128])) == []
  (said,) = config_warnings(batches(small, 136), [128])
  assert said.startswith("training.batch is 136, of which 136 are of the 128 pairs of the split")
  assert "pairs stand more than once in a batch" in said


def test_a_small_data_set_of_much_weight_is_named_alone(small: Small) -> None:
  mixed = {"directories": ("large", "small"), "weights": (3.0, 1.0)}
  assert list(config_warnings(batches(small, 168, **mixed), [128, 42])) == []  # 126 and 42 rows
  (said,) = config_warnings(batches(small, 176, **mixed), [1280, 42])
  assert "of which 44 are of the 42 pairs of the split 'train' of small" in said


def test_a_batch_of_one_starves_terms_that_compare_samples(small: Small) -> None:
  for starved in (batches(small, 1), parts(small, 8)):
    (said,) = config_warnings(starved)
    assert said.startswith("vicreg compare samples and see one at a time (training.batch is ")
  alone = Objective({"latent": Latent()})
  assert list(config_warnings(dataclasses.replace(batches(small, 1), objective=alone))) == []


def test_without_steps_the_size_of_a_batch_means_nothing(small: Small) -> None:
  experiment = batches(small, 1000)
  training = dataclasses.replace(experiment.config.training, steps=0)
  config = dataclasses.replace(experiment.config, training=training)
  assert list(config_warnings(dataclasses.replace(experiment, config=config), [128])) == []
