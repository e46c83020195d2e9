"""The page by keyboard, on a phone, without its third-party scripts, without a map, as files."""

from __future__ import annotations

import functools
import http.server
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.browser.conftest import TOKEN, Watched, photograph, served, until
from tests.browser.test_searching import titles, wait_for_hits
from tests.serve.archives import Made, optical, sar
from xjepa_jax.serve import command

Watch = Callable[..., Watched]

# Texts whose contrast with what is behind them is below 4.5 (WCAG 2.2, 1.4.3).
FAINT_TEXTS = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const level = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * level(r) + 0.7152 * level(g) + 0.0722 * level(b);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.checkVisibility() || element.disabled) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${element.outerHTML.slice(0, 80)}`);
  }
  return found;
}"""
SHIFT = """() => new Promise((done) => {
  let sum = 0;
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) sum += entry.value;
  }).observe({ type: "layout-shift", buffered: true });
  setTimeout(() => done(sum), 300);
})"""


def test_everything_can_be_done_with_the_keyboard(watch: Watch, plain_site: str) -> None:
  page = watch().open(plain_site)
  press = page.keyboard.press

  def focused() -> str:
    # Whatever has the focus shows it.
    text, outline = page.evaluate(
      "[document.activeElement.ariaLabel || document.activeElement.innerText"
      " || document.activeElement.id, getComputedStyle(document.activeElement).outlineStyle]"
    )
    assert outline == "solid", text
    return str(text)

  def tab_to(start: str) -> None:
    for _ in range(40):
      press("Tab")
      if focused().startswith(start):
        return
    raise AssertionError(f"Tab never reaches {start!r}")

  press("Tab")
  assert focused() == "Skip to the tiles"
  press("Enter")
  until(page, "document.activeElement.id === 'hits'")  # following a fragment takes a while
  tab_to("Search with")
  press("Enter")
  wait_for_hits(page)
  assert page.evaluate("document.activeElement.id") == "hits"
  before = titles(page)
  tab_to("More like")
  press("Enter")
  page.wait_for_selector("text=And like")
  wait_for_hits(page)
  tab_to("Less like")
  press("Enter")
  page.wait_for_selector("text=Not like")
  page.evaluate("document.querySelector('.skip').focus()")
  tab_to("Start over")
  press("Enter")
  page.wait_for_selector("text=Tiles to start from")
  page.evaluate("document.querySelector('.skip').focus()")
  for _ in range(40):
    press("Tab")
    if page.evaluate("document.activeElement.id") == "sensor":
      break
  press("ArrowDown")
  until(page, "location.search.includes('sensor=')")
  assert before


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it_without_scrolling_sideways(
  watch: Watch, site: str, scheme: str, scripts: None
) -> None:
  size = {"width": 400, "height": 850}
  watched = watch(viewport=size, color_scheme=scheme, has_touch=True)
  watched.page.add_init_script(
    "addEventListener('message', (e) => { if (e.data.kind === 'drawn') window.drawn = e.data })"
  )
  page = watched.open(site)
  page.locator("button.picture").first.click()
  wait_for_hits(page)
  page.locator("summary").first.click()
  page.locator("summary").last.click()
  assert page.evaluate("document.documentElement.scrollWidth") == 400
  assert page.evaluate(FAINT_TEXTS) == []
  small = page.evaluate("""[...document.querySelectorAll("button, a, select, input, summary")]
    .filter((e) => e.checkVisibility() && !e.matches(".skip, .maplibregl-ctrl *"))
    .map((e) => [e.outerHTML.slice(0, 60), e.getBoundingClientRect()])
    .filter(([, box]) => Math.min(box.width, box.height) < 18).map(([text]) => text)""")
  assert small == []
  until(page, "document.querySelector('#map-note').textContent.includes('places')")
  page.locator("#scatter").scroll_into_view_if_needed()  # out of sight, it has nothing to draw
  until(page, "window.drawn")
  photograph(page, f"phone-{scheme}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_and_nothing_moves_while_it_loads(
  watch: Watch, plain_site: str, scheme: str
) -> None:
  page = watch(color_scheme=scheme).open(plain_site)
  page.wait_for_load_state("networkidle")
  assert page.evaluate(SHIFT) < 0.02
  page.locator("button.picture").first.click()
  wait_for_hits(page)
  assert page.evaluate(FAINT_TEXTS) == []
  photograph(page, f"without-scripts-{scheme}")


def test_without_third_party_scripts_none_is_asked_for(watch: Watch, plain_site: str) -> None:
  watched = watch()
  asked: list[str] = []
  watched.page.on("request", lambda request: asked.append(request.url))
  page = watched.open(plain_site)
  page.wait_for_load_state("networkidle")
  assert not [url for url in asked if "vendor" in url or "scatter.html" in url]
  assert "make page" in page.locator("#map").inner_text()
  assert "make page" in page.locator("#scatter").inner_text()


def test_an_upload_asks(watch: Watch, plain_site: str, tmp_path: Path) -> None:
  path = tmp_path / "mine.npy"
  np.save(path, sar(9))
  page = watch().open(plain_site)
  page.set_input_files("#file", str(path))
  page.get_by_role("button", name="Upload and search").click()
  wait_for_hits(page)
  assert page.locator("#query .id").inner_text() == "mine.npy"
  until(page, "document.querySelector('#query img').naturalWidth === 16")
  page.select_option("#sensor", "")  # all sensors: the tile itself comes first
  until(page, "document.querySelector('.card .id').textContent.endsWith('0000009')")
  page.reload()
  wait_for_hits(page)
  assert page.locator("#query .id").inner_text() == "mine.npy"


def test_an_upload_in_other_units_says_so_and_asks_if_they_are_trusted(
  watch: Watch, plain_site: str, tmp_path: Path
) -> None:
  path = tmp_path / "linear.npy"
  np.save(path, (10 ** (sar(9) / 10)).astype(np.float32))
  page = watch(expected=r"the server responded with a status of 422").open(plain_site)
  page.set_input_files("#file", str(path))
  upload = page.get_by_role("button", name="Upload and search")
  upload.click()
  page.wait_for_selector("#error:not([hidden])")
  assert "linear power" in page.locator("#error").inner_text()
  page.get_by_label("Trust its units").check()
  upload.click()
  wait_for_hits(page)
  assert page.locator("#query .id").inner_text() == "linear.npy"
  assert not page.locator("#error").is_visible()


def test_the_offset_of_an_upload_is_taken_into_account(
  watch: Watch, plain_site: str, tmp_path: Path
) -> None:
  path = tmp_path / "late.npy"
  np.save(path, optical(9) + np.uint16(1000))
  page = watch().open(plain_site)
  page.set_input_files("#file", str(path))
  page.get_by_label("Offset of its values").fill("-1000")
  page.get_by_role("button", name="Upload and search").click()
  wait_for_hits(page)
  page.select_option("#sensor", "")  # all sensors: the tile itself comes first
  until(page, "document.querySelector('.card .id').textContent.endsWith('0000009')")


def test_a_hostile_upload_is_told_and_does_nothing(
  watch: Watch, plain_site: str, tmp_path: Path
) -> None:
  refused = r"the server responded with a status of 422"  # the browser's own line in the console
  page = watch(expected=refused).open(plain_site)
  before = titles(page)
  files = {
    "evil.html": b"<script>window.owned = 1</script>",
    "<img src=x onerror=window.owned=1>.png": b"\x89PNG\r\n\x1a\nrubbish",
    "large.npy": bytes(400_000),
    "vrt.tif": b'<VRTDataset rasterXSize="9" rasterYSize="9"></VRTDataset>',
  }
  for name, content in files.items():
    file = {"name": name, "mimeType": "image/png", "buffer": content}
    page.set_input_files("#file", files=[file])
    page.evaluate("document.querySelector('#error').hidden = true")
    page.get_by_role("button", name="Upload and search").click()
    page.wait_for_selector("#error:not([hidden])")
    assert page.locator("#error").inner_text()
  assert page.evaluate("window.owned") is None
  assert titles(page) == before
  page.locator("button.picture").first.click()
  wait_for_hits(page)
  assert not page.locator("#error").is_visible()


def test_an_archive_without_coordinates_has_no_map_and_all_else(
  watch: Watch, unplaced: Made, scripts: None
) -> None:
  with served(unplaced) as address:
    page = watch().open(address)
    assert not page.locator("#map-view").is_visible()
    assert "no coordinates" in page.locator("#about").inner_text()
    page.locator("button.picture").first.click()
    wait_for_hits(page)
    page.wait_for_selector("#scatter iframe")
    page.wait_for_timeout(1000)
    photograph(page, "without-coordinates")
    page.close()  # before its server


def test_with_a_token_the_page_works_and_its_address_keeps_none(
  watch: Watch, made: Made, scripts: None
) -> None:
  with served(made, TOKEN) as address:
    watched = watch(expected="status of 401")
    watched.origin = address.partition("?")[0]
    stranger = watched.page
    answer = stranger.goto(address.partition("?")[0])
    assert answer.status == 401 and "token" in stranger.content()
    page = watch().open(address)
    assert TOKEN not in page.url and TOKEN not in page.evaluate("document.cookie")
    page.locator("button.picture").first.click()
    wait_for_hits(page)
    until(page, "document.querySelector('.card img').naturalWidth === 16")
    until(page, "document.querySelector('#map-note').textContent.includes('places')")
    until(page, "document.querySelector('#scatter-note').textContent.includes('tiles')")
    page.wait_for_load_state("networkidle")
    page.close()  # before its server


@pytest.fixture(scope="module")
def exported(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
  """The address of an export, behind a server that knows nothing of it."""
  out = str(tmp_path_factory.mktemp("static") / "page")
  argv = ["--index", made.index, "--export", out, "--export-queries", "40", "--export-hits", "6"]
  assert command.main(argv) == 0
  handler = functools.partial(Quiet, directory=out)
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
  """Says nothing on the terminal."""

  def log_message(self, format: str, *args: Any) -> None:
    pass


def test_the_static_copy_searches_filters_and_exports(
  watch: Watch, exported: str, scripts: None
) -> None:
  watched = watch()
  watched.page.add_init_script(
    "addEventListener('message', (e) => { if (e.data.kind === 'drawn') window.drawn = e.data })"
  )
  page = watched.open(exported)
  until(page, "window.drawn")
  frame = page.frame(url=re.compile("scatter.html"))
  refused = "fetch('../archive.json').then(() => 'read', () => 'refused')"
  assert frame.evaluate(refused) == "refused"  # by the policy in it: no server sent one
  assert any("connect-src" in problem for problem in watched.problems)
  watched.problems.clear()
  assert "static copy" in page.locator("#about").inner_text()
  assert not page.locator("#upload-part").is_visible()
  page.locator("button.picture").first.click()
  wait_for_hits(page)
  assert page.locator(".card").count() == 6
  page.select_option("#sensor", "")
  until(page, "document.querySelectorAll('.card').length === 12")
  scores = [float(text.split()[1]) for text in page.locator(".worth").all_inner_texts()]
  assert scores == sorted(scores, reverse=True)
  with page.expect_download() as download:
    page.get_by_role("link", name="Hits as GeoJSON").click()
  assert "FeatureCollection" in Path(download.value.path()).read_text()
  photograph(page, "static")
