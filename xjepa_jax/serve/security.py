"""Access control: who may send requests, and what a browser may do with the page.

A server that listens on this machine alone needs no token. Still, any page in the same browser can
send it requests, and a host name can be made to resolve to it (DNS rebinding). So the Host header
has to be this machine's, and requests caused by other pages are refused. A proxy or tunnel shows
the page at another address. No header is trusted about that, so it has to be configured
(`--public-url`).
"""

from __future__ import annotations

import dataclasses
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Mapping, Sequence
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

import idna
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from xjepa_jax.errors import OptionError

if TYPE_CHECKING:
  from starlette.types import ASGIApp, Message, Receive, Scope, Send

# MapLibre GL uses data: images to detect which formats a browser supports, and to draw its buttons.
# Its worker is one of our files, so blob: is not needed. Nothing may be loaded from other origins.
POLICY = (
  "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
  "form-action 'self'; frame-ancestors 'none'"
)
# regl compiles its draw commands with Function(), which needs 'unsafe-eval'. So the scatter plot
# runs in a frame of its own, without an origin and without network access: it only receives points.
FRAME_POLICY = (
  "sandbox allow-scripts; default-src 'none'; script-src 'self' 'unsafe-eval'; "
  "style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
FRAME = "/page/scatter.html"
_PUBLIC = "/page/"  # code that anybody may read; it contains nothing of the archive
_ELSEWHERE = (
  "Another page may not ask here. If this is the page itself behind a proxy, start the server with "
  "--public-url and the address that people open."
)
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
_HEADERS = {
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "permissions-policy": "camera=(), geolocation=(), microphone=()",
  "cross-origin-opener-policy": "same-origin",
}


def is_loopback(host: str) -> bool:
  """Whether an address can only be reached from this machine."""
  try:
    return ipaddress.ip_address(host.strip("[]")).is_loopback
  except ValueError:
    return host == "localhost"


@dataclasses.dataclass(frozen=True)
class Access:
  """Who may send requests.

  Attributes:
    host, port: the address that the server listens on.
    token: the token that every request for data has to carry, or "" if none is needed.
    public: the address that people open if it differs, as returned by `public_url`, or "".
  """

  host: str
  port: int
  token: str = ""
  public: str = ""

  @classmethod
  def for_host(cls, host: str, port: int, public: str = "") -> Access:
    """Create an access with a new random token.

    There is no token if the host and the public address can only be reached from this machine.
    """
    alone = is_loopback(host) and (not public or is_loopback(urlsplit(public).hostname or ""))
    return cls(host, port, "" if alone else secrets.token_urlsafe(32), public)

  def address(self) -> str:
    """Return the address that a person opens."""
    return f"{self.public or self.listening}/" + (f"?token={self.token}" if self.token else "")

  @property
  def listening(self) -> str:
    """The server's own address."""
    host = self.host
    if host in ("0.0.0.0", "::"):
      host = socket.gethostname()
    if ":" in host and not host.startswith("["):
      host = f"[{host}]"
    return f"http://{host}:{self.port}"

  @property
  def prefix(self) -> str:
    """The path of the public address: "/search" for https://archive.example/search."""
    return urlsplit(self.public).path

  @property
  def cookie(self) -> str:
    """The cookie's name. It contains the port, because browsers share cookies between ports."""
    return f"xjepa_jax_{self.port}"

  def knows_host(self, header: str) -> bool:
    """Whether a Host header is this machine's or the public address's; with a token, any is."""
    if self.token:
      return True
    name, _, port = header.rpartition(":")
    if not name or header.endswith("]"):
      name, port = header, "80"
    if self.public and name.strip("[]") == urlsplit(self.public).hostname:
      # Proxies may or may not pass the port on. This is no risk: a name that is made to resolve to
      # this machine is another name.
      return True
    return name in (*_LOOPBACK_NAMES, self.host) and port == str(self.port)

  def is_own(self, origin: str, host: str) -> bool:
    """Whether an Origin header is the page's own, at the requested or at the public address."""
    known = {f"http://{host}", f"https://{host}"}
    return origin in known or (
      bool(self.public) and origin == self.public.removesuffix(self.prefix)
    )

  def shown(self, headers: Mapping[str, str]) -> bool:
    """Whether a request carries the token, as a bearer token or in the cookie."""
    if not self.token:
      return True
    kind, _, given = headers.get("authorization", "").partition(" ")
    candidates = [given] if kind.lower() == "bearer" else []
    try:
      morsel = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
    except CookieError:
      morsel = None
    candidates += [morsel.value] if morsel else []
    return any(self.fits(candidate) for candidate in candidates)

  def fits(self, token: str) -> bool:
    """Whether this is the token, compared in constant time."""
    return hmac.compare_digest(token.encode(), self.token.encode())


class Guard:
  """ASGI middleware that refuses forbidden requests and adds headers to every response."""

  def __init__(self, app: ASGIApp, access: Access):
    self._app = app
    self._access = access

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one connection."""
    if scope["type"] != "http":
      if scope["type"] == "lifespan":
        await self._app(scope, receive, send)
      return
    prefix = self._access.prefix
    if prefix and scope["path"].startswith(f"{prefix}/"):  # the proxy does not strip the prefix
      scope = {**scope, "path": scope["path"].removeprefix(prefix)}
    path = scope["path"]

    async def with_headers(message: Message) -> None:
      if message["type"] == "http.response.start":
        headers = MutableHeaders(scope=message)
        for name, value in _HEADERS.items():
          headers[name] = value
        headers["content-security-policy"] = FRAME_POLICY if path == FRAME else POLICY
        # The frame has no origin, so our scripts are cross-origin to it.
        own = "cross-origin" if path.startswith(_PUBLIC) else "same-origin"
        headers["cross-origin-resource-policy"] = own
        if path != FRAME:
          headers["x-frame-options"] = "DENY"
      await send(message)

    refusal = self._refusal(scope)
    await (refusal or self._app)(scope, receive, with_headers)

  def _refusal(self, scope: Scope) -> Response | None:
    headers = Headers(scope=scope)
    path, access = scope["path"], self._access
    host = headers.get("host", "")
    if not access.knows_host(host):
      return PlainTextResponse(
        f"This server is {access.address()}\nTo open it at another address, as through ssh -L or a "
        "proxy, start it with --public-url and that address.\n",
        421,
      )
    if access.prefix and path == access.prefix:  # the page's relative addresses need the slash
      query = scope["query_string"].decode("latin-1")
      return RedirectResponse(f"{access.prefix}/" + (f"?{query}" if query else ""), 307)
    if path.startswith(_PUBLIC):
      return None
    if _from_elsewhere(scope, headers, access):
      return JSONResponse({"error": _ELSEWHERE}, 403)
    if not access.token:
      return None
    asked = parse_qsl(scope["query_string"].decode("latin-1"))
    if path == "/" and any(name == "token" and access.fits(value) for name, value in asked):
      return self._without_token(asked)
    if access.shown(headers):
      return None
    reason = "Open the address that the server printed: its token is missing here, or an old one."
    if path == "/":
      return PlainTextResponse(f"{reason}\n", 401)
    return JSONResponse({"error": reason}, 401)

  def _without_token(self, asked: Sequence[tuple[str, str]]) -> Response:
    """Move the token from the address, where it could be seen, to a cookie."""
    rest = urlencode([(name, value) for name, value in asked if name != "token"])
    # The redirect is relative, and the cookie has no path and so gets the page's, because a proxy
    # may serve the page at any path, beside other pages.
    answer = RedirectResponse("./" + (f"?{rest}" if rest else ""), 303)
    answer.set_cookie(
      self._access.cookie,
      self._access.token,
      httponly=True,
      samesite="lax",
      path=None,
      secure=self._access.public.startswith("https:"),
    )
    answer.headers["cache-control"] = "no-store"
    return answer


def public_url(text: str) -> str:
  """Return an address that people open, as browsers spell it and without its last slash.

  Raises:
    OptionError: it is not an http or https address.
  """
  try:
    parts = urlsplit(text)
    host, port = parts.hostname, parts.port
    if host and not host.isascii():
      host = idna.encode(host, uts46=True).decode()  # the form in which browsers send it
  except ValueError:  # also raised by idna
    host, port = None, None
  if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
    raise OptionError(
      f"--public-url {text}: expected the address that people open, such as "
      "https://archive.example/search/ or http://localhost:9000."
    )
  name = f"[{host}]" if ":" in host else host
  usual = port in (None, 443 if parts.scheme == "https" else 80)
  return f"{parts.scheme}://{name}{'' if usual else f':{port}'}{parts.path.rstrip('/')}"


def _from_elsewhere(scope: Scope, headers: Headers, access: Access) -> bool:
  """Whether another origin's page caused a request; following a link to the page is allowed."""
  origin = headers.get("origin")
  if origin is not None and not access.is_own(origin, headers.get("host", "")):
    return True
  if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
    return False
  opened = headers.get("sec-fetch-mode") == "navigate" and scope["method"] == "GET"
  return not (opened and scope["path"] == "/")
