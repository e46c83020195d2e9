"""Floating-point operations of a step, by arithmetic: what its products of matrices need.

A multiplication and an addition are two operations. Only products are counted, as is usual for
model FLOPs utilisation (PaLM, arXiv 2204.02311, appendix B): norms, softmax and activations are a
few per cent, and what rematerialisation computes again is no use to the model. The backward pass
of a product costs two of its size, one for the gradient of each factor.

All functions take plain numbers and return the forward pass of *one* sample; `step` alone is
about a whole batch, forward and backward.
"""

from __future__ import annotations

from collections.abc import Sequence


def linear(rows: float, inputs: float, outputs: float) -> float:
  """A (rows, inputs) array times an (inputs, outputs) matrix."""
  return 2.0 * rows * inputs * outputs


def stem(tokens: float, patch: float, bands: float, width: float) -> float:
  """The projection of `tokens` patches of patch x patch pixels and `bands` bands."""
  return linear(tokens, patch * patch * bands, width)


def attention(width: float, tokens: float, keys: float) -> float:
  """Scores and weighted sum of `tokens` queries over `keys` keys each, without projections.

  The number of heads does not matter: each head's width is its share of `width`.
  """
  return 2 * linear(tokens, width, keys)


def mlp(width: float, mlp_ratio: float, tokens: float) -> float:
  """Both layers of an MLP of hidden width `mlp_ratio * width`."""
  return 2 * linear(tokens, width, mlp_ratio * width)


def block(width: float, mlp_ratio: float, tokens: float, keys: float | None = None) -> float:
  """One transformer layer.

  Args:
    width: of a token.
    mlp_ratio: hidden width of the MLP over `width`.
    tokens: that pass through the layer; each is projected to query, key, value and output.
    keys: that a token attends to, the mean over tokens where they differ; None is all tokens.
  """
  pairs = attention(width, tokens, tokens if keys is None else keys)
  return 4 * linear(tokens, width, width) + pairs + mlp(width, mlp_ratio, tokens)


def cross_block(width: float, mlp_ratio: float, tokens: float, memory: float) -> float:
  """One layer whose `tokens` attend to `memory` other tokens instead of themselves.

  Queries and outputs are projected from the tokens, keys and values from the memory.
  """
  projections = 2 * linear(tokens, width, width) + 2 * linear(memory, width, width)
  return projections + attention(width, tokens, memory) + mlp(width, mlp_ratio, tokens)


def trunk(width: float, mlp_ratio: float, depth: float, tokens: float) -> float:
  """`depth` layers over `tokens` tokens that all see each other."""
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
  """The narrow predictor of one context sensor: context tokens in, target tokens out.

  Context tokens see the context; the tokens of a target block see the context and their own
  block.

  Args:
    encoder_width: of the tokens that come in and are regressed.
    width, mlp_ratio, depth: the predictor's own.
    context: context tokens.
    targets: target tokens, of all blocks and of all target sensors together.
    blocks: target blocks of all target sensors, among which they are shared evenly.
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
  """The predictor with shared learnable queries, of one context sensor.

  `queries` learnable tokens and the context attend to each other in `depth` layers; the target
  tokens then attend to all of these in one layer. The other arguments are as in `predictor`.
  """
  memory = queries + context
  layers = trunk(width, mlp_ratio, depth, memory) + cross_block(width, mlp_ratio, targets, memory)
  return linear(context, encoder_width, width) + layers + linear(targets, width, encoder_width)


def head(width: float, size: float, hidden: float = 0, cells: float = 1) -> float:
  """The projections of a descriptor of `size` numbers, `size / cells` for each of its cells."""
  if not hidden:
    return linear(1, width, size)
  return linear(cells, width, hidden) + linear(1, hidden, size)


def gradients(height: float, width: float, bands: float, cells: float, directions: float) -> float:
  """Oriented gradients of an image, as `model.gradients` computes them.

  Every filter is a product along rows and one along columns: blurs of the bands and of what was
  seen, twice, and the means of cells, of each direction and of what was seen.
  """
  return _oriented(height, width, bands, cells, cells, directions)


def structure(
  height: float, width: float, bands: float, rows: float, columns: float, directions: float
) -> float:
  """What `model.local` says of rows x columns pieces of an image without learning."""
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
  """What `model.statistics` says of an image, by pieces of so many pixels along a side."""
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
  """The local network of an image, see `model.local`.

  Args:
    described: numbers that are known of a part without learning.
    width, hidden, depth: of its layers, which read 3 x 3 parts.
    parts: of the image.
    patches: whose tokens take of it.
    token: a token's width.
  """
  layer = linear(parts, 9 * width, hidden) + linear(parts, hidden, width)
  taken = linear(patches, parts / patches * width, token)
  return linear(parts, described, width) + depth * layer + taken


def canonical(cells: float, numbers: float, told: float) -> float:
  """A canonical layout from what it reads on: maps of cells, and the transform.

  Args:
    cells: along a side.
    numbers: of a cell.
    told: of a cell, such as the directions of its gradients.
  """
  whole = cells**2
  return linear(whole, told, numbers) + 2 * linear(whole, cells, numbers)


def addition(width: float, places: float, cells: float, numbers: float, split: float) -> float:
  """What a network adds to a canonical layout.

  Args:
    width: of a place's vector.
    places: of an image.
    cells, numbers: as of `canonical`.
    split: into how many parts along a side a place is cut.
  """
  hidden = 2 * places * width  # vectors of fill are told by being null
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
  """One update of a whole batch: what the model needs, forward and backward.

  The online encoder sees the context tokens of every context sensor, the target encoder all
  tokens of every target sensor, and the predictor runs once a context sensor. Backward is twice
  forward for all that gets gradients, once for stems, whose input gets none, and nothing for the
  target encoder.

  Args:
    pairs: of the global batch.
    contexts: (patch in pixels, bands) of each context sensor.
    targets: the same of each target sensor.
    routes: how many target sensors each context sensor predicts.
    tokens: of a whole image.
    context_tokens: that the online encoder sees of an image.
    target_tokens: to predict of an image, of all blocks together.
    blocks: target blocks of an image.
    width, depth, mlp_ratio: the encoder's; the ratio is the predictor's too.
    predictor_width, predictor_depth: the predictor's.
    queries: shared learnable queries of `query_predictor`; None is the narrow `predictor`.
    registers: tokens without a place, in every image.
    heads: operations of each descriptor, see `head`, `canonical` and `addition`.
    images: operations of what reads images without learning, see `gradients` and `structure`; of
      each sensor, () for none. No gradient flows into an image.
    parts: operations of the local network, see `local`; 0 without one.
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
    total += 2 * stem(context_tokens, patch, bands, width)
    total += 3 * (parts + encoder + sum(heads) + route)
  return pairs * (total + sum(images))
