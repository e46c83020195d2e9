"""Digests that tell an image's files from others of the same name, from sizes and sampled blocks.

Sizes alone are not enough, since uncompressed files of one shape are equally large, and
modification times change when a file is copied to another machine. A few blocks spread over a file
distinguish two acquisitions, and reading them costs no more than opening the scene. An edit of
single pixels between the blocks of a large uncompressed file goes unnoticed.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from xjepa_jax.errors import ArchiveError
from xjepa_jax.retrieval.embedding.items import Item

_BLOCK = 1 << 14  # bytes
_BLOCKS = 4  # the first, the last, and two between; smaller files are read whole
_DIGITS = 16
_THREADS = 8  # opening files is bound by the disk, not by the cores


def files_digest(paths: Sequence[str]) -> str:
  """A digest of files, 16 hexadecimal digits.

  Raises:
    ArchiveError: a file cannot be read.
  """
  digest = hashlib.sha256()
  for path in paths:
    try:
      with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(size.to_bytes(8, "little"))
        if size <= _BLOCK * _BLOCKS:
          digest.update(file.read())
          continue
        for number in range(_BLOCKS):
          # Equally spaced from the start of the file to its end.
          file.seek((size - _BLOCK) * number // (_BLOCKS - 1))
          digest.update(file.read(_BLOCK))
    except OSError as error:
      raise ArchiveError(f"{path}: cannot be read ({error.strerror}).") from error
  return digest.hexdigest()[:_DIGITS]


def image_digest(item: Item, locate: Callable[[str], str]) -> str:
  """A digest of an image's files, each counted once.

  Raises:
    ArchiveError: a file lies where none may be read, or cannot be read.
  """
  return files_digest([locate(path) for path in dict.fromkeys(file.path for file in item.files)])


def with_digests(items: Sequence[Item], locate: Callable[[str], str]) -> list[Item]:
  """The images, with `digest` set from their files."""
  with ThreadPoolExecutor(_THREADS) as pool:
    digests = pool.map(functools.partial(image_digest, locate=locate), items)
    return [
      dataclasses.replace(item, digest=found) for item, found in zip(items, digests, strict=True)
    ]
