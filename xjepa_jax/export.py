"""Export of a trained encoder to a directory of its own, and loading it again.

  arrays/               Orbax: parameters, and the centre of each head and sensor
  predictor/            Orbax: the predictor's parameters, and the centre of each head and route, to
                        predict another sensor's descriptors; read only on request
  encoder.safetensors   the content of arrays/, for other tools
  encoder.json          architecture, sensors with their scaling, versions, how it was trained
  README.md             a model card
  manifest.json         SHA-256 of all of these: neither Orbax nor safetensors notices a flipped bit

Nothing is ever unpickled.
"""

from __future__ import annotations

import dataclasses
import json
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
from safetensors.numpy import save_file

from xjepa_jax.config import Config, parse_routes, resolve, to_dict
from xjepa_jax.data.storage import is_remote
from xjepa_jax.errors import ExportError, XJepaError
from xjepa_jax.loaded_encoder import LoadedEncoder
from xjepa_jax.model import xjepa
from xjepa_jax.model.inputs import SensorInput
from xjepa_jax.model.layout import reads_images
from xjepa_jax.paths import StrPath, check_reachable
from xjepa_jax.processes.devices import check_devices
from xjepa_jax.sensors import sensor_from_json, sensor_to_json
from xjepa_jax.training.manifest import MANIFEST, damage, write_manifest
from xjepa_jax.training.structure import structure_differences
from xjepa_jax.versions import versions

# Format 2: a grid head stores the first number of every cell first. Format 3: heads that read
# images; cells that tokens overlap in part; the predictor knows its context sensor.
FORMAT = "xjepa_jax encoder 3"
BEFORE = "xjepa_jax encoder 2"  # read without its predictor, if its cells divide the tokens
# The keys of a format 2 config that define an encoder; the others have changed since.
_BUILT_OF = ("routes", "model", "predictor", "heads", "evaluation")
_OLD = ".old"
DESCRIPTION, ARRAYS, TENSORS, CARD = "encoder.json", "arrays", "encoder.safetensors", "README.md"
PREDICTOR = "predictor"


def export_encoder(
  directory: StrPath,
  model: xjepa.XJepa,
  encoder: Any,
  centre: Mapping[str, Mapping[str, np.ndarray]],
  head: str,
  summary: Mapping[str, Any],
  card: str,
  predictor: Mapping[str, Any] | None = None,
  confidence: Mapping[str, Any] | None = None,
) -> None:
  """Write an encoder; the directory appears complete, or not at all.

  Args:
    directory: local path; an existing export is replaced once the new one is complete.
    model: the encoder's architecture.
    encoder: the encoder's parameters, trained or averaged.
    centre: head -> sensor -> (K,), subtracted from descriptors.
    head: the default head.
    summary: how it was trained, in JSON types: config, steps, results.
    card: the model card, Markdown.
    predictor: {"predictor": its parameters, "centre": head -> "a->b" -> (K,), subtracted from its
      predictions}; None leaves it out.
    confidence: head -> "a->b" -> calibration of scores, as from `retrieval.confidence.to_json`.

  Raises:
    ExportError: it cannot be written.
  """
  directory = os.path.abspath(_local(directory))
  partial = f"{directory}.partial"
  arrays = jax.device_get({"encoder": encoder, "centre": centre})
  try:
    shutil.rmtree(partial, ignore_errors=True)
    os.makedirs(partial)
    with _checkpointer() as checkpointer:
      checkpointer.save(epath.Path(partial) / ARRAYS, arrays)
      if predictor is not None:
        checkpointer.save(epath.Path(partial) / PREDICTOR, jax.device_get(dict(predictor)))
    flat = traverse_util.flatten_dict(arrays, sep="/")
    save_file(
      {key: np.ascontiguousarray(value) for key, value in flat.items()},
      f"{partial}/{TENSORS}",
      metadata={"format": FORMAT},
    )
    with open(f"{partial}/{DESCRIPTION}", "w", encoding="utf-8") as file:
      json.dump(
        {**_description(model, head, summary), "confidence": confidence or {}},
        file,
        indent=1,
        allow_nan=False,
      )
    with open(f"{partial}/{CARD}", "w", encoding="utf-8") as file:
      file.write(card)
    # safetensors 0.8 gives read permission to the owner only; copy the mode that the umask gave
    # the other files.
    shutil.copymode(f"{partial}/{CARD}", f"{partial}/{TENSORS}")
    write_manifest(epath.Path(partial))
    _put_in_place(partial, directory)
  except (OSError, ValueError) as error:  # TensorStore raises ValueError for a full disk
    raise ExportError(
      f"{directory}: the encoder cannot be written ({str(error).splitlines()[0]}). What was there "
      "before is there still."
    ) from error


def load_encoder(directory: StrPath, predictor: bool = False) -> LoadedEncoder:
  """Load an exported encoder, after checking its files against the manifest.

  Args:
    directory: local path. Its README may have been edited, and the file for other tools need not be
      readable.
    predictor: also load the predictor, if there is one. It is not loaded from the previous format,
      because predictors have changed since.

  Raises:
    ExportError: there is none, a file is damaged, or this version cannot read its format.
    RightsError: this user may not read it.
    ConfigError: JAX has no devices.
  """
  check_devices()
  directory = _local(directory)
  check_reachable(os.path.join(directory, MANIFEST))
  path = epath.Path(os.path.abspath(directory))  # Orbax requires an absolute path
  if not path.exists():  # a replacement was interrupted between its two renames
    path = epath.Path(os.path.abspath(directory) + _OLD)
  if not path.exists():
    raise ExportError(f"{directory}: there is no such directory. Name one that a run exported.")
  wrong = damage(path, edited=(CARD,), spare=(TENSORS,))
  if wrong:
    raise ExportError(
      f"{directory}: no encoder that can be trusted: {wrong}. Copy the directory again from its "
      "source, or export it again."
    )
  try:
    described = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
    where = f"{directory}/{DESCRIPTION}"
    if described.get("format") not in (FORMAT, BEFORE):
      raise ExportError(
        f"{where}: format {described.get('format')!r}, expected {FORMAT!r} or {BEFORE!r}. "
        f"{_way_out(described)}"
      )
    model = _model(described, where)
    if described["format"] == BEFORE:
      _check_before(model, described, where)
      predictor = False
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    centre = {
      name: {key: jax.ShapeDtypeStruct((each.size,), np.float32) for key in model.inputs}
      for name, each in model.config.heads.items()
    }
    arrays = _restore(path, ARRAYS, {"encoder": shapes["encoder"], "centre": centre})
    crossing = None
    if predictor and (path / PREDICTOR).exists():
      routes = {
        name: {way: jax.ShapeDtypeStruct((each.size,), np.float32) for way in _ways(model)}
        for name, each in model.config.heads.items()
        if not reads_images(each)  # predictions are tokens, which these heads do not pool
      }
      crossing = _restore(path, PREDICTOR, {"predictor": shapes["predictor"], "centre": routes})
    head = described["head"]
  except XJepaError:
    raise
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise ExportError(
      f"{directory}: not an encoder of this version ({type(error).__name__}: {error})."
    ) from error
  return LoadedEncoder(model, arrays["encoder"], arrays["centre"], head, described, crossing)


def _check_before(model: xjepa.XJepa, described: Mapping[str, Any], where: str) -> None:
  """Check an export of the previous format, in which cells consisted of whole tokens.

  Raises:
    ExportError: a head's cells do not divide the tokens, so this version would pool them
      differently.
  """
  for name, head in model.config.heads.items():
    if head.pooling == "grid" and any(side % head.cells for side in model.grid):
      rows, columns = model.grid
      raise ExportError(
        f"{where}: format {BEFORE!r}, and the {head.cells} x {head.cells} cells of its head "
        f"{name!r} do not divide its {rows} x {columns} tokens: in {FORMAT!r} such cells are made "
        f"of other tokens. {_way_out(described)}"
      )


def _way_out(described: Mapping[str, Any]) -> str:
  version = described.get("versions", {}).get("xjepa-jax")
  named = f" ({version})" if version else ""
  return (
    f"Use the version of xjepa_jax that wrote it{named}, or run its config again with this one: "
    "python -m xjepa_jax.main --config=... --workdir=... trains and exports anew."
  )


def _ways(model: xjepa.XJepa) -> list[str]:
  """The routes across sensors, which are the keys of the predictor's centres."""
  return [f"{a}->{b}" for a, b in model.routes if a != b]


def _restore(path: epath.Path, name: str, shapes: Any) -> Any:
  """Restore the arrays of one directory of an export, checked against the described shapes.

  Raises:
    ExportError: the stored arrays do not match.
  """
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  target = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), shapes
  )
  with _checkpointer() as checkpointer:
    stored = checkpointer.metadata(path / name).item_metadata
    if differing := structure_differences(getattr(stored, "tree", stored), target):
      raise ExportError(
        f"{path}: its arrays are not those that {DESCRIPTION} describes. Stored and described: "
        f"{differing}. Export it again."
      )
    return checkpointer.restore(path / name, target)


def _checkpointer() -> ocp.StandardCheckpointer:
  """A checkpointer for this process alone: only the first exports, and no other waits for it.

  The barrier prefix differs per process so that Orbax does not wait at a common barrier.
  """
  me = jax.process_index()
  return ocp.StandardCheckpointer(
    multiprocessing_options=ocp.options.MultiprocessingOptions(
      primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"alone-{me}"
    )
  )


def _local(directory: StrPath) -> str:
  """The path as text.

  Raises:
    ExportError: it is the URL of object storage.
  """
  directory = os.fspath(directory)
  if is_remote(directory):
    raise ExportError(
      f"{directory}: encoders are written to and read from directories of this machine or a "
      "mounted disk. Copy it."
    )
  return directory


def _put_in_place(partial: str, directory: str) -> None:
  """Move a complete export into place; the previous one stays readable until then."""
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
  """Build the architecture that an `encoder.json` describes."""
  written = described["config"]
  if described["format"] == BEFORE:
    written = {key: written[key] for key in _BUILT_OF}
  config: Config = resolve(written)
  inputs = {
    key: SensorInput(
      sensor_from_json(entry["description"], f"{where}: sensors.{key}.description"),
      int(entry["height"]),
      int(entry["width"]),
      int(entry["patch"]),
    )
    for key, entry in described["sensors"].items()
  }
  # The attention kernel and the remat policy do not change results, so the plain ones are used
  # wherever the weights are loaded.
  plain = dataclasses.replace(config.model, attention="xla", remat="none")
  config = dataclasses.replace(config, model=plain)
  dtype = jnp.dtype(described["dtype"] if jax.default_backend() != "cpu" else "float32")
  return xjepa.build(config, inputs, parse_routes(config.routes, tuple(inputs)), dtype)
