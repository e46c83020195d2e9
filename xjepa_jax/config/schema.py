"""Every key of a config: its type, default, meaning, and what is allowed of it alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from xjepa_jax.config.fields import setting


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Which pairs, and how they are read."""

  directories: tuple[str, ...] = setting((), "data sets; several are mixed")
  weights: tuple[float, ...] = setting((), "share of each data set; () shares by size")
  simulate: int = setting(0, "pairs to simulate if the only directory does not exist yet", least=0)
  sensors: tuple[str, ...] = setting((), "sensors used, as the data set names them; () is all")
  bands: tuple[str, ...] = setting((), 'bands used, "sensor=B04,B03" an entry; all of the others')
  train: str = setting("train", "split trained on")
  validation: str = setting("validation", "split evaluated while training, and that picks the best")
  test: str = setting("test", "split evaluated at the end")
  image_size: int = setting(0, "pixels of the first sensor's image seen; 0 is the whole", least=0)
  threads: int = setting(0, "that assemble batches; 0 chooses from the machine", least=0)
  prefetch: int = setting(0, "batches ahead of the step; 0 chooses from the machine", least=0)
  verify: bool = setting(True, "check the CRC of every record read")
  bad_records: int = setting(
    0, "damaged training records replaced by the next, of each data set; one more stops", least=0
  )


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
  """What is done to training pairs on the device; geometry alike for all sensors of a pair."""

  flips: bool = setting(True, "mirror left-right")
  quarter_turns: bool = setting(True, "turn by 0, 90, 180 or 270 degrees; square images only")
  gain: float = setting(0.1, "deviation of a random factor a band, per sensor and sample", least=0)
  offset: float = setting(0.1, "deviation of a random summand a band, in standard units", least=0)
  noise: float = setting(0.0, "deviation of noise a pixel, in standard units", least=0)
  curve: float = setting(0.0, "deviation of the bend of a tone curve a band", least=0)
  zoom: float = setting(
    0.0, "largest magnification less 1; what is seen lies anywhere in the image", least=0, most=1
  )


@dataclasses.dataclass(frozen=True)
class MaskConfig:
  """Which tokens are context and which are targets."""

  mode: str = setting("multiblock", "how targets are drawn", one_of=("multiblock", "random"))
  blocks: int = setting(4, "target blocks a sample", least=1)
  scale: tuple[float, ...] = setting((0.0625, 0.1), "smallest and largest share of a block")
  aspect: tuple[float, ...] = setting(
    (0.75, 1.5), "smallest and largest height over width of a block"
  )
  target: float = setting(
    0.5, 'share of the tokens that are targets in mode "random"', least=0, most=1
  )
  context: float = setting(
    0.75, "share of the tokens that the context encoder sees", least=0, most=1
  )
  visible: float = setting(
    1.0,
    "share of its target blocks that a sensor draws for itself and hides from its own context "
    "alone; the others are alike for all sensors and hidden from all",
    least=0,
    most=1,
  )
  overlap: bool = setting(False, "the context may include what is hidden from it")
  same_context: bool = setting(False, "all sensors of a pair show the same tokens; with visible 0")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """The encoder; see `xjepa_jax.model.presets` for the widths."""

  preset: str = setting(
    "tiny",
    'width, depth and heads where these are 0; "none" is no network: all heads read images, and '
    "training.steps is 0",
    one_of=("none", "debug", "tiny", "small", "base", "large", "huge", "giant"),
  )
  width: int = setting(0, "of a token; 0 is the preset's", least=0)
  depth: int = setting(0, "layers; 0 is the preset's", least=0)
  attention_heads: int = setting(0, "0 is the preset's", least=0)
  mlp_ratio: float = setting(4.0, "hidden width of an MLP over the width", least=0.5, most=16)
  patch: int = setting(8, "pixels along a side", least=1, most=64)
  stem: str = setting(
    "joint", "one projection of all bands, or one a band", one_of=("joint", "bands")
  )
  local: int = setting(
    0,
    "width of a small convolutional network over quarters of a patch, which enters the tokens and "
    "is read by heads with a closed form; 0 is none",
    least=0,
  )
  local_depth: int = setting(2, "its layers", least=1)
  positions: str = setting("sincos", "how a token knows its place", one_of=("sincos", "rotary"))
  position_unit: str = setting("patches", "unit of a token's place", one_of=("patches", "metres"))
  shared_layers: int = setting(-1, "last layers that all sensors share; -1 is all", least=-1)
  registers: int = setting(0, "tokens without a place", least=0)
  activation: str = setting("gelu", "of the MLPs", one_of=("gelu", "relu", "silu"))
  attention: str = setting("xla", "implementation of attention", one_of=("xla", "cudnn"))
  remat: str = setting(
    "none",
    "what the backward pass computes again; of offload products wait in the host's memory",
    one_of=("none", "dots", "full", "offload"),
  )
  unroll: int = setting(1, "layers unrolled in a turn of the scan", least=1)


@dataclasses.dataclass(frozen=True)
class PredictorConfig:
  """From context tokens to the tokens of target blocks."""

  kind: str = setting(
    "narrow",
    "a narrow transformer over context and positions, or shared learnable queries that attend to "
    "themselves and then to the context",
    one_of=("narrow", "queries"),
  )
  width: int = setting(0, "of a token; 0 is half the encoder's", least=0)
  depth: int = setting(4, "layers", least=1)
  attention_heads: int = setting(0, "0 is the width over 64, at least 1", least=0)
  told: bool = setting(
    False, "a query starts from the context's token of its place, where the context has one"
  )
  queries: int = setting(16, 'shared learnable queries of the kind "queries"', least=1)


DIRECTIONS = 9  # of a cell's gradients, over half a turn: an edge and its mirror are the same


@dataclasses.dataclass(frozen=True)
class HeadConfig:
  """From tokens, or from images, to one descriptor."""

  pooling: str = setting(
    "mean",
    "how tokens become a vector; or of the image itself, gradients: how much gradient each cell "
    "has in nine directions, canonical: what sensors share of that, fitted in closed form, and "
    "what tokens add, or statistics: the same of what the image is like as a whole",
    one_of=("mean", "attention", "grid", "canonical", "statistics", "gradients"),
  )
  cells: int = setting(4, "cells along a side, for grid, canonical and gradients", least=1)
  numbers: int = setting(
    4,
    "of each cell that sensors share, for canonical, of nine directions; for statistics of the "
    "image, as many as its size",
    least=1,
  )
  size: int = setting(
    256,
    "numbers of the descriptor, over all cells; canonical keeps so many of cells^2 * numbers, and "
    "gradients has cells^2 * 9",
    least=1,
  )
  fitted: int = setting(
    20_000,
    "training pairs, at most, that canonical and statistics are fitted on before the first step",
    least=1,
  )
  hidden: int = setting(0, "width of a hidden layer before the projection; 0 is none", least=0)
  prefixes: tuple[int, ...] = setting(
    (), "sizes to which the descriptor can be cut: terms see each of these beginnings too", least=1
  )
  prefix_weight: float = setting(1.0, "of each beginning's loss, the whole's being 1", least=0)


TOKENS = "tokens"  # of the target encoder, as what is predicted


@dataclasses.dataclass(frozen=True)
class TargetConfig:
  """The EMA target encoder."""

  of: str = setting(
    TOKENS,
    "what of it is predicted: tokens, or the cells of a head of the pooling canonical or "
    "gradients, by name",
  )
  schedule: str = setting(
    "power",
    "how it forgets: power by a lag, the others by a momentum",
    one_of=("power", "linear", "cosine", "constant"),
  )
  lag: float = setting(0.05, "mean age of what is averaged over the steps done", least=0, most=0.9)
  momentum: float = setting(
    -1.0, "at the first step, unless the schedule is power; -1 is .996", least=-1, most=1
  )
  final_momentum: float = setting(-1.0, "at the last step; -1 is 1", least=-1, most=1)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """AdamW and its schedules."""

  learning_rate: float = setting(1e-3, "at the end of the warm-up", least=0)
  final_learning_rate: float = setting(1e-6, "at the last step", least=0)
  warmup: int = setting(100, "steps of linear rise", least=0)
  weight_decay: float = setting(0.04, "at the first step", least=0)
  final_weight_decay: float = setting(0.04, "at the last step", least=0)
  b1: float = setting(0.9, "Adam's", least=0, most=0.9999)
  b2: float = setting(0.95, "Adam's", least=0, most=0.9999)
  clip: float = setting(1.0, "largest global norm of the gradients; 0 is none", least=0)


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
  """How long, how many at once, in which arithmetic."""

  steps: int = setting(1000, "updates; 0 evaluates and exports what is fitted", least=0)
  batch: int = setting(64, "pairs of a global batch", least=1)
  accumulate: int = setting(1, "parts of a batch whose gradients are added up", least=1)
  overlap: bool = setting(True, "compiler options that run messages beside products; docs/scale.md")
  precision: str = setting(
    "auto",
    "of computing; parameters and reductions are float32. auto is bfloat16 on accelerators",
    one_of=("auto", "float32", "bfloat16"),
  )
  bad_steps: int = setting(
    10, "skipped in a row for NaN or Inf, after which the run stops", least=1
  )
  seed: int = setting(0, "of everything drawn", least=0)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Devices along each axis; -1 takes the rest."""

  replica: int = setting(1, "copies of the parameters", least=-1)
  fsdp: int = setting(-1, "parts of the parameters and the batch", least=-1)
  tensor: int = setting(1, "parts of each layer", least=-1)


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  """What is kept."""

  every: int = setting(500, "steps between checkpoints", least=1)
  keep: int = setting(2, "last checkpoints kept", least=1)
  keep_every: int = setting(0, "steps whose multiples are kept for good; 0 is none", least=0)


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
  """Retrieval among pairs that were not trained on."""

  every: int = setting(500, "steps between evaluations on the validation split; 0 is none", least=0)
  pairs: int = setting(2000, "of a split, at most", least=2)
  batch: int = setting(0, "pairs at once; 0 is the training batch", least=0)
  head: str = setting("layout", "head whose descriptors are ranked first, and choose the best")
  encoder: str = setting(
    "best",
    "exported: the average (target), the trained weights (online), or the better on validation",
    one_of=("best", "target", "online"),
  )
  protocol: str = setting(
    "paired-recall",
    "by which the end of a run is measured",
    one_of=("paired-recall", "ben14k-f1@5", "csmae-f1@10", "cbrsir-map", "dsrsid-map"),
  )
  predicted: bool = setting(
    False, "at the end, rank what the predictor says of a query's other sensor too, to search by"
  )
  mutual_information: int = setting(300, "pairs up to which that baseline is computed", least=0)
  linear: int = setting(
    20_000,
    "training pairs, at most, that the linear row is fitted on; 0 leaves it and gradients out",
    least=0,
  )


@dataclasses.dataclass(frozen=True)
class ProcessesConfig:
  """How long processes wait for each other, and for themselves."""

  join_seconds: int = setting(300, "until all processes have to be there", least=1)
  lost_seconds: int = setting(60, "without a sign of life, after which a process is lost", least=2)
  hang_seconds: float = setting(
    1800.0, "without a step or a batch evaluated, after which a run ends; 0 waits", least=0
  )


@dataclasses.dataclass(frozen=True)
class TelemetryConfig:
  """What is told while training."""

  every: int = setting(50, "steps between lines and scalars", least=1)
  tensorboard: bool = setting(True, "write TensorBoard files")
  histograms: int = setting(0, "steps between histograms of parameters; 0 is none", least=0)
  wandb: str = setting("", "Weights & Biases project; empty is none")
  profile: tuple[int, ...] = setting((), "first and last step of a profile; () is none")
  profile_steps: int = setting(5, "steps of a profile that SIGUSR1 asks for", least=1)
  prometheus_port: int = setting(0, "where Prometheus may ask; 0 is nowhere", least=0, most=65535)
  prometheus_address: str = setting(
    "127.0.0.1", "whose port that is; 0.0.0.0 is any of the machine"
  )
  stop_on_collapse: bool = setting(False, "end a run whose space has collapsed")


_HEADS = {
  "layout": HeadConfig(pooling="grid", cells=8, size=512),
  "semantic": HeadConfig(pooling="mean", size=256),
}
_OBJECTIVE = {
  "latent": {"term": "latent", "weight": 1.0},
  "vicreg": {"term": "vicreg", "weight": 1.0, "on": "layout"},
  "semantic": {"term": "vicreg", "weight": 0.3, "on": "semantic"},
}


@dataclasses.dataclass(frozen=True)
class Config:
  """One experiment."""

  data: DataConfig = DataConfig()
  sensors: Mapping[str, Mapping[str, Any]] = setting(
    {}, "what to read differently in a data set's description of a sensor, by its name there"
  )
  routes: tuple[str, ...] = setting(
    (), 'who predicts whom, "a->b" an entry; () is every ordered pair'
  )
  augment: AugmentConfig = AugmentConfig()
  mask: MaskConfig = MaskConfig()
  model: ModelConfig = ModelConfig()
  predictor: PredictorConfig = PredictorConfig()
  heads: Mapping[str, HeadConfig] = setting(_HEADS, "descriptors, by name")
  objective: Mapping[str, Mapping[str, Any]] = setting(
    _OBJECTIVE, "terms of the loss by label: term, weight, warmup, start, end, and its options"
  )
  target: TargetConfig = TargetConfig()
  optimizer: OptimizerConfig = OptimizerConfig()
  training: TrainingConfig = TrainingConfig()
  mesh: MeshConfig = MeshConfig()
  checkpoint: CheckpointConfig = CheckpointConfig()
  evaluation: EvaluationConfig = EvaluationConfig()
  telemetry: TelemetryConfig = TelemetryConfig()
  processes: ProcessesConfig = ProcessesConfig()
