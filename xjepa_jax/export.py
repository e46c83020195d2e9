"""A trained encoder as a directory of its own, and reading it back.

  arrays/               Orbax: parameters, and the centre of each head and sensor
  encoder.safetensors   the same, for other tools
  encoder.json          architecture, sensors with their scaling, versions, how it was trained
  README.md             a model card
  manifest.json         SHA-256 of all of these: neither Orbax nor safetensors notices a flipped bit

Nothing in it is ever unpickled.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import save_file

from xjepa_jax.config import Config, parse_routes, resolve, to_dict
from xjepa_jax.data.storage import is_remote
from xjepa_jax.errors import ExportError, XJepaError
from xjepa_jax.model import images, xjepa
from xjepa_jax.model.inputs import SensorInput
from xjepa_jax.sensors import sensor_from_json, sensor_to_json
from xjepa_jax.training.manifest import damage, write_manifest
from xjepa_jax.training.structure import structure_differences
from xjepa_jax.versions import versions

FORMAT = "xjepa_jax encoder 1"
_OLD = ".old"
DESCRIPTION, ARRAYS, TENSORS, CARD = "encoder.json", "arrays", "encoder.safetensors", "README.md"


def export_encoder(
  directory: str,
  model: xjepa.XJepa,
  encoder: Any,
  centre: Mapping[str, Mapping[str, np.ndarray]],
  head: str,
  summary: Mapping[str, Any],
  card: str,
) -> None:
  """Writes an encoder; the directory appears whole, or not at all.

  Args:
    directory: local; an export that is there is replaced when the new one is whole.
    model: its architecture.
    encoder: its parameters, trained or averaged.
    centre: head -> sensor -> (K,), subtracted from descriptors.
    head: the one used where none is named.
    summary: of the training: config, steps, what it reached; JSON's types.
    card: the model card, Markdown.

  Raises:
    ExportError: it cannot be written.
  """
  _check_local(directory)
  directory = os.path.abspath(directory)
  partial = f"{directory}.partial"
  arrays = jax.device_get({"encoder": encoder, "centre": centre})
  try:
    shutil.rmtree(partial, ignore_errors=True)
    os.makedirs(partial)
    with ocp.StandardCheckpointer() as checkpointer:
      checkpointer.save(epath.Path(partial) / ARRAYS, arrays)
    flat = traverse_util.flatten_dict(arrays, sep="/")
    save_file(
      {key: np.ascontiguousarray(value) for key, value in flat.items()},
      f"{partial}/{TENSORS}",
      metadata={"format": FORMAT},
    )
    with open(f"{partial}/{DESCRIPTION}", "w", encoding="utf-8") as file:
      json.dump(_description(model, head, summary), file, indent=1, allow_nan=False)
    with open(f"{partial}/{CARD}", "w", encoding="utf-8") as file:
      file.write(card)
    write_manifest(epath.Path(partial))
    _put_in_place(partial, directory)
  except (OSError, ValueError) as error:  # ValueError: what TensorStore makes of a full disk
    raise ExportError(
      f"{directory}: the encoder cannot be written ({str(error).splitlines()[0]}). What was there "
      "before is there still."
    ) from error


def load_encoder(directory: str) -> LoadedEncoder:
  """Reads an exported encoder; its bytes are checked against the manifest first.

  Args:
    directory: local.

  Raises:
    ExportError: there is none, a file is damaged, or it was written by a newer version.
  """
  _check_local(directory)
  path = epath.Path(os.path.abspath(directory))  # Orbax takes no relative one
  if not path.exists():  # replacing it was interrupted between two renames
    path = epath.Path(os.path.abspath(directory) + _OLD)
  if not path.exists():
    raise ExportError(f"{directory}: there is no such directory. Name one that a run exported.")
  wrong = damage(path)
  if wrong:
    raise ExportError(
      f"{directory}: no encoder that can be trusted: {wrong}. Copy the directory again from its "
      "source, or export it again."
    )
  try:
    described = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
    if described.get("format") != FORMAT:
      raise ExportError(
        f"{directory}/{DESCRIPTION}: format {described.get('format')!r}, expected {FORMAT!r}. Use "
        "the version of xjepa_jax that wrote it."
      )
    model = _model(described, f"{directory}/{DESCRIPTION}")
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0))["encoder"])
    sizes = {name: model.config.heads[name].size for name in model.config.heads}
    centre = {
      name: {key: jax.ShapeDtypeStruct((size,), np.float32) for key in model.inputs}
      for name, size in sizes.items()
    }
    head = described["head"]
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
      {"encoder": shapes, "centre": centre},
    )
    with ocp.StandardCheckpointer() as checkpointer:
      stored = checkpointer.metadata(path / ARRAYS).item_metadata
      if differing := structure_differences(getattr(stored, "tree", stored), target):
        raise ExportError(
          f"{directory}: its arrays are not those that {DESCRIPTION} describes. Stored and "
          f"described: {differing}. Export it again."
        )
      arrays = checkpointer.restore(path / ARRAYS, target)
  except XJepaError:
    raise
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise ExportError(
      f"{directory}: not an encoder of this version ({type(error).__name__}: {error})."
    ) from error
  return LoadedEncoder(model, arrays["encoder"], arrays["centre"], head, described)


class LoadedEncoder:
  """An encoder ready for use.

    encoder = xjepa_jax.load_encoder("runs/optical_sar/encoder")
    found = encoder.describe({"sensor": images})     # (B, H, W, C) as stored

  Attributes:
    head: the one that `describe` uses if none is named.
    description: what `encoder.json` says.
  """

  def __init__(self, model: xjepa.XJepa, encoder: Any, centre: Any, head: str, description: Any):
    self.head = head
    self.description = description
    self._model = model
    # Every device has the parameters, and its share of a batch.
    mesh = jax.sharding.Mesh(np.asarray(jax.local_devices()), ("batch",))
    self._batch = NamedSharding(mesh, PartitionSpec("batch"))
    whole = NamedSharding(mesh, PartitionSpec())
    self._encoder, self._centre = jax.device_put((encoder, centre), whole)
    self._run = jax.jit(self._encode, static_argnames=("sensor", "head"))

  @property
  def inputs(self) -> Mapping[str, SensorInput]:
    """sensor -> the images that the encoder takes of it."""
    return self._model.inputs

  @property
  def heads(self) -> dict[str, int]:
    """head -> the size of its descriptors."""
    return {name: head.size for name, head in self._model.config.heads.items()}

  def describe(self, values: Mapping[str, Any], head: str | None = None) -> np.ndarray:
    """Descriptors of images.

    Args:
      values: one sensor -> (B, H, W, C) values as its product stores them, bands in the order of
        `inputs[sensor].sensor`. Images larger than the encoder's are cut in the middle.
      head: by name; None is `self.head`.

    Returns:
      (B, K) float32 of length 1; scalar products of two sensors' descriptors rank scenes.

    Raises:
      ExportError: the encoder does not know the sensor or the head, or the images do not fit.
    """
    head = self.head if head is None else head
    if head not in self.heads:
      raise ExportError(f"no head {head!r}; this encoder has {', '.join(self.heads)}.")
    return self._on_devices(values, head)

  def tokens(self, values: Mapping[str, Any]) -> np.ndarray:
    """(B, N, D) float32 patch tokens of images, N in row-major order; else as `describe`."""
    return self._on_devices(values, None)

  def _on_devices(self, values: Mapping[str, Any], head: str | None) -> np.ndarray:
    sensor, stored = _one(values, self.inputs)
    count = len(stored)
    devices = len(jax.local_devices())
    rows = max(math.ceil(count / devices), 1) * devices
    padded = np.zeros((rows, *stored.shape[1:]), stored.dtype)
    padded[:count] = stored
    placed = jax.device_put(padded, self._batch)
    found = self._run(self._encoder, self._centre, placed, sensor=sensor, head=head)
    return np.asarray(found)[:count]

  def _encode(
    self, encoder: Any, centre: Any, stored: jax.Array, sensor: str, head: str | None
  ) -> jax.Array:
    values, seen = images.scale(self.inputs[sensor].sensor, stored)
    cut = images.crop({sensor: values}, self.inputs, None)
    module = xjepa.merge(self._model.encoder, encoder)
    tokens = module.tokens(cut, {sensor: seen})
    if head is None:
      return tokens[sensor].astype(jnp.float32)
    found = module.descriptors(tokens, heads=(head,))[head][sensor] - centre[head][sensor]
    length = jnp.linalg.norm(found, axis=-1, keepdims=True)
    return found / jnp.maximum(length, jnp.finfo(jnp.float32).tiny)


def _check_local(directory: str) -> None:
  if is_remote(directory):
    raise ExportError(
      f"{directory}: encoders are written to and read from directories of this machine or a "
      "mounted disk. Copy it."
    )


def _put_in_place(partial: str, directory: str) -> None:
  """Renames a whole export; the one before stays readable until the new one is there."""
  old = directory + _OLD
  if os.path.exists(directory):
    shutil.rmtree(old, ignore_errors=True)
    os.rename(directory, old)
  os.rename(partial, directory)
  shutil.rmtree(old, ignore_errors=True)


def _description(model: xjepa.XJepa, head: str, summary: Mapping[str, Any]) -> dict[str, Any]:
  return {
    "format": FORMAT,
    "head": head,
    "config": to_dict(model.config),
    "dtype": str(jnp.dtype(model.dtype)),
    "sensors": {
      key: {
        "description": sensor_to_json(given.sensor),
        "height": given.height,
        "width": given.width,
        "patch": given.patch,
      }
      for key, given in model.inputs.items()
    },
    "training": dict(summary),
    "versions": versions(),
  }


def _model(described: Mapping[str, Any], where: str) -> xjepa.XJepa:
  """The architecture that an `encoder.json` describes."""
  config: Config = resolve(described["config"])
  inputs = {
    key: SensorInput(
      sensor_from_json(entry["description"], f"{where}: sensors.{key}.description"),
      int(entry["height"]),
      int(entry["width"]),
      int(entry["patch"]),
    )
    for key, entry in described["sensors"].items()
  }
  # Weights are read where they are used: what no attention kernel or remat policy changes.
  plain = dataclasses.replace(config.model, attention="xla", remat="none")
  config = dataclasses.replace(config, model=plain)
  dtype = jnp.dtype(described["dtype"] if jax.default_backend() != "cpu" else "float32")
  return xjepa.build(config, inputs, parse_routes(config.routes, tuple(inputs)), dtype)


def _one(values: Mapping[str, Any], inputs: Mapping[str, SensorInput]) -> tuple[str, np.ndarray]:
  """The only sensor of a call, and its images, checked."""
  if len(values) != 1 or not set(values) <= set(inputs):
    raise ExportError(
      f"images of {', '.join(values) or 'no sensor'}: give those of one of {', '.join(inputs)}."
    )
  ((sensor, images_),) = values.items()
  given, stored = inputs[sensor], np.asarray(images_)
  bands = ", ".join(given.sensor.band_names)
  fits = stored.ndim == 4 and stored.shape[3] == given.bands
  if not fits or stored.shape[1] < given.height or stored.shape[2] < given.width:
    raise ExportError(
      f"images of {sensor!r} have shape {stored.shape}; expected (B, H, W, {given.bands}) with "
      f"H >= {given.height}, W >= {given.width} and the bands {bands}."
    )
  if stored.dtype != np.dtype(given.sensor.dtype):
    raise ExportError(
      f"images of {sensor!r} are {stored.dtype}; this sensor's values are stored as "
      f"{given.sensor.dtype}, in {given.sensor.units}. Give them as the product has them, unscaled."
    )
  return sensor, stored
