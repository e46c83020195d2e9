"""Acquisition times, from ISO 8601 to UTC and back."""

from __future__ import annotations

import datetime


def instant(text: str) -> datetime.datetime | None:
  """An aware time in UTC. Without a zone the text is in UTC, without a time of day at midnight.

  None if the text is empty or not an ISO 8601 time.
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
  """The time as STAC writes it (RFC 3339): 2021-07-01T10:20:30Z."""
  return time.astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")
