"""Errors for people: what was read, what was found, what was expected, what to do.

Every error that bad input can cause is one of these. Each carries one finished paragraph that
names the file, key or record, so that a caller can print it as it is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class XJepaError(Exception):
  """Something outside the program is not as it has to be."""


class RightsError(XJepaError, PermissionError):
  """A file or folder is there and may be intact, but this user has no right to read it."""


class SensorError(XJepaError, ValueError):
  """A sensor's description is wrong, or does not fit what it is asked for."""


class ConfigError(XJepaError, ValueError):
  """A config names an unknown key, or a value that cannot work."""


class DataError(XJepaError, ValueError):
  """A data set, a file or a record is not what it should be."""


class DatasetError(DataError):
  """A data set's directory is incomplete, or its description and its files disagree."""


class ShardIndexError(DataError):
  """A shard's index is damaged, or belongs to another state of the shard."""


class CorruptRecordError(DataError):
  """A record's bytes are not the bytes that were written."""


class CutShortError(CorruptRecordError):
  """Fewer of a record's bytes came than were asked for; later they may come."""


class ExampleError(DataError):
  """A record is intact and yet is no `tf.train.Example` of the expected features."""


class PairError(DataError):
  """A pair does not fit the data set that it is meant for."""


class ImageError(DataError):
  """An image file cannot be read, or is not what its name or sensor says."""


class ArchiveError(DataError):
  """An archive to be imported is not laid out as its format says, or names what it may not."""


class TableError(DataError):
  """A table that lists an archive's pairs is damaged, or has rows that cannot be used."""


class OptionError(DataError):
  """An option of a command is malformed, or does not fit the others."""


class WriteError(XJepaError, OSError):
  """Writing failed; what was written before is intact."""


class EvaluationError(XJepaError, ValueError):
  """Descriptors, rankings or labels cannot be compared with each other."""


class TrainingError(XJepaError, RuntimeError):
  """Training cannot go on as it is set up."""


class CheckpointError(XJepaError, RuntimeError):
  """A checkpoint cannot be written or read, or belongs to another run."""


class InUseError(XJepaError, RuntimeError):
  """Another process writes into the same directory, or may do so."""


class LostError(XJepaError, RuntimeError):
  """Other processes of the same run did not come, or are gone; starting all of them again helps."""


class ExportError(XJepaError, ValueError):
  """An exported encoder cannot be written or read, or does not fit what it is asked for."""


class EmbeddingError(XJepaError, ValueError):
  """A directory of embeddings is damaged, unfinished, or belongs to another encoder or archive."""


class ChangedError(XJepaError, RuntimeError):
  """Files were replaced while they were in use; opening them again helps."""


class SearchError(XJepaError, ValueError):
  """A query cannot be asked: no such scene, an image that does not fit, examples that cancel."""


class SearchIndexError(XJepaError, ValueError):
  """An index is damaged or out of date, or its back end is missing or was set up wrongly."""


class TooLargeError(XJepaError, ValueError):
  """Something that was sent here has more bytes than it may have."""


def did_you_mean(name: object, known: Iterable[str]) -> str:
  """A question with the nearest known name, quoted, and a space before it; "" if none is near."""
  near = difflib.get_close_matches(str(name), list(known), 1)
  return f" Did you mean {near[0]!r}?" if near else ""
