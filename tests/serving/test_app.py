"""The page and its JSON, without a browser."""

from __future__ import annotations

import asyncio
import html
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlencode

import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from PIL import Image
from serving.asking import Answer, ask
from serving.world import (
    AWKWARD,
    NOT_UTF8,
    RATE,
    World,
    give_bank,
    make_world,
    update,
    write_sound,
)
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp
from tiny_bundle import make_bundle

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.search.local import open_local
from atr_moco_plugin.search.store import Store
from atr_moco_plugin.serving.access import Access
from atr_moco_plugin.serving.app import create_app
from atr_moco_plugin.serving.guard import HEADERS
from atr_moco_plugin.serving.searcher import MAX_HITS, Searcher
from atr_moco_plugin.serving.uploads import MAX_BYTES, MAX_SECONDS, read_body


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def app(world: World) -> Iterator[ASGIApp]:
    searcher = world.searcher
    yield create_app(searcher, Access(port=8000), str(world.index))
    searcher.close()


@pytest.fixture
def own(world: World, tmp_path: Path) -> World:
    """A world of the test's own, to be changed."""
    for name in world._fields[:2]:
        shutil.copytree(getattr(world, name), tmp_path / name, symlinks=True)
    copy = World(*(tmp_path / name for name in world._fields))
    update(copy)
    return copy


def search(app: ASGIApp, q: str, **options: object) -> Answer:
    return ask(app, f"/api/search?{urlencode({'q': q, **options})}")


def said(answer: Answer, status: int = 400) -> str:
    """The one sentence of an error."""
    assert answer.status == status, answer.text
    assert HEADERS.keys() <= {name.title() for name in answer.headers}
    [(key, sentence)] = answer.json().items()
    assert key == "error" and "\n" not in sentence and "Traceback" not in sentence
    return sentence


# ---- search by words


def test_hits_are_those_of_the_index_best_first(app: ASGIApp, world: World) -> None:
    answer = search(app, "a dog barks").json()
    assert len(answer["hits"]) == 8  # one a recording
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)
    embedding = world.searcher.retriever.embed_text("a dog barks").numpy()
    with open_local(world.index) as store:
        [[best]] = store.nearest(embedding, 1)
    assert answer["hits"][0]["window"] == best.window
    assert answer["hits"][0]["path"] == best.recording.path
    assert answer["hits"][0]["score"] == pytest.approx(best.score, abs=1e-6)
    assert all(not hit["problem"] and hit["reranked"] is None for hit in answer["hits"])
    assert [x["window"] for x in search(app, "a dog barks", k=3).json()["hits"]] == [
        x["window"] for x in answer["hits"][:3]
    ]


def test_names_of_all_kinds_come_back_as_they_are(app: ASGIApp, world: World) -> None:
    answer = search(app, "a dog barks")
    answer.body.decode("ascii")
    paths = {hit["path"] for hit in answer.json()["hits"]}
    for name in (*AWKWARD, NOT_UTF8, "long.wav", "stereo.flac", "shard.tar/inside.wav"):
        assert str(world.sounds / name) in paths


def test_reranking_orders_by_the_matching_head(app: ASGIApp) -> None:
    hits = search(app, "a dog barks", rerank=1).json()["hits"]
    scores = [hit["reranked"] for hit in hits]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) > 1


@pytest.mark.parametrize("more", [{"without": "siren"}, {"q": ["a dog barks", "rain"]}])
def test_reranking_takes_one_sentence(app: ASGIApp, more: dict[str, object]) -> None:
    asked = {"q": "a dog barks", "rerank": 1, **more}
    answer = ask(app, f"/api/search?{urlencode(asked, doseq=True)}")
    assert "compares one sentence" in said(answer)


def test_reranking_needs_a_matching_head(own: World) -> None:
    shutil.rmtree(own.model)
    make_bundle(own.model, score=None)
    shutil.rmtree(own.index)
    update(own)
    app = create_app(own.searcher, Access(port=8000), "index")
    assert "no matching head" in said(search(app, "a dog barks", rerank=1))
    assert 'id="rerank"' not in ask(app, "/").text


def test_a_correction_by_the_bank_of_the_index(own: World) -> None:
    app = create_app(own.searcher, Access(port=8000), "index")
    plain = search(app, "a dog barks").json()["hits"]
    assert all(hit["score"] == hit["cosine"] for hit in plain)
    assert "has no bank to correct with" in said(search(app, "a dog barks", correct=0.75))
    assert 'id="correct"' not in ask(app, "/").text
    # Of a shared address, which another index had.
    notes = ["so hits are not corrected" in ask(app, x).text for x in ("/", "/?q=a&correct=0.75")]
    assert notes == [False, True]
    assert ask(app, "/api/index").json()["bank"] is None
    give_bank(own)  # while the page runs
    assert ask(app, "/api/index").json()["bank"] == 15
    hits = search(app, "a dog barks", correct=0.75).json()["hits"]
    assert [x["score"] for x in hits] == sorted((x["score"] for x in hits), reverse=True)
    cosines = {hit["window"]: hit["cosine"] for hit in plain}
    for hit in hits:
        assert hit["score"] != hit["cosine"] == pytest.approx(cosines[hit["window"]], abs=1e-6)
    both = search(app, "a dog barks", without="rain falls", correct=0.75).json()["hits"]
    assert len(both) == 8
    assert search(app, "a dog barks").json()["hits"] == plain
    for wrong in (5, -1, "nan"):
        assert "is none: give a number from 0 to 4" in said(search(app, "a dog", correct=wrong))
    assert said(search(app, "a dog", correct="much")).startswith("correct: ")
    # The page has a switch, which is on where the server is told so.
    assert re.search(r'id="correct" [^>]*value="0.75" data-usual="0.0">', ask(app, "/").text)
    usual = create_app(own.searcher, Access(port=8000), "index", correct=0.5)
    page = ask(usual, "/").text
    assert re.search(r'id="correct" [^>]*value="0.5" data-usual="0.5" checked>', page)
    assert ask(usual, "/api/index").json()["correct"] == 0.5
    half = search(usual, "a dog barks").json()["hits"]
    assert half == search(app, "a dog barks", correct=0.5).json()["hits"] != hits
    assert search(usual, "a dog barks", correct=0).json()["hits"] == plain


@pytest.mark.parametrize("sentence", ["", "   ", "\n\t"])
def test_an_empty_sentence_is_said(app: ASGIApp, sentence: str) -> None:
    assert said(search(app, sentence)) == "Type a sentence: what you want to hear."
    assert said(ask(app, "/api/search")) == "Type a sentence: what you want to hear."


def test_five_thousand_words_are_said(app: ASGIApp) -> None:
    sentence = said(search(app, "dog " * 5_000))
    assert sentence.startswith("The sentence has 20,000 characters")


def test_what_the_model_does_not_read_of_a_sentence_is_noted(app: ASGIApp) -> None:
    answer = search(app, "a dog barks far away " * 20)
    assert answer.status == 200 and "16 tokens" in answer.json()["note"]
    assert search(app, "a dog barks").json()["note"] == ""


@pytest.mark.parametrize(
    "sentence", ["🐕", "<script>alert(1)</script>", "犬が吠える", "a\x00b", "%"]
)
def test_any_sentence_is_searched(app: ASGIApp, sentence: str) -> None:
    answer = search(app, sentence)
    assert answer.status == 200 and len(answer.json()["hits"]) == 8


@pytest.mark.parametrize("k", ["0", "-1", str(MAX_HITS + 1), "many", "1e3", ""])
def test_a_number_of_hits_that_is_none_is_said(app: ASGIApp, k: str) -> None:
    assert said(search(app, "a dog barks", k=k)).startswith("k")


def test_a_filter_by_path(app: ASGIApp) -> None:
    hits = search(app, "a dog barks", path="*.flac").json()["hits"]
    assert [hit["name"] for hit in hits] == ["stereo.flac"]


def test_what_would_do_nothing_is_refused(app: ASGIApp, world: World) -> None:
    assert "the pattern of paths is empty" in said(search(app, "a dog", path=""))
    for query in ("k=1&k=3", "path=*/a&path=*/b", "correct=0&correct=1", "rerank=0&rerank=1"):
        name = query.partition("=")[0]
        sentence = f"{name} is given more than once: give it once."
        assert said(ask(app, f"/api/search?q=a+dog&{query}")) == sentence
    sound = (world.sounds / "stereo.flac").read_bytes()
    assert said(post(app, sound, "k=1&k=3")) == "k is given more than once: give it once."
    assert "the pattern of paths is empty" in said(post(app, sound, "path="))


def test_what_is_not_wanted_can_be_said(app: ASGIApp) -> None:
    query = "q=a+dog+barks&q=rain&without=a+siren+wails"
    assert ask(app, f"/api/search?{query}").json()["hits"]
    assert "Type a sentence" in said(ask(app, "/api/search?q=a+dog&without="))


def test_many_may_ask_at_once_while_the_index_grows(own: World) -> None:
    searcher = own.searcher
    app = create_app(searcher, Access(port=8000), "index")
    hits = search(app, "a dog barks").json()["hits"]
    sound = (own.sounds / "stereo.flac").read_bytes()
    asks: list[Callable[[int], Answer]] = [
        lambda n: search(app, "a dog barks", rerank=n % 2),
        lambda n: post(app, sound),
        lambda n: ask(app, hits[n % 8]["picture"]),
        lambda n: ask(app, hits[n % 8]["sound"]),
        lambda n: ask(app, "/"),
    ]
    write_sound(own.sounds / "new.wav", 42)
    with ThreadPoolExecutor(8) as pool:
        growing = pool.submit(update, own)
        answers = list(pool.map(lambda n: asks[n % len(asks)](n), range(60)))
        growing.result()
    assert {answer.status for answer in answers} == {200}
    assert {len(answer.json()["hits"]) for answer in answers[::5]} <= {8, 9}
    assert len(search(app, "a dog barks").json()["hits"]) == 9
    searcher.close()


# ---- search by a sound


def wav(wave: np.ndarray, rate: int = RATE, kind: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=kind)
    return file.getvalue()


def post(app: ASGIApp, body: bytes, query: str = "name=a+sound.wav", **options) -> Answer:
    return ask(app, f"/api/search?{query}", "POST", body=body, **options)


@pytest.mark.parametrize("name", ["correct", "rerank", "q", "without"])
def test_what_is_for_words_is_refused_with_a_sound(app: ASGIApp, world: World, name: str) -> None:
    answer = post(app, (world.sounds / "stereo.flac").read_bytes(), f"k=3&{name}=0.75")
    sentence = f"A search by a sound takes k, path and name, not '{name}': leave it out."
    assert said(answer) == sentence


@pytest.mark.parametrize("name", ["corect", "min_seconds", "name"])
def test_an_argument_that_would_do_nothing_is_refused(app: ASGIApp, name: str) -> None:
    assert f"and path, not '{name}': leave" in said(search(app, "a dog barks", **{name: 1}))


@pytest.mark.parametrize("name", ["stereo.flac", AWKWARD[0]])
def test_a_sound_of_the_index_finds_itself(app: ASGIApp, world: World, name: str) -> None:
    best = post(app, (world.sounds / name).read_bytes()).json()["hits"][0]
    assert best["name"] == name and best["score"] == pytest.approx(1, abs=1e-3)


def test_a_sound_at_another_rate_finds_itself(app: ASGIApp, world: World) -> None:
    wave, _ = soundfile.read(world.sounds / "stereo.flac")
    from atr_moco_plugin.data.audio.read import resample

    other = resample(wave.mean(axis=1).astype(np.float32), RATE, 48_000)
    best = post(app, wav(other, 48_000)).json()["hits"][0]
    assert best["name"] == "stereo.flac" and best["score"] > 0.99


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "empty"),
        (b"no sound", "not readable as audio"),
        (b"RIFF\xff\xff\xff\xffWAVE", "not readable as audio"),
        (b"\x1aE\xdf\xa3webm", "not readable as audio"),
        (wav(np.zeros(RATE))[:-20_000], "truncated"),
        (wav(np.zeros(100)), "lasts 0.006 s"),
        (wav(np.zeros(0)), "lasts 0.000 s; search with"),
    ],
    ids=["empty", "text", "header alone", "webm", "truncated", "too short", "no sample"],
)
def test_an_upload_that_is_no_sound_is_said(app: ASGIApp, body: bytes, expected: str) -> None:
    assert expected in said(post(app, body))


def test_an_upload_with_nan_is_said(app: ASGIApp) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.full(RATE, np.nan), RATE, format="WAV", subtype="FLOAT")
    assert "NaN or infinite" in said(post(app, file.getvalue()))


def test_an_upload_of_integers_that_were_not_scaled_is_said(app: ASGIApp) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.full(RATE, 9e3), RATE, format="WAV", subtype="FLOAT")
    sentence = said(post(app, file.getvalue()))
    assert sentence.startswith("a sound.wav: it has float samples up to 9,000, where full scale")


def test_an_upload_that_is_too_large_is_not_read_to_its_end(app: ASGIApp) -> None:
    headers = {"Content-Length": str(MAX_BYTES + 1)}
    assert "32 MiB" in said(post(app, b"", headers=headers), 413)
    taken = []

    def pieces() -> Iterator[bytes]:
        for number in range(10 * MAX_BYTES // 2**20):
            taken.append(number)
            yield bytes(2**20)

    # A client that does not announce its length.
    answer = ask(app, "/api/search", "POST", pieces=pieces())
    assert "32 MiB" in said(answer, 413) and len(taken) == 33


def test_an_upload_that_breaks_off_is_no_failure_of_the_server() -> None:
    async def gone() -> dict[str, str]:
        return {"type": "http.disconnect"}

    request = Request({"type": "http", "method": "POST", "headers": []}, gone)
    with pytest.raises(HTTPException, match="did not come in full"):
        asyncio.run(read_body(request))


def test_a_small_file_with_a_long_sound_is_said(app: ASGIApp) -> None:
    body = wav(np.zeros(int(MAX_SECONDS + 1) * 8_000), 8_000, "FLAC")
    assert len(body) < 2**20
    assert f"lasts more than {MAX_SECONDS:g} s" in said(post(app, body))


# ---- sounds and pictures


def test_the_sound_of_a_hit_is_cut_around_its_moment(app: ASGIApp, world: World) -> None:
    whole, _ = soundfile.read(world.sounds / "long.wav", dtype="float32")
    [hit] = search(app, "a dog barks", path="*/long.wav").json()["hits"]
    start, end = hit["cut"]
    assert start <= hit["moment"][0] < hit["moment"][1] <= end + 1e-6
    answer = ask(app, hit["sound"])
    assert answer.status == 200 and answer.headers["content-type"] == "audio/wav"
    wave, rate = soundfile.read(io.BytesIO(answer.body), dtype="float32")
    assert rate == RATE
    np.testing.assert_allclose(wave, whole[round(start * RATE) : round(end * RATE)], atol=1e-4)


def test_every_hit_has_a_sound_and_a_picture(app: ASGIApp) -> None:
    for hit in search(app, "a dog barks").json()["hits"]:
        frames, rate = soundfile.read(io.BytesIO(ask(app, hit["sound"]).body))
        assert len(frames) / rate == pytest.approx(hit["cut"][1] - hit["cut"][0], abs=1e-3)
        pictures = [ask(app, hit["picture"] + more) for more in ("", "&dark=1")]
        assert pictures[0].body != pictures[1].body
        for answer in pictures:
            assert answer.headers["content-type"] == "image/png"
            assert "max-age" in answer.headers["cache-control"]
            Image.open(io.BytesIO(answer.body)).verify()


@pytest.mark.parametrize(
    "path",
    [
        "/sound/999999.wav",
        "/picture/999999.png",
        "/sound/0.wav?of=0000000000000000",
        "/sound/-1.wav",
        "/sound/99999999999999999999999999.wav",
        "/sound//etc/passwd.wav",
        "/sound/..%2f..%2fetc%2fpasswd",
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        "/docs",
        "/nothing",
    ],
)
def test_nothing_but_sounds_of_the_index_is_served(app: ASGIApp, path: str) -> None:
    said(ask(app, path), 404)


def test_a_window_number_that_went_to_another_recording_is_said(app: ASGIApp) -> None:
    hit = search(app, "a dog barks").json()["hits"][0]
    number, _, of = hit["sound"].partition("?of=")
    assert "search again" in said(ask(app, f"{number}?of={of[::-1]}"), 404)


def test_a_file_that_is_gone_or_changed_is_said_at_its_hit(own: World) -> None:
    app = create_app(own.searcher, Access(port=8000), "index")
    (own.sounds / "stereo.flac").unlink()
    write_sound(own.sounds / AWKWARD[0], 7, 0.7)
    hits = {hit["name"]: hit for hit in search(app, "a dog barks").json()["hits"]}
    assert len(hits) == 8
    assert "gone since" in hits["stereo.flac"]["problem"] and hits["stereo.flac"]["gone"]
    assert "changed since" in hits[AWKWARD[0]]["problem"] and not hits[AWKWARD[0]]["gone"]
    assert sum(bool(hit["problem"]) for hit in hits.values()) == 2
    same = next(name for name, hit in hits.items() if not hit["problem"])
    for place in ("sound", "picture"):
        assert "no such" in said(ask(app, hits["stereo.flac"][place]), 404)
        changed, as_it_was = (ask(app, hits[name][place]) for name in (AWKWARD[0], same))
        # Another sound, so it is not kept under the digest of the one that was there.
        assert changed.status == 200 and changed.headers["cache-control"] == "no-store"
        assert "max-age" in as_it_was.headers["cache-control"]
    reranked = search(app, "a dog barks", rerank=1).json()["hits"]
    assert {hit["name"] for hit in reranked} == set(hits)


# ---- the page


def test_the_page_says_what_is_in_the_index(app: ASGIApp, world: World) -> None:
    answer = ask(app, "/")
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/html")
    assert "8 recordings" in answer.text and 'id="rerank"' in answer.text
    for file in ("page.css", "page.js", "icon.svg"):
        assert f"/static/{file}" in answer.text and ask(app, f"/static/{file}").status == 200
    state = ask(app, "/api/index").json()
    assert (state["recordings"], state["broken"], state["can_match"]) == (8, 0, True)
    assert state["model"] == str(world.model)


@pytest.mark.parametrize("sentence", ['"><script>alert(1)</script>', "{{ 7 * 7 }}", "a & b 🐕"])
def test_the_sentence_of_a_shared_address_is_escaped(app: ASGIApp, sentence: str) -> None:
    text = ask(app, f"/?q={quote(sentence)}").text
    assert "<script>alert" not in text
    value = re.search(r'<input id="query"[^>]* value="([^"]*)"', text)
    assert value is not None and html.unescape(value[1]) == sentence


def test_the_page_has_no_script_or_style_within(app: ASGIApp) -> None:
    text = ask(app, "/").text
    assert "<style" not in text and " style=" not in text and " onclick=" not in text
    assert text.count("<script") == text.count('<script type="module" src=') == 1


def test_an_empty_index_is_said_and_filled_without_a_restart(own: World) -> None:
    kept = own.sounds.rename(own.sounds.with_name("kept"))
    own.sounds.mkdir()
    write_sound(own.sounds / "first.wav", 1)
    shutil.rmtree(own.index)
    update(own)
    searcher = own.searcher
    app = create_app(searcher, Access(port=8000), "my.index")
    with open_local(own.index, write=True) as store:
        store.remove([recording.key for recording in store.recordings()])
    assert "There is no sound in this index yet" in ask(app, "/").text
    assert "--index my.index" in ask(app, "/").text
    assert search(app, "a dog barks").json()["hits"] == []
    shutil.rmtree(own.sounds)
    kept.rename(own.sounds)
    update(own)
    assert len(search(app, "a dog barks").json()["hits"]) == 8
    assert "There is no sound" not in ask(app, "/").text
    searcher.close()


def test_an_index_of_another_model_is_refused(own: World) -> None:
    shutil.rmtree(own.model)
    make_bundle(own.model, seed=1)
    with pytest.raises(InputError, match="was made with another model"):
        _ = own.searcher


def test_an_index_made_anew_with_another_model_is_refused_from_then_on(own: World) -> None:
    app = create_app(own.searcher, Access(port=8000), "index")
    assert search(app, "a dog barks").status == 200
    shutil.rmtree(own.model)
    make_bundle(own.model, seed=1)
    shutil.rmtree(own.index)
    update(own)
    assert "was made anew with another model" in said(search(app, "a dog barks"))
    for _ in range(2):
        assert "was made with another model" in said(search(app, "a dog barks"))


def test_a_failure_is_one_sentence_and_the_next_answer_opens_the_index_again(world: World) -> None:
    opened = []

    def open_store() -> Store:
        opened.append(open_local(world.index))
        return opened[-1]

    retriever = AudioTextRetriever.from_pretrained(world.model)
    app = create_app(Searcher(open_store, retriever), Access(port=8000), "index")
    assert search(app, "a dog barks").status == 200 and len(opened) == 1
    opened[0].__exit__(None, None, None)  # as when a database ends
    assert "The server failed" in said(search(app, "a dog barks"), 500)
    assert search(app, "a dog barks").status == 200 and len(opened) == 2


def test_the_schema_of_the_json_lists_every_address(app: ASGIApp) -> None:
    paths = json.loads(ask(app, "/api/openapi.json").body)["paths"]
    assert set(paths) == {
        "/api/index",
        "/api/search",
        "/sound/{window}.wav",
        "/picture/{window}.png",
    }
