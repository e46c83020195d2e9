"""An encoder with random weights, exported: what needs an encoder but no training."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from tests.debug_config import get_config
from xjepa_jax.config import parse_routes, resolve
from xjepa_jax.export import export_encoder
from xjepa_jax.model import xjepa
from xjepa_jax.model.inputs import sensor_inputs
from xjepa_jax.paths import StrPath
from xjepa_jax.sensors import Sensor


def export_random_encoder(directory: StrPath, sensors: Mapping[str, Sensor], size: int) -> None:
  """Writes the encoder of the debug config for these sensors, images of `size` pixels."""
  config = resolve(get_config("nowhere"))
  inputs = sensor_inputs(sensors, dict.fromkeys(sensors, (size, size)), config.model.patch)
  model = xjepa.build(config, inputs, parse_routes(config.routes, tuple(inputs)), jnp.float32)
  encoder = jax.jit(lambda key: model.init(key)["encoder"])(jax.random.key(0))
  centre = {
    name: {key: np.zeros(head.size, np.float32) for key in inputs}
    for name, head in config.heads.items()
  }
  export_encoder(directory, model, encoder, centre, "layout", {"steps": 0}, "Random weights.")
