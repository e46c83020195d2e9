"""The same train step in eager PyTorch, as a reader of the I-JEPA paper would write it.

Written from the paper (Assran et al., CVPR 2023, sections 3 and 4) and extended to two sensors and
four routes: one stem a sensor, a shared encoder, and for each route and each target block a run of
the predictor over the context's tokens and the block's mask tokens. The average of the encoder is
a loop over parameters.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers.pair_format import SENSORS
from benchmarks.peers.step_shapes import (
  BETAS,
  LEARNING_RATE,
  MOMENTUM,
  ROUTES,
  WEIGHT_DECAY,
  StepShape,
)

EPSILON = 1e-6  # of layer norms


class Layer(nn.Module):
  """A pre-norm transformer layer."""

  def __init__(self, width: int, heads: int):
    super().__init__()
    self.heads = heads
    self.norm1 = nn.LayerNorm(width, eps=EPSILON)
    self.qkv = nn.Linear(width, 3 * width)
    self.out = nn.Linear(width, width)
    self.norm2 = nn.LayerNorm(width, eps=EPSILON)
    self.up = nn.Linear(width, 4 * width)
    self.down = nn.Linear(4 * width, width)

  def forward(self, x: Tensor, allowed: Tensor | None = None) -> Tensor:
    """(B, N, D) to the same; `allowed` (N, N) bool says who may attend to whom."""
    count, tokens, width = x.shape
    joint = self.qkv(self.norm1(x)).view(count, tokens, 3, self.heads, -1)
    queries, keys, values = joint.permute(2, 0, 3, 1, 4)
    seen = F.scaled_dot_product_attention(queries, keys, values, attn_mask=allowed)
    x = x + self.out(seen.transpose(1, 2).reshape(count, tokens, width))
    return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Encoder(nn.Module):
  """Stored images to tokens: a stem a sensor, shared layers."""

  def __init__(self, shape: StepShape):
    super().__init__()
    self.patch = shape.patch
    self.stems = nn.ModuleDict(
      {
        key: nn.Linear(shape.patch**2 * len(sensor.bands), shape.width)
        for key, sensor in SENSORS.items()
      }
    )
    self.layers = nn.ModuleList(Layer(shape.width, shape.heads) for _ in range(shape.depth))
    self.norm = nn.LayerNorm(shape.width, eps=EPSILON)
    self.register_buffer("places", _places(shape, shape.width))

  def forward(
    self, images: Mapping[str, Tensor], indices: Mapping[str, Tensor] | None = None
  ) -> dict[str, Tensor]:
    """Sensor -> (B, n, D) of (B, H, W, C) scaled images; `indices` (B, n) chooses tokens."""
    entered = []
    for key, image in images.items():
      x, places = _patches(image, self.patch), self.places
      if indices is not None:
        x, places = _gather(x, indices[key]), places[indices[key]]
      entered.append(self.stems[key](x) + places)
    x = torch.cat(entered)
    for layer in self.layers:
      x = layer(x)
    return dict(zip(images, self.norm(x).chunk(len(images)), strict=True))


class Predictor(nn.Module):
  """Context tokens and mask tokens of one block to the block's tokens of a sensor."""

  def __init__(self, shape: StepShape):
    super().__init__()
    width = shape.predictor_width
    self.enter = nn.Linear(shape.width, width)
    self.mask_token = nn.Parameter(_tag(width))
    self.tags = nn.ParameterDict({key: nn.Parameter(_tag(width)) for key in SENSORS})
    self.context_tags = nn.ParameterDict({key: nn.Parameter(_tag(width)) for key in SENSORS})
    self.layers = nn.ModuleList(Layer(width, shape.heads) for _ in range(shape.predictor_depth))
    self.norm = nn.LayerNorm(width, eps=EPSILON)
    self.leave = nn.Linear(width, shape.width)
    self.register_buffer("places", _places(shape, width))

  def forward(
    self,
    tokens: Tensor,
    indices: Tensor,
    blocks: Tensor,
    route: tuple[str, str],
    isolated: bool = False,
  ) -> Tensor:
    """(B, J, m, D) of (B, n, D) tokens at (B, n) places, for (B, J, m) places.

    With `isolated`, context tokens attend to the context only, as ours do; for comparisons.
    """
    count, number, size = blocks.shape
    source, target = route
    context = self.enter(tokens) + self.places[indices] + self.context_tags[source]
    context = context.repeat_interleave(number, dim=0)  # the context is run for each block
    asked = self.mask_token + self.tags[target] + self.places[blocks.reshape(-1, size)]
    x = torch.cat([context, asked], dim=1)
    allowed = None
    if isolated:
      allowed = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool)
      allowed[:-size, -size:] = False
    for layer in self.layers:
      x = layer(x, allowed)
    return self.leave(self.norm(x[:, -size:])).view(count, number, size, -1)


class Trainer:
  """Models, optimizer and step.

  Args:
    shape: the size.
    statistics: sensor -> (2, C), mean and deviation of its bands.
  """

  def __init__(self, shape: StepShape, statistics: Mapping[str, Tensor]):
    torch.manual_seed(0)
    self.statistics = statistics
    self.encoder, self.predictor = Encoder(shape), Predictor(shape)
    self.target = copy.deepcopy(self.encoder).requires_grad_(False)
    named = [*self.encoder.named_parameters(), *self.predictor.named_parameters()]
    decayed = [p for name, p in named if name.endswith("weight") and p.ndim > 1]
    others = [p for name, p in named if not (name.endswith("weight") and p.ndim > 1)]
    self.optimizer = torch.optim.AdamW(
      [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
      lr=LEARNING_RATE,
      betas=BETAS,
      weight_decay=WEIGHT_DECAY,
    )

  def loss(
    self,
    stored: Mapping[str, Tensor],
    context: Mapping[str, Tensor],
    blocks: Mapping[str, Tensor],
    isolated: bool = False,
  ) -> Tensor:
    """Mean over routes of the squared distance to layer-normalised target tokens.

    Args:
      stored: sensor -> (B, H, W, C) values as they are stored.
      context: sensor -> (B, n) places of context tokens.
      blocks: sensor -> (B, J, m) places of target tokens.
      isolated: see `Predictor.forward`.
    """
    images = {key: scaled(key, values, *self.statistics[key]) for key, values in stored.items()}
    with torch.no_grad():
      whole = self.target(images)
      targets = {
        key: _gather(_normalised(each), blocks[key].flatten(1)) for key, each in whole.items()
      }
    tokens = self.encoder(images, context)
    losses = []
    for a, b in ROUTES:
      predicted = self.predictor(tokens[a], context[a], blocks[b], (a, b), isolated)
      losses.append(F.mse_loss(predicted.flatten(1, 2), targets[b]))
    return torch.stack(losses).mean()

  def step(
    self,
    stored: Mapping[str, Tensor],
    context: Mapping[str, Tensor],
    blocks: Mapping[str, Tensor],
    accumulate: int = 1,
  ) -> float:
    """One update of parameters and target encoder; the loss before it.

    The gradients of `accumulate` parts of the batch are added up.
    """
    self.optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for part in range(accumulate):
      rows = slice(part, None, accumulate)
      loss = self.loss(
        {key: each[rows] for key, each in stored.items()},
        {key: each[rows] for key, each in context.items()},
        {key: each[rows] for key, each in blocks.items()},
      )
      (loss / accumulate).backward()
      total += loss.item() / accumulate
    self.optimizer.step()
    with torch.no_grad():
      for average, value in zip(self.target.parameters(), self.encoder.parameters(), strict=True):
        average.mul_(MOMENTUM).add_(value, alpha=1 - MOMENTUM)
    return total


def scaled(key: str, stored: Tensor, mean: Tensor, std: Tensor) -> Tensor:
  """(B, H, W, C) float32 in standard units; pixels that were not seen are 0."""
  sensor = SENSORS[key]
  scaling = sensor.scaling
  values = stored.to(torch.float32)
  seen = torch.isfinite(values).all(dim=-1, keepdim=True)
  if sensor.nodata is not None and math.isfinite(sensor.nodata):
    seen &= (values != sensor.nodata).any(dim=-1, keepdim=True)
  values = (values + scaling.offset) * scaling.gain
  if scaling.clip is not None:
    values = values.clamp(*scaling.clip)
  return torch.where(seen, (values - mean) / std, 0.0)


def _tag(width: int) -> Tensor:
  """As large as positions, whose mean square is 1/2."""
  return math.sqrt(0.5) * torch.randn(width)


def _patches(images: Tensor, patch: int) -> Tensor:
  """(B, H, W, C) to (B, N, patch * patch * C)."""
  count, height, width, bands = images.shape
  cut = images.view(count, height // patch, patch, width // patch, patch, bands)
  return cut.transpose(2, 3).reshape(count, -1, patch * patch * bands)


def _gather(tokens: Tensor, indices: Tensor) -> Tensor:
  """(B, n, D) of (B, N, D) tokens at (B, n) places."""
  return tokens.gather(1, indices[:, :, None].expand(-1, -1, tokens.shape[-1]))


def _normalised(tokens: Tensor) -> Tensor:
  return F.layer_norm(tokens, tokens.shape[-1:], eps=EPSILON)


def _places(shape: StepShape, width: int) -> Tensor:
  """(N, width): a quarter each of sines and cosines of row and column."""
  rates = 10_000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
  rows, columns = torch.meshgrid(torch.arange(shape.side), torch.arange(shape.side), indexing="ij")
  angles = [place.reshape(-1, 1) * rates for place in (rows, columns)]
  return torch.cat([wave(each) for each in angles for wave in (torch.sin, torch.cos)], 1).float()
