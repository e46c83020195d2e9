"""STAC items as an archive: a local catalog, an item, an item collection, or stac-geoparquet.

Only local files are read, and none outside the archive's folder unless that is allowed. An item
that violates the STAC specification is left out, with the reason.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from xjepa_jax.data.file_scaling import check_scaling
from xjepa_jax.errors import ArchiveError, DataError, ImageError
from xjepa_jax.retrieval.embedding.archive_paths import archive_root
from xjepa_jax.retrieval.embedding.images import Named
from xjepa_jax.retrieval.embedding.items import LeftOut
from xjepa_jax.retrieval.embedding.stac_assets import BandAsset, assets_of, file_path, read_assets
from xjepa_jax.retrieval.embedding.times import instant
from xjepa_jax.retrieval.embedding.windows import header_of
from xjepa_jax.sensors import Sensor

_MAX_BYTES = 2**28  # per JSON file
_MAX_ITEMS = 2**24
_DEPTH = 32  # nesting of catalogs


def is_stac(path: str) -> bool:
  """Whether a path is a STAC archive, judging by its name."""
  if os.path.isdir(path):
    return bool(_catalog_of(path))
  if path.lower().endswith((".json", ".geojson")):
    return True
  if path.lower().endswith(".parquet") and os.path.isfile(path):
    from xjepa_jax.data.tables import read_columns

    return {"assets", "geometry"} <= set(read_columns(path))
  return False


def name_items(
  path: str, sensors: Mapping[str, Sensor], locate: Callable[[str], str]
) -> tuple[list[Named], list[LeftOut], dict[str, list[float]]]:
  """Lists the images of STAC items.

  Args:
    path: a catalog's folder, a JSON file, or a stac-geoparquet file.
    sensors: key -> description of the requested sensors. An item is an image of every sensor whose
      bands it has completely.
    locate: turns a path relative to `archive_root` into one that can be opened; refuses others.

  Returns:
    Images; items without one; and sensor -> offsets of stored values that its assets declare.

  Raises:
    ArchiveError: it is not STAC, or too large.
  """
  named: list[Named] = []
  left_out: list[LeftOut] = []
  declared: dict[str, list[float]] = {}
  root = archive_root(path)
  seen: set[tuple[str, str]] = set()
  for count, (item, folder) in enumerate(_items(path, root, locate)):
    if count >= _MAX_ITEMS:
      raise ArchiveError(f"{path}: has more than {_MAX_ITEMS} items; embed parts of it.")
    name = str(item.get("id") or "")
    try:
      images = _images(item, folder, root, sensors, locate)
    except (ArchiveError, ImageError) as error:
      left_out.append(LeftOut(name or f"item {count + 1}", "", "", str(error)))
      continue
    for image, assets in images:
      if (name, image.sensor) in seen:
        left_out.append(LeftOut(name, image.sensor, "", "its id occurred before."))
        continue
      seen.add((name, image.sensor))
      named.append(image)
      offsets = [asset.offset for asset in assets if asset.offset is not None]
      if offsets:
        declared.setdefault(image.sensor, []).extend(offsets)
  return named, left_out, declared


def _images(
  item: Mapping[str, Any],
  folder: str,
  root: str,
  sensors: Mapping[str, Sensor],
  locate: Callable[[str], str],
) -> list[tuple[Named, list[BandAsset]]]:
  """The images of one item, one per sensor, with the assets of each.

  Raises:
    ArchiveError: the item has none, or violates the STAC specification.
  """
  if not item.get("id"):
    raise ArchiveError("has no 'id'; give the item one of its own.")
  assets, pictures, problems = read_assets(item)
  time = _time(item)

  def path_of(asset: BandAsset) -> str:
    href = file_path(asset.href, folder)
    outside = "://" in href or href.startswith("/vsi")  # `locate` refuses these with the reason
    return href if outside else os.path.relpath(os.path.join(folder, href), root)

  def pixels(asset: BandAsset) -> int:
    try:
      height, width = header_of(locate(path_of(asset))).shape
    except DataError:  # the error will be reported when the file is read
      return 0
    return height * width

  found = []
  for key, sensor in sensors.items():
    chosen = assets_of(sensor, assets, pixels)
    if len(chosen) == len(sensor.bands):
      _check_scales(key, sensor, chosen)
      bands = tuple(asset.band for asset in chosen)
      image = Named(str(item["id"]), key, tuple(map(path_of, chosen)), bands, time)
      found.append((image, chosen))
  if not found:
    have = ", ".join(sorted(item.get("assets") or {}))
    narrow = sorted({asset.asset for asset in assets if asset.dtype == "uint8"} | set(pictures))
    seen = f" {', '.join(narrow)}: pictures or of 8 bits, no measurements." if narrow else ""
    raise ArchiveError(
      f"its assets ({have}) hold all bands of none of {', '.join(sensors)}.{seen}"
      f"{''.join(f' {problem}' for problem in problems)}"
    )
  return found


def _check_scales(key: str, sensor: Sensor, assets: Sequence[BandAsset]) -> None:
  """Refuses a scale other than the encoder's; offsets have an option, and are checked later."""
  for asset in assets:
    if asset.scale in (None, 1.0):  # as in a GeoTIFF, 1 is declared whatever the scale really is
      continue
    offset = sensor.scaling.offset if asset.offset is None else asset.offset
    scaling = dataclasses.replace(sensor.scaling, offset=offset)
    shifts = [offset * asset.scale]
    taken = dataclasses.replace(sensor, scaling=scaling)
    where = f"asset {asset.asset!r}"
    check_scaling(where, key, taken, [asset.scale], shifts, [1], describable=False)


def _time(item: Mapping[str, Any]) -> str:
  properties = item.get("properties") or item  # in stac-geoparquet the properties are columns
  if not isinstance(properties, Mapping):
    raise ArchiveError(f"'properties' is {str(properties)[:60]!r}, expected an object.")
  for name in ("datetime", "start_datetime"):
    value = properties.get(name)
    text = value.isoformat() if isinstance(value, datetime.datetime) else str(value or "")
    if instant(text) is not None:
      return text
  return ""


def _items(
  path: str, root: str, locate: Callable[[str], str]
) -> Iterator[tuple[Mapping[str, Any], str]]:
  """Yields the items, each with the folder that its links are relative to."""
  if path.lower().endswith(".parquet"):
    yield from _parquet_items(path)
    return
  start = _catalog_of(path) if os.path.isdir(path) else path
  yield from _json_items(start, root, locate, 0, set())


def _json_items(
  path: str, root: str, locate: Callable[[str], str], depth: int, seen: set[str]
) -> Iterator[tuple[Mapping[str, Any], str]]:
  real = os.path.realpath(path)
  # Catalogs may link to each other in a circle.
  if real in seen:
    return
  seen.add(real)
  if depth > _DEPTH:
    raise ArchiveError(f"{path}: catalogs are nested more than {_DEPTH} deep.")
  content = _load(path)
  folder = os.path.dirname(real)
  kind = content.get("type")
  if kind == "Feature":
    yield content, folder
  elif kind == "FeatureCollection":
    features = content.get("features")
    if not isinstance(features, list) or not all(isinstance(each, Mapping) for each in features):
      raise ArchiveError(f"{path}: its 'features' are not a list of STAC items.")
    for feature in features:
      yield feature, folder
  elif kind in ("Catalog", "Collection"):
    links = content.get("links")
    for link in links if isinstance(links, list) else ():
      if isinstance(link, Mapping) and link.get("rel") in ("child", "item", "items"):
        href = file_path(str(link.get("href") or ""), folder)
        if "://" in href:
          raise ArchiveError(
            f"{path}: links to {href}; copy the catalog with all its items to disk."
          )
        child = locate(os.path.relpath(os.path.join(folder, href), root))
        yield from _json_items(child, root, locate, depth + 1, seen)
  else:
    raise ArchiveError(
      f"{path}: is no STAC (type {kind!r}); expected a Catalog, a Collection, a FeatureCollection "
      "or a Feature."
    )


def _parquet_items(path: str) -> Iterator[tuple[Mapping[str, Any], str]]:
  from xjepa_jax.data.tables import read_columns, read_rows

  folder = os.path.dirname(os.path.realpath(path))
  columns = read_columns(path)
  for where, row in read_rows(path, columns, {"id", "assets", "datetime", "start_datetime"}):
    assets = row.get("assets")
    if isinstance(assets, str):
      try:
        assets = json.loads(assets)
      except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{path}: {where}: its assets are no JSON ({error}).") from error
    if isinstance(assets, Mapping):
      # A struct column has every asset in every row, null if the item lacks it.
      assets = {key: value for key, value in assets.items() if value}
    yield {**row, "assets": assets}, folder


def _catalog_of(folder: str) -> str:
  """The file that makes a folder a catalog, or "" if there is none."""
  for name in ("catalog.json", "collection.json"):
    path = os.path.join(folder, name)
    if os.path.isfile(path):
      return path
  return ""


def _load(path: str) -> dict[str, Any]:
  try:
    if os.path.getsize(path) > _MAX_BYTES:
      raise ArchiveError(f"{path}: is larger than {_MAX_BYTES} bytes; give it as stac-geoparquet.")
    with open(path, "rb") as file:
      content = json.load(file)  # reading bytes lets json detect a byte-order mark
  except (OSError, ValueError, RecursionError) as error:
    if isinstance(error, ArchiveError):
      raise
    raise ArchiveError(f"{path}: cannot be read as JSON ({error}).") from error
  if not isinstance(content, dict):
    raise ArchiveError(f"{path}: holds a {type(content).__name__}, expected a STAC object.")
  return content
