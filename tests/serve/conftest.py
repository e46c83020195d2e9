"""The application over a small real archive, and a client that asks it without a network."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from tests.serve.archives import Made, archive_in
from xjepa_jax.retrieval.searching.searcher import open_searcher
from xjepa_jax.serve.app import create_app
from xjepa_jax.serve.archive import Archive
from xjepa_jax.serve.security import Access
from xjepa_jax.serve.uploads import Limits

LIMITS = Limits(bytes=200_000, pixels=100_000)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
  return archive_in(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def unplaced(tmp_path_factory: pytest.TempPathFactory) -> Made:
  return archive_in(tmp_path_factory.getbasetemp(), georeferenced=False)


@pytest.fixture(scope="session")
def archive(made: Made) -> Archive:
  return Archive(open_searcher(made.index))


@pytest.fixture
def client(archive: Archive) -> Iterator[TestClient]:
  """Loopback, as a browser on this machine has it."""
  app = create_app(archive, Access("127.0.0.1", 8080), LIMITS)
  yield TestClient(app, base_url="http://127.0.0.1:8080")


@pytest.fixture
def guarded(archive: Archive) -> Iterator[TestClient]:
  """Reached from elsewhere, so with a token: "secret"."""
  app = create_app(archive, Access("0.0.0.0", 8080, "secret"), LIMITS)
  yield TestClient(app, base_url="http://archive.example:8080", follow_redirects=False)
