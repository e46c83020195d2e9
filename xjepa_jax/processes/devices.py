"""A check that JAX finds the devices that it was configured to use.

JAX starts its devices on first use, and fails without a message if a platform has none. Commands
call this check first, so that the user gets the reason and the remedy.
"""

from __future__ import annotations

import os

from xjepa_jax.errors import ConfigError


def check_devices() -> None:
  """Initialise JAX's devices before anything is computed on them.

  Raises:
    ConfigError: the platform that JAX was configured for has no devices, or none that work.
  """
  import jax

  try:
    jax.devices()
  except Exception as error:  # an AssertionError without a message if a platform has no device
    told = os.environ.get("JAX_PLATFORMS")
    asked = f", and the variable JAX_PLATFORMS is {told!r}" if told else ""
    why = (str(error).splitlines() or ["none of that platform was found"])[0]
    raise ConfigError(
      f"JAX has no devices to compute on{asked} ({why}). Unset JAX_PLATFORMS to use what is here, "
      "or install that platform's driver and JAX, such as jax[cuda12] or jax[tpu]."
    ) from error
