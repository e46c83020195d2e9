"""The exported page has what the server would have said, and nothing that needs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.serve.archives import PAIRS, Made
from xjepa_jax.errors import WriteError
from xjepa_jax.serve import command
from xjepa_jax.serve.archive import Archive
from xjepa_jax.serve.asking import Question
from xjepa_jax.serve.static_export import export_page


def test_hits_are_those_of_the_server_for_every_sensor(archive: Archive, tmp_path: Path) -> None:
  out = tmp_path / "page"
  written = export_page(archive, str(out), queries=10, k=4)
  about = json.loads((out / "archive.json").read_text())
  assert written.queries == len(about["queries"]) == 10 and not about["live"]
  for row in about["queries"]:
    hits = json.loads((out / "hits" / f"{row}.json").read_text())
    assert list(hits) == list(archive.sensors)
    for sensor, found in hits.items():
      expected = archive.ask(Question(like=(row,), sensor=sensor, k=4)).hits
      assert [hit[0] for hit in found] == [hit.row for hit in expected]
      assert [hit[1] for hit in found] == [round(hit.score, 4) for hit in expected]
  # Whatever is shown is there, with its picture.
  tiles = {tile["row"] for tile in json.loads((out / "all-tiles.json").read_text())}
  assert len(tiles) == written.tiles == about["count"]
  assert {int(path.stem) for path in (out / "pictures").iterdir()} == tiles
  assert {point[0] for point in json.loads((out / "plane.json").read_text())["points"]} <= tiles


def test_a_scene_can_be_asked_for_from_each_of_its_sensors(
  archive: Archive, tmp_path: Path
) -> None:
  export_page(archive, str(tmp_path / "page"), queries=6, k=1)
  queries = json.loads((tmp_path / "page" / "archive.json").read_text())["queries"]
  ids = [tile["id"] for tile in archive.tiles(queries)]
  assert len(set(ids)) == 3 and len(ids) == 6


def test_a_directory_with_something_in_it_is_refused(archive: Archive, tmp_path: Path) -> None:
  (tmp_path / "mine").write_text("keep")
  with pytest.raises(WriteError, match="not empty"):
    export_page(archive, str(tmp_path), queries=1, k=1)
  assert (tmp_path / "mine").read_text() == "keep"


def test_the_command_exports_and_says_how_to_look_at_it(
  made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  out = str(tmp_path / "page")
  assert command.main(["--index", made.index, "--export", out, "--export-hits", "3"]) == 0
  said = capsys.readouterr().out
  assert f"{2 * PAIRS} tiles, {2 * PAIRS} of them with their hits" in said
  assert f"python -m http.server --directory {out}" in said


@pytest.mark.parametrize(
  ("options", "complaint"),
  [
    (["--export", "x", "--export-queries", "0"], "--export-queries"),
    (["--port", "70000"], "0 to 65535"),
    (["--host", "no such host.example"], "no such address"),
    (["--host", "192.0.2.1"], "cannot listen"),
    (["--max-upload-mb", "0"], "above 0"),
  ],
)
def test_options_that_cannot_work_are_refused_in_a_paragraph(
  made: Made, capsys: pytest.CaptureFixture[str], options: list[str], complaint: str
) -> None:
  assert command.main(["--index", made.index, *options]) == 1
  assert complaint in capsys.readouterr().err


def test_an_index_that_is_not_there_is_said_before_anything_is_served(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  assert command.main(["--index", str(tmp_path / "none"), "--port", "0"]) == 1
  assert "none" in capsys.readouterr().err
