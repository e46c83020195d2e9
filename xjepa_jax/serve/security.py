"""Who may ask, and what a browser may do with the page.

Bound to this machine only, the page needs no token; but any page in the same browser can send
requests here, and a name can be made to resolve here (DNS rebinding). So the Host header has to be
this machine's, and requests that other pages cause are refused. A proxy or a tunnel shows the page
under another address; no header is believed about that, it has to be said (`--public-url`).
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

# MapLibre GL tells what image formats a browser has, and draws its buttons, with data: images. Its
# worker is a file of ours, so no blob: is needed. Nothing may be loaded from another origin.
POLICY = (
  "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
  "form-action 'self'; frame-ancestors 'none'"
)
# regl compiles its draw commands with Function(), which needs 'unsafe-eval'. So the scatter plot
# has a frame of its own, without an origin and without a network: it gets points, no more.
FRAME_POLICY = (
  "sandbox allow-scripts; default-src 'none'; script-src 'self' 'unsafe-eval'; "
  "style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
FRAME = "/page/scatter.html"
_PUBLIC = "/page/"  # code that anybody may have; no word of the archive is in it
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
  """Whether only this machine reaches an address."""
  try:
    return ipaddress.ip_address(host.strip("[]")).is_loopback
  except ValueError:
    return host == "localhost"


@dataclasses.dataclass(frozen=True)
class Access:
  """Who may ask.

  Attributes:
    host, port: listened on.
    token: that every request for data has to show, or "" if none has to.
    public: what people open where that is another address, as `public_url` has it; or "".
  """

  host: str
  port: int
  token: str = ""
  public: str = ""

  @classmethod
  def for_host(cls, host: str, port: int, public: str = "") -> Access:
    """With a new random token, unless only this machine reaches the host and the public address."""
    alone = is_loopback(host) and (not public or is_loopback(urlsplit(public).hostname or ""))
    return cls(host, port, "" if alone else secrets.token_urlsafe(32), public)

  def address(self) -> str:
    """What a person opens."""
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
    """The path of the public address, "/search" of https://archive.example/search."""
    return urlsplit(self.public).path

  @property
  def cookie(self) -> str:
    """Its name: cookies know no ports."""
    return f"xjepa_jax_{self.port}"

  def knows_host(self, header: str) -> bool:
    """Whether a Host header is this machine's or the public address's; with a token, any is."""
    if self.token:
      return True
    name, _, port = header.rpartition(":")
    if not name or header.endswith("]"):
      name, port = header, "80"
    if self.public and name.strip("[]") == urlsplit(self.public).hostname:
      return True  # proxies leave the port out or not; a name that resolves here is another's
    return name in (*_LOOPBACK_NAMES, self.host) and port == str(self.port)

  def is_own(self, origin: str, host: str) -> bool:
    """Whether an Origin header is the page's: of the address asked, or of the public one."""
    known = {f"http://{host}", f"https://{host}"}
    return origin in known or (
      bool(self.public) and origin == self.public.removesuffix(self.prefix)
    )

  def shown(self, headers: Mapping[str, str]) -> bool:
    """Whether a request shows the token, as a bearer's or in the cookie."""
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
    """Whether this is the token, in a time that tells nothing of it."""
    return hmac.compare_digest(token.encode(), self.token.encode())


class Guard:
  """ASGI middleware: refuses what may not be asked, and adds the headers of every answer."""

  def __init__(self, app: ASGIApp, access: Access):
    self._app = app
    self._access = access

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Serves one connection."""
    if scope["type"] != "http":
      if scope["type"] == "lifespan":
        await self._app(scope, receive, send)
      return
    prefix = self._access.prefix
    if prefix and scope["path"].startswith(f"{prefix}/"):  # a proxy that does not take it off
      scope = {**scope, "path": scope["path"].removeprefix(prefix)}
    path = scope["path"]

    async def with_headers(message: Message) -> None:
      if message["type"] == "http.response.start":
        headers = MutableHeaders(scope=message)
        for name, value in _HEADERS.items():
          headers[name] = value
        headers["content-security-policy"] = FRAME_POLICY if path == FRAME else POLICY
        # The frame has no origin, so to it our scripts are another's.
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
    """The token goes from the address, where it would be seen, into a cookie."""
    rest = urlencode([(name, value) for name, value in asked if name != "token"])
    # Relative, and a cookie without a path, which is then the page's: a proxy may have put the page
    # anywhere, beside pages of others.
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
  """An address at which people open the page, as browsers name it and without its last slash.

  Raises:
    OptionError: it is none.
  """
  try:
    parts = urlsplit(text)
    host, port = parts.hostname, parts.port
    if host and not host.isascii():
      host = idna.encode(host, uts46=True).decode()  # as browsers send it
  except ValueError:  # of idna too
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
  """Whether another origin's page caused a request; following a link to the page is no such."""
  origin = headers.get("origin")
  if origin is not None and not access.is_own(origin, headers.get("host", "")):
    return True
  if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
    return False
  opened = headers.get("sec-fetch-mode") == "navigate" and scope["method"] == "GET"
  return not (opened and scope["path"] == "/")
