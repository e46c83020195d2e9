"""The search command over a small real archive, compared with a plain loop over its rows."""

from __future__ import annotations

import collections
import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import compiling_quickly
from tests.retrieval.embedding.random_encoder import export_random_encoder
from tests.serve.archives import SIZE, Made, archive_in, optical, sar
from xjepa_jax.data.description import describe
from xjepa_jax.data.simulated_places import centre
from xjepa_jax.retrieval import search
from xjepa_jax.retrieval.embedding.files import EmbeddingFiles, open_embeddings
from xjepa_jax.retrieval.searching.answers import Answer, Query
from xjepa_jax.retrieval.searching.formats import FORMATS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
  return archive_in(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def files(made: Made) -> EmbeddingFiles:
  return open_embeddings(made.embeddings)


def ask(made: Made, capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
  """Hits of the only query, by the command, as JSON has them."""
  with compiling_quickly():
    status = search.main(["--index", made.index, "--format", "json", *argv])
  captured = capsys.readouterr()
  assert status == 0, captured.err
  (answer,) = json.loads(captured.out)
  return answer


def refused(made: Made, capsys: pytest.CaptureFixture[str], *argv: str) -> str:
  """What the command says on stderr."""
  assert search.main(["--index", made.index, *argv]) == 1
  captured = capsys.readouterr()
  assert captured.out == "" and captured.err.startswith("error: ")
  assert "Traceback" not in captured.err
  return captured.err


def by_loop(files: EmbeddingFiles, row: int, sensor: str, k: int) -> list[str]:
  vectors = files.vectors()
  scored = [
    (-float(vectors[other] @ vectors[row]), other)
    for other in range(len(files))
    if other != row and files.take([other])[0]["sensor"] == sensor
  ]
  return [files.take([other])[0]["id"] for _, other in sorted(scored)[:k]]


@pytest.mark.parametrize(("asking", "found"), [("s1", "s2"), ("s2", "s1"), ("s1", "s1")])
def test_hits_are_those_of_a_plain_loop_and_never_the_query_itself(
  made: Made, files: EmbeddingFiles, capsys: pytest.CaptureFixture[str], asking: str, found: str
) -> None:
  name = "simulated-0-0000007"
  answer = ask(made, capsys, "--id", name, "--query-sensor", asking, "--sensor", found, "--k", "6")
  (row,) = files.find(name, asking)
  assert [hit["id"] for hit in answer["hits"]] == by_loop(files, row, found, 6)
  assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3, 4, 5, 6]
  assert answer["among"] == 60


def test_an_image_file_finds_its_own_tile_first(
  made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  np.save(tmp_path / "radar.npy", sar(11))
  answer = ask(made, capsys, "--image", str(tmp_path / "radar.npy"), "--k", "1")
  (hit,) = answer["hits"]
  assert (answer["sensor"], hit["sensor"], hit["id"]) == ("s1", "s1", "simulated-0-0000011")
  assert hit["score"] == pytest.approx(1, abs=1e-3)


def test_of_a_larger_image_the_middle_is_asked_with(
  made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  wide = np.full((SIZE + 10, SIZE + 6, 12), 900, np.uint16)
  wide[5 : 5 + SIZE, 3 : 3 + SIZE] = optical(8)
  np.save(tmp_path / "wide.npy", wide)
  answer = ask(made, capsys, "--image", str(tmp_path / "wide.npy"), "--k", "1")
  assert answer["hits"][0]["id"] == "simulated-0-0000008"
  assert f"the middle {SIZE} x {SIZE} of {SIZE + 10} x {SIZE + 6} pixels" in answer["query"]


def test_a_place_asks_with_the_tile_that_contains_it(
  made: Made, files: EmbeddingFiles, capsys: pytest.CaptureFixture[str]
) -> None:
  longitude, latitude = centre(23, SIZE)
  where = (f"{longitude + 2e-4:.6f}", f"{latitude - 2e-4:.6f}")
  answer = ask(made, capsys, "--at", *where, "--query-sensor", "s1", "--sensor", "s2", "--k", "3")
  (row,) = files.find("simulated-0-0000023", "s1")
  assert [hit["id"] for hit in answer["hits"]] == by_loop(files, row, "s2", 3)
  said = refused(made, capsys, "--at", *where)
  assert "tiles of s1, s2 contain" in said and "name the query's sensor" in said
  assert "no tile contains" in refused(made, capsys, "--at", "100", "45")
  assert "-180 to 180" in refused(made, capsys, "--at", "45", "145")


def test_a_day_without_a_time_is_included_at_both_ends(
  made: Made, files: EmbeddingFiles, capsys: pytest.CaptureFixture[str]
) -> None:
  rows = files.take(range(len(files)))
  day = rows[5]["datetime"].isoformat()[:10]
  of_the_day = {row["row"] for row in rows if row["datetime"].isoformat().startswith(day)}
  query = next(row for row in rows if row["row"] not in of_the_day)
  answer = ask(
    made, capsys, "--id", query["id"], "--query-sensor", query["sensor"], "--time", day, day,
    "--k", "100",
  )  # fmt: skip
  assert answer["among"] == len(of_the_day) == len(answer["hits"])


@pytest.mark.parametrize(
  ("given", "name", "value"),
  [
    (["--at", "0.01", "-7.2e-04"], "at", [0.01, -7.2e-04]),
    (["--at", "-1E1", "-.5"], "at", [-10.0, -0.5]),
    (["--id", "-a"], "id", ["-a"]),
    (["--id", "-a", "b", "-1e3"], "id", ["-a", "b", "-1e3"]),
    (["--id=--a"], "id", ["--a"]),
    (["--like", "-a", "-b"], "like", ["-a", "-b"]),
    (["--id", "a", "--bbox", "-1e-3", "-6e-3", "6e-3", "1e-3"], "bbox", [-1e-3, -6e-3, 6e-3, 1e-3]),
    (["--image", "-a.tif", "--offset", "-1e3"], "offset", -1000.0),
  ],
)
def test_values_may_begin_with_a_dash(given: list[str], name: str, value: Any) -> None:
  parsed = search._parser().parse_args(["--index", "x", *given, "--k", "3"])
  assert getattr(parsed, name) == value and parsed.k == 3


def test_a_misspelt_option_is_none_of_the_values(capsys: pytest.CaptureFixture[str]) -> None:
  with pytest.raises(SystemExit):
    search._parser().parse_args(["--index", "x", "--id", "a", "--kk", "3"])
  assert "unrecognized arguments: --kk 3" in capsys.readouterr().err


def test_filters_by_box_time_and_label_hold(
  made: Made, files: EmbeddingFiles, capsys: pytest.CaptureFixture[str]
) -> None:
  rows = files.take(range(len(files)))
  # The commonest: few scenes have any one label, and fewer of them pass the other filters.
  label, _ = collections.Counter(each for row in rows for each in row["labels"]).most_common(1)[0]
  box = ["-0.001", "-0.006", "0.006", "0.001"]
  expected = {
    row["id"]
    for row in rows
    if row["sensor"] == "s2"
    and label in row["labels"]
    and -0.001 <= row["centre_lon"] <= 0.006
    and -0.006 <= row["centre_lat"] <= 0.001
    and row["datetime"].isoformat() >= "2025-02-01"
  }
  answer = ask(
    made, capsys, "--id", "simulated-0-0000002", "--query-sensor", "s1", "--sensor", "s2",
    "--bbox", *box, "--time", "2025-02-01", "..", "--label", label, "--k", "60",
  )  # fmt: skip
  assert {hit["id"] for hit in answer["hits"]} == expected and expected
  assert answer["among"] == len(expected)


def test_nothing_found_is_said_and_is_no_error(
  made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
  argv = ["--index", made.index, "--id", "simulated-0-0000002", "--query-sensor", "s1"]
  assert search.main([*argv, "--time", "1999-01-01", "2000-01-01"]) == 0
  assert "Nothing passes the filter" in capsys.readouterr().out


def test_examples_together_are_rocchio_s_query(
  made: Made, files: EmbeddingFiles, capsys: pytest.CaptureFixture[str]
) -> None:
  like, unlike = ["simulated-0-0000003", "simulated-0-0000014"], ["simulated-0-0000005"]
  answer = ask(
    made, capsys, "--like", *like, "--unlike", *unlike, "--query-sensor", "s2",
    "--sensor", "s2", "--k", "5",
  )  # fmt: skip
  vectors = files.vectors()
  rows = [files.find(name, "s2")[0] for name in (*like, *unlike)]
  query = vectors[rows[:2]].mean(axis=0) - 0.5 * vectors[rows[2]]
  scores = vectors @ (query / np.linalg.norm(query))
  order = [row for row in np.argsort(-scores) if row not in rows]
  entries = files.take(order)
  expected = [entry["id"] for entry in entries if entry["sensor"] == "s2"][:5]
  assert [hit["id"] for hit in answer["hits"]] == expected


def test_a_table_of_queries_is_answered_row_by_row(
  made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  np.save(tmp_path / "optical.npy", optical(8))
  table = tmp_path / "queries.csv"
  table.write_text("image,id,sensor\noptical.npy,,\n,simulated-0-0000001,s1\n")
  argv = ["--index", made.index, "--batch", str(table), "--k", "2", "--format", "csv"]
  with compiling_quickly():
    assert search.main([*argv, "--out", str(tmp_path / "hits.csv")]) == 0
  assert capsys.readouterr().out == ""
  rows = list(csv.DictReader(io.StringIO((tmp_path / "hits.csv").read_text())))
  assert [(row["query"], row["rank"]) for row in rows] == [
    ("optical.npy", "1"), ("optical.npy", "2"),
    ("simulated-0-0000001", "1"), ("simulated-0-0000001", "2"),
  ]  # fmt: skip
  assert rows[0]["id"] == "simulated-0-0000008"
  for separator in (";", "\t"):  # as spreadsheets of many countries write them, and Excel for them
    for told in ("", f"sep={separator}\r\n"):
      table.write_text(f"{told}id{separator}sensor\nsimulated-0-0000001{separator}s1\n")
      (found,) = [ask(made, capsys, "--batch", str(table), "--k", "2")]
      assert [hit["id"] for hit in found["hits"]] == [row["id"] for row in rows[2:]]
  table.write_text("name\nsimulated-0-0000001\n")
  assert "has no column 'image' or 'id'" in refused(made, capsys, "--batch", str(table))
  table.write_text("id,sensor\n")
  assert "has no row, so nothing is asked" in refused(made, capsys, "--batch", str(table))
  table.write_text("sep=,\nimage,id\n,\n")
  assert "line 3 needs an image or an id" in refused(made, capsys, "--batch", str(table))
  table.write_text("image,id\n,\n")
  assert "line 2 needs an image or an id" in refused(made, capsys, "--batch", str(table))


def test_geojson_has_the_outline_of_every_hit(
  made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
  argv = ["--index", made.index, "--id", "simulated-0-0000009", "--query-sensor", "s1"]
  assert search.main([*argv, "--k", "4", "--format", "geojson"]) == 0
  collection = json.loads(capsys.readouterr().out)
  assert collection["type"] == "FeatureCollection" and len(collection["features"]) == 4
  for feature in collection["features"]:
    (ring,) = feature["geometry"]["coordinates"]
    inside = feature["properties"]
    assert ring[0] == ring[-1] and len(ring) == 5
    assert min(x for x, _ in ring) < inside["longitude"] < max(x for x, _ in ring)


def test_a_gallery_and_an_explanation_are_drawn(
  made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  drawn = [str(tmp_path / name) for name in ("gallery.png", "explained.png")]
  ask(
    made, capsys, "--id", "simulated-0-0000009", "--query-sensor", "s1", "--sensor", "s2",
    "--gallery", drawn[0], "--explain", drawn[1],
  )  # fmt: skip
  for path in drawn:
    with Image.open(path) as image:
      assert image.width > 600 and len(image.convert("RGB").getcolors(2**20) or ()) > 100


def test_queries_that_cannot_be_asked_say_why(
  made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  np.save(tmp_path / "five.npy", np.zeros((SIZE, SIZE, 5), np.uint16))
  np.save(tmp_path / "small.npy", optical(1)[:9])
  np.save(tmp_path / "empty.npy", np.zeros((SIZE, SIZE, 12), np.uint16))
  assert "found none" in refused(made, capsys)
  assert "--image and --id" in refused(made, capsys, "--image", "a.tif", "--id", "b")
  assert "no tile has the id 'nix'" in refused(made, capsys, "--id", "nix")
  assert "name the query's sensor" in refused(made, capsys, "--id", "simulated-0-0000001")
  assert "5 bands of uint16" in refused(made, capsys, "--image", str(tmp_path / "five.npy"))
  assert "larger cut" in refused(made, capsys, "--image", str(tmp_path / "small.npy"))
  assert "0% of the pixels" in refused(made, capsys, "--image", str(tmp_path / "empty.npy"))
  known = ["--id", "simulated-0-0000001", "--query-sensor", "s1"]
  assert "at least one hit" in refused(made, capsys, *known, "--k", "0")
  assert "no row of the index is of sensor" in refused(made, capsys, *known, "--sensor", "s9")
  assert "belongs to --like" in refused(made, capsys, *known, "--unlike", "x")


def test_values_in_other_units_are_refused_unless_they_are_trusted(
  made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  linear, late = str(tmp_path / "linear.npy"), str(tmp_path / "late.npy")
  np.save(linear, (10 ** (sar(11) / 10)).astype(np.float32))
  np.save(late, optical(8) + np.uint16(1000))
  said = refused(made, capsys, "--image", linear)
  assert "linear power or scaled bytes, expected dB" in said and "trust its units" in said
  # A single image may be bright by nature, so that one is not refused.
  assert "+1000 of processing baseline 04.00" in ask(made, capsys, "--image", late)["query"]
  assert ask(made, capsys, "--image", linear, "--trust-units")["hits"]
  answer = ask(made, capsys, "--image", late, "--offset", "-1000", "--k", "1")
  assert answer["hits"][0]["id"] == "simulated-0-0000008"
  table = tmp_path / "queries.csv"
  table.write_text("image\nlinear.npy\n")
  assert "linear power" in refused(made, capsys, "--batch", str(table))
  assert ask(made, capsys, "--batch", str(table), "--trust-units")["hits"]
  assert "expected a number" in refused(made, capsys, "--image", late, "--offset", "nan")


def test_another_encoder_than_the_one_that_embedded_is_refused(
  made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  other = str(tmp_path / "other")
  shutil.copytree(made.encoder, other)
  export_random_encoder(other, {"s1": describe(made.pairs).format.sensors["s1"]}, SIZE)
  said = refused(made, capsys, "--encoder", other, "--id", "simulated-0-0000001")
  assert "is not the encoder that made" in said and "embed the archive again" in said


def test_json_is_in_letters_that_every_terminal_has() -> None:
  answer = Answer(Query("Łódź é 😀.tif", "radar", np.zeros(2, np.float32)), (), 0)
  text = FORMATS["json"]([answer])
  assert text.isascii() and json.loads(text)[0]["query"] == "Łódź é 😀.tif"
  assert FORMATS["geojson"]([answer]).isascii()
