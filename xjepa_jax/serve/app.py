"""The page's server: the page's files, and the archive as JSON, pictures and GeoJSON.

Errors that the user can do something about are shown in words; all others name files and hosts, so
they go to the server's log and the page only says that something failed. FastAPI's own pages are
off, because they load scripts from other hosts.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware

from xjepa_jax.errors import ChangedError, ImageError, SearchError, TooLargeError, XJepaError
from xjepa_jax.retrieval.searching.answers import Answer
from xjepa_jax.retrieval.searching.formats import as_geojson
from xjepa_jax.serve import asking
from xjepa_jax.serve.archive import Archive
from xjepa_jax.serve.page_files import INDEX, PAGE, TYPES, page_files, vendored
from xjepa_jax.serve.security import Access, Guard
from xjepa_jax.serve.tiles import answer_json
from xjepa_jax.serve.uploads import Limits, Told, Uploads, described, receive, safe_name

_LOG = logging.getLogger(__name__)
_OURS = "see the server's terminal."  # only whoever runs the server can do something about it
_FOREVER = "private, max-age=31536000, immutable"
_ANEW = "no-store"
_PLACES = 2000  # places shown on the map at once


def create_app(
  archive: Archive, access: Access, limits: Limits, parts: Mapping[str, bool] | None = None
) -> Guard:
  """Create the ASGI application.

  Args:
    archive: the archive to search.
    access: who may send requests.
    limits: limits of uploads.
    parts: whether "map" and "scatter" have their scripts; None checks for the files.
  """

  @asynccontextmanager
  async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
    archive.close()

  # FastAPI's documentation pages are off, because they load scripts from other hosts.
  app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
  uploads = Uploads()
  _add_files(app)
  of_archive = APIRouter(dependencies=[Depends(archive.searcher.check_unchanged)])
  _add_archive(of_archive, archive, limits, vendored() if parts is None else parts)
  _add_search(of_archive, archive, uploads)
  _add_uploads(of_archive, archive, uploads, limits)
  app.include_router(of_archive)
  _add_errors(app)
  app.add_middleware(GZipMiddleware, minimum_size=1024)
  # The guard wraps the whole application instead of being one of its middlewares, so that error
  # responses carry its headers too.
  return Guard(app, access)


def _add_files(app: FastAPI) -> None:
  known = frozenset(page_files())

  @app.get("/")
  def index() -> Response:
    return _file(INDEX)

  @app.get("/page/{path:path}")
  def page(path: str) -> Response:
    if path not in known:  # a closed list, so no path leads out of the folder
      raise HTTPException(404)
    return _file(path)


def _add_archive(
  app: APIRouter, archive: Archive, limits: Limits, parts: Mapping[str, bool]
) -> None:
  @app.get("/archive.json")
  def about() -> Response:
    live = {"live": True, "vendored": parts, "most_bytes": limits.bytes}
    return _json({**archive.describe(), **live})

  @app.get("/tiles.json")
  def tiles(
    count: Annotated[int, Query(ge=1, le=200)] = 24,
    sensor: str = "",
    turn: Annotated[int, Query(ge=0, le=10**6)] = 0,
  ) -> Response:
    return _json(archive.start(count, sensor, turn))

  @app.get("/tiles/{row}.json")
  def views(row: int) -> Response:
    return _json(archive.views(row))

  @app.get("/places.json")
  def places(bbox: str = "-180,-90,180,90") -> Response:
    view = archive.ground.view(asking.box(bbox), _PLACES)
    found = archive.tiles([row for rows in view.places for row in rows])
    return _json({"count": view.count, "shown": len(view.places), "tiles": found})

  @app.get("/pictures/{version}/{row}.png")
  def picture(version: str, row: int) -> Response:
    if version != archive.version:
      raise HTTPException(404)
      # The address contains the archive's version, so a picture may be cached for ever.
    found, lasting = archive.picture(row)
    how = _FOREVER if lasting else _ANEW
    return Response(found, media_type="image/png", headers=_cached(how))

  @app.get("/plane.json")
  def plane() -> Response:
    return _json(archive.plane_json())


def _add_search(app: APIRouter, archive: Archive, uploads: Uploads) -> None:
  def ask(asked: asking.Question) -> Answer:
    upload = uploads.get(asked.upload).query if asked.upload else None
    return archive.ask(asked, upload)

  @app.get("/search.json")
  def search(asked: Annotated[asking.Question, Depends(asking.question)]) -> Response:
    return _json(answer_json(ask(asked)))

  @app.get("/search.geojson")
  def geojson(asked: Annotated[asking.Question, Depends(asking.question)]) -> Response:
    headers = {"content-disposition": 'attachment; filename="hits.geojson"', **_cached(_ANEW)}
    found = as_geojson([ask(asked)], sources=False)
    return Response(found, media_type="application/geo+json", headers=headers)


def _add_uploads(app: APIRouter, archive: Archive, uploads: Uploads, limits: Limits) -> None:
  @app.post("/uploads")
  async def upload(
    request: Request,
    name: str,
    sensor: str = "",
    offset: float | None = None,
    trust_units: bool = False,
  ) -> Response:
    name, told = safe_name(name), Told(sensor or None, offset, trust_units)
    if archive.searcher.encoder is None:
      raise SearchError("nothing can be uploaded: the encoder of this archive is not there.")
    with tempfile.TemporaryDirectory(prefix="xjepa-upload-") as folder:
      path = os.path.join(folder, "upload" + os.path.splitext(name)[1].lower())
      length = request.headers.get("content-length")
      await receive(request.stream(), length, limits.bytes, path)
      found = await run_in_threadpool(described, archive, path, name, told, limits.pixels)
    key = uploads.add(found)
    answer = {"upload": key, "title": found.query.title, "sensor": found.query.sensor}
    return _json(answer)

  @app.get("/uploads/{key}.png")
  def picture(key: str) -> Response:
    return Response(uploads.get(key).picture, media_type="image/png", headers=_cached(_FOREVER))


def _add_errors(app: FastAPI) -> None:
  @app.exception_handler(SearchError)
  @app.exception_handler(ImageError)
  @app.exception_handler(TooLargeError)
  async def refused(_: Request, error: XJepaError) -> Response:
    status = 413 if isinstance(error, TooLargeError) else 422
    # The rest of a body that is too large is not read, so the connection cannot be reused.
    headers = {"connection": "close"} if status == 413 else None
    return JSONResponse({"error": _sentence(str(error))}, status, headers)

  @app.exception_handler(ChangedError)
  async def changed(request: Request, error: ChangedError) -> Response:
    _LOG.error("%s: %s", request.url.path, error)
    return JSONResponse({"error": "The archive has changed: restart the server."}, 503)

  @app.exception_handler(XJepaError)
  async def broken(request: Request, error: XJepaError) -> Response:
    # The message names files and servers that are no concern of the user.
    _LOG.error("%s: %s", request.url.path, error)
    return JSONResponse({"error": f"The archive cannot be read; {_OURS}"}, 503)

  @app.exception_handler(Exception)
  async def failed(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"Something went wrong; {_OURS}"}, 500)  # then raised again

  @app.exception_handler(RequestValidationError)
  async def misspelt(_: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    text = f"{first['loc'][-1]}: {first['msg']}."
    return JSONResponse({"error": _sentence(text)}, 422)

  @app.exception_handler(HTTPException)
  async def missing(_: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": f"{error.detail}."}, error.status_code)


def _file(path: str) -> Response:
  with open(os.path.join(PAGE, *path.split("/")), "rb") as file:
    content = file.read()
  kind = TYPES[os.path.splitext(path)[1]]
  # Browsers revalidate, so that a new version's scripts never meet an old version's page.
  return Response(content, media_type=kind, headers=_cached("no-cache"))


def _json(content: Any) -> Response:
  return JSONResponse(content, headers=_cached(_ANEW))


def _cached(how: str) -> dict[str, str]:
  return {"cache-control": how}


def _sentence(text: str) -> str:
  """Capitalise the first word, unless it is a name, such as that of a file or parameter."""
  return text[:1].upper() + text[1:] if re.match(r"[a-z]+[ ,]", text) else text
