"""The schema of a config: every key with its meaning, unit, default and check.

A file of `configs/` starts from `default_config()` and changes what its experiment needs; the
command line changes single keys. `resolve` then turns it into a frozen `Config`, or raises an error
that names the key, the value and what is allowed. Checks that need a data set or a mesh happen
where those are opened.
"""

from xjepa_jax.config.describing import default_config, describe_keys, dotted, to_dict
from xjepa_jax.config.entries import Route, parse_bands, parse_routes
from xjepa_jax.config.resolving import resolve
from xjepa_jax.config.schema import (
  TOKENS,
  AugmentConfig,
  CheckpointConfig,
  Config,
  DataConfig,
  EvaluationConfig,
  HeadConfig,
  MaskConfig,
  MeshConfig,
  ModelConfig,
  OptimizerConfig,
  PredictorConfig,
  ProcessesConfig,
  TargetConfig,
  TelemetryConfig,
  TrainingConfig,
)

__all__ = [
  "TOKENS",
  "AugmentConfig",
  "CheckpointConfig",
  "Config",
  "DataConfig",
  "EvaluationConfig",
  "HeadConfig",
  "MaskConfig",
  "MeshConfig",
  "ModelConfig",
  "OptimizerConfig",
  "PredictorConfig",
  "ProcessesConfig",
  "Route",
  "TargetConfig",
  "TelemetryConfig",
  "TrainingConfig",
  "default_config",
  "describe_keys",
  "dotted",
  "parse_bands",
  "parse_routes",
  "resolve",
  "to_dict",
]
