"""What the server says of its archive is what the archive's files and its searcher say."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tests.serve.archives import PAIRS, SIZE, Made
from xjepa_jax.retrieval.embedding.files import open_embeddings
from xjepa_jax.retrieval.searching.searcher import open_searcher
from xjepa_jax.serve.archive import Archive
from xjepa_jax.serve.asking import Question


def test_the_archive_says_what_it_holds(client: TestClient) -> None:
  about = client.get("/archive.json").json()
  assert about["count"] == 2 * PAIRS and len(about["sensors"]) == 2
  assert about["uploads"] == about["sensors"] and about["live"] and about["dated"]
  west, south, east, north = about["bounds"]
  assert -1e-9 <= west < east < 0.1 and -0.1 < south < north <= 1e-9


def test_hits_are_the_nearest_by_brute_force(client: TestClient, made: Made) -> None:
  files = open_embeddings(made.embeddings)
  vectors = files.vectors()
  tiles = files.take(range(len(files)))
  row = 7
  others = [at for at, tile in enumerate(tiles) if tile["sensor"] != tiles[row]["sensor"]]
  scores = vectors[others] @ vectors[row]
  expected = [others[at] for at in np.argsort(-scores)[:10]]
  found = client.get("/search.json", params={"like": row, "sensor": "*other", "k": 10}).json()
  assert [hit["row"] for hit in found["hits"]] == expected
  assert [hit["rank"] for hit in found["hits"]] == list(range(1, 11))
  assert found["among"] == PAIRS
  np.testing.assert_allclose(
    [hit["score"] for hit in found["hits"]], np.sort(scores)[::-1][:10], atol=2e-6
  )


def test_more_and_less_like_this_are_rocchio(client: TestClient, made: Made) -> None:
  vectors = open_embeddings(made.embeddings).vectors()
  like, unlike = [3, 50], [9]
  wanted = vectors[like].mean(axis=0) - 0.5 * vectors[unlike].mean(axis=0)
  scores = vectors @ (wanted / np.linalg.norm(wanted))
  scores[like + unlike] = -np.inf
  found = client.get("/search.json", params={"like": "3,50", "unlike": "9", "k": 5}).json()
  assert [hit["row"] for hit in found["hits"]] == np.argsort(-scores)[:5].tolist()


def test_a_day_is_included_at_both_ends(client: TestClient) -> None:
  day = client.get("/tiles/5.json").json()[0]["time"][:10]
  asked = {"like": 0, "since": day, "until": day, "k": 200}
  hits = client.get("/search.json", params=asked).json()["hits"]
  assert 5 in [hit["row"] for hit in hits]
  assert {hit["time"][:10] for hit in hits} == {day}


def test_views_of_a_place_are_all_tiles_of_its_id(client: TestClient) -> None:
  first, second = client.get("/tiles/11.json").json()
  assert first["row"] == 11 and first["id"] == second["id"]
  assert first["sensor"] != second["sensor"]


def test_geojson_has_the_hits_footprints(client: TestClient) -> None:
  asked = {"like": 0, "k": 100}
  answer = client.get("/search.geojson", params=asked)
  assert answer.headers["content-type"] == "application/geo+json"
  assert "attachment" in answer.headers["content-disposition"]
  hits = client.get("/search.json", params=asked).json()["hits"]
  features = json.loads(answer.content)["features"]
  assert [f["properties"]["id"] for f in features] == [hit["id"] for hit in hits]
  footprints = [json.loads(json.dumps(hit["footprint"])) for hit in hits]
  assert [f["geometry"] for f in features] == footprints
  assert not any({"source", "window"} & set(f["properties"]) for f in features)


def test_a_picture_is_the_tiles_and_may_be_kept(client: TestClient, archive: Archive) -> None:
  answer = client.get(f"/pictures/{archive.version}/4.png")
  image = Image.open(io.BytesIO(answer.content))
  assert image.size == (SIZE, SIZE) and image.getcolors(20) is None
  assert "immutable" in answer.headers["cache-control"]
  assert client.get("/pictures/of-another-archive/4.png").status_code == 404


def test_tiles_to_start_from_are_others_at_every_turn(client: TestClient) -> None:
  turns = [
    {tile["row"] for tile in client.get(f"/tiles.json?count=12&turn={turn}").json()}
    for turn in range(3)
  ]
  assert all(len(rows) == 12 for rows in turns)
  assert turns[0] != turns[1] != turns[2]


@pytest.mark.parametrize(
  ("address", "complaint"),
  [
    ("/search.json", "nothing is asked"),
    ("/search.json?like=x", "row numbers"),
    ("/search.json?like=99999", "row 99999"),
    ("/search.json?like=" + "9" * 4000, "row"),
    ("/search.json?like=1&k=0", "1 to 10,000"),
    ("/search.json?like=1&k=many", "k:"),
    ("/search.json?like=1&sensor=nope", "nope"),
    ("/search.json?like=1&since=2025-13-01", "no day"),
    ("/search.json?like=1&since=2025-03-02&until=2025-03-01", "before"),
    ("/search.json?like=1&bbox=1,2,3", "west,south,east,north"),
    ("/search.json?upload=never", "upload the image again"),
    ("/places.json?bbox=0,9,1,-9", "south"),
    ("/places.json?bbox=", "west,south,east,north"),
    ("/places.json?bbox=1,2,3", "west,south,east,north"),
    ("/places.json?bbox=nan,0,1,1", "degrees"),
    ("/places.json?bbox=0,0,1e400,1", "degrees"),
    ("/search.json?like=1&bbox=a,b,c,d", "west,south,east,north"),
    ("/search.json?like=1&since=0001-01-01", "no day"),
    ("/search.json?like=1&until=9999-12-31", "no day"),
    ("/search.json?like=", "nothing is asked"),
    ("/search.json?upload=", "nothing is asked"),
    ("/search.geojson?like=99999", "row 99999"),
    ("/tiles.json?count=0", "count"),
    ("/tiles.json?count=", "count"),
    ("/tiles.json?turn=1e9", "turn"),
    ("/tiles.json?sensor=nope", "sensor 'nope': the archive has"),
    ("/search.json?like=" + "0" * 30 + "99999", "row 99999"),
    ("/tiles/-1.json", "no such tile"),
    ("/tiles/99999.json", "no such tile"),
    ("/tiles/99999999999999999999999.json", "no such tile"),
  ],
)
def test_what_cannot_be_meant_is_said_in_a_sentence(
  client: TestClient, address: str, complaint: str
) -> None:
  answer = client.get(address)
  assert answer.status_code == 422
  assert complaint.lower() in answer.json()["error"].lower()


def test_zeros_before_a_number_change_nothing(client: TestClient) -> None:
  found = [client.get(f"/search.json?like={text}&k=3").json() for text in ("5", "0" * 20 + "5")]
  assert found[0] == found[1] and found[0]["hits"]
  assert (
    client.get("/search.json?like=000&k=3").json() == client.get("/search.json?like=0&k=3").json()
  )


def test_an_archive_without_coordinates_is_searched_all_the_same(unplaced: Made) -> None:
  archive = Archive(open_searcher(unplaced.index))
  assert archive.describe()["bounds"] is None
  assert archive.ground.view((-180, -90, 180, 90), 100).count == 0
  hits = archive.ask(Question(like=(0,), sensor="*other", k=5)).hits
  assert len(hits) == 5 and all(hit.footprint is None for hit in hits)
  archive.close()
