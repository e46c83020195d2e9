"""The log of a process: whole JSON lines, over many starts, that never end a run."""

from __future__ import annotations

import datetime
import json
import logging
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xjepa_jax.processes import log


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
  yield
  log.close_log()


def lines(folder: Path, process: int = 0) -> list[dict[str, Any]]:
  return [
    json.loads(line) for line in (folder / f"process-{process}.jsonl").read_text().split("\n")[:-1]
  ]


def test_a_line_says_when_how_grave_who_at_which_step_and_what(tmp_path: Path) -> None:
  log.note("before there is a log")
  log.open_log(str(tmp_path / "logs"), 3)
  before = datetime.datetime.now(datetime.UTC)
  log.note("starts", more={"pid": 7})
  log.at(12)
  log.note("zwölf\nand more", "error")
  first, second = lines(tmp_path / "logs", 3)
  assert abs(datetime.datetime.fromisoformat(first.pop("time")) - before).total_seconds() < 60
  assert first == {"level": "info", "process": 3, "step": None, "message": "starts", "pid": 7}
  assert (second["level"], second["step"], second["message"]) == ("error", 12, "zwölf\nand more")


def test_every_start_goes_on_with_the_file_and_a_line_cut_short_spoils_no_other(
  tmp_path: Path,
) -> None:
  log.open_log(str(tmp_path), 0)
  log.note("one")
  log.close_log()
  log.note("nobody hears this")
  path = tmp_path / "process-0.jsonl"
  path.write_bytes(path.read_bytes() + b'{"time": "20')
  log.open_log(str(tmp_path), 0)
  log.note("two")
  first, cut, last, rest = path.read_text().split("\n")
  assert (json.loads(first)["message"], cut, json.loads(last)["message"], rest) == (
    "one",
    '{"time": "20',
    "two",
    "",
  )


def test_what_libraries_warn_of_is_kept_with_its_stack_and_what_they_inform_of_is_not(
  tmp_path: Path,
) -> None:
  log.open_log(str(tmp_path), 0)
  library = logging.getLogger("some.library")
  library.info("all is well")
  try:
    raise ValueError("no such thing")
  except ValueError:
    library.warning("it goes on without %s", "a thing", exc_info=True)
  (line,) = lines(tmp_path)
  assert line["level"] == "warning" and line["message"].startswith("it goes on without a thing\n")
  assert "ValueError: no such thing" in line["message"]


def test_a_librarys_mistake_ends_nothing_and_any_text_can_be_told(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  root = logging.getLogger()
  monkeypatch.setattr(root, "handlers", [])  # pytest's own raise it
  log.open_log(str(tmp_path), 0)
  logging.getLogger("some.library").warning("%d files", "many")
  log.note("a file of \udcff")
  log.close_log()
  (line,) = lines(tmp_path)
  assert line["message"] == "a file of \udcff"


@pytest.mark.parametrize("room", [0, 20])
def test_a_full_disk_ends_nothing_and_spoils_one_line(tmp_path: Path, room: int) -> None:
  log.open_log(str(tmp_path), 0)
  log.note("there is room")
  limit = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(
    resource.RLIMIT_FSIZE, ((tmp_path / "process-0.jsonl").stat().st_size + room, limit[1])
  )
  try:
    log.note("there is none")
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
  log.note("there is again")
  whole = (tmp_path / "process-0.jsonl").read_text().splitlines()
  assert len(whole) == (3 if room else 2)
  said = [json.loads(line)["message"] for line in (whole[0], whole[-1])]
  assert said == ["there is room", "there is again"]
