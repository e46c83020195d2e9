"""Splits of a data set: their names, their order, and a hash for archives without splits."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

from xjepa_jax.data.archive import Entry

SPLITS = ("train", "validation", "test")
_ALIASES = {"val": "validation", "valid": "validation", "dev": "validation"}
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def split_name(text: str) -> str:
  """The data set's name for the split that an archive calls `text`: "val" becomes "validation".

  Raises:
    ValueError: the text cannot name a split.
  """
  name = _ALIASES.get(text.lower(), text.lower())
  if not _NAME.fullmatch(name):
    raise ValueError(f"{text!r} cannot name a split, as train or test can")
  return name


def in_order(splits: Mapping[str, Sequence[Entry]]) -> dict[str, Sequence[Entry]]:
  """The splits that are not empty: first `SPLITS`, then others by name."""
  names = [*SPLITS, *sorted(set(splits) - set(SPLITS))]
  return {name: splits[name] for name in names if splits.get(name)}


def by_split(entries: Iterable[tuple[str, Entry]]) -> dict[str, Sequence[Entry]]:
  """Entries grouped by the split given with each, `in_order`."""
  splits: dict[str, list[Entry]] = {}
  for split, entry in entries:
    splits.setdefault(split, []).append(entry)
  return in_order(splits)


def hashed_split(pair_id: str, seed: int) -> str:
  """One of `SPLITS`, with probabilities of 80, 10 and 10 %; depends only on the id and the seed."""
  digit = int.from_bytes(hashlib.sha256(f"{seed}:{pair_id}".encode()).digest()[:8]) % 10
  return SPLITS[max(digit - 7, 0)]


def hash_note(seed: int) -> str:
  """A note on these splits for the import's summary, to be followed by a remedy."""
  return (
    "train, validation and test hold 80, 10 and 10 % of the pairs by a hash of pair_id "
    f"(seed {seed}). If neighbours overlap,"
  )
