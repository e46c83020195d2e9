"""Floating-point operations of a step, by arithmetic: those of its matrix products.

A multiplication and an addition count as two operations. Only products count, as is usual for model
FLOPs utilisation (PaLM, arXiv 2204.02311, appendix B): norms, softmax and activations are a few per
cent, and the model gains nothing from rematerialisation. The backward pass of a product costs twice
the forward pass, once per factor. All functions take plain numbers and return the forward pass of
*one* sample, except `step`, which counts a whole batch, forward and backward.
"""

from __future__ import annotations

from collections.abc import Sequence


def linear(rows: float, inputs: float, outputs: float) -> float:
  """Count a (rows, inputs) array times an (inputs, outputs) matrix."""
  return 2.0 * rows * inputs * outputs


def stem(tokens: float, patch: float, bands: float, width: float) -> float:
  """Count the projection of `tokens` patches of patch x patch pixels and `bands` bands."""
  return linear(tokens, patch * patch * bands, width)


def attention(width: float, tokens: float, keys: float) -> float:
  """Count scores and weighted sum of `tokens` queries over `keys` keys each, without projections.

  The number of heads does not matter, because the widths of all heads add up to `width`.
  """
  return 2 * linear(tokens, width, keys)


def mlp(width: float, mlp_ratio: float, tokens: float) -> float:
  """Count both layers of an MLP of hidden width `mlp_ratio * width`."""
  return 2 * linear(tokens, width, mlp_ratio * width)


def block(width: float, mlp_ratio: float, tokens: float, keys: float | None = None) -> float:
  """Count one transformer layer.

  Args:
    width: width of a token.
    mlp_ratio: hidden width of the MLP over `width`.
    tokens: tokens that pass through the layer; each is projected to query, key, value and output.
    keys: keys that a token attends to, the mean over tokens where they differ; None is all tokens.
  """
  pairs = attention(width, tokens, tokens if keys is None else keys)
  return 4 * linear(tokens, width, width) + pairs + mlp(width, mlp_ratio, tokens)


def cross_block(width: float, mlp_ratio: float, tokens: float, memory: float) -> float:
  """Count one layer whose `tokens` attend to `memory` other tokens instead of themselves.

  Queries and outputs are projected from the tokens, keys and values from the memory.
  """
  projections = 2 * linear(tokens, width, width) + 2 * linear(memory, width, width)
  return projections + attention(width, tokens, memory) + mlp(width, mlp_ratio, tokens)


def trunk(width: float, mlp_ratio: float, depth: float, tokens: float) -> float:
  """Count `depth` layers over `tokens` tokens that all attend to each other."""
  return depth * block(width, mlp_ratio, tokens)


def predictor(
  encoder_width: float,
  width: float,
  mlp_ratio: float,
  depth: float,
  context: float,
  targets: float,
  blocks: float = 1,
) -> float:
  """Count the narrow predictor of one context sensor: context tokens in, target tokens out.

  Context tokens attend to the context; the tokens of a target block attend to the context and to
  their own block.

  Args:
    encoder_width: width of the tokens that come in and of those that are predicted.
    width, mlp_ratio, depth: the predictor's own.
    context: number of context tokens.
    targets: number of target tokens, over all blocks and all target sensors.
    blocks: number of target blocks over all target sensors; tokens are shared evenly among them.
  """
  tokens = context + targets
  keys = context + targets * (targets / blocks) / tokens
  layers = depth * block(width, mlp_ratio, tokens, keys)
  return linear(context, encoder_width, width) + layers + linear(targets, width, encoder_width)


def query_predictor(
  encoder_width: float,
  width: float,
  mlp_ratio: float,
  depth: float,
  context: float,
  targets: float,
  queries: float,
) -> float:
  """Count the predictor with shared learnable queries, for one context sensor.

  `queries` learnable tokens and the context attend to each other in `depth` layers; the target
  tokens then attend to all of these in one layer. The other arguments are as in `predictor`.
  """
  memory = queries + context
  layers = trunk(width, mlp_ratio, depth, memory) + cross_block(width, mlp_ratio, targets, memory)
  return linear(context, encoder_width, width) + layers + linear(targets, width, encoder_width)


def head(width: float, size: float, hidden: float = 0, cells: float = 1) -> float:
  """Count the projections of a descriptor of `size` numbers, `size / cells` for each cell."""
  if not hidden:
    return linear(1, width, size)
  return linear(cells, width, hidden) + linear(1, hidden, size)


def gradients(height: float, width: float, bands: float, cells: float, directions: float) -> float:
  """Count the oriented gradients of an image, as `model.gradients` computes them.

  Every filter is a product along rows and one along columns. There are blurs of the bands and of
  the mask of seen pixels, twice, and the means over cells of each direction and of that mask.
  """
  return _oriented(height, width, bands, cells, cells, directions)


def structure(
  height: float, width: float, bands: float, rows: float, columns: float, directions: float
) -> float:
  """Count the features that `model.local` computes without learning, for rows x columns pieces."""
  means = (2 * bands + 1) * _means(height, width, rows, columns)
  return _oriented(height, width, bands, rows, columns, directions) + means


def statistics(
  height: float,
  width: float,
  bands: float,
  pieces: Sequence[float],
  cells: float,
  directions: float,
) -> float:
  """Count the statistics of an image (`model.statistics`) by pieces with these sides in pixels."""
  means = sum(_means(height, width, height // side, width // side) for side in pieces)
  return _oriented(height, width, bands, cells, cells, directions) + (2 * bands + 1) * means


def _oriented(
  height: float, width: float, bands: float, rows: float, columns: float, directions: float
) -> float:
  blur = linear(height, width, width) + linear(width, height, height)
  return (bands + 2) * blur + (directions + 1) * _means(height, width, rows, columns)


def _means(height: float, width: float, rows: float, columns: float) -> float:
  return linear(height, width, columns) + linear(columns, height, rows)


def local(
  described: float,
  width: float,
  hidden: float,
  depth: float,
  parts: float,
  patches: float,
  token: float,
) -> float:
  """Count the local network of an image; see `model.local`.

  Args:
    described: number of features of a part that are computed without learning.
    width, hidden, depth: of its layers, which read 3 x 3 parts.
    parts: number of parts of the image.
    patches: number of patches whose tokens read from the parts.
    token: width of a token.
  """
  layer = linear(parts, 9 * width, hidden) + linear(parts, hidden, width)
  taken = linear(patches, parts / patches * width, token)
  return linear(parts, described, width) + depth * layer + taken


def canonical(cells: float, numbers: float, told: float) -> float:
  """Count a canonical layout from its readings on: the maps of cells, and the transform.

  Args:
    cells: number of cells along a side.
    numbers: numbers kept of a cell.
    told: readings of a cell, such as the directions of its gradients.
  """
  whole = cells**2
  return linear(whole, told, numbers) + 2 * linear(whole, cells, numbers)


def addition(width: float, places: float, cells: float, numbers: float, split: float) -> float:
  """Count what a network adds to a canonical layout.

  Args:
    width: width of a place's vector.
    places: number of places of an image.
    cells, numbers: as in `canonical`.
    split: number of parts along a side into which a place is cut.
  """
  hidden = 2 * places * width  # a vector that is null marks a place of fill
  spread = linear(cells**2, places * split**2, numbers)
  return linear(places, width, split**2 * numbers) + hidden + spread


def step(
  *,
  pairs: float,
  contexts: Sequence[tuple[float, float]],
  targets: Sequence[tuple[float, float]],
  routes: Sequence[float],
  tokens: float,
  context_tokens: float,
  target_tokens: float,
  blocks: float,
  width: float,
  depth: float,
  mlp_ratio: float,
  predictor_width: float,
  predictor_depth: float,
  queries: float | None = None,
  registers: float = 0,
  heads: Sequence[float] = (),
  images: Sequence[float] = (),
  parts: float = 0.0,
) -> float:
  """Count one update of a whole batch, forward and backward.

  The online encoder sees the context tokens of every context sensor, the target encoder sees all
  tokens of every target sensor, and the predictor runs once per context sensor. The backward pass
  costs twice the forward pass for everything that gets gradients, once for stems, whose input gets
  none, and nothing for the target encoder.

  Args:
    pairs: pairs in the global batch.
    contexts: (patch in pixels, bands) of each context sensor.
    targets: (patch in pixels, bands) of each target sensor.
    routes: how many target sensors each context sensor predicts.
    tokens: tokens of a whole image.
    context_tokens: tokens of an image that the online encoder sees.
    target_tokens: tokens of an image to predict, over all blocks.
    blocks: target blocks of an image.
    width, depth, mlp_ratio: the encoder's; the ratio is the predictor's too.
    predictor_width, predictor_depth: the predictor's.
    queries: shared learnable queries of `query_predictor`; None is the narrow `predictor`.
    registers: tokens without a place, in every image.
    heads: operations of each descriptor; see `head`, `canonical` and `addition`.
    images: per sensor, operations of what reads images without learning; see `gradients` and
      `structure`; () for none. No gradient flows into an image.
    parts: operations of the local network; see `local`; 0 without one.
  """
  total = 0.0
  for patch, bands in targets:
    total += stem(tokens, patch, bands, width) + trunk(width, mlp_ratio, depth, tokens + registers)
    total += parts
  for (patch, bands), predicted in zip(contexts, routes, strict=True):
    encoder = trunk(width, mlp_ratio, depth, context_tokens + registers)
    sizes = (width, predictor_width, mlp_ratio, predictor_depth, context_tokens)
    asked = predicted * target_tokens
    if queries is None:
      route = predictor(*sizes, asked, predicted * blocks)
    else:
      route = query_predictor(*sizes, asked, queries)
    # Stems get no gradient of their input: forward, and the gradient of the kernel.
    total += 2 * stem(context_tokens, patch, bands, width)
    total += 3 * (parts + encoder + sum(heads) + route)
  return pairs * (total + sum(images))
