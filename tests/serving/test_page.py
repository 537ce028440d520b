"""The page in a real browser: Debian's Chromium, by its path."""

from __future__ import annotations

import base64
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")

if shutil.which("chromium") is None:
    pytest.skip("there is no chromium on the path", allow_module_level=True)

from playwright.sync_api import sync_playwright
from serving.world import AWKWARD, World, give_bank, make_world, write_sound

from atr_moco_plugin.serving.access import Listener, listen
from atr_moco_plugin.serving.app import create_app
from atr_moco_plugin.serving.server import make_server

NAME = "sounds.example"
"""Leads to this machine in the browser of these tests, and is not one that it trusts."""

HITS = 8
PAUSE = 10  # seconds that something may take


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@contextmanager
def serving(world: World, **options: Any) -> Iterator[Listener]:
    searcher = world.searcher
    listener = listen(**options)
    server = make_server(create_app(searcher, listener.access, str(world.index)))
    thread = threading.Thread(target=server.run, args=([listener.socket],), daemon=True)
    thread.start()
    yield listener
    server.should_exit = True
    thread.join(10)
    listener.socket.close()
    searcher.close()


@pytest.fixture(scope="module")
def url(world: World) -> Iterator[str]:
    with serving(world) as listener:
        yield listener.url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=[
                "--no-sandbox",
                "--autoplay-policy=no-user-gesture-required",
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
                f"--host-resolver-rules=MAP {NAME} 127.0.0.1",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens an address; errors of the console fail the test, unless it expects them."""
    contexts, errors = [], []

    def open_page(address: str, *, may_fail: bool = False, **options: Any) -> Any:
        options = {"viewport": {"width": 1280, "height": 900}, **options}
        context = browser.new_context(**options)
        context.set_default_timeout(1_000 * PAUSE)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(f"dialog {dialog.message}"))
        if not may_fail:
            page.on("console", lambda x: errors.append(x.text) if x.type == "error" else None)
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not errors


def wait(page: Any, condition: str, argument: object = None) -> None:
    """Wait until a condition holds, a function of the argument. Playwright's own wait evaluates in
    the page, which its Content-Security-Policy forbids."""
    for _ in range(PAUSE * 20):
        if page.evaluate(condition, argument):
            return
        page.wait_for_timeout(50)
    raise TimeoutError(condition)


def search(page: Any, sentence: str = "a dog barks", hits: int = HITS) -> list[str]:
    """Type a sentence; the names of the hits."""
    page.keyboard.press("/")
    page.keyboard.type(sentence)
    page.keyboard.press("Enter")
    wait(
        page,
        "n => document.querySelectorAll('.hit').length === n"
        " && document.querySelector('#hits').ariaBusy === 'false'",
        hits,
    )
    return page.locator(".hit .name").all_text_contents()


def drop(page: Any, name: str, content: bytes) -> None:
    """Drop a file on the page, as a file manager does."""
    page.evaluate(
        """([name, content]) => {
            const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], name));
            for (const kind of ["dragenter", "dragover", "drop"]) {
                const options = { dataTransfer, bubbles: true, cancelable: true };
                document.querySelector("main").dispatchEvent(new DragEvent(kind, options));
            }
        }""",
        [name, base64.b64encode(content).decode()],
    )


def focused(page: Any) -> int:
    """Number of the hit that has the focus, -1 for none."""
    return page.evaluate("[...document.querySelectorAll('.hit')].indexOf(document.activeElement)")


def test_type_move_play_and_copy_by_keys(
    open_page: Callable[..., Any], url: str, world: World
) -> None:
    page = open_page(url, permissions=["clipboard-read", "clipboard-write"])
    page.evaluate("document.activeElement.blur()")
    names = search(page)
    assert "long.wav" in names and f"{HITS} sounds in" in page.locator("#status").text_content()
    assert page.url == f"{url}?q=a+dog+barks"
    assert focused(page) == 0  # Enter leads to the best hit
    for key, number in (("j", 1), ("ArrowDown", 2), ("k", 1), ("k", 0), ("k", 0)):
        page.keyboard.press(key)
        assert focused(page) == number
    for _ in range(names.index("long.wav")):
        page.keyboard.press("j")
    page.keyboard.press("c")
    wait(page, "document.querySelector('#status').textContent.startsWith('Copied')")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == str(world.sounds / "long.wav")

    page.keyboard.press(" ")
    hit = page.evaluate("fetch('/api/search?q=a+dog+barks&path=*/long.wav').then(x => x.json())")
    offset = hit["hits"][0]["moment"][0] - hit["hits"][0]["cut"][0]
    wait(page, "from => document.querySelector('#player').currentTime > from + 0.3", offset)
    assert page.locator(".hit.chosen .play").get_attribute("aria-pressed") == "true"
    page.keyboard.press(" ")
    wait(page, "document.querySelector('#player').paused")
    stopped = page.evaluate("document.querySelector('#player').currentTime")
    assert offset + 0.3 < stopped < offset + 5
    page.keyboard.press("Escape")
    assert page.locator(".hit.chosen .play").get_attribute("aria-pressed") == "false"


def test_a_click_on_the_picture_plays_from_there(open_page: Callable[..., Any], url: str) -> None:
    page = open_page(f"{url}?q=a+dog+barks")
    item = page.locator(".hit").filter(has_text="long.wav")
    picture = item.locator(".picture")
    picture.scroll_into_view_if_needed()
    wait(page, "image => image.naturalWidth > 0", item.locator("img").element_handle())
    box = picture.bounding_box()
    picture.click(position={"x": box["width"] / 2, "y": 9})
    wait(page, "(x => x.duration > 0 && x.currentTime > 0)(document.querySelector('#player'))")
    time, whole = page.evaluate(
        "(x => [x.currentTime, x.duration])(document.querySelector('#player'))"
    )
    assert whole / 2 - 0.1 < time < whole / 2 + 1.5
    wait(page, "document.querySelector('#player').ended")


def test_a_shared_address_searches_and_back_goes_back(
    open_page: Callable[..., Any], url: str
) -> None:
    page = open_page(f"{url}?q=rain+falls&rerank=1")
    page.locator(".hit").first.wait_for()
    assert page.input_value("#query") == "rain falls" and page.is_checked("#rerank")
    scores = "[...document.querySelectorAll('.score')].map((x) => x.textContent).join()"
    reranked = page.evaluate(scores)
    page.locator("label.switch").click()
    wait(page, f"reranked => ({scores}) !== reranked", reranked)
    assert page.url == f"{url}?q=rain+falls"
    page.go_back()
    wait(page, f"reranked => ({scores}) === reranked", reranked)
    assert page.is_checked("#rerank")


def test_the_correction_is_a_switch_and_in_the_address(
    tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    own = make_world(tmp_path)
    give_bank(own)
    scores = "[...document.querySelectorAll('.hit .score')].map(x => x.textContent).join()"
    with serving(own) as listener:
        page = open_page(f"{listener.url}?q=rain+falls")
        wait(page, "() => document.querySelectorAll('.hit').length === 8")
        plain = page.evaluate(scores)
        assert not page.is_checked("#correct")
        page.check("#correct")
        wait(page, f"plain => ({scores}) !== plain", plain)
        corrected = page.evaluate(scores)
        assert "correct=0.75" in page.url
        assert page.locator(".hit .score").first.get_attribute("title").startswith("cosine 0.") or (
            page.locator(".hit .score").first.get_attribute("title").startswith("cosine -0.")
        )
        page.reload()
        wait(page, f"corrected => ({scores}) === corrected", corrected)
        page.go_back()
        wait(page, f"plain => ({scores}) === plain", plain)
        assert not page.is_checked("#correct")
        page.set_viewport_size({"width": 375, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= 375
        page.set_input_files("#file", str(own.sounds / "long.wav"))
        wait(page, "() => document.querySelector('#correct').disabled")


def test_the_tab_key_reaches_the_hits_of_a_shared_address(
    open_page: Callable[..., Any], url: str
) -> None:
    page = open_page(f"{url}?q=rain")
    page.locator(".hit").first.wait_for()
    for _ in range(12):
        page.keyboard.press("Tab")
        if focused(page) == 0:
            break
    assert focused(page) == 0
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "play"


def test_back_to_the_empty_page_has_its_title(open_page: Callable[..., Any], url: str) -> None:
    page = open_page(url)
    title = page.title()
    search(page, "rain")
    assert page.title() != title
    page.go_back()
    wait(page, "() => !document.querySelector('.hit')")
    assert page.title() == title


def test_names_and_sentences_with_html_are_text(open_page: Callable[..., Any], url: str) -> None:
    page = open_page(url)
    names = search(page, "<img src=x onerror=alert(2)>")
    assert AWKWARD[0] in names and "two␊lines.wav" in names
    assert page.evaluate("document.querySelectorAll('img[src=x], #hits script').length") == 0
    page.reload()
    assert page.input_value("#query") == "<img src=x onerror=alert(2)>"


def test_a_dropped_sound_finds_itself(
    open_page: Callable[..., Any], url: str, world: World
) -> None:
    page = open_page(url)
    drop(page, "<b>mine.flac", (world.sounds / "stereo.flac").read_bytes())
    page.locator(".hit").first.wait_for()
    assert page.locator(".name").first.text_content() == "stereo.flac"
    assert page.locator(".score").first.text_content() == "1.00"
    assert page.locator("#sound-name").text_content() == "<b>mine.flac"
    assert page.locator("#rerank").is_disabled() and not page.locator("#drop").is_visible()
    page.click("#forget")
    assert not page.locator("#sound").is_visible() and page.locator(".hit").count() == 0


def test_a_dropped_file_that_is_no_sound_is_said(open_page: Callable[..., Any], url: str) -> None:
    page = open_page(url, may_fail=True)
    drop(page, "notes.txt", b"no sound at all")
    page.wait_for_selector("#problem:not([hidden])")
    assert "notes.txt: not readable as audio" in page.locator("#problem").text_content()
    assert len(search(page)) == HITS  # and on with words
    assert not page.locator("#problem").is_visible()


def test_a_recorded_sound_is_a_query(open_page: Callable[..., Any], url: str) -> None:
    page = open_page(url, permissions=["microphone"])
    page.click("#record")
    page.wait_for_selector("#record[aria-pressed=true]")
    page.wait_for_timeout(1_500)
    page.click("#record")
    wait(page, "document.querySelectorAll('.hit').length === 8")
    assert page.locator("#sound-name").text_content() == "your recording"
    assert page.locator("#record").get_attribute("aria-pressed") == "false"
    page.click("#replay")
    wait(page, "document.querySelector('#player').currentTime > 0.2")


def test_escape_throws_a_recording_away(open_page: Callable[..., Any], url: str) -> None:
    page = open_page(url, permissions=["microphone"])
    page.click("#record")
    page.wait_for_selector("#record[aria-pressed=true]")
    page.keyboard.press("Escape")
    page.wait_for_selector("#record[aria-pressed=false]")
    assert not page.locator("#sound").is_visible() and page.locator(".hit").count() == 0


def test_the_browser_decodes_what_the_server_cannot(
    open_page: Callable[..., Any], url: str
) -> None:
    page = open_page(url, may_fail=True)
    webm = page.evaluate(
        """async () => {
            const context = new AudioContext(), tone = context.createOscillator();
            const out = context.createMediaStreamDestination();
            tone.connect(out);
            tone.start();
            const recorder = new MediaRecorder(out.stream, { mimeType: "audio/webm" });
            const chunk = new Promise((done) => { recorder.ondataavailable = done; });
            recorder.start();
            setTimeout(() => recorder.stop(), 800);
            const bytes = new Uint8Array(await (await chunk).data.arrayBuffer());
            return btoa(String.fromCharCode(...bytes));
        }"""
    )
    drop(page, "clip.webm", base64.b64decode(webm))
    wait(page, "document.querySelectorAll('.hit').length === 8")
    assert not page.locator("#problem").is_visible()
    assert page.locator("#sound-name").text_content() == "clip.webm"


def test_a_file_that_is_too_large_is_said(open_page: Callable[..., Any], url: str) -> None:
    page = open_page(url)
    page.evaluate(
        """() => {
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([new Uint8Array(33 * 2 ** 20)], "a.wav"));
            dispatchEvent(new DragEvent("drop", { dataTransfer, cancelable: true }));
        }"""
    )
    page.wait_for_selector("#problem:not([hidden])")
    assert "more than 32 MiB" in page.locator("#problem").text_content()


def test_nothing_typed_asks_nothing(open_page: Callable[..., Any], url: str) -> None:
    page = open_page(url)
    asked = []
    page.on(
        "request", lambda request: asked.append(request.url) if "/api/" in request.url else None
    )
    page.press("#query", "Enter")
    page.fill("#query", "dog " * 5_000)
    page.press("#query", "Enter")
    page.wait_for_selector("#problem:not([hidden])")
    assert "19,999 characters" in page.locator("#problem").text_content()
    assert not asked


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_cut_off(
    open_page: Callable[..., Any], url: str, scheme: str
) -> None:
    page = open_page(
        url,
        viewport={"width": 375, "height": 700},
        is_mobile=True,
        has_touch=True,
        color_scheme=scheme,
    )
    wide = "[document.documentElement.scrollWidth, document.body.scrollWidth]"
    assert page.evaluate(wide) == [375, 375]
    search(page)
    assert page.evaluate(wide) == [375, 375]
    for button in page.locator("button:visible, label:visible").all():
        box = button.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 375
        assert box["height"] >= 44, button.get_attribute("id")
    wait(page, "document.querySelector('#hits img').naturalWidth > 0")
    source = page.evaluate("document.querySelector('#hits img').currentSrc")
    assert source.endswith("dark=1") == (scheme == "dark")


def test_everything_to_press_has_a_name(open_page: Callable[..., Any], url: str) -> None:
    page = open_page(f"{url}?q=a+dog+barks")
    page.locator(".hit").first.wait_for()
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, img, li")]
            .filter((x) => !(x.ariaLabel || x.alt || x.textContent.trim() || x.labels?.length))
            .filter((x) => !x.hidden).map((x) => x.outerHTML)"""
    )
    assert not unnamed
    # One stop of the Tab key for the hits, then their buttons.
    page.keyboard.press("Escape")
    page.locator(".hit .copy").first.click()
    assert page.locator(".hit[tabindex='0']").count() == 1


def test_the_token_leaves_the_address_and_without_https_no_recording_is_said(
    open_page: Callable[..., Any], world: World
) -> None:
    with listen().socket as free:
        port = free.getsockname()[1]
    with serving(world, port=port, also=[f"{NAME}:{port}"]) as listener:
        page = open_page(f"http://{NAME}:{port}/", may_fail=True)
        assert "wants its token" in page.locator("body").text_content()
        page.goto(f"http://{NAME}:{port}/?q=a+dog+barks&token={quote(listener.access.token)}")
        wait(page, "document.querySelectorAll('.hit').length === 8")
        assert page.url == f"http://{NAME}:{port}/?q=a+dog+barks"
        assert page.evaluate("document.cookie") == ""
        [cookie] = page.context.cookies()
        assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
        assert page.locator("#record").get_attribute("aria-disabled") == "true"
        page.locator("#record").click(force=True)
        assert "HTTPS" in page.locator("#problem").text_content()
        page.locator(".hit .copy").first.click()  # without the clipboard of safe pages
        wait(page, "document.querySelector('#status').textContent.startsWith('Copied')")


def test_a_file_that_is_gone_and_a_server_that_is_gone_are_said(
    open_page: Callable[..., Any], tmp_path: Path
) -> None:
    world = make_world(tmp_path)
    with serving(world) as listener:
        page = open_page(listener.url, may_fail=True)
        search(page)
        (world.sounds / "stereo.flac").unlink()
        write_sound(world.sounds / "long.wav", 3)
        hit = page.locator(".hit").filter(has_text="stereo.flac")
        hit.locator(".play").click()
        hit.locator(".problem:not([hidden])").wait_for()
        assert "no such file" in hit.locator(".problem").text_content()
        search(page, "a bell rings")
        assert "gone since it was indexed" in hit.locator(".problem").text_content()
        assert hit.locator(".play").get_attribute("aria-disabled") == "true"
        changed = page.locator(".hit").filter(has_text="long.wav").locator(".problem")
        assert "has changed since" in changed.text_content()
    search(page, "rain", hits=0)
    assert "does not answer" in page.locator("#problem").text_content()
