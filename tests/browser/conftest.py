"""Debian's Chromium without a window, and servers of small real archives for it to look at.

Every page that a test opens must end without an error, a warning, or a request to anywhere else.
Screenshots go to build/screenshots.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.serve.archives import Made, archive_in
from tests.serve.running import running

SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
FLAGS = (
  "--no-sandbox",  # CI runs as root
  "--disable-dev-shm-usage",
  "--disable-background-networking",
  "--use-angle=swiftshader",  # WebGL without a graphics card
  "--enable-unsafe-swiftshader",
)
TOKEN = "a-token-of-the-tests"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
  return archive_in(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def unplaced(tmp_path_factory: pytest.TempPathFactory) -> Made:
  return archive_in(tmp_path_factory.getbasetemp(), georeferenced=False)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
  executable = shutil.which("chromium") or shutil.which("google-chrome")
  if executable is None:
    pytest.skip("there is no chromium on this machine (apt-get install chromium)")
  playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
  with playwright.sync_playwright() as driver:
    browser = driver.chromium.launch(executable_path=executable, args=list(FLAGS))
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def scripts() -> None:
  """For tests of the map and the plot."""
  from xjepa_jax.serve.page_files import vendored

  if not all(vendored().values()):
    pytest.skip("the map's and the plot's scripts are not there (make page)")


@pytest.fixture(scope="session")
def site(made: Made) -> Iterator[str]:
  """The address of the archive with coordinates."""
  with served(made) as address:
    yield address


@pytest.fixture(scope="session")
def plain_site(made: Made) -> Iterator[str]:
  """The same, of a page without its third-party scripts."""
  with served(made, parts={"map": False, "scatter": False}) as address:
    yield address


@contextlib.contextmanager
def served(made: Made, token: str = "", parts: Mapping[str, bool] | None = None) -> Iterator[str]:
  """Serves an archive on a free port of this machine."""
  with running(made, token=token, parts=parts) as access:
    yield access.address()


class Watched:
  """A page, and what it said and asked for that it should not have.

  Attributes:
    page: Playwright's.
    problems: so far.
  """

  def __init__(self, page: Any, expected: str | None):
    self.page = page
    self.problems: list[str] = []
    self._expected = expected
    page.on("console", self._said)
    page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
    page.on("request", self._asked)
    page.set_default_timeout(30_000)

  def open(self, address: str) -> Any:
    """Goes there and waits for the first tiles."""
    self.origin = re.match(r"https?://[^/]+/", address)[0]  # type: ignore[index]
    self.page.goto(address)
    self.page.wait_for_selector(".card")
    return self.page

  def _said(self, message: Any) -> None:
    if message.type not in ("error", "warning"):
      return
    if self._expected is None or not re.search(self._expected, message.text):
      self.problems.append(f"{message.type}: {message.text}")

  def _asked(self, request: Any) -> None:
    if not request.url.startswith((self.origin, "data:", f"blob:{self.origin}")):
      self.problems.append(f"request: {request.url[:200]}")


@pytest.fixture
def watch(browser: Any) -> Iterator[Callable[..., Watched]]:
  """Opens pages; `expected` is what the console may say, a regular expression."""
  opened: list[tuple[Any, Watched]] = []

  def make(expected: str | None = None, **options: Any) -> Watched:
    options.setdefault("viewport", {"width": 1280, "height": 900})
    context = browser.new_context(reduced_motion="reduce", accept_downloads=True, **options)
    watched = Watched(context.new_page(), expected)
    opened.append((context, watched))
    return watched

  yield make
  for context, _ in opened:
    context.close()
  assert [watched.problems for _, watched in opened] == [[] for _ in opened]


def until(page: Any, expression: str, seconds: float = 30) -> None:
  """Waits until something holds. Playwright's own way evaluates in the page, which forbids it."""
  end = time.monotonic() + seconds
  while not page.evaluate(expression):
    if time.monotonic() > end:
      raise AssertionError(f"never within {seconds} s: {expression}")
    page.wait_for_timeout(50)


def photograph(page: Any, name: str) -> None:
  """Keeps what the page looks like, for people."""
  os.makedirs(SCREENSHOTS, exist_ok=True)
  page.evaluate("window.scrollTo(0, 0)")
  page.wait_for_timeout(300)
  page.screenshot(path=str(SCREENSHOTS / f"{name}.png"))
