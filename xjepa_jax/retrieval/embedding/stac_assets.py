"""Finds the asset of a STAC item that holds a given band as data, and not as a picture.

A band is identified by the key of an asset with a single band, or by the names in an asset's band
list (STAC 1.1 `bands`, 1.0 `eo:bands` and `raster:bands`), spelled as the sensor does. If several
assets hold it, the role "data" is preferred, then the finest ground resolution, then an asset
without other bands. Pictures (visual, overview, thumbnail, and 8-bit files where the sensor has
more bits) are ignored whatever their bands are called, because their values are no measurements.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from xjepa_jax.data.band_names import plain_name
from xjepa_jax.data.image_formats import GDAL_DRIVERS
from xjepa_jax.errors import ArchiveError
from xjepa_jax.sensors import Sensor

_BAND_LISTS = ("bands", "eo:bands", "raster:bands")  # the first that names bands is used
# Matched with roles and words in a key, because Planetary Computer gives pictures the role "data".
_PICTURES = {"visual", "overview", "thumbnail", "preview", "quicklook", "browse", "tci"}


@dataclasses.dataclass(frozen=True)
class BandAsset:
  """One band of an asset.

  Attributes:
    asset: key of the asset.
    href: link to its file.
    band: number of the band in that file, counted from 1.
    names: possible names of the band, spelled as by `plain_name`.
    data: whether the asset has the role "data".
    alone: whether the asset has no other band.
    dtype: declared type of its values, or "".
    resolutions: pixel size by the field that declares it. Only the same field of two assets can be
      compared, because units differ between fields.
    scale: factor of stored values, or None if not declared.
    offset: offset of stored values, as in `Scaling.offset`, or None if not declared.
  """

  asset: str
  href: str
  band: int
  names: tuple[str, ...]
  data: bool
  alone: bool
  dtype: str
  resolutions: Mapping[str, float]
  scale: float | None
  offset: float | None


def read_assets(item: Mapping[str, Any]) -> tuple[list[BandAsset], list[str], list[str]]:
  """The bands of an item's image assets.

  Returns:
    Bands; keys of the assets that are pictures; and problems of assets that violate the STAC
    specification. The latter are not used, and matter only if a band is missing.

  Raises:
    ArchiveError: the item has no object of assets.
  """
  found: list[BandAsset] = []
  pictures: list[str] = []
  problems: list[str] = []
  for key, asset in _mapping(item.get("assets") or {}, "'assets'").items():
    try:
      href = _mapping(asset, f"asset {key!r}").get("href")
      if not isinstance(href, str):
        raise ArchiveError(f"asset {key!r}: its href is {_short(href)}, expected text.")
      if not _is_geotiff(href):
        continue
      if _is_picture(key, asset):
        pictures.append(key)
      else:
        found += _bands(key, asset)
    except ArchiveError as error:
      problems.append(str(error))
  return found, pictures, problems


def assets_of(
  sensor: Sensor, assets: Sequence[BandAsset], pixels: Callable[[BandAsset], int]
) -> list[BandAsset]:
  """The asset to read for each of the sensor's bands, in order, without those not found.

  Args:
    sensor: sensor whose bands are searched.
    assets: the bands of an item.
    pixels: number of pixels of a band's file; called only if several assets hold a band and their
      declared resolutions do not show which is finest.
  """
  found = []
  wide = np.dtype(sensor.dtype).itemsize > 1
  values = [each for each in assets if not (wide and each.dtype == "uint8")]
  for name in map(plain_name, sensor.band_names):
    having = [each for each in values if name in each.names]
    having = [each for each in having if each.data] or having
    if having:
      sizes = _sizes(having, pixels) if len(having) > 1 else [1.0]
      ranked = zip(sizes, having, strict=True)
      found.append(min(ranked, key=lambda each: (each[0], not each[1].alone, each[1].asset))[1])
  return found


def file_path(href: str, folder: str) -> str:
  """The path of a linked file, absolute or relative to the folder.

  A link is percent-encoded and may have a query, but many writers use plain paths instead, so a
  file with exactly that name is preferred. A link that is not a local file is returned unchanged.
  """
  local = re.match(r"file:(?://(?:localhost)?(?=/))?", href)
  text = href[local.end() :] if local else href
  if "://" in text or text.startswith("/vsi"):
    return href
  plain = _without_query(text)
  readings = (text, urllib.parse.unquote(text), plain, urllib.parse.unquote(plain))
  there = (path for path in readings if os.path.isfile(os.path.join(folder, path)))
  return next(there, readings[-1])


def _sizes(assets: Sequence[BandAsset], pixels: Callable[[BandAsset], int]) -> list[float]:
  """A measure that is smaller for a finer ground resolution."""
  for field in ("proj:transform", "raster:spatial_resolution", "gsd"):
    if all(field in each.resolutions for each in assets):
      return [each.resolutions[field] for each in assets]
  return [-pixels(each) for each in assets]  # all show the same ground, so more pixels are finer


def _bands(key: str, asset: Mapping[str, Any]) -> list[BandAsset]:
  lists = {field: _band_list(key, asset, field) for field in _BAND_LISTS}
  names = next((each for each in map(_names, lists.values()) if any(each)), [])
  count = max(1, *map(len, lists.values()))
  found = []
  for number in range(count):
    of_band = [each[number] for each in lists.values() if number < len(each)]
    told: dict[str, Any] = dict(asset)
    # The first list that states a field wins over the others, and all of them over the asset.
    for fields in reversed(of_band):
      told |= {name: value for name, value in fields.items() if value is not None}
    called = [names[number]] if number < len(names) else []
    if len(names) < 2:  # the key of an asset with one band may be the band's name
      called.append(key)
    found.append(
      BandAsset(
        asset=key,
        href=asset["href"],
        band=number + 1,
        names=tuple(plain_name(name) for name in called if name),
        data="data" in _roles(key, asset),
        alone=count == 1,
        dtype=str(told.get("data_type") or ""),
        resolutions=_resolutions(told),
        scale=_scale(told),
        offset=_offset(told),
      )
    )
  return found


def _band_list(key: str, asset: Mapping[str, Any], field: str) -> list[Mapping[str, Any]]:
  bands = asset.get(field)
  if bands is None:
    return []
  if not isinstance(bands, list):
    raise ArchiveError(f"asset {key!r}: its {field!r} is {_short(bands)}, expected a list.")
  for band in bands:
    name = _mapping(band or {}, f"asset {key!r}: a band in {field!r}").get("name")
    if not isinstance(name, str | None):
      raise ArchiveError(
        f"asset {key!r}: a band in {field!r} has the name {_short(name)}, expected text such as "
        '"B04".'
      )
  return [band or {} for band in bands]


def _names(bands: Sequence[Mapping[str, Any]]) -> list[str]:
  return [band.get("name") or "" for band in bands]


def _roles(key: str, asset: Mapping[str, Any]) -> list[str]:
  roles = asset.get("roles")
  if roles is None:
    return []
  if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
    raise ArchiveError(f"asset {key!r}: its 'roles' are {_short(roles)}, expected a list of text.")
  return [role.lower() for role in roles]


def _is_picture(key: str, asset: Mapping[str, Any]) -> bool:
  if re.match(r"true[ -]?colou?r", str(asset.get("title") or ""), re.IGNORECASE):
    return True
  words = re.split(r"[^a-z0-9]+", key.lower())
  return not _PICTURES.isdisjoint([*words, *_roles(key, asset)])


def _is_geotiff(href: str) -> bool:
  return any(each.lower().endswith(tuple(GDAL_DRIVERS)) for each in (href, _without_query(href)))


def _without_query(href: str) -> str:
  return re.split("[?#]", href, maxsplit=1)[0]


def _resolutions(told: Mapping[str, Any]) -> dict[str, float]:
  found: dict[str, float] = {}
  transform = told.get("proj:transform")
  if isinstance(transform, list) and len(transform) >= 6 and all(map(_is_number, transform)):
    a, b, _, d, e, _ = transform[:6]
    # Side of a square with the area of a pixel, whatever the rotation.
    found["proj:transform"] = math.sqrt(abs(a * e - b * d))
  told = {"raster:spatial_resolution": told.get("spatial_resolution"), **told}
  for field in ("raster:spatial_resolution", "gsd"):
    if _is_number(told.get(field)):
      found[field] = float(told[field])
  return {field: value for field, value in found.items() if value > 0}


def _scale(told: Mapping[str, Any]) -> float | None:
  scale = told.get("raster:scale", told.get("scale"))
  return float(scale) if _is_number(scale) and scale else None


def _offset(told: Mapping[str, Any]) -> float | None:
  """Offset in stored values; the offset that STAC declares is added after scaling."""
  scale, offset = _scale(told), told.get("raster:offset", told.get("offset"))
  return round(float(offset) / scale, 6) if scale and _is_number(offset) else None


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
  if not isinstance(value, Mapping):
    raise ArchiveError(f"{what} is {_short(value)}, expected an object.")
  return value


def _short(value: Any) -> str:
  text = repr(value)
  return f"{text[:60]}..." if len(text) > 60 else text
