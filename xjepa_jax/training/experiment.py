"""Everything that a run consists of, opened and checked from its config before the first step.

An `Experiment` holds no state, so planning and ahead-of-time compilation for devices that are not
here build the same object as a run. `build_experiment` needs neither data nor devices;
`open_experiment` adds both. A config that does not fit its data or its devices fails here, before
any time is spent on training.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from xjepa_jax.config import Config, parse_bands, parse_routes
from xjepa_jax.data.batch_source import Batch, SensorSlot
from xjepa_jax.data.cores import usable_cores
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.pipeline import Pipeline, Reading
from xjepa_jax.errors import ConfigError
from xjepa_jax.model import xjepa
from xjepa_jax.model.activation_sharding import on_mesh
from xjepa_jax.model.encoder import has_network
from xjepa_jax.model.inputs import SensorInput, sensor_inputs
from xjepa_jax.model.mask_plan import MaskPlan, plan_masks
from xjepa_jax.objective.objective import Objective
from xjepa_jax.objective.table import build
from xjepa_jax.objective.term import Term
from xjepa_jax.training import mesh as meshes
from xjepa_jax.training import step as steps
from xjepa_jax.training import validation
from xjepa_jax.training.optimizer import Schedules, optimizer, schedules
from xjepa_jax.training.splits import open_split
from xjepa_jax.training.state import TrainState, abstract_state, create_state
from xjepa_jax.training.target import configured_schedule, find_target


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A run without its state.

  Attributes:
    config: the resolved config.
    mesh: the device mesh.
    inputs: sensor -> the images that the model takes from it.
    slots: sensor -> the arrays that a batch holds of it.
    model, objective, plan, optimizer: see their modules.
    schedules: schedules of learning rate and weight decay.
    momentum: momentum of the target encoder, by update.
    step: the jitted train step.
    describe, tokens, predict: jitted measurements of a batch; see `training.step`.
  """

  config: Config
  mesh: Mesh
  inputs: Mapping[str, SensorInput]
  slots: Mapping[str, SensorSlot]
  model: xjepa.XJepa
  objective: Objective
  plan: MaskPlan
  optimizer: optax.GradientTransformationExtraArgs
  schedules: Schedules
  momentum: optax.Schedule
  step: steps.Step
  describe: Any
  tokens: Any
  predict: Any

  def init(self, key: jax.Array) -> xjepa.Parameters:
    """Initialise all parameters from a random key."""
    model_key, objective_key = jax.random.split(key)
    return {**self.model.init(model_key), "objective": self.objective.init(objective_key)}

  def new_state(self) -> TrainState:
    """Create the state before the first step, sharded on the mesh from the start."""
    key = jax.random.key(self.config.training.seed)
    return create_state(self.init, self.optimizer, self.mesh, key)

  def abstract_state(self) -> TrainState:
    """Return the shapes, dtypes and shardings of a state, as needed to restore one."""
    return abstract_state(self.init, self.optimizer, self.mesh)

  def training_pipeline(self) -> Pipeline:
    """Return endless batches of the training split; the batch of step n depends on n alone."""
    data = self.config.data
    return Pipeline(
      open_split(self.config, data.train),
      self.config.training.batch,
      meshes.batch_sharding(self.mesh),
      seed=self.config.training.seed,
      weights=data.weights or None,
      bands=parse_bands(data.bands),
      sensors=tuple(self.inputs),
      reading=_reading(self.config),
    )

  def passes(
    self, split: str, shuffle: bool = False
  ) -> Iterator[tuple[PairDataset, Iterator[Batch]]]:
    """Yield each data set of a split with batches that contain each of its pairs once."""
    bands = parse_bands(self.config.data.bands)
    for dataset in open_split(self.config, split):
      held = tuple(key for key in self.inputs if key in dataset.format.sensors)
      pipeline = Pipeline(
        dataset,
        self.config.evaluation.batch or self.config.training.batch,
        meshes.batch_sharding(self.mesh),
        seed=self.config.training.seed,
        shuffle=shuffle,
        once=True,
        bands={key: names for key, names in bands.items() if key in held},
        sensors=held,
        reading=_reading(self.config),
      )
      with pipeline, contextlib.closing(self._with_all_sensors(pipeline)) as batches:
        yield dataset, batches

  def _with_all_sensors(self, pipeline: Pipeline) -> Generator[Batch, None, None]:
    """Yield a data set's batches, with sensors that it lacks added as absent images."""
    rows = pipeline.batch
    lacking = [key for key in self.slots if key not in pipeline.source.slots]

    def zeros(shape: tuple[int, ...], dtype: Any) -> jax.Array:
      return jnp.zeros((rows, *shape), dtype, device=pipeline.sharding)

    values = {key: zeros(self.slots[key].shape, self.slots[key].sensor.dtype) for key in lacking}
    present = {key: zeros((), bool) for key in lacking}
    with contextlib.closing(pipeline.batches()) as batches:  # also ends its reading threads
      for _, batch in batches:
        yield {
          **batch,
          "values": {**batch["values"], **values},
          "present": {**batch["present"], **present},
        }


def open_experiment(
  config: Config,
  devices: Sequence[Any] | None = None,
  terms: Mapping[str, type[Term]] | None = None,
) -> Experiment:
  """Check a config against its data and the devices, and build everything but the state.

  Args:
    config: the resolved config.
    devices: the devices of the mesh; None takes all.
    terms: name -> class of terms of the objective that the config names and the package lacks.

  Raises:
    ConfigError: values that contradict each other, the data or the devices.
    DatasetError, SensorError: a data set is not what the config says.
  """
  mesh = meshes.make_mesh(config.mesh.replica, config.mesh.fsdp, config.mesh.tensor, devices)
  validation.check_batches(config, mesh, jax.default_backend())
  validation.check_splits(config)
  dtype = compute_dtype(config, jax.default_backend())
  return _jitted(build_experiment(config, mesh, data_slots(config), dtype, terms))


def like(experiment: Experiment, config: Config) -> Experiment:
  """Build another config on an open experiment's mesh and data.

  It is meant for configs without a network, so it computes in float32.
  """
  return _jitted(build_experiment(config, experiment.mesh, experiment.slots, jnp.float32))


def build_experiment(
  config: Config,
  mesh: Mesh,
  slots: Mapping[str, SensorSlot],
  dtype: Any,
  terms: Mapping[str, type[Term]] | None = None,
) -> Experiment:
  """Build everything but the state, with functions not jitted yet. Needs neither data nor devices.

  Args:
    config: the resolved config.
    mesh: a mesh of devices, or an abstract one.
    slots: sensor -> the arrays that a batch holds of it.
    dtype: the dtype in which matrix products are computed.
    terms: see `open_experiment`.

  Raises:
    ConfigError: values that contradict each other.
  """
  inputs = _inputs(config, slots)
  validation.check_heads(config, inputs)
  routes = parse_routes(config.routes, tuple(inputs))
  validation.check_routes(routes)
  model = xjepa.build(config, inputs, routes, dtype)
  # A run without steps only evaluates closed forms, so it needs no objective.
  objective = build(config.objective, terms) if config.training.steps else Objective({})
  plan = plan_masks(model.grid, config.mask)
  rates = _schedules(config)
  momentum = configured_schedule(config.target, max(config.training.steps, 1))
  transform = _optimizer(config, momentum)
  return Experiment(
    config=config,
    mesh=mesh,
    inputs=inputs,
    slots=slots,
    model=model,
    objective=objective,
    plan=plan,
    optimizer=transform,
    schedules=rates,
    momentum=momentum,
    step=steps.train_step(model, objective, transform, plan, config),
    describe=steps.describe(model),
    tokens=steps.tokens(model),
    predict=steps.predict(model, plan, config.training.seed),
  )


def _jitted(experiment: Experiment) -> Experiment:
  """Jit every pure function for the mesh; each compiles at its first call."""
  batch, whole = meshes.batch_sharding(experiment.mesh), meshes.replicated(experiment.mesh)
  state = jax.tree.map(lambda leaf: leaf.sharding, experiment.abstract_state())
  params, target = state.params, find_target(state.opt_state)

  def measuring(function: Any, *parameters: Any) -> Any:
    placed = on_mesh(function, experiment.mesh.abstract_mesh)
    return jax.jit(placed, in_shardings=(*parameters, batch), out_shardings=whole)

  return dataclasses.replace(
    experiment,
    step=steps.jit_step(experiment.step, state, batch, whole),
    describe=measuring(experiment.describe, target),
    tokens=measuring(experiment.tokens, target),
    predict=measuring(experiment.predict, params, target),
  )


def compute_dtype(config: Config, platform: str) -> Any:
  """Return the dtype of matrix products on "cpu", "gpu" or "tpu"."""
  precision = config.training.precision
  if precision == "auto":
    precision = "float32" if platform == "cpu" else "bfloat16"
  return jnp.dtype(precision)


def data_slots(config: Config) -> Mapping[str, SensorSlot]:
  """Return the sensors of the training split as batches will hold them."""
  with Pipeline(
    open_split(config, config.data.train),
    config.training.batch,
    bands=parse_bands(config.data.bands),
    sensors=config.data.sensors or None,
    weights=config.data.weights or None,
  ) as pipeline:
    return pipeline.source.slots


def _inputs(config: Config, slots: Mapping[str, SensorSlot]) -> dict[str, SensorInput]:
  sizes = {key: (slot.shape[0], slot.shape[1]) for key, slot in slots.items()}
  # data.image_size counts pixels of the first sensor; the others are cut to the same ground.
  wanted = config.data.image_size
  if wanted:
    rows = sizes[next(iter(sizes))][0]
    for key, (height, width) in sizes.items():
      if wanted > min(sizes[next(iter(sizes))]) or height * wanted % rows or width * wanted % rows:
        raise ConfigError(
          f"config key 'data.image_size' is {wanted}; the images of sensor {key!r} are "
          f"{height} x {width} pixels. Give at most {rows}, so that every sensor is cut at whole "
          "pixels, or 0 for the whole image."
        )
    sizes = {key: (height * wanted // rows,) * 2 for key, (height, _) in sizes.items()}
  sensors = {key: slot.sensor for key, slot in slots.items()}
  # Without a network there are no patches, and images of any sizes with a common divisor will do.
  common = math.gcd(*(height for height, _ in sizes.values()))
  first = sizes[next(iter(sizes))][0]
  patch = config.model.patch if has_network(config.model) else first // common
  return sensor_inputs(sensors, sizes, patch)


def _schedules(config: Config) -> Schedules:
  chosen = config.optimizer
  return schedules(
    chosen.learning_rate,
    chosen.warmup if config.training.steps else 0,
    max(config.training.steps, 1),
    chosen.final_learning_rate,
    chosen.weight_decay,
    chosen.final_weight_decay,
  )


def _optimizer(config: Config, momentum: optax.Schedule) -> optax.GradientTransformationExtraArgs:
  chosen = config.optimizer
  return optimizer(
    learning_rate=chosen.learning_rate,
    warmup=chosen.warmup if config.training.steps else 0,
    steps=max(config.training.steps, 1),
    momentum=momentum,
    final_learning_rate=chosen.final_learning_rate,
    weight_decay=chosen.weight_decay,
    final_weight_decay=chosen.final_weight_decay,
    b1=chosen.b1,
    b2=chosen.b2,
    clip=chosen.clip,
  )


def _reading(config: Config) -> Reading | None:
  """Return threads and prefetch if the config sets them; None lets the machine decide."""
  data = config.data
  if not (data.threads or data.prefetch):
    return None
  # One thread reaches 60 % of the possible reading rate, two reach 95 % (docs/architecture.md).
  threads = data.threads or min(usable_cores(), 2)
  return Reading(threads=threads, prefetch=data.prefetch or 2 * threads)


def name_pairs(pipeline: Pipeline, step: int, most: int = 8) -> str:
  """Name the pairs of a step's batch by shard and record, for a message."""
  source = pipeline.source
  numbers, records = source.order.places(_positions(step, source.batch))
  named = [
    source.datasets[number].records.where(int(record))
    for number, record in list(zip(numbers, records, strict=True))[:most]
  ]
  more = source.batch - len(named)
  return "; ".join(named) + (f"; and {more} more" if more > 0 else "")


def _positions(step: int, batch: int) -> Any:
  import numpy as np

  return np.arange(step * batch, (step + 1) * batch)


def device_batch(batch: Batch) -> Batch:
  """Return the part of a batch that a step takes; the rest records where its pairs are stored."""
  return {key: batch[key] for key in steps.BATCH_KEYS}
