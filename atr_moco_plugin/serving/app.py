"""The application: its page, its JSON and its sounds. ``docs/serve.md`` lists the addresses."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi.exceptions import RequestValidationError
from jinja2 import Environment, FileSystemLoader
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.stdout import duration
from atr_moco_plugin.search.bank import ALPHA
from atr_moco_plugin.search.hits import problem_of
from atr_moco_plugin.search.sources import open_recording
from atr_moco_plugin.search.store import Filter, WindowHit
from atr_moco_plugin.serving.access import Access
from atr_moco_plugin.serving.answers import AsciiJson, error
from atr_moco_plugin.serving.guard import Guard
from atr_moco_plugin.serving.hits import described
from atr_moco_plugin.serving.picture import picture
from atr_moco_plugin.serving.searcher import Searcher, SearchResult
from atr_moco_plugin.serving.sounds import around, read_cut, to_wav
from atr_moco_plugin.serving.uploads import read_body, read_sound

Sentences = Annotated[list[str] | None, Query()]
"""An argument that may be given several times."""

HERE = Path(__file__).parent

KEEP = {"Cache-Control": "private, max-age=3600"}
"""For sounds and pictures: their address holds the digest of the recording."""

DROP = {"Cache-Control": "no-store"}


def create_app(searcher: Searcher, access: Access, index: str, *, correct: float = 0.0) -> ASGIApp:
    """The page and what it asks, behind a :class:`~atr_moco_plugin.serving.guard.Guard`.

    Args:
        searcher: answers.
        access: who may ask.
        index: where the index is, to be shown.
        correct: the alpha of a search by words that does not say another.
    """
    app = FastAPI(
        title="Find sounds by words", docs_url=None, redoc_url=None, openapi_url="/api/openapi.json"
    )
    _add_errors(app)
    _add_page(app, searcher, index, correct)
    _add_search(app, searcher, correct)
    _add_sounds(app, searcher)
    app.mount("/static", StaticFiles(directory=HERE / "static"))
    return Guard(app, access)


def _add_errors(app: FastAPI) -> None:
    """Every error is one sentence in JSON."""

    @app.exception_handler(InputError)
    async def wrong_input(request: Request, ex: Exception) -> Response:
        return error(400, str(ex))

    @app.exception_handler(HTTPException)
    async def wrong_address(request: Request, ex: Exception) -> Response:
        assert isinstance(ex, HTTPException)
        return error(ex.status_code, str(ex.detail))

    @app.exception_handler(RequestValidationError)
    async def wrong_argument(request: Request, ex: Exception) -> Response:
        assert isinstance(ex, RequestValidationError)
        first = ex.errors()[0]
        return error(400, f"{first['loc'][-1]}: {first['msg']}.")

    @app.exception_handler(Exception)
    async def bug(request: Request, ex: Exception) -> Response:
        # The traceback goes to the terminal.
        return error(500, f"The server failed ({type(ex).__name__}); its terminal says where.")


def _add_page(app: FastAPI, searcher: Searcher, index: str, usual: float) -> None:
    # Escaping is by file name otherwise, and `.j2` is none that it knows.
    loader = FileSystemLoader(HERE / "templates")
    templates = Jinja2Templates(env=Environment(loader=loader, autoescape=True))

    @app.get("/", include_in_schema=False)
    def page(
        request: Request, q: str = "", rerank: bool = False, correct: float = usual
    ) -> Response:
        info, counts = searcher.state()
        context = {
            "query": q,
            "rerank": rerank,
            "counts": counts,
            "info": info,
            "index": index,
            "model": Path(info.model).name if Path(info.model).is_absolute() else info.model,
            "length": duration(counts.seconds),
            "can_match": searcher.retriever.can_match,
            "has_bank": searcher.bank() is not None,
            "correct": correct,
            "alpha": correct or usual or ALPHA,
            "usual": usual,
        }
        return templates.TemplateResponse(request, "page.html.j2", context)

    @app.get("/api/index", summary="What is in the index")
    def state() -> Response:
        info, counts = searcher.state()
        can_match = searcher.retriever.can_match
        answer = {**counts._asdict(), "model": info.model, "can_match": can_match}
        bank = searcher.bank()
        answer |= {"bank": None if bank is None else bank.sentences, "correct": usual}
        return AsciiJson({**answer, "window_seconds": info.window_seconds})


def _add_search(app: FastAPI, searcher: Searcher, usual: float) -> None:
    @app.get("/api/search", summary="Search by words")
    def by_words(
        request: Request,
        q: Sentences = None,
        without: Sentences = None,
        k: int = 10,
        rerank: bool = False,
        path: str | None = None,
        correct: float = usual,
    ) -> Response:
        names = ("q", "without", "k", "rerank", "correct", "path")
        _check_names(request, "words", names, many=("q", "without"))
        only = Filter(path=path)
        return _answer(lambda: searcher.by_words(q or [], without or [], k, only, rerank, correct))

    @app.post("/api/search", summary="Search by a sound, which is the body")
    async def by_sound(
        request: Request, k: int = 10, name: str = "the sound", path: str | None = None
    ) -> Response:
        _check_names(request, "a sound", ("k", "path", "name"))
        content = await read_body(request)

        def search() -> SearchResult:
            return searcher.by_sound(*read_sound(content, name), k, Filter(path=path))

        return await run_in_threadpool(_answer, search)


def _add_sounds(app: FastAPI, searcher: Searcher) -> None:
    """Sounds are asked for by the number of a window, so that no other file can be."""

    def found(window: int, of: str) -> WindowHit:
        try:
            return searcher.window(window, of)
        except InputError as ex:
            raise HTTPException(404, str(ex)) from ex

    def cut(hit: WindowHit) -> tuple[Any, int]:
        try:
            source = open_recording(hit.recording)
            return read_cut(source, around(hit.start, hit.end, hit.recording.seconds))
        except InputError as ex:
            raise HTTPException(404, str(ex)) from ex

    def kept(hit: WindowHit) -> dict[str, str]:
        # A file that has changed since is not what the digest in the address says.
        return DROP if problem_of(hit.recording) else KEEP

    @app.get("/sound/{window:int}.wav", summary="A window with some seconds around it")
    def sound(window: int, of: str = "") -> Response:
        hit = found(window, of)
        return Response(to_wav(*cut(hit)), media_type="audio/wav", headers=kept(hit))

    @app.get("/picture/{window:int}.png", summary="The spectrogram of the same")
    def spectrogram(window: int, of: str = "", dark: bool = False) -> Response:
        hit = found(window, of)
        frames, rate = cut(hit)
        content = picture(frames.mean(axis=1), rate, dark=dark)
        return Response(content, media_type="image/png", headers=kept(hit))


def _check_names(
    request: Request, by: str, names: tuple[str, ...], many: tuple[str, ...] = ()
) -> None:
    """Refuse arguments that would do nothing, also where another of the same name follows."""
    for name in request.query_params:
        if name not in names:
            taken = f"{', '.join(names[:-1])} and {names[-1]}"
            raise InputError(f"A search by {by} takes {taken}, not {name!r}: leave it out.")
        if name not in many and len(request.query_params.getlist(name)) > 1:
            raise InputError(f"{name} is given more than once: give it once.")


def _answer(search: Callable[[], SearchResult]) -> AsciiJson:
    begun = time.perf_counter()
    hits, note = search()
    seconds = round(time.perf_counter() - begun, 4)
    return AsciiJson({"hits": [described(hit) for hit in hits], "seconds": seconds, "note": note})
