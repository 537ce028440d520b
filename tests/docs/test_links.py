"""What the pages point to is there: other pages and their headings, files, modules and names."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from docs.pages import FENCE, PAGES, ROOT

LINK = re.compile(r"\]\(<?(?!https?:)([^)#>\s]*)(?:#([\w-]+))?>?\)")
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")  # a NAME in it stands for any
FILE = re.compile(r"(?:tests|docs|recipes|examples|benchmarks|atr_moco_plugin)/[\w./-]*")
NAME = re.compile(r"\batr_moco_plugin(?:\.[A-Za-z_]\w*)+")


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub and the site give to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    words = (re.sub(r"[^\w\s-]", "", re.sub(r"[`*]", "", text)).lower() for text in headings)
    return {text.strip().replace(" ", "-") for text in words}


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(prose(page)):
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{target} is not there"
        if anchor:
            assert anchor in anchors(file), f"{target} has no heading #{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_files_that_are_named_are_there(page: Path) -> None:
    for span in SPAN.findall(prose(page)):
        # The presets are in an installed package alone, the site in a built checkout.
        if FILE.fullmatch(span) and not re.search("NAME|/presets/|docs/_build", span):
            assert (ROOT / span).exists() or list(ROOT.glob(f"{span}*")), f"{span} is not there"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_modules_and_names_that_are_named_are_there(page: Path) -> None:
    for name in sorted(set(NAME.findall(page.read_text()))):
        if name.startswith("atr_moco_plugin.hosts.laion_clap"):
            continue  # needs laion_clap
        if name.endswith("NAME"):
            continue
        if name.startswith(("atr_moco_plugin.recipes", "atr_moco_plugin.hosts.fairseq2")):
            pytest.importorskip("fairseq2")
        assert is_there(name), f"{name} is not there"


def test_where_is_what_leads_to_the_place() -> None:
    """A row of its table names files, and names that are in one of them."""
    page = (ROOT / "docs" / "where.md").read_text()
    rows = [SPAN.findall(line) for line in page.splitlines() if line.startswith("| ")]
    assert sum(map(bool, rows)) > 8
    for spans in rows:
        files = [ROOT / "atr_moco_plugin" / span for span in spans if "/" in span or ".py" in span]
        assert all(file.exists() for file in files), spans
        texts = [file.read_text() for file in files if file.is_file()]
        for span in spans:
            if re.fullmatch(r"[\w.]+", span) and not span.endswith(".py"):
                assert any(span.rpartition(".")[2] in text for text in texts), span


def is_there(name: str) -> bool:
    """Whether Python finds a module, or a name in one; groups of entry points count too."""
    from atr_moco_plugin.plugins import GROUPS

    module, *rest = name.split(".")
    thing: object = importlib.import_module(module)
    for part in rest:
        module = f"{module}.{part}"
        if hasattr(thing, part):
            thing = getattr(thing, part)
            continue
        try:
            thing = importlib.import_module(module)
        except ModuleNotFoundError:
            return name in GROUPS.values()
    return True
