"""Times of acquisition, from ISO 8601 to an instant."""

from __future__ import annotations

import datetime


def instant(text: str) -> datetime.datetime | None:
  """An aware time in UTC; without a zone it is in UTC, without a time of day at midnight.

  None where there is no text, or one that is no ISO 8601 time.
  """
  if not text:
    return None
  try:
    found = datetime.datetime.fromisoformat(text)
  except ValueError:
    return None
  if found.tzinfo is None:
    return found.replace(tzinfo=datetime.UTC)
  return found.astimezone(datetime.UTC)


def text_of(time: datetime.datetime) -> str:
  """As STAC writes it (RFC 3339): 2021-07-01T10:20:30Z."""
  return time.astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")
