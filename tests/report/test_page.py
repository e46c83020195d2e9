"""The page: whole, escaped, without a network, usable without eyes; and the files beside it."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xjepa_jax.report.findings import Findings
from xjepa_jax.report.page import write_report

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
  """Elements with their attributes, text, and whether every element is closed."""

  def __init__(self, content: str):
    super().__init__()
    self.elements: list[tuple[str, dict[str, str | None]]] = []
    self.text: list[str] = []
    self.open: list[str] = []
    self.feed(content)
    self.close()

  def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
    self.elements.append((tag, dict(attrs)))
    if tag not in VOID:
      self.open.append(tag)

  def handle_endtag(self, tag: str) -> None:
    assert self.open.pop() == tag

  def handle_data(self, data: str) -> None:
    self.text.append(data)

  def of(self, tag: str) -> list[dict[str, str | None]]:
    return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def report(findings: Findings, tmp_path_factory: pytest.TempPathFactory) -> Path:
  return Path(write_report(str(tmp_path_factory.mktemp("run") / "report"), findings))


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
  return Page(report.read_text(encoding="utf-8"))


def test_the_page_is_whole_html_with_language_title_and_headings(page: Page) -> None:
  assert page.open == []
  assert page.of("html") == [{"lang": "en"}]
  assert len(page.of("h1")) == 1 and len(page.of("h2")) == 6
  assert any(meta.get("name") == "viewport" for meta in page.of("meta"))
  ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
  assert len(ids) == len(set(ids))
  assert {link["href"] for link in page.of("a")} == {f"#{name}" for name in ids}


def test_all_text_is_escaped_and_no_script_runs(page: Page) -> None:
  assert not page.of("script")
  text = "".join(page.text)
  assert 'A run of "X" <script>alert(1)</script>' in text
  assert "scene <2> & co" in text and "see http://example.org/<x>" in text
  for _, attributes in page.elements:
    assert not any(name.startswith("on") for name in attributes)


def test_nothing_is_loaded_from_anywhere(page: Page, report: Path) -> None:
  assert not page.of("link") and not page.of("iframe")
  for _, attributes in page.elements:
    for name in ("src", "href", "srcset", "action", "data"):
      value = attributes.get(name) or ""
      assert value == "" or value.startswith(("data:image/png;base64,", "#"))
  style = report.read_text().split("<style>")[1].split("</style>")[0]
  assert "url(" not in style and "@import" not in style
  assert any("default-src 'none'" in (meta.get("content") or "") for meta in page.of("meta"))


def test_every_picture_is_there_with_a_text_and_its_size(page: Page, report: Path) -> None:
  pictures = page.of("img")
  names = ("retrieval.png", "tokens.png", "curves.png")
  assert len(pictures) == len(names)
  for attributes, name in zip(pictures, names, strict=True):
    content = base64.b64decode((attributes["src"] or "").split(",")[1])
    assert content == (report.parent / name).read_bytes()
    image = Image.open(io.BytesIO(content))
    assert (str(image.width), str(image.height)) == (attributes["width"], attributes["height"])
    assert len(np.unique(np.asarray(image.convert("L")))) > 10, "a picture of nothing"
    assert len(attributes["alt"] or "") > 30


def test_tables_have_headers_and_scroll_by_keyboard(page: Page) -> None:
  for header in page.of("th"):
    assert header["scope"] in ("col", "row", "rowgroup")
  wide = [each for each in page.of("div") if each.get("class") == "scroll"]
  assert len(wide) >= 5
  assert all(each["tabindex"] == "0" and each["aria-label"] for each in wide)


def test_the_main_result_and_the_verdict_come_first(page: Page, findings: Findings) -> None:
  text = " ".join("".join(page.text).split())
  assert "25.0% of queries optical → radar and 20.0% of queries radar → optical" in text
  assert "Chance would reach 0.06%" in text
  assert "No sign of a collapse" in text


def test_a_collapsed_run_says_so(findings: Findings, tmp_path: Path) -> None:
  bad = dataclasses.replace(
    findings, collapse="RankMe is 1.3 < 8.", examples=(), token_maps=(), history=()
  )
  page = Page(Path(write_report(str(tmp_path), bad)).read_text())
  assert "The space collapsed. RankMe is 1.3 < 8." in "".join(page.text)
  assert any(each.get("role") == "alert" for each in page.of("p"))


def test_what_prediction_knows_stands_beside_guesses_that_know_less(
  findings: Findings, tmp_path: Path
) -> None:
  probed = {
    "probe/latent/real/a->b": 0.0691,
    "probe/latent/other_context/a->b": 0.0692,
    "probe/latent/position/a->b": 0.0681,
    "probe/latent/constant/a->b": 0.1,
    "targets/constant/a->b": 0.9,
    "targets/position/a->b": 0.035,
    "targets/scene/a->b": 0.04,
    "targets/rest/a->b": 0.025,
  }
  history = [{"step": 100, **probed}, {"step": 200, "loss/total": 1.0}]
  warned = dataclasses.replace(findings, history=history, warnings=("It <teaches> nothing.",))
  page = Page(Path(write_report(str(tmp_path), warned)).read_text())
  text = " ".join("".join(page.text).split())
  assert "What prediction knows" in text and "at step 100" in text
  for shown in ("latent, a → b", "0.0691", "0.0692", "0.0681", "90.0%", "3.5%", "4.0%", "2.5%"):
    assert shown in text, shown
  assert "It <teaches> nothing." in text
  assert json.loads((tmp_path / "metrics.json").read_text())["warnings"] == [
    "It <teaches> nothing."
  ]


def test_a_report_of_nothing_but_a_title_is_a_page(tmp_path: Path) -> None:
  page = Page(Path(write_report(str(tmp_path), Findings("Nothing yet"))).read_text())
  assert not page.of("h2") and not page.of("img")
  assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", "metrics.json"]


def test_metrics_json_has_every_number_and_no_bare_nan(report: Path, findings: Findings) -> None:
  text = (report.parent / "metrics.json").read_text()

  def refuse(name: str) -> None:
    raise AssertionError(name)

  content = json.loads(text, parse_constant=refuse)  # called of NaN, Infinity and -Infinity
  assert [row["recall@1"] for row in content["summary"]] == [0.25, 0.2, 1 / 1600, 1 / 1600]
  assert content["summary"][0]["mrr"] is None and content["geometry"]["gap"] is None
  assert content["config"] == {
    "model": {"width": 8, "note": "see http://example.org/<x>"},
    "mean": None,
  }
  assert "denominator: queries" in content["definitions"]["recall@5"]
  assert content["protocol"] == {"split": "test & nothing else"}
  assert content["last"]["step"] == 300 and content["last"]["loss/total"] == 2 / 300
  assert [each["true_rank"] for each in content["examples"][:3]] == [1, 3, 8]
  assert content["versions"] == {"jax": "0.10.2"}
