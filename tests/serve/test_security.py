"""Who may ask, what a browser may do with the page, and what never leaves the folder."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient

from tests.serve.conftest import LIMITS
from xjepa_jax.errors import EmbeddingError, SearchIndexError, XJepaError
from xjepa_jax.serve.app import create_app
from xjepa_jax.serve.archive import Archive
from xjepa_jax.serve.page_files import PAGE, page_files
from xjepa_jax.serve.security import FRAME, FRAME_POLICY, POLICY, Access, is_loopback


def test_only_other_machines_addresses_ask_for_a_token() -> None:
  for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
    assert is_loopback(host) and not Access.for_host(host, 1).token
  for host in ("0.0.0.0", "::", "10.0.0.7", "archive.example"):
    assert not is_loopback(host)
    assert len(Access.for_host(host, 1).token) >= 40
  assert Access.for_host("::", 1).token != Access.for_host("::", 1).token


def test_every_answer_has_the_policy(client: TestClient) -> None:
  for path in ("/", "/archive.json", "/page/main.js", "/nowhere", "/search.json"):
    headers = client.get(path).headers
    assert headers["content-security-policy"] == POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
  directives = dict(part.strip().split(" ", 1) for part in POLICY.split(";"))
  assert directives["default-src"] == "'self'" and "unsafe" not in POLICY


@pytest.mark.parametrize(
  "error",
  [
    SearchIndexError("postgresql://me@10.0.0.7/db: PostgreSQL did not answer"),
    EmbeddingError("/srv/secret/part-0.parquet: the part cannot be read"),
  ],
)
def test_what_is_wrong_with_the_server_is_told_on_its_terminal_only(
  error: XJepaError,
  archive: Archive,
  client: TestClient,
  monkeypatch: pytest.MonkeyPatch,
  caplog: pytest.LogCaptureFixture,
) -> None:
  def failing(*_: object) -> None:
    raise error

  monkeypatch.setattr(archive, "ask", failing)
  answer = client.get("/search.json?like=1")
  assert answer.status_code == 503
  assert answer.json() == {"error": "The archive cannot be read; see the server's terminal."}
  assert str(error) in caplog.text


def test_a_failure_tells_nothing_and_keeps_the_policy(
  archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
  def failing(*_: object) -> None:
    raise RuntimeError("/srv/secret")

  monkeypatch.setattr(archive, "ask", failing)
  app = create_app(archive, Access("127.0.0.1", 8080), LIMITS)
  client = TestClient(app, base_url="http://127.0.0.1:8080", raise_server_exceptions=False)
  answer = client.get("/search.json?like=1")
  assert answer.status_code == 500 and "secret" not in answer.text
  assert "terminal" in answer.json()["error"]
  assert answer.headers["content-security-policy"] == POLICY
  assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_frame_holds_its_policy_where_no_server_sends_it() -> None:
  with open(f"{PAGE}/scatter.html", encoding="utf-8") as file:
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', file.read())
  # A meta element can neither make a sandbox nor name who may frame it; the page's frame does.
  others = ("sandbox", "frame-ancestors")
  kept = [part for part in FRAME_POLICY.split("; ") if not part.startswith(others)]
  assert found and found[1].split("; ") == kept


def test_the_frame_may_compile_but_has_no_origin_and_no_network(client: TestClient) -> None:
  policy = client.get(FRAME).headers["content-security-policy"]
  assert "sandbox allow-scripts;" in policy and "allow-same-origin" not in policy
  assert "default-src 'none'" in policy and "connect-src" not in policy


def test_the_pages_code_has_no_inline_script_or_style_and_no_outside_address() -> None:
  for path in ("index.html", *page_files()):
    if path.startswith("vendor/"):
      continue
    with open(f"{PAGE}/{path}", encoding="utf-8") as file:
      text = file.read()
    outside = set(re.findall(r"https?://[^\s\"'<)]+", text))
    assert outside <= {"http://www.w3.org/2000/svg"}, path
    if path.endswith(".html"):
      assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text), path
    assert "innerHTML" not in text, path


@pytest.mark.parametrize(
  "path",
  ["/page/../app.py", "/page/%2e%2e/app.py", "/page//etc/passwd", "/page/..%2fapp.py", "/page/"],
)
def test_no_path_leads_out_of_the_pages_folder(client: TestClient, path: str) -> None:
  assert client.get(path).status_code == 404


def test_a_name_that_was_made_to_resolve_here_is_refused(client: TestClient) -> None:
  for host in ("evil.example", "evil.example:8080", "127.0.0.1", "127.0.0.1:9", "localhost:80"):
    assert client.get("/archive.json", headers={"host": host}).status_code == 421
  for host in ("127.0.0.1:8080", "localhost:8080", "[::1]:8080"):
    assert client.get("/archive.json", headers={"host": host}).status_code == 200


def test_another_page_in_the_same_browser_may_not_ask(client: TestClient) -> None:
  elsewhere: list[dict[str, str]] = [
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:9"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
  ]
  for headers in elsewhere:
    assert client.get("/search.json?like=1", headers=headers).status_code == 403
    assert client.post("/uploads?name=a.png", content=b"x", headers=headers).status_code == 403
  followed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
  assert client.get("/", headers=followed).status_code == 200
  assert client.get("/search.geojson?like=1", headers=followed).status_code == 403
  own = {"origin": "http://127.0.0.1:8080", "sec-fetch-site": "same-origin"}
  assert client.get("/search.json?like=1", headers=own).status_code == 200


def test_without_the_token_nothing_of_the_archive_is_told(guarded: TestClient) -> None:
  for path in ("/", "/archive.json", "/search.json?like=1", "/pictures/x/1.png", "/?token=wrong"):
    assert guarded.get(path).status_code == 401
  assert guarded.post("/uploads?name=a.png", content=b"x").status_code == 401
  wrong = {"authorization": "Bearer wrong", "cookie": "xjepa_jax_8080=wrong"}
  assert guarded.get("/archive.json", headers=wrong).status_code == 401
  latin = [(b"authorization", b"Bearer \xe9")]
  assert guarded.get("/archive.json", headers=latin).status_code == 401
  assert guarded.get("/page/main.js").status_code == 200  # code, the same for everybody


def test_the_token_moves_from_the_address_into_a_cookie(guarded: TestClient) -> None:
  answer = guarded.get("/?like=3&token=secret")
  assert answer.status_code == 303 and answer.headers["location"] == "./?like=3"
  cookie = answer.headers["set-cookie"].lower()
  assert "httponly" in cookie and "samesite=lax" in cookie
  assert guarded.get("/archive.json").status_code == 200  # the client keeps the cookie


def test_the_token_as_a_bearers_serves_scripts(guarded: TestClient) -> None:
  headers = {"authorization": "Bearer secret"}
  assert guarded.get("/search.json?like=1&k=3", headers=headers).json()["hits"]


def test_there_are_no_pages_that_load_scripts_from_elsewhere(client: TestClient) -> None:
  for path in ("/docs", "/redoc", "/openapi.json"):
    assert client.get(path).status_code == 404
