"""Whole files and byte ranges, on local disks and in object storage (`gs://`, `s3://`, ...).

Local files need no further package. Other addresses go through fsspec, whose file systems read
ranges concurrently and retry by themselves. Each of them has its own error classes; here a missing
file is always a FileNotFoundError, and any other failure to read is a DatasetError that names the
file.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

from xjepa_jax.errors import CutShortError, DatasetError, WriteError, XJepaError
from xjepa_jax.paths import check_reachable, missing_right

_SHORT_READS = 3  # attempts to read a range that comes back short


def is_remote(path: str) -> bool:
  """Whether a path is an address such as gs://bucket/key rather than a file's name."""
  return "://" in path


@functools.lru_cache
def filesystem(protocol: str) -> Any:
  """The fsspec file system of a protocol such as "s3".

  Raises:
    DatasetError: fsspec, or what it needs for that protocol, is not installed.
  """
  import fsspec

  try:
    return fsspec.filesystem(protocol)
  except (ImportError, ValueError) as error:
    raise DatasetError(
      f"{protocol}:// cannot be read: {error}. Install the extra of that name, such as "
      "`pip install xjepa_jax[gcs]` or `pip install xjepa_jax[s3]`."
    ) from error


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
  """Turn any error while reading into one that names the file, except FileNotFoundError.

  Raises:
    RightsError: this user may not read the local file.
    DatasetError: the file exists, or might exist, and cannot be read.
  """
  try:
    yield
  except (FileNotFoundError, XJepaError):
    raise
  except PermissionError as error:
    if is_remote(path):
      raise _unread(path, error) from error
    raise missing_right(path) from error
  except Exception as error:  # OSError, or a class of the file system's own such as botocore's
    raise _unread(path, error) from error


def _unread(path: str, error: Exception) -> DatasetError:
  check = "the address, the credentials and the connection" if is_remote(path) else "the disk"
  return DatasetError(f"{path}: cannot be read ({type(error).__name__}: {error}). Check {check}.")


def size(path: str) -> int:
  """Size of a file in bytes. Raises FileNotFoundError."""
  with reading(path):
    return int(_of(path).size(path)) if is_remote(path) else os.path.getsize(path)


def exists(path: str) -> bool:
  """Whether a file of this name exists."""
  with reading(path):
    if is_remote(path):
      return bool(_of(path).exists(path))
    check_reachable(path)
    return os.path.exists(path)


def listing(directory: str) -> list[str]:
  """Names of the entries of a directory, sorted. Raises FileNotFoundError."""
  with reading(directory):
    if is_remote(directory):
      found = _of(directory).ls(directory, detail=False)
      return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in found)
    return sorted(os.listdir(directory))


def open_file(path: str) -> BinaryIO:
  """Open a file for reading. Raises FileNotFoundError."""
  with reading(path):
    return cast(BinaryIO, _of(path).open(path, "rb") if is_remote(path) else open(path, "rb"))


def read_file(path: str) -> bytes:
  """The content of a whole file. Raises FileNotFoundError."""
  with reading(path):
    if is_remote(path):
      return cast(bytes, _of(path).cat_file(path))
    with open(path, "rb") as file:
      return file.read()


def read_range(path: str, start: int, stop: int) -> bytes:
  """Bytes [start, stop) of a file, fewer if it ends earlier. Raises FileNotFoundError."""
  with reading(path):
    if is_remote(path):
      return _read_remote_range(path, start, stop)
    with open(path, "rb") as file:
      file.seek(start)
      return file.read(stop - start)


def _read_remote_range(path: str, start: int, stop: int) -> bytes:
  """Like `read_range`; a range that came back short although the file goes on is read again."""
  try:
    content = cast(bytes, _of(path).cat_file(path, start=start, end=stop))
  except OSError:  # S3 rejects a range that starts at the end, such as any range of an empty object
    if start < size(path):
      raise
    return b""
  if len(content) < stop - start and start + len(content) < (end := min(stop, size(path))):
    return read_ranges([(path, start, end)])[0]
  return content


def read_ranges(ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
  """Read ranges (path, start, stop) of remote files concurrently.

  Raises:
    CutShortError: a range came back short, or not at all, `_SHORT_READS` times.
  """
  found: list[bytes] = [b""] * len(ranges)
  wanted = list(range(len(ranges)))
  problem: Any = None
  for _ in range(_SHORT_READS):
    paths, starts, stops = zip(*(ranges[i] for i in wanted), strict=True)
    with reading(paths[0]):
      answers = _of(paths[0]).cat_ranges(list(paths), list(starts), list(stops), on_error="return")
    for i, answer in zip(wanted, answers, strict=True):
      found[i] = answer if isinstance(answer, bytes) else b""
      problem = answer if isinstance(answer, Exception) else problem
    wanted = [i for i in wanted if len(found[i]) != ranges[i][2] - ranges[i][1]]
    if not wanted:
      return found
  path, start, stop = ranges[wanted[0]]
  raise CutShortError(
    f"{path}: bytes {start} to {stop} were asked for {_SHORT_READS} times, and "
    f"{len(found[wanted[0]])} of {stop - start} bytes came ({problem or 'no error was given'})."
  )


def write_file(path: str, content: bytes) -> None:
  """Write a whole file under a temporary name, then rename it, so that it is never there in part.

  Raises:
    OSError: writing failed. The error names the file, whose previous content is unchanged.
  """
  if is_remote(path):  # object stores make an object visible only when it is complete
    try:
      _of(path).pipe_file(path, content)
    except XJepaError:
      raise
    except Exception as error:  # OSError, or a class of the file system's own
      raise WriteError(
        f"{path}: cannot be written ({type(error).__name__}: {error}). Check the address, the "
        "credentials and the connection."
      ) from error
    return
  directory, name = os.path.split(path)
  try:
    handle, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=directory or ".")
  except OSError as error:  # this error, like that of a full disk below, does not name the file
    raise OSError(error.errno, error.strerror, path) from error
  try:
    with os.fdopen(handle, "wb") as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    os.chmod(temporary, 0o666 & ~_umask())
    os.replace(temporary, path)
  except BaseException as error:
    remove(temporary)
    if isinstance(error, OSError):
      raise OSError(error.errno, error.strerror, path) from error
    raise


def remove(path: str) -> None:
  """Remove a local file if it exists."""
  with contextlib.suppress(FileNotFoundError):
    os.unlink(path)


def writing_failed(path: str, error: OSError) -> WriteError:
  """The error to raise when writing a data set fails."""
  return WriteError(
    f"{path}: writing failed ({error.strerror or error}). What was finished before is intact: "
    "make room or choose another disk, and run the same command again with --resume."
  )


@functools.lru_cache(maxsize=1)
def _umask() -> int:
  mask = os.umask(0)  # the umask can only be read by setting it
  os.umask(mask)
  return mask


def _of(path: str) -> Any:
  return filesystem(path.split("://", 1)[0])
