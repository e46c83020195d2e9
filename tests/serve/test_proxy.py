"""The page behind a real nginx with TLS, with and without a prefix, and behind ssh -L."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.serve.archives import Made, sar
from tests.serve.conftest import LIMITS
from tests.serve.running import running
from xjepa_jax.errors import OptionError
from xjepa_jax.serve.app import create_app
from xjepa_jax.serve.archive import Archive
from xjepa_jax.serve.command import main
from xjepa_jax.serve.security import Access, public_url

HOST = "archive.example"
CONFIG = """
daemon off; master_process off; pid nginx.pid; error_log stderr warn;
events {{}}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxied;
  fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  server {{
    listen unix:{folder}/nginx.sock ssl;
    server_name archive.example;
    ssl_certificate certificate.pem; ssl_certificate_key key.pem;
    client_max_body_size 64m;
    location {prefix}/ {{
      proxy_pass http://127.0.0.1:{port}{path};
      {more}
    }}
  }}
}}
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A folder with a self-signed certificate of the host and its key."""
  for program in ("nginx", "openssl"):
    if shutil.which(program) is None and not os.path.exists(f"/usr/sbin/{program}"):
      pytest.skip(f"there is no {program} on this machine (apt-get install {program})")
  folder = tmp_path_factory.mktemp("certificate")
  subprocess.run(
    [
      *(
        "openssl",
        "req",
        "-x509",
        "-nodes",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
      ),
      *("-keyout", "key.pem", "-out", "certificate.pem", "-days", "1", "-subj", f"/CN={HOST}"),
      *("-addext", f"subjectAltName=DNS:{HOST}"),
    ],
    cwd=folder,
    check=True,
    capture_output=True,
    timeout=60,
  )
  return folder


@contextlib.contextmanager
def nginx(
  certificate: Path, port: int, prefix: str = "", strip: bool = True, more: str = ""
) -> Iterator[httpx2.Client]:
  """A proxy before a port; a browser, as far as it needs one, that reaches it as HOST."""
  with tempfile.TemporaryDirectory(
    prefix="nginx"
  ) as folder:  # the path of a socket has to be short
    for name in ("certificate.pem", "key.pem"):
      shutil.copy(certificate / name, folder)
    path = "/" if strip else ""
    config = CONFIG.format(folder=folder, prefix=prefix, port=port, path=path, more=more)
    Path(folder, "nginx.conf").write_text(config)
    process = subprocess.Popen(
      [shutil.which("nginx") or "/usr/sbin/nginx", "-p", folder, "-c", f"{folder}/nginx.conf"],
      stderr=subprocess.PIPE,
      text=True,
    )
    try:
      until = time.monotonic() + 30
      while not os.path.exists(f"{folder}/nginx.sock"):
        if process.poll() is not None or time.monotonic() > until:
          raise AssertionError(f"nginx did not start: {process.communicate(timeout=10)[1]}")
        time.sleep(0.02)
      trusted = ssl.create_default_context(cafile=str(certificate / "certificate.pem"))
      transport = httpx2.HTTPTransport(verify=trusted, uds=f"{folder}/nginx.sock")
      with httpx2.Client(transport=transport, timeout=60) as client:
        yield client
    finally:
      process.terminate()
      process.communicate(timeout=30)


def image() -> bytes:
  content = io.BytesIO()
  np.save(content, sar(11))
  return content.getvalue()


PASSED = f"proxy_set_header Host {HOST};"


@pytest.mark.parametrize(
  ("prefix", "strip", "more"),
  [("", True, ""), ("/search", True, ""), ("/search", False, ""), ("/a/b", True, PASSED)],
  ids=["no prefix", "prefix taken off", "prefix left", "host passed on"],
)
def test_behind_a_proxy_with_tls_the_page_is_opened_asked_and_uploaded_to(
  made: Made, certificate: Path, prefix: str, strip: bool, more: str
) -> None:
  public = public_url(f"https://{HOST}{prefix}/")
  with (
    running(made, token="secret", public=public) as access,
    nginx(certificate, access.port, prefix, strip, more) as browser,
  ):
    assert access.address() == f"https://{HOST}{prefix}/?token=secret"
    assert browser.get(f"{public}/archive.json").status_code == 401
    opened = browser.get(f"{access.address()}&like=3")
    assert opened.status_code == 303
    moved = opened.next_request
    assert moved is not None and str(moved.url) == f"{public}/?like=3"
    (cookie,) = opened.headers.get_list("set-cookie")
    assert "Secure" in cookie and "HttpOnly" in cookie and "path" not in cookie.lower()
    page = browser.send(moved)
    assert page.status_code == 200
    links = re.findall(r"(?:src|href)=\"([^\"#]+)\"", page.text)
    assert links and all(browser.get(page.url.join(link)).status_code == 200 for link in links)
    own = {"origin": f"https://{HOST}", "sec-fetch-site": "same-origin"}
    asked = browser.get(f"{public}/search.json?like=1&k=3", headers=own)
    assert len(asked.json()["hits"]) == 3
    upload = browser.post(f"{public}/uploads?name=a.npy", content=image(), headers=own)
    assert upload.status_code == 200, upload.text
    key = upload.json()["upload"]
    found = browser.get(f"{public}/search.json?upload={key}&k=1", headers=own).json()
    assert found["hits"][0]["id"] == "simulated-0-0000011"
    for origin in ("https://evil.example", f"https://{HOST}:8443", "http://localhost:9", "null"):
      elsewhere = {"origin": origin}
      answer = browser.post(f"{public}/uploads?name=a.npy", content=image(), headers=elsewhere)
      assert answer.status_code == 403, origin


def test_without_its_public_address_an_upload_is_refused_with_the_option_that_helps(
  made: Made, certificate: Path
) -> None:
  with running(made) as access, nginx(certificate, access.port) as browser:
    assert browser.get(f"https://{HOST}/archive.json").status_code == 200
    own = {"origin": f"https://{HOST}", "sec-fetch-site": "same-origin"}
    answer = browser.post(f"https://{HOST}/uploads?name=a.npy", content=image(), headers=own)
    assert answer.status_code == 403 and "--public-url" in answer.json()["error"]


def test_behind_a_tunnel_the_page_is_at_another_port(archive: Archive) -> None:
  """As `ssh -L 9000:127.0.0.1:8080` shows it."""
  own = {"origin": "http://localhost:9000", "sec-fetch-site": "same-origin"}
  plain = TestClient(
    create_app(archive, Access("127.0.0.1", 8080), LIMITS), base_url="http://localhost:9000"
  )
  refused = plain.get("/archive.json", headers=own)
  assert refused.status_code == 421 and "--public-url" in refused.text
  access = Access.for_host("127.0.0.1", 8080, public_url("http://localhost:9000"))
  assert not access.token and access.address() == "http://localhost:9000/"
  client = TestClient(create_app(archive, access, LIMITS), base_url="http://localhost:9000")
  assert client.get("/archive.json", headers=own).status_code == 200
  assert client.post("/uploads?name=a.npy", content=image(), headers=own).status_code == 200
  for host in ("evil.example", "evil.example:9000", "127.0.0.1:9"):
    assert client.get("/archive.json", headers={"host": host}).status_code == 421
  others = {"origin": "http://localhost:3000"}
  assert client.get("/search.json?like=1", headers=others).status_code == 403


def test_a_page_at_an_international_name_is_uploaded_to(archive: Archive) -> None:
  access = Access("127.0.0.1", 8080, "secret", public_url("https://münchen.example/"))
  base = "https://xn--mnchen-3ya.example"
  client = TestClient(create_app(archive, access, LIMITS), base_url=base)
  assert client.get("/?token=secret").status_code == 200
  own = {"origin": base, "host": "xn--mnchen-3ya.example", "sec-fetch-site": "same-origin"}
  assert client.post("/uploads?name=a.npy", content=image(), headers=own).status_code == 200


@pytest.mark.parametrize("query", ["", "?token=secret", "?token=secret&like=3"])
def test_an_address_without_its_last_slash_leads_to_the_page(archive: Archive, query: str) -> None:
  access = Access("127.0.0.1", 8080, "secret", public_url("https://archive.example/search/"))
  client = TestClient(create_app(archive, access, LIMITS), base_url="https://archive.example")
  moved = client.get(f"/search{query}", follow_redirects=False)
  assert moved.headers["location"] == f"/search/{query}"
  ended = client.get(f"/search{query}")
  assert ended.status_code == (200 if query else 401)
  assert ended.url == f"https://archive.example/search/{query.partition('&')[2] and '?like=3'}"


def test_what_others_reach_through_a_proxy_asks_for_a_token() -> None:
  for public in ("https://archive.example", "http://10.0.0.7:9000/a"):
    assert len(Access.for_host("127.0.0.1", 8080, public).token) >= 40


@pytest.mark.parametrize(
  ("given", "public"),
  [
    ("https://Archive.Example:443/search/", "https://archive.example/search"),
    ("http://localhost:9000", "http://localhost:9000"),
    ("http://[::1]:80/", "http://[::1]"),
    ("https://MÜNCHEN.example/", "https://xn--mnchen-3ya.example"),
    ("https://straße.example:8443", "https://xn--strae-oqa.example:8443"),
    ("https://xn--mnchen-3ya.example", "https://xn--mnchen-3ya.example"),
    ("https://archive.example:8443/a/b/", "https://archive.example:8443/a/b"),
  ],
)
def test_a_public_address_is_as_browsers_name_it(given: str, public: str) -> None:
  assert public_url(given) == public


@pytest.mark.parametrize(
  "given",
  [
    "archive.example",
    "localhost:9000",
    "ftp://a",
    "https://",
    "https://a:b",
    "http://a/?x",
    "https://a..ü",
  ],
)
def test_what_is_no_address_is_refused(given: str) -> None:
  with pytest.raises(OptionError, match="--public-url .* expected the address that people open"):
    public_url(given)


def test_the_command_refuses_an_address_that_is_none_before_anything_is_opened(
  made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
  assert main(["--index", made.index, "--public-url", "archive.example"]) == 1
  assert capsys.readouterr().err.startswith("error: --public-url archive.example: expected the add")
