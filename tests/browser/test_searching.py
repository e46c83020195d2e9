"""A query by click, its hits with the true scene among them, filters, examples and export."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from tests.browser.conftest import Watched, photograph, until
from tests.serve.archives import PAIRS

Watch = Callable[..., Watched]


def titles(page: Any) -> list[str]:
  found: list[str] = page.locator(".card .id").all_inner_texts()
  return found


def wait_for_hits(page: Any) -> None:
  page.wait_for_selector("#hits[aria-busy=false] .rank")


def test_a_radar_tile_clicked_finds_optical_tiles_with_its_scene_marked(
  watch: Watch, site: str, scripts: None
) -> None:
  page = watch().open(site)
  radar, optical = page.evaluate("fetch('archive.json').then(a => a.json())")["sensors"]
  page.select_option("#count", "96")  # so the true scene is among them, whatever the weights
  card = page.locator(".card", has_text=radar).first
  scene = card.locator(".id").inner_text()
  card.locator("button.picture").click()
  wait_for_hits(page)
  assert page.locator(".card").count() == PAIRS
  assert all(optical in line for line in page.locator(".card .about").all_inner_texts())
  assert page.locator("#status").inner_text() == f"{PAIRS} hits among {PAIRS} tiles"
  true = page.locator(".card.same")
  assert true.count() == 1 and true.locator(".id").inner_text() == scene
  assert "the query's scene" in true.inner_text()
  ranks = page.locator(".rank").all_inner_texts()
  assert ranks == [str(rank) for rank in range(1, PAIRS + 1)]
  # The map has a number for each hit, and the frame has drawn the space.
  until(page, f"document.querySelectorAll('.mark').length === {PAIRS + 1}")
  assert page.locator(".mark.asked").count() == 1
  until(page, "document.querySelector('#map-note').textContent.includes('places here')")
  photograph(page, "georeferenced")


def test_the_map_is_asked_by_a_click_on_a_tile_and_by_keys(
  watch: Watch, site: str, scripts: None
) -> None:
  page = watch().open(site)
  until(page, "document.querySelector('#map-note').textContent.includes('places here')")
  box = page.locator("#map canvas").bounding_box()
  for turn in range(60):  # until it is drawn; one of these places is no gap between tiles
    share = (0.5, 0.47, 0.53, 0.44)[turn % 4]
    page.mouse.click(box["x"] + share * box["width"], box["y"] + share * box["height"])
    page.wait_for_timeout(400)
    if "like=" in page.url:
      break
  wait_for_hits(page)
  first = page.url
  mark = page.locator(".mark:not(.asked)", has_text=re.compile("^1$"))
  mark.dispatch_event("click")
  until(page, f"location.href !== {json.dumps(first)}")
  wait_for_hits(page)
  page.locator("#map canvas").focus()
  second = page.url
  page.keyboard.press("ArrowRight")
  page.keyboard.press("Enter")
  until(page, f"location.href !== {json.dumps(second)}")
  wait_for_hits(page)


def test_the_plot_joins_pairs_and_is_asked_by_keys(watch: Watch, site: str, scripts: None) -> None:
  watched = watch()
  watched.page.add_init_script(
    "addEventListener('message', (e) => { if (e.data.kind === 'drawn') window.drawn = e.data })"
  )
  page = watched.open(site)
  until(page, "window.drawn")
  assert page.evaluate("window.drawn.count") == 2 * PAIRS
  frame = page.frame(url=re.compile("scatter.html"))
  assert frame.evaluate("window.origin") == "null"  # it can read nothing of the page
  assert frame.evaluate("fetch('../archive.json').then(() => 'read', () => 'refused')") == "refused"
  watched.problems.clear()  # that refusal is in the console
  frame.locator("canvas").focus()
  page.keyboard.press("ArrowRight")
  page.keyboard.press("ArrowRight")
  page.keyboard.press("Enter")
  wait_for_hits(page)
  assert "like=" in page.url


def test_filters_leave_what_passes(watch: Watch, plain_site: str) -> None:
  page = watch().open(plain_site)
  page.locator("button.picture").first.click()
  wait_for_hits(page)
  sensors = page.evaluate("fetch('archive.json').then(a => a.json())")["sensors"]
  asked_with = page.locator("#query .faint").first.inner_text().split(" ")[0]
  assert asked_with in sensors
  page.select_option("#sensor", asked_with)
  until(page, f"document.querySelector('.card .about').innerText.includes('{asked_with}')")
  days = sorted(
    line[-10:] for line in page.locator(".card .about .faint").all_inner_texts() if "2025-" in line
  )
  page.fill("#since", days[5])
  until(page, "location.search.includes('since=')")
  wait_for_hits(page)
  page.fill("#until", days[5])
  until(page, "location.search.includes('until=')")
  wait_for_hits(page)
  for line in page.locator(".card .about").all_inner_texts():
    assert days[5] in line
  page.go_back()
  until(page, "!location.search.includes('until=')")
  assert page.input_value("#since") == days[5] and page.input_value("#until") == ""
  page.fill("#since", "2031-01-01")
  until(page, "document.querySelector('#status').textContent.includes('Nothing passes')")


def test_more_and_less_like_this_turn_the_query_and_can_be_taken_back(
  watch: Watch, plain_site: str
) -> None:
  page = watch().open(plain_site)
  page.locator("button.picture").first.click()
  wait_for_hits(page)
  before = titles(page)
  page.get_by_role("button", name=f"More like {before[2]}").first.click()
  page.wait_for_selector("text=And like")
  wait_for_hits(page)
  # A tile that is asked with is no answer; its place's other tile, of the same title, may be.
  assert titles(page).count(before[2]) < 2
  page.get_by_role("button", name=f"Less like {titles(page)[0]}").first.click()
  page.wait_for_selector("text=Not like")
  wait_for_hits(page)
  for name in ("And like", "Not like"):
    page.get_by_role("button", name=re.compile("^Take out")).first.click()
    page.wait_for_selector(f"text={name}", state="detached")
    wait_for_hits(page)
  assert titles(page) == before
  page.get_by_role("button", name="Start over").click()
  page.wait_for_selector("text=Tiles to start from")


def test_hits_are_exported_as_geojson(watch: Watch, plain_site: str) -> None:
  page = watch().open(plain_site)
  page.locator("button.picture").first.click()
  wait_for_hits(page)
  with page.expect_download() as download:
    page.get_by_role("link", name="Hits as GeoJSON").click()
  with open(download.value.path(), encoding="utf-8") as file:
    features = json.load(file)["features"]
  assert [feature["properties"]["id"] for feature in features] == titles(page)
  assert all(feature["geometry"]["type"] == "Polygon" for feature in features)
