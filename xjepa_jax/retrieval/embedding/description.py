"""The description of a directory of embeddings, stored as `description.json`.

It holds everything that the rows depend on. Keys are sorted, so that equal descriptions give equal
bytes whichever process writes them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from xjepa_jax.errors import EmbeddingError

FORMAT = "xjepa_jax embeddings 1"
DESCRIPTION = "description.json"


@dataclasses.dataclass(frozen=True)
class EmbeddingDescription:
  """A directory of embeddings.

  Attributes:
    encoder: name of the encoder's directory, "sha256" of its manifest, and "head".
    dimensions: number of dimensions of the descriptors, K.
    quantisation: "float32", "float16" or "int8".
    sensors: sorted keys of the sensors that have rows.
    source: "kind" of the archive ("pairs", "images" or "stac"), its "path", and how it was read.
    count: number of rows.
    georeferenced: whether rows have geometry.
    settings: everything else that the rows depend on.
    versions: versions of the packages that wrote the directory.
    digests: whether each row has a digest of its source image.
  """

  encoder: Mapping[str, str]
  dimensions: int
  quantisation: str
  sensors: tuple[str, ...]
  source: Mapping[str, Any]
  count: int
  georeferenced: bool
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
  digests: bool = False

  def to_json(self) -> str:
    """The text of the file; equal descriptions give equal text."""
    content = {"format": FORMAT, **dataclasses.asdict(self)}
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"


def description_from_json(text: str, where: str) -> EmbeddingDescription:
  """Inverse of `EmbeddingDescription.to_json`.

  Args:
    text: text of the file.
    where: its path, for error messages.

  Raises:
    EmbeddingError: the text is not a description, or one of another version.
  """
  try:
    content = json.loads(text)
    found = content.pop("format", None)
    if found != FORMAT:
      raise EmbeddingError(
        f"{where}: format {found!r}, expected {FORMAT!r}. Use the version of xjepa_jax that wrote "
        "it, or embed the archive again."
      )
    return EmbeddingDescription(**{**content, "sensors": tuple(content["sensors"])})
  except EmbeddingError:
    raise
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise EmbeddingError(
      f"{where}: is no description of embeddings ({type(error).__name__}: {error}). Embed the "
      "archive again."
    ) from error
