"""The estimated needs of a run's layout on a topology, without compiling anything.

The model is traced once; `Layout.on` lays the same run out differently without tracing it again, so
that `proposal` can rank many layouts.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType

from xjepa_jax.config import Config
from xjepa_jax.data.batch_source import SensorSlot
from xjepa_jax.model.encoder import layer_spec
from xjepa_jax.model.predictor import predictor_spec
from xjepa_jax.scaling.activations import Activations, activations
from xjepa_jax.scaling.blueprint import blueprint
from xjepa_jax.scaling.collectives import REDUCE, Collective, expected
from xjepa_jax.scaling.roofline import Prediction, predict
from xjepa_jax.scaling.topologies import Topology
from xjepa_jax.training.experiment import Experiment
from xjepa_jax.training.mesh import AXES, mesh_sizes, parameter_shardings
from xjepa_jax.training.plan import abstract_batch, device_bytes, step_flops
from xjepa_jax.training.target import find_target
from xjepa_jax.training.validation import check_batches


@dataclasses.dataclass(frozen=True)
class Layout:
  """A config on the mesh of a topology, which may be far larger than the present machine.

  Attributes:
    topology: the machines.
    mesh: axis -> size.
    experiment: the experiment on an abstract mesh.
    state: abstract state, with shardings.
    each: activations per sample.
  """

  topology: Topology
  mesh: Mapping[str, int]
  experiment: Experiment
  state: Any
  each: Activations

  @property
  def config(self) -> Config:
    """The experiment's config."""
    return self.experiment.config

  @property
  def rows(self) -> int:
    """Samples of a batch per device."""
    return self.config.training.batch // (self.mesh["replica"] * self.mesh["fsdp"])

  @functools.cached_property
  def parts(self) -> dict[str, int]:
    """Bytes per device: parameters, optimizer (moments and target encoder), batch."""
    return {
      "parameters": device_bytes(self.state.params),
      "optimizer": device_bytes(self.state.opt_state),
      "batch": device_bytes(abstract_batch(self.experiment)),
    }

  @property
  def temporary(self) -> float:
    """Estimated bytes per device for activations and gradients.

    The sum of the stored activations of one part of a batch, the layer at work, the gradients,
    which are as large as the parameters, and the gathered weights of two layers.
    """
    rows = self.rows / self.config.training.accumulate
    remat = self.config.model.remat
    # Parts of a batch are processed one after another, so only one part's activations exist.
    kept = (self.each.kept[remat] + self.each.layer) * rows / self.mesh["tensor"]
    layers = max(
      (leaf.dtype.itemsize * math.prod(leaf.shape[1:]) for leaf in self._stacked()), default=0
    )
    return kept + self.parts["parameters"] * 2 + 4 * layers / self.mesh["tensor"]

  @property
  def needed(self) -> float:
    """Estimated bytes needed per device."""
    return sum(self.parts.values()) + self.temporary

  @functools.cached_property
  def theory(self) -> list[Collective]:
    """The unavoidable collectives, including the sums that a tensor axis adds."""
    width, tensor = self.experiment.model.dtype.itemsize, self.mesh["tensor"]
    found = expected(self.state.params, find_target(self.state.opt_state), self.mesh, width)
    again = self.config.training.accumulate
    found = [
      dataclasses.replace(each, size=each.size // tensor, count=again if each.op != REDUCE else 1)
      for each in found
    ]
    return found + (self._tensor_sums() if tensor > 1 else [])

  def predict(self, found: Iterable[Collective]) -> Prediction:
    """Predict the time of a step from the collectives of a device."""
    rows, remat, tensor = self.rows, self.config.model.remat, self.mesh["tensor"]
    devices = math.prod(self.mesh.values())
    state = self.parts["parameters"] + self.parts["optimizer"]
    weights = sum(each.size for each in self.theory if each.op == "all-gather")
    return predict(
      self.topology,
      self.mesh,
      found,
      flops=step_flops(self.experiment) / devices,
      recomputed=self.each.recomputed[remat] * rows / tensor,
      bytes_accessed=2 * state + 2 * weights + self.each.traffic[remat] * rows / tensor,
    )

  def on(self, sizes: Mapping[str, int], remat: str, accumulate: int) -> Layout:
    """The same run with another layout, without tracing the model again.

    Args:
      sizes: axis -> size.
      remat: `model.remat`.
      accumulate: number of parts of a batch.

    Raises:
      ConfigError: the batch does not divide over the mesh.
    """
    config = dataclasses.replace(
      self.config,
      mesh=dataclasses.replace(self.config.mesh, **sizes),
      model=dataclasses.replace(self.config.model, remat=remat),
      training=dataclasses.replace(self.config.training, accumulate=accumulate),
    )
    mesh = abstract_mesh(sizes)
    check_batches(config, mesh, self.topology.platform)
    experiment = dataclasses.replace(self.experiment, config=config, mesh=mesh)  # type: ignore[arg-type]
    state = jax.tree.map(
      lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
      self.state,
      parameter_shardings(mesh, self.state),  # type: ignore[arg-type]
    )
    return Layout(self.topology, dict(sizes), experiment, state, self.each)

  def _tensor_sums(self) -> list[Collective]:
    """Sums of activations: two per layer forward and two backward (Megatron-LM, section 3)."""
    model, plan, config = self.experiment.model, self.experiment.plan, self.config
    size = self.rows * model.dtype.itemsize
    width, narrow, depth, thin = _widths(self.experiment)
    context = len(model.contexts) * plan.context_tokens * width * depth
    target = len(model.targets) * plan.tokens * width * depth
    asked = plan.blocks * plan.block_tokens * len(model.routes)
    predictor = (len(model.contexts) * plan.context_tokens + asked) * narrow * thin
    again = 1 if config.model.remat == "none" else 2  # remat repeats the forward sums
    total = size * (2 * target + 2 * (again + 1) * (context + predictor))
    return [Collective("all-reduce", int(total), self.mesh["tensor"], ("tensor",))]

  def _stacked(self) -> list[Any]:
    leaves = jax.tree_util.tree_leaves_with_path(self.state.params)
    return [leaf for path, leaf in leaves if "blocks" in jax.tree_util.keystr(path)]


def lay_out(
  config: Config,
  slots: Mapping[str, SensorSlot],
  topology: Topology,
  sizes: Mapping[str, int] | None = None,
) -> Layout:
  """Lay out a config on a topology.

  Args:
    config: resolved config.
    slots: see `blueprint.slots_of`.
    topology: the machines.
    sizes: axis -> size; None means the config's, where -1 takes the rest.

  Raises:
    ConfigError: the mesh does not fit the devices, or the batch does not fit the mesh.
  """
  asked = config.mesh
  sizes = dict(sizes or mesh_sizes(asked.replica, asked.fsdp, asked.tensor, topology.devices))
  mesh = abstract_mesh(sizes)
  experiment = blueprint(config, mesh, slots, topology.platform)  # type: ignore[arg-type]
  state = experiment.abstract_state()
  return Layout(topology, sizes, experiment, state, activations(experiment))


def abstract_mesh(sizes: Mapping[str, int]) -> AbstractMesh:
  """A mesh whose devices need not exist."""
  return AbstractMesh(
    tuple(sizes[axis] for axis in AXES), AXES, axis_types=(AxisType.Auto,) * len(AXES)
  )


def _widths(experiment: Experiment) -> tuple[int, int, int, int]:
  """The widths of encoder and predictor, then the depths of encoder and predictor."""
  spec, depth, _ = layer_spec(experiment.config.model, experiment.model.dtype)
  narrow = predictor_spec(experiment.config.predictor, spec)
  return spec.width, narrow.width, depth, experiment.config.predictor.depth
