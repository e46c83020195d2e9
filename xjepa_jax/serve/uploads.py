"""Images that are uploaded to ask with: capped, read by an allow-list of formats, forgotten."""

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

_KEPT = 64  # queries; their images are gone once they are described
_SECONDS = 60.0  # for a whole file to arrive


@dataclasses.dataclass(frozen=True)
class Limits:
  """What an upload may be.

  Attributes:
    bytes: of the file.
    pixels: times bands, as its header declares.
  """

  bytes: int = 2**26
  pixels: int = 2**24


@dataclasses.dataclass(frozen=True)
class Told:
  """What a person says of an image, as `query_image.read_query` takes it."""

  sensor: str | None = None
  offset: float | None = None
  trust_units: bool = False


@dataclasses.dataclass(frozen=True)
class Upload:
  """An image that was asked with: its query, and its picture as PNG."""

  query: Query
  picture: bytes


class Uploads:
  """The last uploads by a random name; safe to use from several threads."""

  def __init__(self) -> None:
    self._kept: collections.OrderedDict[str, Upload] = collections.OrderedDict()
    self._lock = threading.Lock()

  def add(self, upload: Upload) -> str:
    """Keeps one; returns its name."""
    name = secrets.token_urlsafe(12)
    with self._lock:
      self._kept[name] = upload
      while len(self._kept) > _KEPT:
        self._kept.popitem(last=False)
    return name

  def get(self, name: str) -> Upload:
    """One that was kept.

    Raises:
      SearchError: it was not, or many came after it.
    """
    with self._lock:
      if name not in self._kept:
        raise SearchError("this upload is forgotten by now; upload the image again.")
      return self._kept[name]


def safe_name(name: str) -> str:
  """A file's name for titles and messages: no folders, no control characters, not too long.

  Raises:
    SearchError: its suffix is not one of the formats that are read.
  """
  name = re.sub(r"[^\w .()+-]", "_", re.split(r"[\\/]", name)[-1]).strip()[-80:]
  if os.path.splitext(name)[1].lower() not in SUFFIXES:
    raise SearchError(f"{name or 'the file'}: upload one of {', '.join(SUFFIXES)}.")
  return name


async def receive(body: AsyncIterator[bytes], declared: str | None, most: int, path: str) -> None:
  """Writes a request's body into a file.

  Args:
    body: its parts as they come.
    declared: the header Content-Length, if there was one.
    most: bytes.
    path: of the file.

  Raises:
    TooLargeError: it has or declares more; nothing past the cap is kept.
    SearchError: it is empty, or does not arrive in time.
  """
  if declared is not None and declared.isdecimal() and int(declared) > most:
    raise TooLargeError(_too_large(most))
  size = 0
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
  """What an uploaded file asks for.

  Args:
    archive: that is asked; it has an encoder.
    path: of the file, its suffix that of `name`.
    name: what its owner calls it: `safe_name`'s.
    told: of its sensor and its values.
    most: pixels x bands that its header may declare.

  Raises:
    SearchError: the file cannot be read, or does not fit the encoder; its message has `name` for
      the path.
    XJepaError: something else is wrong, and is no concern of whoever asked.
  """
  try:
    read_header(path, most)
    query, picture = archive.query_of_upload(path, told.sensor, told.offset, told.trust_units)
  except (ImageError, SearchError) as error:
    # Commands name a folder beside the file's, which is a temporary one of this machine.
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
