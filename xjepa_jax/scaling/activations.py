"""Bytes of activations by arithmetic: what a device keeps of a step, and what passes its memory.

A layer of width D and hidden width H keeps of each token, in the dtype of products: its input, both
norms, what attention gives out and what lies between (5 D), queries, keys and values (3 D), the
MLP's hidden numbers before and after the activation (2 H), and of each head the weights of its keys
and, in float32, their logits. Compilers fuse some of that away and pad other arrays, so the numbers
rank layouts; a compiled step says what one needs.
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

# What libtpu 0.0.52 kept for remat "none", of a large encoder at 224 pixels on 64 v5p, over the sum
# above: derivatives of activations, padded heads, several forms of the same weights. CPUs keep 3.
SAVED = 2.1


@dataclasses.dataclass(frozen=True)
class Activations:
  """Of one sample, in bytes, and in operations.

  Attributes:
    kept: remat -> what the backward pass is left with.
    layer: the largest that one layer has at once, forward and backward.
    traffic: remat -> written to and read from memory, each array once a pass.
    recomputed: remat -> operations done again.
  """

  kept: dict[str, float]
  layer: float
  traffic: dict[str, float]
  recomputed: dict[str, float]


def activations(experiment: Experiment) -> Activations:
  """Of a sample of an experiment, on one device; `tensor` divides most of it."""
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
  # Products are kept: queries, keys, values, both of the MLP's; not weights nor norms.
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
  """Bytes of what heads make of the images that they read: bands, blurred bands and both of their
  differences, and sizes of gradients before and after they are blurred, in float32."""
  heads = sum(reads_images(head) for head in experiment.config.heads.values())
  return heads * sum(
    4.0 * each.height * each.width * (4 * each.bands + 2 * DIRECTIONS)
    for each in (experiment.inputs[key] for key in experiment.model.contexts)
  )


def _forward_of_trained(experiment: Experiment) -> float:
  """Operations of a forward pass of all that has gradients, of one sample."""
  config, model, plan = experiment.config, experiment.model, experiment.plan
  spec, depth, _ = layer_spec(config.model, model.dtype)
  target = sum(image_flops(experiment))
  for key in model.targets:
    given = experiment.inputs[key]
    target += flops.stem(plan.tokens, given.patch, given.bands, spec.width)
    target += flops.trunk(spec.width, spec.mlp_ratio, depth, plan.tokens + config.model.registers)
  return (step_flops(experiment) / config.training.batch - target) / 3
