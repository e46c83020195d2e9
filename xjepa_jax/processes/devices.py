"""Whether JAX finds the devices that it was told to use."""

from __future__ import annotations

import os

from xjepa_jax.errors import ConfigError


def check_devices() -> None:
  """Starts JAX's devices, before anything is computed for them.

  Raises:
    ConfigError: there are none of the platform that JAX was told, or they cannot be used.
  """
  import jax

  try:
    jax.devices()
  except Exception as error:  # an AssertionError without a word where a platform has no device
    told = os.environ.get("JAX_PLATFORMS")
    asked = f", and the variable JAX_PLATFORMS is {told!r}" if told else ""
    why = (str(error).splitlines() or ["none of that platform was found"])[0]
    raise ConfigError(
      f"JAX has no devices to compute on{asked} ({why}). Unset JAX_PLATFORMS to use what is here, "
      "or install that platform's driver and JAX, such as jax[cuda12] or jax[tpu]."
    ) from error
