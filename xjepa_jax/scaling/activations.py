"""Estimated bytes of activations: what a device stores for the backward pass, and memory traffic.

A layer of width D and hidden width H stores for each token, in the dtype of products: its input,
both norms, attention's output and the residual after it (5 D), queries, keys and values (3 D), the
MLP's hidden numbers before and after the activation (2 H), and per head the weights of its keys
with their logits, the latter in float32. Compilers fuse some of these away and pad other arrays, so
the estimate serves to rank layouts; compiling a step shows what it really needs.
"""

from __future__ import annotations

import dataclasses

from xjepa_jax.model.encoder import layer_spec
from xjepa_jax.model.gradients import DIRECTIONS
from xjepa_jax.model.layout import reads_images
from xjepa_jax.model.predictor import predictor_spec
from xjepa_jax.training import flops
from xjepa_jax.training.experiment import Experiment
from xjepa_jax.training.plan import image_flops, step_flops

# Ratio of what libtpu 0.0.52 stored for remat "none", with a large encoder at 224 pixels on 64 v5p,
# to the sum above: derivatives of activations, padded heads, several forms of the same weights.
# CPUs store 3 times the sum.
SAVED = 2.1


@dataclasses.dataclass(frozen=True)
class Activations:
  """Activations of one sample, in bytes, and recomputation, in operations.

  Attributes:
    kept: remat -> bytes stored for the backward pass.
    layer: the most bytes that one layer has at once, forward and backward.
    traffic: remat -> bytes written to and read from memory, each array once per pass.
    recomputed: remat -> operations that are done again.
  """

  kept: dict[str, float]
  layer: float
  traffic: dict[str, float]
  recomputed: dict[str, float]


def activations(experiment: Experiment) -> Activations:
  """Estimate an experiment's activations per sample, on one device; `tensor` divides most of it."""
  config, model, plan = experiment.config, experiment.model, experiment.plan
  spec, depth, _ = layer_spec(config.model, model.dtype)
  narrow = predictor_spec(config.predictor, spec)
  width = model.dtype.itemsize
  seen = plan.context_tokens + config.model.registers
  whole = plan.tokens + config.model.registers
  contexts = len(model.contexts)
  asked = sum(plan.blocks * plan.block_tokens for _ in model.routes)
  wanted = contexts * plan.context_tokens + asked  # tokens that pass through the predictor

  def token(d: int, hidden: int, heads: int, keys: float) -> float:
    return width * (8 * d + 2 * hidden) + heads * keys * (width + 4)

  of_context = token(spec.width, spec.hidden, spec.heads, seen)
  of_predictor = token(narrow.width, narrow.hidden, narrow.heads, wanted / contexts)
  trained = contexts * seen * depth * of_context + wanted * config.predictor.depth * of_predictor
  inputs = width * (
    contexts * seen * depth * spec.width + wanted * config.predictor.depth * narrow.width
  )
  # Only products are stored: queries, keys, values and both of the MLP's; no weights or norms.
  dots = inputs * (3 + 1 + spec.mlp_ratio + 1)
  target = len(model.targets) * whole * depth * token(spec.width, spec.hidden, spec.heads, whole)
  images = _images(experiment)
  layer = max(contexts * seen * of_context, wanted * of_predictor, target / depth, images)
  passing = 2 * (target + images)
  forward = _forward_of_trained(experiment)
  return Activations(
    kept={"none": SAVED * trained, "dots": dots, "full": inputs, "offload": inputs},
    layer=2 * layer,
    traffic={
      "none": 6 * trained + passing,
      "dots": 7 * trained + passing,
      "full": 8 * trained + passing,
      "offload": 7 * trained + passing,
    },
    recomputed={"none": 0.0, "dots": 0.0, "full": forward, "offload": 0.0},
  )


def _images(experiment: Experiment) -> float:
  """Bytes of what heads compute from the images that they read, in float32: bands, blurred bands
  with their two differences, and sizes of gradients before and after they are blurred."""
  heads = sum(reads_images(head) for head in experiment.config.heads.values())
  return heads * sum(
    4.0 * each.height * each.width * (4 * each.bands + 2 * DIRECTIONS)
    for each in (experiment.inputs[key] for key in experiment.model.contexts)
  )


def _forward_of_trained(experiment: Experiment) -> float:
  """Operations per sample of the forward pass of everything with gradients."""
  config, model, plan = experiment.config, experiment.model, experiment.plan
  spec, depth, _ = layer_spec(config.model, model.dtype)
  target = sum(image_flops(experiment))
  for key in model.targets:
    given = experiment.inputs[key]
    target += flops.stem(plan.tokens, given.patch, given.bands, spec.width)
    target += flops.trunk(spec.width, spec.mlp_ratio, depth, plan.tokens + config.model.registers)
  # The target encoder and the features of images only run forward. For all else, the backward
  # pass has twice the operations of the forward pass.
  return (step_flops(experiment) / config.training.batch - target) / 3
