"""A real S3 API on loopback (moto), behind a proxy that is slow, refuses, and cuts answers."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import logging
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from xjepa_jax.data import storage

BUCKET = "pairs-of-a-fault"
_SLOW_DOWN = (
  b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code>'
  b"<Message>Please reduce your request rate.</Message></Error>"
)
_HOP = ("connection", "transfer-encoding", "keep-alive", "date", "server")


@dataclasses.dataclass
class Faults:
  """What is done to requests, drawn for each.

  Attributes:
    refused: share that is answered by 503 and not carried out.
    broken: share whose answer ends within its body, though its length was announced rightly.
    short: share whose answer is shorter and says so, as if that were all.
    stalled: share that waits for `stall` seconds.
    slow: seconds that others wait at most.
    only: pattern of the paths that all this is for.
    seed: of the draws.
  """

  refused: float = 0
  broken: float = 0
  short: float = 0
  stalled: float = 0
  stall: float = 0
  slow: float = 0
  only: str = ""
  seed: int = 0

  def __post_init__(self) -> None:
    self._drawn = random.Random(self.seed)
    self._lock = threading.Lock()
    self.done: Counter[str] = Counter()  # how often each was done

  def draw(self, path: str) -> tuple[str, float]:
    """What is done to a request, "" for nothing, and a number from 0 to 1 for how."""
    with self._lock:
      kind, how = self._drawn.random(), self._drawn.random()
      if not re.search(self.only, path):
        return "", 0
      for name in ("refused", "broken", "short", "stalled"):
        share = getattr(self, name)
        if kind < share:
          self.done[name] += 1
          return name, how
        kind -= share
      return "", how


class FaultyServer(ThreadingHTTPServer):
  """A proxy before another server of this machine, which does to requests what `faults` says."""

  daemon_threads = True
  request_queue_size = 128  # many shards are opened at once

  def __init__(self, behind: tuple[str, int]):
    super().__init__(("127.0.0.1", 0), _Handler)
    self.behind = behind
    self.faults = Faults()
    self.over = threading.Event()  # nobody waits any longer than until then

  @property
  def address(self) -> str:
    return f"http://127.0.0.1:{self.server_address[1]}"

  @contextlib.contextmanager
  def doing(self, faults: Faults) -> Iterator[Faults]:
    """Does that meanwhile."""
    self.faults = faults
    try:
      yield faults
    finally:
      self.faults = Faults()


class _Handler(BaseHTTPRequestHandler):
  server: FaultyServer
  protocol_version = "HTTP/1.1"  # answers Expect: 100-continue, without which nothing is sent

  def log_message(self, format: str, *args: Any) -> None:
    """Nothing is printed."""

  def _answer(self) -> None:
    sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
    faults = self.server.faults
    kind, how = faults.draw(self.path)
    if kind == "stalled":
      self.server.over.wait(faults.stall)
    elif faults.slow:
      time.sleep(how * faults.slow)
    if kind == "refused":
      self._send(503, [("Content-Type", "application/xml")], _SLOW_DOWN, len(_SLOW_DOWN))
      return
    status, headers, body = self._ask(sent)
    announced = int(dict(headers).get("Content-Length", 0))
    kept = int(len(body) * how)
    if kind == "short" and body:
      body, announced = body[:kept], kept
    elif kind == "broken":
      body = body[:kept]
    self._send(status, headers, body, announced)

  do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _answer

  def _ask(self, sent: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
    connection = http.client.HTTPConnection(*self.server.behind, timeout=60)
    try:
      headers = {name: value for name, value in self.headers.items() if name != "Expect"}
      connection.request(self.command, self.path, sent, headers)
      answer = connection.getresponse()
      return answer.status, answer.getheaders(), answer.read()
    finally:
      connection.close()

  def _send(self, status: int, headers: list[tuple[str, str]], body: bytes, announced: int) -> None:
    with contextlib.suppress(ConnectionError):  # the other side has given up
      self.send_response(status)
      for name, value in headers:
        if name.lower() not in (*_HOP, "content-length"):
          self.send_header(name, value)
      self.send_header("Content-Length", str(announced))
      self.send_header("Connection", "close")
      self.end_headers()
      if self.command != "HEAD":
        self.wfile.write(body)
    self.close_connection = True


def forget_clients() -> None:
  """Those that come next are made by the environment and the settings of then."""
  import s3fs

  s3fs.S3FileSystem.clear_instance_cache()
  storage.filesystem.cache_clear()


@contextlib.contextmanager
def serving() -> Iterator[FaultyServer]:
  """A server with an empty bucket; credentials and its address are in the environment meanwhile."""
  moto = pytest.importorskip("moto.server")
  s3fs = pytest.importorskip("s3fs")
  logging.getLogger("werkzeug").setLevel(logging.ERROR)
  behind = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
  behind.start()
  proxy = FaultyServer(behind.get_host_and_port())
  thread = threading.Thread(target=proxy.serve_forever, daemon=True)
  thread.start()

  with pytest.MonkeyPatch.context() as patch:
    for name in [each for each in os.environ if each.startswith("AWS_")]:
      patch.delenv(name)
    for name, value in {
      "AWS_ENDPOINT_URL": proxy.address,
      "AWS_ACCESS_KEY_ID": "a-test",
      "AWS_SECRET_ACCESS_KEY": "a-test",
      "AWS_DEFAULT_REGION": "us-east-1",
      "AWS_EC2_METADATA_DISABLED": "true",
      "AWS_CONFIG_FILE": os.devnull,
      "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
      "NO_PROXY": "127.0.0.1",
    }.items():
      patch.setenv(name, value)
    forget_clients()
    s3fs.S3FileSystem(use_listings_cache=False).mkdir(BUCKET)
    try:
      yield proxy
    finally:
      proxy.over.set()
      forget_clients()
      proxy.shutdown()
      proxy.server_close()
      thread.join(10)
      behind.stop()
