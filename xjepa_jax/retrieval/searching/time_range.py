"""Parsing of time ranges, for the command line and the page alike."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

from xjepa_jax.errors import SearchError

OPEN = ("", "..")
TimeRange = tuple[datetime | None, datetime | None]


def time_range(since: str, until: str) -> TimeRange:
  """Parse a half-open time range (from, to); None is open.

  Args:
    since, until: ISO 8601, in UTC if no zone is given. A date without a time means the whole day,
      and a week without a day (2025-W49) the whole week, at both ends. "" and ".." are open.

  Raises:
    SearchError: one of them is not a time, or the range is empty.
  """
  start = None if since in OPEN else _instant(since)
  end = None if until in OPEN else _instant(until)
  if end is not None:
    end += _length(until)
  if start is not None and end is not None and start >= end:
    raise SearchError(f"from {since} to {until}: the second is before the first, or the same.")
  return start, end


def _instant(text: str) -> datetime:
  """Parse a time, or the beginning of a day."""
  try:
    found = datetime.fromisoformat(text)
    if not 1 < found.year < 9999:  # at the limits, zones and whole days would leave the calendar
      raise ValueError
  except ValueError:
    raise SearchError(
      f"{text[:40]!r} is no day or time; expected ISO 8601, such as 2025-06-30 for the whole day, "
      "or 2025-06-30T12:00."
    ) from None
  return found if found.tzinfo else found.replace(tzinfo=UTC)


def _length(text: str) -> timedelta:
  """Return the length of what a text names: a week, a day, or no time."""
  try:
    date.fromisoformat(text)
  except ValueError:
    return timedelta()
  return timedelta(days=7 if re.fullmatch(r"\d{4}-?W\d\d", text) else 1)
