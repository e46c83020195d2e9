"""STAC items as an archive: a local catalog, an item, an item collection, or stac-geoparquet.

Which asset holds which band is told by names: the key of an asset, or the names of its bands (STAC
1.1 `bands`, 1.0 `eo:bands` and `raster:bands`), as the encoder's sensor spells them. Only files of
this machine are read, and none outside the archive's folder unless that is allowed.
"""

from __future__ import annotations

import datetime
import json
import os
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from xjepa_jax.data.band_choice import plain_name
from xjepa_jax.errors import ArchiveError
from xjepa_jax.retrieval.embedding.images import Named
from xjepa_jax.retrieval.embedding.items import LeftOut
from xjepa_jax.retrieval.embedding.locating import archive_root
from xjepa_jax.retrieval.embedding.times import instant
from xjepa_jax.sensors import Sensor

_MAX_BYTES = 2**28  # of one JSON file
_MAX_ITEMS = 2**24
_DEPTH = 32  # of catalogs in catalogs
_GEOTIFF = (".tif", ".tiff")


def is_stac(path: str) -> bool:
  """Whether a path is, by its name, a STAC archive."""
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
  """The images of STAC items.

  Args:
    path: of a catalog's folder, a JSON file, or a stac-geoparquet file.
    sensors: key -> description, of those that are wanted. An item is an image of every sensor all
      of whose bands it has.
    locate: from a path relative to `archive_root` to one that can be opened; refuses others.

  Returns:
    Images; items without one; and sensor -> offsets of stored values that its assets declare.

  Raises:
    ArchiveError: it is no STAC, or too large.
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
    found = False
    for key, sensor in sensors.items():
      assets = _assets(item, sensor)
      if not name or len(assets) < len(sensor.bands):
        continue
      found = True
      if (name, key) in seen:
        left_out.append(LeftOut(name, key, "", "its id occurred before."))
        continue
      seen.add((name, key))
      paths = tuple(_relative(asset["href"], folder, root) for asset, _ in assets)
      named.append(Named(name, key, paths, tuple(band for _, band in assets), _time(item)))
      for asset, band in assets:
        offset = _offset(asset, band)
        if offset is not None:
          declared.setdefault(key, []).append(offset)
    if not found:
      have = ", ".join(sorted(item.get("assets") or {}))
      left_out.append(
        LeftOut(
          name, "", "", f"its assets ({have}) hold all bands of none of {', '.join(sensors)}."
        )
      )
  return named, left_out, declared


def _assets(item: Mapping[str, Any], sensor: Sensor) -> list[tuple[Mapping[str, Any], int]]:
  """The asset and the number of the band in it, of each of the sensor's bands that is found."""
  where: dict[str, tuple[Mapping[str, Any], int]] = {}
  for key, asset in (item.get("assets") or {}).items():
    href = str((asset or {}).get("href") or "")
    if not href.lower().split("?")[0].endswith(_GEOTIFF):
      continue
    names = _band_names(asset)
    for number, name in enumerate(names, 1):
      where.setdefault(plain_name(name), (asset, number))
    if len(names) < 2:  # an asset of one band may be called by it
      where[plain_name(key)] = (asset, 1)
  found = [where.get(plain_name(name)) for name in sensor.band_names]
  return [each for each in found if each is not None]


def _band_names(asset: Mapping[str, Any]) -> list[str]:
  """Names of an asset's bands in their order; "" where one has none."""
  for field in ("bands", "eo:bands", "raster:bands"):
    bands = asset.get(field)
    if isinstance(bands, Sequence) and not isinstance(bands, str) and len(bands):
      names = [str((band or {}).get("name") or "") for band in bands]
      if any(names):
        return names
  return []


def _offset(asset: Mapping[str, Any], band: int) -> float | None:
  """The offset of stored values that an asset declares; its own is added after scaling."""
  for field in ("bands", "raster:bands"):
    bands = asset.get(field)
    if isinstance(bands, Sequence) and not isinstance(bands, str) and len(bands) >= band:
      told = {**asset, **(bands[band - 1] or {})}
      scale = told.get("raster:scale", told.get("scale"))
      offset = told.get("raster:offset", told.get("offset"))
      if isinstance(offset, int | float) and isinstance(scale, int | float) and scale:
        return round(float(offset) / float(scale), 6)
  return None


def _time(item: Mapping[str, Any]) -> str:
  properties = item.get("properties") or item  # stac-geoparquet has them as columns
  for name in ("datetime", "start_datetime"):
    value = properties.get(name)
    text = value.isoformat() if isinstance(value, datetime.datetime) else str(value or "")
    if instant(text) is not None:
      return text
  return ""


def _relative(href: str, folder: str, root: str) -> str:
  """An asset's path relative to the archive's root."""
  if href.startswith("file://"):
    href = urllib.parse.unquote(urllib.parse.urlparse(href).path)
  if "://" in href or href.startswith("/vsi"):
    return href  # refused by `locate`, which says why
  return os.path.relpath(os.path.join(folder, href), root)


def _items(
  path: str, root: str, locate: Callable[[str], str]
) -> Iterator[tuple[Mapping[str, Any], str]]:
  """Items, and the folder to which their links are relative."""
  if path.lower().endswith(".parquet"):
    yield from _parquet_items(path)
    return
  start = _catalog_of(path) if os.path.isdir(path) else path
  yield from _json_items(start, root, locate, 0, set())


def _json_items(
  path: str, root: str, locate: Callable[[str], str], depth: int, seen: set[str]
) -> Iterator[tuple[Mapping[str, Any], str]]:
  real = os.path.realpath(path)
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
    for feature in features if isinstance(features, list) else ():
      if isinstance(feature, Mapping):
        yield feature, folder
  elif kind in ("Catalog", "Collection"):
    links = content.get("links")
    for link in links if isinstance(links, list) else ():
      if isinstance(link, Mapping) and link.get("rel") in ("child", "item", "items"):
        href = str(link.get("href") or "")
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
  for _, row in read_rows(path, columns, {"id", "assets", "datetime", "start_datetime"}):
    assets = row.get("assets")
    if isinstance(assets, str):
      assets = json.loads(assets)
    # A struct column has every asset in every row, null where the item has none.
    kept = {key: value for key, value in (assets or {}).items() if value}
    yield {**row, "assets": kept}, folder


def _catalog_of(folder: str) -> str:
  """The file that makes a folder a catalog, or ""."""
  for name in ("catalog.json", "collection.json"):
    path = os.path.join(folder, name)
    if os.path.isfile(path):
      return path
  return ""


def _load(path: str) -> dict[str, Any]:
  try:
    if os.path.getsize(path) > _MAX_BYTES:
      raise ArchiveError(f"{path}: is larger than {_MAX_BYTES} bytes; give it as stac-geoparquet.")
    with open(path, encoding="utf-8") as file:
      content = json.load(file)
  except (OSError, ValueError, RecursionError) as error:
    if isinstance(error, ArchiveError):
      raise
    raise ArchiveError(f"{path}: cannot be read as JSON ({error}).") from error
  if not isinstance(content, dict):
    raise ArchiveError(f"{path}: holds a {type(content).__name__}, expected a STAC object.")
  return content
