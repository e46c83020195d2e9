"""An exported encoder in use: from images of any of its sensors to descriptors and tokens.

Inputs are checked, padded to a multiple of the local devices and described in one jitted call, in
which every device holds all parameters and a share of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from xjepa_jax.config import TOKENS
from xjepa_jax.errors import ExportError
from xjepa_jax.given_images import judged
from xjepa_jax.model import images, xjepa
from xjepa_jax.model.encoder import has_network
from xjepa_jax.model.inputs import SensorInput
from xjepa_jax.model.layout import Reading, reads_images
from xjepa_jax.model.predicted_descriptors import predicted_descriptors


class LoadedEncoder:
  """An encoder ready for use.

    encoder = xjepa_jax.load_encoder("runs/optical_sar/encoder")
    found = encoder.describe({"sensor": images})     # (B, H, W, C) as stored

  Attributes:
    head: the default head of `describe`.
    description: the content of `encoder.json`.
  """

  def __init__(
    self,
    model: xjepa.XJepa,
    encoder: Any,
    centre: Any,
    head: str,
    description: Any,
    predictor: Any = None,
  ):
    self.head = head
    self.description = description
    self._model = model
    # Every device holds all parameters and its share of the batch.
    mesh = jax.sharding.Mesh(np.asarray(jax.local_devices()), ("batch",))
    self._batch = NamedSharding(mesh, PartitionSpec("batch"))
    whole = NamedSharding(mesh, PartitionSpec())
    self._encoder, self._centre = jax.device_put((encoder, centre), whole)
    # Parameters are passed as arguments: captured by the functions, they would be compiled in.
    self._run = jax.jit(self._encode, static_argnames=("sensor", "head"))
    self._run_patches = jax.jit(self._patches, static_argnames=("sensor", "head"))
    self._crossing = None if predictor is None else jax.device_put(predictor, whole)
    self._run_crossing = jax.jit(self._cross, static_argnames=("sensor", "head", "to"))

  @property
  def inputs(self) -> Mapping[str, SensorInput]:
    """sensor -> the images that the encoder takes from it."""
    return self._model.inputs

  @property
  def heads(self) -> dict[str, int]:
    """head -> the size of its descriptors."""
    return {name: head.size for name, head in self._model.config.heads.items()}

  @property
  def has_tokens(self) -> bool:
    """Whether the encoder has a network; without one, heads read images directly."""
    return has_network(self._model.config.model)

  def predicts(self, head: str | None = None) -> tuple[tuple[str, str], ...]:
    """Pairs of sensors (a, b) such that a head can describe a's images as b's.

    Args:
      head: name of a head; None means `self.head`.

    Returns:
      An empty tuple without a predictor, and for a head that reads images, because only tokens are
      predicted.
    """
    config = self._model.config
    pooled = not reads_images(config.heads[self._known_head(head)])
    if self._crossing is None or not pooled or config.target.of != TOKENS:
      return ()
    return tuple((a, b) for a, b in self._model.routes if a != b)

  def prefixes(self, head: str | None = None) -> tuple[int, ...]:
    """Sizes to which a head's descriptors were trained to be cut, in addition to the whole."""
    return self._model.config.heads[self._known_head(head)].prefixes

  def describe(
    self,
    values: Mapping[str, Any],
    head: str | None = None,
    to: str | None = None,
    trust_units: bool = False,
    min_valid: float = 0.1,
    unseen: str = "refuse",
  ) -> np.ndarray:
    """Descriptors of images.

    Args:
      values: one sensor -> (B, H, W, C) values as its product stores them, bands in the order of
        `inputs[sensor].sensor`. Larger images are cropped at the centre. Masked values of a masked
        array count as unobserved.
      head: name of a head; None means `self.head`.
      to: another sensor: predict its tokens from the images first and describe those, for
        comparison with plain descriptors of that sensor. Must be one of `predicts`.
      trust_units: accept values that contradict the sensor's units. Without it, a suspicion that
        is not certain, such as another offset of a batch, is a UserWarning.
      min_valid: least share of the cropped pixels that must be observed.
      unseen: what to do with images below that share: "refuse" them, return "nan" for them, or
        "take" them as they are.

    Returns:
      (B, K) float32 of length 1; scalar products of two sensors' descriptors rank scenes.

    Raises:
      ExportError: the encoder does not know the sensor or the head, cannot predict, or the images
        do not fit, have other units, or show too little.
    """
    head = self._known_head(head)
    sensor, stored, few = judged(values, self.inputs, trust_units, min_valid, unseen)
    return _without(self._on_devices(sensor, stored, head, to), few)

  def start(
    self,
    values: Mapping[str, Any],
    head: str | None = None,
    trust_units: bool = False,
    min_valid: float = 0.1,
    unseen: str = "refuse",
  ) -> jax.Array:
    """Start what `describe` does, and return while the devices still compute.

    Args:
      values: as in `describe`; B is a multiple of the number of local devices. The array must not
        be changed before the result is ready: on a CPU it is not copied.
      head: name of a head; None means `self.head`.
      trust_units, min_valid, unseen: as in `describe`.

    Returns:
      (B, K) float32; `numpy.asarray` waits for it. Each device computes B / devices rows, so the
      value of a row depends on that number alone, not on how many devices there are.

    Raises:
      ExportError: as in `describe`, or B does not divide evenly among the devices.
    """
    head = self._known_head(head)
    sensor, stored, few = judged(values, self.inputs, trust_units, min_valid, unseen)
    devices = len(jax.local_devices())
    if len(stored) == 0 or len(stored) % devices:
      raise ExportError(f"{len(stored)} images: give a multiple of the {devices} devices here.")
    found: jax.Array = self._run(
      self._encoder, self._centre, jax.device_put(stored, self._batch), sensor=sensor, head=head
    )
    return found.at[few].set(jnp.nan) if len(few) else found

  def tokens(
    self,
    values: Mapping[str, Any],
    trust_units: bool = False,
    min_valid: float = 0.1,
    unseen: str = "refuse",
  ) -> np.ndarray:
    """(B, N, D) float32 patch tokens of images, N in row-major order; otherwise as `describe`.

    Raises:
      ExportError: as in `describe`, or the encoder has no network.
    """
    if not self.has_tokens:
      raise ExportError(
        "this encoder has no network (model.preset 'none'), and so no tokens: its heads read "
        "images. `patches` gives what each cell of an image says."
      )
    sensor, stored, few = judged(values, self.inputs, trust_units, min_valid, unseen)
    return _without(self._on_devices(sensor, stored, None), few)

  def patches(
    self,
    values: Mapping[str, Any],
    head: str | None = None,
    trust_units: bool = False,
    min_valid: float = 0.1,
    unseen: str = "refuse",
  ) -> np.ndarray:
    """Each patch's own contribution, centred, to see which patches of two images match.

    Patches are those of `patch_grid`.

    Args:
      values: as in `describe`.
      head: name of a head; None means `self.head`.
      trust_units, min_valid, unseen: as in `describe`.

    Returns:
      (B, N, d) float32, N in row-major order; d is the descriptor's size, or the size per cell.

    Raises:
      ExportError: as in `describe`.
    """
    head = self._known_head(head)
    sensor, stored, few = judged(values, self.inputs, trust_units, min_valid, unseen)
    # An empty batch is replaced by one blank image, because its shape alone does not give N.
    images_ = stored if len(stored) else np.zeros((1, *stored.shape[1:]), stored.dtype)
    found = self._run_patches(
      self._encoder, self._centre, jnp.asarray(images_), sensor=sensor, head=head
    )
    return _without(np.asarray(found)[: len(stored)], few)

  def patch_grid(self, head: str | None = None) -> tuple[int, int]:
    """Rows and columns of a head's `patches`: its cells if it reads images, else the tokens."""
    settings = self._model.config.heads[self._known_head(head)]
    if reads_images(settings):
      return (Reading.of(settings).cells,) * 2
    return self._model.grid

  def _known_head(self, head: str | None) -> str:
    head = self.head if head is None else head
    if head not in self.heads:
      raise ExportError(f"no head {head!r}; this encoder has {', '.join(self.heads)}.")
    return head

  def _on_devices(
    self, sensor: str, stored: np.ndarray, head: str | None, to: str | None = None
  ) -> np.ndarray:
    if to is not None and (sensor, to) not in self.predicts(head):
      ways = ", ".join(f"{a} to {b}" for a, b in self.predicts(head)) or "nothing"
      raise ExportError(
        f"{sensor} to {to} cannot be predicted; by its head {head!r} this encoder predicts {ways}. "
        "Load it with predictor=True (of an older format none is read), and name a head that pools "
        "tokens: what others read of images is not predicted."
      )
    count = len(stored)
    devices = len(jax.local_devices())
    # The batch is padded, because every device takes the same number of rows, at least one.
    rows = max(math.ceil(count / devices), 1) * devices
    padded = np.zeros((rows, *stored.shape[1:]), stored.dtype)
    padded[:count] = stored
    placed = jax.device_put(padded, self._batch)
    if to is None:
      found = self._run(self._encoder, self._centre, placed, sensor=sensor, head=head)
    else:
      found = self._run_crossing(
        self._encoder, self._crossing, placed, sensor=sensor, head=head, to=to
      )
    return np.asarray(found)[:count]

  def _encode(
    self, encoder: Any, centre: Any, stored: jax.Array, sensor: str, head: str | None
  ) -> jax.Array:
    module, values, tokens, parts = self._tokens(encoder, stored, sensor)
    if head is None:
      return tokens[sensor].astype(jnp.float32)
    found = module.descriptors(values, tokens, heads=(head,), parts=parts)[head][sensor]
    return _unit(found - centre[head][sensor])

  def _patches(
    self, encoder: Any, centre: Any, stored: jax.Array, sensor: str, head: str
  ) -> jax.Array:
    module, values, tokens, parts = self._tokens(encoder, stored, sensor)
    found: jax.Array = module.patches(
      head, sensor, values[sensor], tokens.get(sensor), parts.get(sensor), centre[head][sensor]
    )
    return found

  def _tokens(
    self, encoder: Any, stored: jax.Array, sensor: str
  ) -> tuple[Any, dict[str, jax.Array], dict[str, jax.Array], dict[str, jax.Array]]:
    """The encoder as a module, and the sensor's scaled images, their tokens, and their parts."""
    values, seen = images.scale(self.inputs[sensor].sensor, stored)
    cut = {sensor: values}
    module = xjepa.merge(self._model.encoder, encoder)
    parts = module.parts(cut)
    return module, cut, module.tokens(cut, {sensor: seen}, parts=parts), parts

  def _cross(
    self, encoder: Any, crossing: Any, stored: jax.Array, sensor: str, head: str, to: str
  ) -> jax.Array:
    _, _, tokens, _ = self._tokens(encoder, stored, sensor)
    found = predicted_descriptors(
      self._model, encoder, crossing["predictor"], tokens, heads=(head,)
    )
    way = f"{sensor}->{to}"
    return _unit(found[head][way] - crossing["centre"][head][way])


def _without(found: np.ndarray, few: np.ndarray) -> np.ndarray:
  """The result with NaN in the rows of images that show too little."""
  if len(few):
    found = found.copy()
    found[few] = np.nan
  return found


def _unit(found: jax.Array) -> jax.Array:
  length = jnp.linalg.norm(found, axis=-1, keepdims=True)
  # A descriptor of zeros stays 0 instead of becoming NaN.
  return found / jnp.maximum(length, jnp.finfo(jnp.float32).tiny)
