"""What is answered with 403, and the headers of every answer."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from serving.asking import Answer, ask
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from atr_moco_plugin.serving.access import Access
from atr_moco_plugin.serving.guard import HEADERS, Guard

TOKEN = "a-token-of-the-test"
PATHS = ("/", "/api/search", "/sound/1.wav")


def guarded(target: str, method: str = "GET", token: str = "", **options) -> Answer:
    async def answer(request: Request) -> Response:
        return PlainTextResponse("answered")

    app = Starlette(routes=[Route(path, answer, methods=["GET", "POST"]) for path in PATHS])
    return ask(Guard(app, Access(port=8000, token=token)), target, method, **options)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_forged_host_is_refused_in_one_sentence(path: str, method: str) -> None:
    answer = guarded(path, method, hosts=["evil.org:8000"])
    assert answer.status == 403
    assert "does not go by the name 'evil.org:8000'" in answer.text
    assert ("error" in answer.json()) if path.startswith("/api") else "{" not in answer.text


@pytest.mark.parametrize("hosts", [[], ["localhost:8000", "evil.org"], ["localhost:8000"] * 2])
def test_no_host_and_two_are_refused(hosts: list[str]) -> None:
    assert guarded("/", hosts=hosts).status == 403


@pytest.mark.parametrize("origin", ["http://evil.org", "null", "http://localhost:8001", ""])
def test_posts_of_other_sites_are_refused(origin: str) -> None:
    answer = guarded("/api/search", "POST", headers={"Origin": origin})
    assert answer.status == 403 and "Pages of other sites" in answer.json()["error"]


@pytest.mark.parametrize("origin", ["http://localhost:8000", "https://localhost:8000"])
def test_posts_of_the_page_are_answered(origin: str) -> None:
    headers = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
    assert guarded("/api/search", "POST", headers=headers).text == "answered"


def test_programs_that_are_no_browser_are_answered() -> None:
    assert guarded("/api/search", "POST").text == "answered"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("path", PATHS)
def test_pictures_and_forms_on_other_sites_are_refused(site: str, path: str) -> None:
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    assert guarded(path, headers=headers).status == 403
    headers |= {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
    assert guarded(path, headers=headers).status == 403
    headers["Sec-Fetch-Dest"] = "document"
    assert guarded(path, "POST", headers=headers).status == 403
    # A link to the page, and to it alone, may be followed from anywhere.
    assert guarded(path, headers=headers).status == (200 if path == "/" else 403)


@pytest.mark.parametrize("path", PATHS)
def test_without_the_token_nothing_is_answered(path: str) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Cookie": "atr_moco_8000=wrong"},
        {"Cookie": f"atr_moco_8001={TOKEN}"},
        {"Cookie": "\x01;=;"},
    ):
        answer = guarded(path, token=TOKEN, headers=headers)
        assert answer.status == 403 and "wants its token" in answer.text
        assert TOKEN not in answer.text and "set-cookie" not in answer.headers
    assert (
        guarded(path, token=TOKEN, headers={"Authorization": f"Bearer {TOKEN}"}).text == "answered"
    )


def test_the_printed_address_gives_a_cookie_that_only_the_server_reads() -> None:
    assert guarded(f"/?token={TOKEN}x", token=TOKEN).status == 403
    assert guarded(f"/api/search?token={TOKEN}", token=TOKEN).status == 403
    answer = guarded(f"/?token={TOKEN}", token=TOKEN)
    assert answer.text == "answered"
    cookie = answer.headers["set-cookie"]
    assert cookie == f"atr_moco_8000={TOKEN}; Path=/; HttpOnly; SameSite=Strict"
    assert (
        guarded("/sound/1.wav", token=TOKEN, headers={"Cookie": f"a=b; {cookie}"}).text
        == "answered"
    )
    # Cookies know no ports: those of another server come along, in any form.
    for foreign in ('ui={"theme":"dark"}', "consent", "a=b=c"):
        sent = {"Cookie": f"{foreign}; {cookie}"}
        assert guarded("/sound/1.wav", token=TOKEN, headers=sent).text == "answered"


def test_an_address_with_the_token_and_a_forged_host_gives_no_cookie() -> None:
    answer = guarded(f"/?token={TOKEN}", token=TOKEN, hosts=["evil.org:8000"])
    assert answer.status == 403 and "set-cookie" not in answer.headers


def test_every_answer_has_the_headers() -> None:
    refused = guarded("/", hosts=["evil.org"])
    for answer in (guarded("/"), guarded("/not/there"), refused):
        assert HEADERS.items() <= {k.title(): v for k, v in answer.headers.items()}.items()
        assert answer.headers["cache-control"] == "no-store"
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
