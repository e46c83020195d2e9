"""Uploaded query images: limited in size, restricted to an allow-list of formats, and not kept.

An image exists on disk only while it is encoded. Queries and small pictures are kept in memory,
under random names, until newer ones replace them.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import os
import re
import secrets
import threading
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from xjepa_jax.data.raster import SUFFIXES, read_header
from xjepa_jax.errors import ImageError, SearchError, TooLargeError
from xjepa_jax.retrieval.searching.answers import Query

if TYPE_CHECKING:
  from xjepa_jax.serve.archive import Archive

_KEPT = 64  # queries kept; their images are deleted once they are encoded
_SECONDS = 60.0  # for a whole file to arrive


@dataclasses.dataclass(frozen=True)
class Limits:
  """The limits of an upload.

  Attributes:
    bytes: largest size of the file.
    pixels: largest number of pixels times bands that its header may declare.
  """

  bytes: int = 2**26
  pixels: int = 2**24


@dataclasses.dataclass(frozen=True)
class Told:
  """What the user states about an image, for `query_image.read_query`."""

  sensor: str | None = None
  offset: float | None = None
  trust_units: bool = False


@dataclasses.dataclass(frozen=True)
class Upload:
  """An image that was used as a query: the query, and a picture of the image as PNG."""

  query: Query
  picture: bytes


class Uploads:
  """The latest uploads by random name; safe to use from several threads."""

  def __init__(self) -> None:
    self._kept: collections.OrderedDict[str, Upload] = collections.OrderedDict()
    self._lock = threading.Lock()

  def add(self, upload: Upload) -> str:
    """Keep an upload and return its name."""
    name = secrets.token_urlsafe(12)
    with self._lock:
      self._kept[name] = upload
      while len(self._kept) > _KEPT:
        self._kept.popitem(last=False)
    return name

  def get(self, name: str) -> Upload:
    """Return an upload that was kept.

    Raises:
      SearchError: it never was, or has been replaced by newer ones.
    """
    with self._lock:
      if name not in self._kept:
        raise SearchError("this upload is forgotten by now; upload the image again.")
      return self._kept[name]


def safe_name(name: str) -> str:
  """Return a file's name for titles and messages: no folders or control characters, limited length.

  Raises:
    SearchError: its suffix is not one of the supported formats.
  """
  name = re.sub(r"[^\w .()+-]", "_", re.split(r"[\\/]", name)[-1]).strip()[-80:]
  if os.path.splitext(name)[1].lower() not in SUFFIXES:
    raise SearchError(f"{name or 'the file'}: upload one of {', '.join(SUFFIXES)}.")
  return name


async def receive(body: AsyncIterator[bytes], declared: str | None, most: int, path: str) -> None:
  """Write a request's body to a file.

  Args:
    body: its chunks as they arrive.
    declared: the Content-Length header, or None.
    most: largest number of bytes.
    path: the file.

  Raises:
    TooLargeError: the body is larger, or declares to be; nothing past the limit is kept.
    SearchError: the body is empty, or does not arrive in time.
  """
  if declared is not None and declared.isdecimal() and int(declared) > most:
    raise TooLargeError(_too_large(most))
  size = 0
  # The declared length may be missing or false, so bytes are counted as well.
  try:
    with open(path, "wb") as file:
      async with asyncio.timeout(_SECONDS):
        async for part in body:
          size += len(part)
          if size > most:
            raise TooLargeError(_too_large(most))
          file.write(part)
  except TimeoutError:
    raise SearchError(f"the upload did not arrive within {_SECONDS:.0f} seconds.") from None
  if not size:
    raise SearchError("the uploaded file is empty.")


def described(archive: Archive, path: str, name: str, told: Told, most: int) -> Upload:
  """Encode an uploaded file as a query.

  Args:
    archive: the archive to search; it has an encoder.
    path: the file, with the suffix of `name`.
    name: the user's name for the file, from `safe_name`.
    told: the user's statements on its sensor and values.
    most: largest number of pixels x bands that its header may declare.

  Raises:
    SearchError: the file cannot be read, or does not fit the encoder; the message contains `name`
      in place of the path.
    XJepaError: something else is wrong that is no concern of the user.
  """
  try:
    # The header is checked before the pixels are decoded, which could take much more memory.
    read_header(path, most)
    query, picture = archive.query_of_upload(path, told.sensor, told.offset, told.trust_units)
  except (ImageError, SearchError) as error:
    # Messages suggest commands with a folder beside the file's, which is temporary on this machine.
    said = str(error).replace(path, name).replace(f"{os.path.dirname(path)}_", "")
    raise SearchError(
      re.sub(rf"/{re.escape(_stem(path))}\.tif\b", f"/{_stem(name)}.tif", said)
    ) from error
  title = query.title.replace(os.path.basename(path), name)
  return Upload(dataclasses.replace(query, title=title, image=None), picture)


def _stem(path: str) -> str:
  return os.path.splitext(os.path.basename(path))[0]


def _too_large(most: int) -> str:
  return f"the file is larger than {most / 2**20:g} MB. Cut a tile out of it and upload that."
