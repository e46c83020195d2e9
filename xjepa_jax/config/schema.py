"""Every key of a config: its type, default, meaning, and the values allowed for it alone.

This is the only place that holds a default. The default of a new key must reproduce the behaviour
of the package before the key existed, because an older run that is continued gets that value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from xjepa_jax.config.fields import setting


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Which pairs to train on, and how to read them."""

  directories: tuple[str, ...] = setting((), "data sets; several are mixed")
  weights: tuple[float, ...] = setting(
    (), "share of each data set in a batch; () is in proportion to size"
  )
  simulate: int = setting(
    0, "number of pairs to simulate if the only directory does not exist yet", least=0
  )
  sensors: tuple[str, ...] = setting((), "sensors to use, as the data set names them; () is all")
  bands: tuple[str, ...] = setting(
    (), 'bands to use, one entry "sensor=B04,B03" per sensor; other sensors keep all'
  )
  train: str = setting("train", "split to train on")
  validation: str = setting(
    "validation", "split evaluated during training, which selects the best step"
  )
  test: str = setting("test", "split evaluated at the end")
  image_size: int = setting(
    0, "side of the crop in pixels of the first sensor; 0 is the whole image", least=0
  )
  threads: int = setting(0, "threads that assemble batches; 0 chooses for the machine", least=0)
  prefetch: int = setting(
    0, "batches prepared ahead of the step; 0 chooses for the machine", least=0
  )
  verify: bool = setting(True, "check the CRC of every record")
  bad_records: int = setting(
    0,
    "damaged training records per data set to replace by the next one; one more ends the run",
    least=0,
  )


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
  """Augmentation on the device; all sensors of a pair get the same geometric changes."""

  flips: bool = setting(True, "mirror left and right")
  quarter_turns: bool = setting(True, "rotate by 0, 90, 180 or 270 degrees; square images only")
  gain: float = setting(0.1, "standard deviation of a random factor per band and sample", least=0)
  offset: float = setting(
    0.1, "standard deviation of a random offset per band and sample, in normalised units", least=0
  )
  noise: float = setting(0.0, "standard deviation of noise per pixel, in normalised units", least=0)
  curve: float = setting(
    0.0, "standard deviation of the curvature of a tone curve per band", least=0
  )
  zoom: float = setting(
    0.0, "largest magnification minus 1; the crop lies anywhere in the image", least=0, most=1
  )


@dataclasses.dataclass(frozen=True)
class MaskConfig:
  """Which tokens are context and which are targets."""

  mode: str = setting("multiblock", "how targets are drawn", one_of=("multiblock", "random"))
  blocks: int = setting(4, "target blocks per sample", least=1)
  scale: tuple[float, ...] = setting(
    (0.0625, 0.1), "smallest and largest area of a block, as a share of the image"
  )
  aspect: tuple[float, ...] = setting(
    (0.75, 1.5), "smallest and largest ratio of height to width of a block"
  )
  target: float = setting(0.5, 'share of tokens that are targets in mode "random"', least=0, most=1)
  context: float = setting(0.75, "share of tokens that the context encoder sees", least=0, most=1)
  visible: float = setting(
    1.0,
    "share of target blocks that each sensor draws for itself and hides from its own context "
    "only; the other blocks are common to all sensors and hidden from all",
    least=0,
    most=1,
  )
  overlap: bool = setting(False, "the context may include target tokens")
  same_context: bool = setting(
    False, "all sensors of a pair have the same context tokens; requires visible 0"
  )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """The encoder; sizes of the presets are in `xjepa_jax.model.presets`."""

  preset: str = setting(
    "tiny",
    'sets width, depth and attention_heads where these are 0; "none" is no network: all heads '
    "read images, and training.steps is 0",
    one_of=("none", "debug", "tiny", "small", "base", "large", "huge", "giant"),
  )
  width: int = setting(0, "width of a token; 0 is the preset's", least=0)
  depth: int = setting(0, "number of layers; 0 is the preset's", least=0)
  attention_heads: int = setting(0, "number of attention heads; 0 is the preset's", least=0)
  mlp_ratio: float = setting(
    4.0, "hidden width of an MLP as a multiple of the width", least=0.5, most=16
  )
  patch: int = setting(8, "side of a patch in pixels", least=1, most=64)
  stem: str = setting(
    "joint", "one projection of all bands, or one per band", one_of=("joint", "bands")
  )
  local: int = setting(
    0,
    "width of a small convolutional network on quarters of a patch, which feeds the tokens and the "
    "heads that are fitted in closed form; 0 is none",
    least=0,
  )
  local_depth: int = setting(2, "layers of the local network", least=1)
  positions: str = setting("sincos", "position encoding", one_of=("sincos", "rotary"))
  position_unit: str = setting("patches", "unit of positions", one_of=("patches", "metres"))
  shared_layers: int = setting(
    -1, "number of last layers shared by all sensors; -1 is all", least=-1
  )
  registers: int = setting(0, "register tokens, which have no position", least=0)
  activation: str = setting("gelu", "activation of the MLPs", one_of=("gelu", "relu", "silu"))
  attention: str = setting("xla", "attention implementation", one_of=("xla", "cudnn"))
  remat: str = setting(
    "none",
    "what the backward pass recomputes; offload keeps matrix products in host memory",
    one_of=("none", "dots", "full", "offload"),
  )
  unroll: int = setting(1, "layers unrolled per iteration of the scan", least=1)


@dataclasses.dataclass(frozen=True)
class PredictorConfig:
  """Predicts the tokens of target blocks from context tokens."""

  kind: str = setting(
    "narrow",
    "narrow: a transformer over context tokens and target positions; queries: shared learnable "
    "queries that attend to each other and then to the context",
    one_of=("narrow", "queries"),
  )
  width: int = setting(0, "width of a token; 0 is half the encoder's", least=0)
  depth: int = setting(4, "number of layers", least=1)
  attention_heads: int = setting(
    0, "number of attention heads; 0 is width / 64, at least 1", least=0
  )
  told: bool = setting(
    False, "a query starts from the context token at its position, where there is one"
  )
  queries: int = setting(16, 'number of shared queries, for the kind "queries"', least=1)


# Number of gradient orientations per cell. They cover half a turn, because an edge from dark to
# bright in one sensor may run from bright to dark in another.
DIRECTIONS = 9


@dataclasses.dataclass(frozen=True)
class HeadConfig:
  """Computes one descriptor, from tokens or from the image itself."""

  pooling: str = setting(
    "mean",
    "mean, attention, grid: how tokens become a vector. gradients: magnitude of the image's "
    "gradients per cell and orientation. canonical: what sensors share of these gradients, fitted "
    "in closed form, plus what tokens add. statistics: the same for statistics of the whole image",
    one_of=("mean", "attention", "grid", "canonical", "statistics", "gradients"),
  )
  cells: int = setting(4, "cells along a side, for grid, canonical and gradients", least=1)
  numbers: int = setting(
    4,
    "numbers per cell for canonical, at most 9; for statistics it equals the size",
    least=1,
  )
  size: int = setting(
    256,
    "length of the descriptor over all cells; canonical keeps this many of cells^2 * numbers, and "
    "gradients has cells^2 * 9",
    least=1,
  )
  fitted: int = setting(
    20_000,
    "training pairs, at most, on which canonical and statistics are fitted before the first step",
    least=1,
  )
  hidden: int = setting(0, "width of a hidden layer before the projection; 0 is none", least=0)
  prefixes: tuple[int, ...] = setting(
    (), "lengths to which the descriptor can be cut; terms are applied to each prefix too", least=1
  )
  prefix_weight: float = setting(
    1.0, "weight of the loss on each prefix, relative to the whole descriptor", least=0
  )


TOKENS = "tokens"  # target.of: the target encoder's tokens


@dataclasses.dataclass(frozen=True)
class TargetConfig:
  """The EMA target encoder."""

  of: str = setting(
    TOKENS,
    "what is predicted: tokens, or the cells of a head, by its name, with the pooling canonical or "
    "gradients",
  )
  schedule: str = setting(
    "power",
    "schedule of the average; power is set by a lag, the others by a momentum",
    one_of=("power", "linear", "cosine", "constant"),
  )
  lag: float = setting(
    0.05, "mean age of the averaged parameters, as a share of the steps so far", least=0, most=0.9
  )
  momentum: float = setting(
    -1.0, "momentum at the first step, unless the schedule is power; -1 is .996", least=-1, most=1
  )
  final_momentum: float = setting(-1.0, "momentum at the last step; -1 is 1", least=-1, most=1)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """AdamW and its schedules."""

  learning_rate: float = setting(1e-3, "learning rate after the warm-up", least=0)
  final_learning_rate: float = setting(1e-6, "learning rate at the last step", least=0)
  warmup: int = setting(100, "steps over which the learning rate rises linearly", least=0)
  weight_decay: float = setting(0.04, "weight decay at the first step", least=0)
  final_weight_decay: float = setting(0.04, "weight decay at the last step", least=0)
  b1: float = setting(0.9, "Adam's decay of the first moment", least=0, most=0.9999)
  b2: float = setting(0.95, "Adam's decay of the second moment", least=0, most=0.9999)
  clip: float = setting(
    1.0, "global norm to which gradients are clipped; 0 is no clipping", least=0
  )


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
  """Steps, batch size and precision."""

  steps: int = setting(
    1000, "number of updates; 0 evaluates and exports what is fitted in closed form", least=0
  )
  batch: int = setting(64, "pairs in a global batch", least=1)
  accumulate: int = setting(1, "parts of a batch whose gradients are accumulated", least=1)
  overlap: bool = setting(
    True, "compiler options that overlap communication with computation; see docs/scale.md"
  )
  precision: str = setting(
    "auto",
    "compute precision; parameters and reductions are float32. auto is bfloat16 on accelerators",
    one_of=("auto", "float32", "bfloat16"),
  )
  bad_steps: int = setting(
    10, "consecutive steps skipped for NaN or Inf after which the run stops", least=1
  )
  seed: int = setting(0, "seed of all random numbers", least=0)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Number of devices along each axis of the mesh; -1 takes the rest."""

  replica: int = setting(1, "replicas of the parameters", least=-1)
  fsdp: int = setting(-1, "shards of the parameters and of the batch", least=-1)
  tensor: int = setting(1, "shards of each layer (tensor parallelism)", least=-1)


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  """When checkpoints are written, and which are kept."""

  every: int = setting(500, "steps between checkpoints", least=1)
  keep: int = setting(2, "number of most recent checkpoints kept, beside the best", least=1)
  keep_every: int = setting(
    0, "checkpoints at multiples of this many steps are kept forever; 0 is none", least=0
  )


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
  """Retrieval on pairs that were not trained on."""

  every: int = setting(
    500, "steps between evaluations on the validation split; 0 is never", least=0
  )
  pairs: int = setting(2000, "largest number of pairs evaluated per split", least=2)
  batch: int = setting(0, "pairs in a batch; 0 is the training batch", least=0)
  head: str = setting("layout", "head whose descriptors are ranked, and select the best step")
  encoder: str = setting(
    "best",
    "which to export: the averaged (target), the trained (online), or the better on validation",
    one_of=("best", "target", "online"),
  )
  protocol: str = setting(
    "paired-recall",
    "retrieval protocol of the final evaluation",
    one_of=("paired-recall", "ben14k-f1@5", "csmae-f1@10", "cbrsir-map", "dsrsid-map"),
  )
  predicted: bool = setting(
    False, "also rank queries by what the predictor makes of them in the other sensor, at the end"
  )
  mutual_information: int = setting(
    300, "largest number of pairs for which this baseline is computed", least=0
  )
  linear: int = setting(
    20_000,
    "training pairs, at most, on which the linear baseline is fitted; 0 omits it and gradients",
    least=0,
  )


@dataclasses.dataclass(frozen=True)
class ProcessesConfig:
  """Time limits for processes that wait for each other."""

  join_seconds: int = setting(300, "seconds within which all processes have to connect", least=1)
  lost_seconds: int = setting(
    60, "seconds without a heartbeat after which a process counts as lost", least=2
  )
  hang_seconds: float = setting(
    1800.0, "seconds without progress after which a run ends; 0 waits forever", least=0
  )


@dataclasses.dataclass(frozen=True)
class TelemetryConfig:
  """What is reported during training."""

  every: int = setting(50, "steps between progress lines and logged scalars", least=1)
  tensorboard: bool = setting(True, "write TensorBoard files")
  histograms: int = setting(0, "steps between histograms of parameters; 0 is never", least=0)
  wandb: str = setting("", "Weights & Biases project; empty is none")
  profile: tuple[int, ...] = setting((), "first and last step of a profile; () is none")
  profile_steps: int = setting(5, "steps in a profile requested by SIGUSR1", least=1)
  prometheus_port: int = setting(
    0, "port of the Prometheus endpoint; 0 is none", least=0, most=65535
  )
  prometheus_address: str = setting(
    "127.0.0.1", "address that the endpoint listens on; 0.0.0.0 is every interface"
  )
  stop_on_collapse: bool = setting(False, "end a run whose descriptors have collapsed")


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
    {}, "changes to the data sets' descriptions of sensors, by name, with the keys of sensors.json"
  )
  routes: tuple[str, ...] = setting(
    (), 'prediction routes "a->b"; () is every ordered pair of sensors, and a->a'
  )
  augment: AugmentConfig = AugmentConfig()
  mask: MaskConfig = MaskConfig()
  model: ModelConfig = ModelConfig()
  predictor: PredictorConfig = PredictorConfig()
  heads: Mapping[str, HeadConfig] = setting(_HEADS, "descriptors, by name")
  objective: Mapping[str, Mapping[str, Any]] = setting(
    _OBJECTIVE,
    "terms of the loss by label: term, weight, warmup, start, end, its options; docs/objective.md",
  )
  target: TargetConfig = TargetConfig()
  optimizer: OptimizerConfig = OptimizerConfig()
  training: TrainingConfig = TrainingConfig()
  mesh: MeshConfig = MeshConfig()
  checkpoint: CheckpointConfig = CheckpointConfig()
  evaluation: EvaluationConfig = EvaluationConfig()
  telemetry: TelemetryConfig = TelemetryConfig()
  processes: ProcessesConfig = ProcessesConfig()
