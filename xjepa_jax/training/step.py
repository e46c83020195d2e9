"""The train step: one jitted function from a state and a batch to the next state.

  scale, crop, augment, mask, context encoder, target encoder, predictor, terms, gradients, optax
  chain (clip, AdamW, target update)

All randomness in step n comes from `fold_in(seed, n)`, so a step depends on the state and the batch
alone, and a resumed run repeats it exactly. A step whose loss or gradients are not finite changes
nothing but the step number and two counters of skipped updates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from xjepa_jax.config import Config
from xjepa_jax.model.activation_sharding import on_mesh
from xjepa_jax.model.images import crop, scale
from xjepa_jax.model.mask_plan import MaskPlan
from xjepa_jax.model.outputs import Outputs
from xjepa_jax.model.xjepa import Parameters, XJepa
from xjepa_jax.objective.objective import Objective
from xjepa_jax.training.augment import augment
from xjepa_jax.training.state import TrainState
from xjepa_jax.training.target import find_target

# The fields of a batch that the step uses; the others record where its pairs are stored.
BATCH_KEYS = ("values", "present", "valid")
# Samples whose tokens and predictions are measured. They are gathered on every device, and a whole
# pod's batch would not fit there.
SHOWN = 256

Step = Callable[[TrainState, Mapping[str, Any]], tuple[TrainState, dict[str, Array]]]


def train_step(
  model: XJepa,
  objective: Objective,
  optimizer: optax.GradientTransformationExtraArgs,
  plan: MaskPlan,
  config: Config,
) -> Step:
  """Return the pure step, to be jitted with shardings and a donated state.

  Returns:
    (state, batch) -> (state, metrics). The batch is as the data pipeline yields it (B rows, raw
    values). Each metric is () float32: the losses by label, by route and in total,
    "norm/gradient", "skipped" (1 where the update was not finite), and "skipped/total".
  """
  seed = config.training.seed
  parts = config.training.accumulate

  def loss(
    parameters: Parameters, target: Parameters, batch: Any, key: Array, number: Array
  ) -> tuple[Array, dict[str, Array]]:
    image_key, mask_key, terms_key = jax.random.split(key, 3)
    values, seen = training_images(model, batch["values"], config, image_key)
    outputs = model.outputs(parameters, target, values, seen, _present(batch), plan, mask_key)
    return objective.loss(parameters["objective"], outputs, number, terms_key)

  def gradients(state: TrainState, batch: Any, key: Array) -> tuple[Any, dict[str, Array]]:
    target = find_target(state.opt_state)
    one = jax.grad(loss, has_aux=True)
    if parts == 1:
      return one(state.params, target, batch, key, state.step)

    def add(total: Any, part: Any) -> tuple[Any, None]:
      number, rows = part
      found = one(state.params, target, rows, jax.random.fold_in(key, number), state.step)
      return jax.tree.map(lambda a, b: a + b / parts, total, found), None

    # Each part takes every parts-th row, so that its rows lie on all devices, as the batch's do. A
    # contiguous range of rows would lie on some of the devices only.
    rows = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)
    shapes = jax.eval_shape(one, state.params, target, _first(rows), key, state.step)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(add, zeros, (jnp.arange(parts), rows))[0]

  def step(state: TrainState, batch: Mapping[str, Any]) -> tuple[TrainState, dict[str, Array]]:
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    grads, metrics = gradients(state, {name: batch[name] for name in BATCH_KEYS}, key)
    norm = optax.tree.norm(grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    sizes = norm, metrics["loss/total"], optax.tree.norm(updates)
    # The updates are checked too: the optimizer can overflow on gradients that are still finite.
    fine = jnp.isfinite(jnp.stack(sizes)).all()
    params = optax.apply_updates(state.params, updates)
    kept_params, kept_state = jax.tree.map(
      lambda new, old: jnp.where(fine, new, old),
      (params, opt_state),
      (state.params, state.opt_state),
    )
    bad = 1 - fine.astype(jnp.int32)
    after = TrainState(
      step=state.step + 1,
      params=kept_params,
      opt_state=kept_state,
      skipped=state.skipped + bad,
      streak=(state.streak + 1) * bad,
    )
    metrics = {
      **metrics,
      "norm/gradient": norm,
      "skipped": bad.astype(jnp.float32),
      "skipped/total": after.skipped.astype(jnp.float32),
    }
    return after, metrics

  return step


def jit_step(step: Step, state_shardings: Any, batch_sharding: Any, replicated: Any) -> Step:
  """Jit the step for a mesh; the state passed to it is donated.

  Args:
    step: see `train_step`.
    state_shardings: the sharding of every leaf of the state.
    batch_sharding: the sharding of the first axis of every array of a batch.
    replicated: the sharding of the metrics.
  """
  return jax.jit(
    on_mesh(step, replicated.mesh.abstract_mesh),
    in_shardings=(state_shardings, batch_sharding),
    out_shardings=(state_shardings, replicated),
    donate_argnums=0,
  )


def training_images(
  model: XJepa, stored: Mapping[str, Array], config: Config, key: Array
) -> tuple[dict[str, Array], dict[str, Array]]:
  """Return scaled, cropped, augmented images, sensor -> (B, H, W, C), and the bands they have."""
  crop_key, augment_key = jax.random.split(key)
  values, seen = _scaled(model, stored)
  values = crop(values, model.inputs, crop_key)
  return augment(values, config.augment, augment_key), seen


def plain_images(
  model: XJepa, stored: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, Array]]:
  """Return scaled, centre-cropped images without augmentation, and the bands they have."""
  values, seen = _scaled(model, stored)
  return crop(values, model.inputs, None), seen


def describe(model: XJepa) -> Callable[[Parameters, Mapping[str, Any]], dict[str, Any]]:
  """Return a function that encodes whole images into descriptors.

  Returns:
    (encoder, batch) -> a dict. "descriptors" is head -> sensor -> (B, K) float32, not normalised;
    "present", "valid" and "record" are the batch's; "sums" is described in `token_sums`. The
    function is pure and takes a batch as the data pipeline yields it.
  """

  def described(encoder: Parameters, batch: Mapping[str, Any]) -> dict[str, Any]:
    values, seen = plain_images(model, batch["values"])
    tokens, descriptors = model.encode(encoder, values, seen)
    present = _present(batch)
    found = {"descriptors": descriptors, "present": present, "sums": token_sums(tokens, present)}
    return found | {name: batch[name] for name in ("valid", "record")}

  return described


def token_sums(tokens: Mapping[str, Array], present: Mapping[str, Array]) -> dict[str, Any]:
  """Sum each sensor's tokens (B, N, D), and their squares, over the images that are present.

  Returns:
    sensor -> "tokens" (N, D), the sum of the tokens over B; "squares" (), the sum of their squares
    over B, N and D; "count" (), the number of images. All are float32.
  """
  found = {}
  for key, values in tokens.items():
    there = present[key].astype(jnp.float32)[:, None, None]
    values = values.astype(jnp.float32) * there
    found[key] = {
      "tokens": values.sum(axis=0),
      "squares": jnp.square(values).sum(),
      "count": there.sum(),
    }
  return found


def tokens(model: XJepa) -> Callable[[Parameters, Mapping[str, Any]], dict[str, Array]]:
  """Like `describe`, but return sensor -> (SHOWN, N, D) tokens of the first samples."""

  def found(encoder: Parameters, batch: Mapping[str, Any]) -> dict[str, Array]:
    values, seen = plain_images(model, batch["values"])
    return _shown(model.encode(encoder, values, seen)[0])

  return found


def predict(
  model: XJepa, plan: MaskPlan, seed: int
) -> Callable[[Parameters, Parameters, Mapping[str, Any]], Outputs]:
  """Return a function that runs the whole model on plain images.

  Returns:
    (parameters, target encoder, batch) -> the outputs for the first SHOWN samples. All samples
    share one mask, so that predictions can be compared place by place.
  """

  def predicted(parameters: Parameters, target: Parameters, batch: Mapping[str, Any]) -> Outputs:
    values, seen = plain_images(model, batch["values"])
    key = jax.random.key(seed)
    return _shown(
      model.outputs(parameters, target, values, seen, _present(batch), plan, key, alike=True)
    )

  return predicted


def _shown(outputs: Any) -> Any:
  """Keep the first samples of a batch: the result goes to every device and to the host."""
  return jax.tree.map(lambda x: x[:SHOWN], outputs)


def _scaled(model: XJepa, stored: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
  pairs = {key: scale(given.sensor, stored[key]) for key, given in model.inputs.items()}
  return {key: pair[0] for key, pair in pairs.items()}, {
    key: pair[1] for key, pair in pairs.items()
  }


def _present(batch: Mapping[str, Any]) -> dict[str, Array]:
  return {key: present & batch["valid"] for key, present in batch["present"].items()}


def _first(rows: Any) -> Any:
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), rows)
