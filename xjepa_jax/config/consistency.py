"""Checks of a config's values against each other.

Each value alone has already been checked against its own field (`fields`); here are the
combinations that cannot work together.
"""

from __future__ import annotations

from xjepa_jax.config.schema import DIRECTIONS, TOKENS, Config, HeadConfig, TargetConfig
from xjepa_jax.errors import ConfigError


def check_together(config: Config) -> None:
  """Check values that are each valid but may not fit together.

  Raises:
    ConfigError: two of them contradict each other; the message names the key to change.
  """
  if config.training.batch % config.training.accumulate:
    raise ConfigError(
      f"config key 'training.accumulate' is {config.training.accumulate}; it must divide "
      f"training.batch = {config.training.batch}."
    )
  if not config.heads:
    raise ConfigError("config key 'heads' is empty; name at least one head.")
  if config.evaluation.head not in config.heads:
    raise ConfigError(
      f"config key 'evaluation.head' is {config.evaluation.head!r}; the heads are "
      f"{', '.join(config.heads)}."
    )
  if config.model.preset == "none" and config.training.steps:
    raise ConfigError(
      f"config key 'training.steps' is {config.training.steps}, and model.preset is 'none': "
      "without a network there is nothing to train. Give training.steps = 0, or a preset with one."
    )
  if config.model.preset == "none" and config.model.local:
    raise ConfigError(
      f"config key 'model.local' is {config.model.local}, and model.preset is 'none': the local "
      "network enters tokens. Give 0, or a preset that has a network."
    )
  for name, head in config.heads.items():
    _check_layout(name, head)
    if head.pooling == "grid" and head.size % head.cells**2:
      raise ConfigError(
        f"config key 'heads.{name}.size' is {head.size}; it must be a multiple of the "
        f"{head.cells**2} cells (heads.{name}.cells = {head.cells})."
      )
    _check_prefixes(name, head)
    # The metrics "validation/averaged/score" and "validation/trained/score" are those of encoders.
    if name in ("averaged", "trained"):
      raise ConfigError(
        f"config key 'heads.{name}' names a head as the metrics name an encoder; choose another."
      )
  if config.target.of not in (TOKENS, *config.heads):
    raise ConfigError(
      f"config key 'target.of' is {config.target.of!r}; expected {TOKENS!r}, or one of the heads "
      f"{', '.join(config.heads)}."
    )
  _check_target(config.target)
  for name in ("replica", "fsdp", "tensor"):
    if getattr(config.mesh, name) == 0:
      raise ConfigError(f"config key 'mesh.{name}' is 0; give a number of devices, or -1.")
  for name in ("scale", "aspect"):
    values = getattr(config.mask, name)
    if len(values) != 2 or not 0 < values[0] <= values[1]:
      raise ConfigError(f"config key 'mask.{name}' is {values}; expected two, the smaller first.")
  if len(config.telemetry.profile) not in (0, 2):
    raise ConfigError(
      f"config key 'telemetry.profile' is {config.telemetry.profile}; expected a first and a last "
      "step, or ()."
    )


def _check_layout(name: str, head: HeadConfig) -> None:
  """Check that a layout's size is the one that its own cells give."""
  whole = head.cells**2 * DIRECTIONS
  if head.pooling == "gradients" and head.size != whole:
    raise ConfigError(
      f"config key 'heads.{name}.size' is {head.size}; the pooling 'gradients' gives "
      f"{head.cells} x {head.cells} cells x {DIRECTIONS} directions = {whole} numbers."
    )
  if head.pooling == "canonical" and head.numbers > DIRECTIONS:
    raise ConfigError(
      f"config key 'heads.{name}.numbers' is {head.numbers}; a cell has {DIRECTIONS} directions."
    )
  if head.pooling == "statistics" and head.size != head.numbers:
    raise ConfigError(
      f"config key 'heads.{name}.size' is {head.size}, and heads.{name}.numbers {head.numbers}; of "
      "the pooling 'statistics' the image is the one cell. Give both the same."
    )
  whole = head.cells**2 * head.numbers
  if head.pooling == "canonical" and head.size > whole:
    raise ConfigError(
      f"config key 'heads.{name}.size' is {head.size}; {head.cells} x {head.cells} cells x "
      f"{head.numbers} numbers give at most {whole}. Give a smaller size, or more cells or numbers."
    )


def _check_target(target: TargetConfig) -> None:
  """Check that momentum is set only with the schedules that use it, and lag only with "power"."""
  if target.schedule != "power":
    if target.lag != TargetConfig.lag:
      raise ConfigError(
        f"config key 'target.lag' is {target.lag}, and target.schedule is {target.schedule!r}, "
        "which has a momentum: leave the lag out, or set target.schedule to 'power'."
      )
    return
  for name in ("momentum", "final_momentum"):
    if getattr(target, name) != getattr(TargetConfig, name):
      raise ConfigError(
        f"config key 'target.{name}' is {getattr(target, name)}, and target.schedule is 'power', "
        "which has none: its memory is the share target.lag of the steps. Leave the momentum out, "
        "or set target.schedule to 'linear', the default of old, 'cosine' or 'constant'."
      )


def _check_prefixes(name: str, head: HeadConfig) -> None:
  """Check that prefixes ascend, are shorter than the descriptor, and keep all cells of a grid.

  A descriptor of the pooling "gradients" is stored cell by cell, so its prefix would be a corner of
  the scene.
  """
  if head.prefixes and head.pooling == "gradients":
    raise ConfigError(
      f"config key 'heads.{name}.prefixes' is {head.prefixes}; a descriptor of the pooling "
      "'gradients' cannot be cut, for its beginning is a corner of the scene. Give fewer cells, or "
      "the pooling 'canonical', whose beginnings are coarser layouts."
    )
  parts = head.cells**2 if head.pooling == "grid" else 1
  rising = all(a < b for a, b in zip(head.prefixes, (*head.prefixes[1:], head.size), strict=False))
  if not rising or any(size % parts for size in head.prefixes):
    whole = f", multiples of the {parts} cells" if parts > 1 else ""
    raise ConfigError(
      f"config key 'heads.{name}.prefixes' is {head.prefixes}; expected rising numbers below "
      f"heads.{name}.size = {head.size}{whole}."
    )
