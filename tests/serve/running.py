"""The page's server as the command runs it, on a free port of this machine."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping

import uvicorn

from tests.serve.archives import Made
from xjepa_jax.retrieval.searching.searcher import open_searcher
from xjepa_jax.serve.app import create_app
from xjepa_jax.serve.archive import Archive
from xjepa_jax.serve.command import listen
from xjepa_jax.serve.security import Access
from xjepa_jax.serve.uploads import Limits


@contextlib.contextmanager
def running(
  made: Made, token: str = "", parts: Mapping[str, bool] | None = None, public: str = ""
) -> Iterator[Access]:
  """Serves an archive; yields where, and who may ask."""
  with listen("127.0.0.1", 0) as listening:
    access = Access("127.0.0.1", listening.getsockname()[1], token, public)
    app = create_app(Archive(open_searcher(made.index)), access, Limits(bytes=300_000), parts)
    config = uvicorn.Config(
      app, log_level="error", access_log=False, proxy_headers=False, ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    until = time.monotonic() + 30
    while not server.started and time.monotonic() < until:
      time.sleep(0.02)
    assert server.started
    yield access
    server.should_exit = True
    thread.join(timeout=20)
