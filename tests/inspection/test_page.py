from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from atr_moco_plugin.inspection.opening import open_to_inspect
from atr_moco_plugin.inspection.page import write_page
from atr_moco_plugin.inspection.report import inspect_dataset

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Tags, anchors and text of a page; every tag that opens is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = dict(attrs)
        self.tags.append(tag)
        self.attributes |= own.keys()
        self.ids |= {own["id"]} if own.get("id") else set()
        self.links |= {own["href"]} if own.get("href") else set()
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def page(manifest: Path, tmp_path: Path) -> Page:
    inspection = inspect_dataset(open_to_inspect("manifest", {"root": str(manifest)}))
    write_page(inspection, tmp_path / "page.html")
    return Page((tmp_path / "page.html").read_text())


def test_findings_can_be_heard_and_links_lead_to_them(page: Page) -> None:
    assert {"#silence", "#leak-between-splits", "#shared-caption"} <= page.links
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.ids
    # Both clips of the copy, the silent one, the clipped one, and those of shared captions.
    assert page.tags.count("audio") >= 6
    assert page.tags.count("svg") == 4
    assert "On the list to leave out" in page.text
    assert "no sound: " in page.text  # of the broken file


def test_texts_that_try_to_be_markup_are_texts(page: Page) -> None:
    assert "script" not in page.tags
    assert not {name for name in page.attributes if name.startswith("on")}
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 123 * 1000 }}" in page.text


def test_a_page_without_audio_says_so_and_plays_nothing(manifest: Path, tmp_path: Path) -> None:
    for path in manifest.parent.glob("*.wav"):
        path.unlink()
    inspection = inspect_dataset(open_to_inspect("manifest", {"root": str(manifest)}))
    write_page(inspection, tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text())
    assert "There is no audio, so the captions alone were looked at." in page.text
    assert "audio" not in page.tags
    assert page.tags.count("svg") == 1


def test_findings_beyond_the_examples_are_listed_in_words(manifest: Path, tmp_path: Path) -> None:
    rows = "".join(f"dog.wav,Word{number},train\n" for number in range(250))
    manifest.write_text(manifest.read_text() + rows)
    inspection = inspect_dataset(open_to_inspect("manifest", {"root": str(manifest)}), audio=False)
    write_page(inspection, tmp_path / "page.html", examples=3)
    text = Page((tmp_path / "page.html").read_text()).text
    assert "The next 200 in words" in text
    (more,) = re.findall(r"(\d+) more are not on this page", text)
    assert int(more) == 251 - 203
