"""The errors that bad input can cause, with messages written for the user.

Every such error is a subclass of `XJepaError`, and carries one complete paragraph: the file, key or
record that was read, what was found, what was expected, and what to do. A caller can therefore
print it as it is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class XJepaError(Exception):
  """Input, a file or the environment is not as the program needs it."""


class RightsError(XJepaError, PermissionError):
  """A file or folder exists and may be intact, but this user may not read it."""


class SensorError(XJepaError, ValueError):
  """A sensor's description is wrong, or does not fit its use."""


class ConfigError(XJepaError, ValueError):
  """A config has an unknown key, or a value that cannot work."""


class DataError(XJepaError, ValueError):
  """A data set, a file or a record does not have the expected content."""


class DatasetError(DataError):
  """A data set's directory is incomplete, or its description and its files disagree."""


class ShardIndexError(DataError):
  """A shard's index is damaged, or belongs to another state of the shard."""


class CorruptRecordError(DataError):
  """A record's bytes are not the bytes that were written."""


class CutShortError(CorruptRecordError):
  """Fewer of a record's bytes arrived than were requested; a retry may return all of them."""


class ExampleError(DataError):
  """A record is intact but is not a `tf.train.Example` with the expected features."""


class PairError(DataError):
  """A pair does not fit the data set that it is written to."""


class ImageError(DataError):
  """An image file cannot be read, or does not match its name or sensor."""


class ArchiveError(DataError):
  """An archive does not have the layout of its format, or refers to a path that is not allowed."""


class TableError(DataError):
  """A table that lists an archive's pairs is damaged, or has unusable rows."""


class OptionError(DataError):
  """An option of a command is malformed, or conflicts with another."""


class WriteError(XJepaError, OSError):
  """Writing failed; everything written before is intact."""


class EvaluationError(XJepaError, ValueError):
  """Descriptors, rankings or labels cannot be compared with each other."""


class TrainingError(XJepaError, RuntimeError):
  """Training cannot continue with the present settings or state."""


class CheckpointError(XJepaError, RuntimeError):
  """A checkpoint cannot be written or read, or belongs to another run."""


class InUseError(XJepaError, RuntimeError):
  """Another process writes to the same directory, or might."""


class LostError(XJepaError, RuntimeError):
  """Other processes of the run did not connect, or are lost; restarting all of them helps."""


class ExportError(XJepaError, ValueError):
  """An exported encoder cannot be written or read, or does not fit the request."""


class EmbeddingError(XJepaError, ValueError):
  """A directory of embeddings is damaged, unfinished, or belongs to another encoder or archive."""


class ChangedError(XJepaError, RuntimeError):
  """Files were replaced while in use; reopening them helps."""


class SearchError(XJepaError, ValueError):
  """A query is invalid: an unknown scene, an image that does not fit, or examples that cancel."""


class SearchIndexError(XJepaError, ValueError):
  """An index is damaged or out of date, or its back end is missing or misconfigured."""


class TooLargeError(XJepaError, ValueError):
  """A request or upload has more bytes than allowed."""


def did_you_mean(name: object, known: Iterable[str]) -> str:
  """A question that suggests the nearest known name, with a leading space; "" if none is near."""
  near = difflib.get_close_matches(str(name), list(known), 1)
  return f" Did you mean {near[0]!r}?" if near else ""
