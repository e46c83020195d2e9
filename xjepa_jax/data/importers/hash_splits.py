"""Splits for archives that have none: each pair's own id decides, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from xjepa_jax.data.archive import Entry

SPLITS = ("train", "validation", "test")


def hashed_split(pair_id: str, seed: int) -> str:
  """One of `SPLITS`, which so get 80, 10 and 10 % of many pairs."""
  digit = int.from_bytes(hashlib.sha256(f"{seed}:{pair_id}".encode()).digest()[:8]) % 10
  return SPLITS[max(digit - 7, 0)]


def hash_note(seed: int) -> str:
  """What the import's summary says of these splits, to be followed by a remedy."""
  return (
    "train, validation and test hold 80, 10 and 10 % of the pairs by a hash of pair_id "
    f"(seed {seed}). If neighbours overlap,"
  )


def by_split(entries: Iterable[tuple[str, Entry]]) -> dict[str, list[Entry]]:
  """Entries by the splits that go with them: `SPLITS` first, then others by name, none empty."""
  splits: dict[str, list[Entry]] = {}
  for split, entry in entries:
    splits.setdefault(split, []).append(entry)
  extra = sorted(set(splits) - set(SPLITS))
  return {name: splits[name] for name in (*SPLITS, *extra) if name in splits}
