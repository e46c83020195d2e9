"""A range of time means the same on the command line and on the page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from xjepa_jax.errors import SearchError
from xjepa_jax.retrieval import search
from xjepa_jax.retrieval.searching.time_range import time_range
from xjepa_jax.serve.asking import question


def utc(*parts: int) -> datetime:
  return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
  ("since", "until", "start", "end"),
  [
    ("2025-06-01", "2025-06-03", utc(2025, 6, 1), utc(2025, 6, 4)),
    ("2025-06-01", "2025-06-01", utc(2025, 6, 1), utc(2025, 6, 2)),
    ("2024-02-28", "2024-02-28", utc(2024, 2, 28), utc(2024, 2, 29)),
    ("2025-06-01", "2025-06-03T12:00", utc(2025, 6, 1), utc(2025, 6, 3, 12)),
    ("2025-06-01T06:30", "2025-06-01", utc(2025, 6, 1, 6, 30), utc(2025, 6, 2)),
    ("2025-06-01T00:00+02:00", "2025-06-01T02:00+02:00", utc(2025, 5, 31, 22), utc(2025, 6, 1)),
    ("..", "2025-12-31", None, utc(2026, 1, 1)),
    ("2025-W49", "2025-W49", utc(2025, 12, 1), utc(2025, 12, 8)),
    ("2025W49", "2025W50", utc(2025, 12, 1), utc(2025, 12, 15)),
    ("2025-W49-3", "2025W493", utc(2025, 12, 3), utc(2025, 12, 4)),
    ("2025-06-01", "20250603", utc(2025, 6, 1), utc(2025, 6, 4)),
    ("2025-12-31", "..", utc(2025, 12, 31), None),
  ],
)
def test_a_date_without_a_time_is_the_whole_day_at_both_ends_and_in_both_places(
  since: str, until: str, start: datetime | None, end: datetime | None
) -> None:
  assert time_range(since, until) == (start, end)
  asked = question(like="0", since=since, until=until)
  assert asked.time == (start, end)
  args = search._parser().parse_args(["--index", "x", "--id", "a", "--time", since, until])
  assert search._filter(args).time == (start, end)


def test_a_time_of_another_zone_stays_the_same_instant() -> None:
  start, _ = time_range("2025-06-01T00:00+05:30", "..")
  india = timezone(timedelta(hours=5, minutes=30))
  assert start == datetime(2025, 6, 1, tzinfo=india)


@pytest.mark.parametrize(
  ("since", "until", "said"),
  [
    ("2025-13-01", "..", "no day or time; expected ISO 8601"),
    ("yesterday", "..", "no day or time"),
    ("0001-01-01", "..", "no day or time"),
    ("..", "9999-12-31", "no day or time"),
    ("2025-06-02", "2025-06-01", "the second is before the first"),
    ("2025-06-01T12:00", "2025-06-01T12:00", "or the same"),
  ],
)
def test_what_is_no_range_is_refused(since: str, until: str, said: str) -> None:
  with pytest.raises(SearchError, match=said):
    time_range(since, until)


def test_help_says_what_a_date_without_a_time_is() -> None:
  words = " ".join(search._parser().format_help().split())
  assert "a date without a time is the whole day at both ends" in words
