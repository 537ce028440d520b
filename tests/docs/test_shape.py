"""What makes the README and the site easy to read: their size, and that nothing is out of reach."""

from __future__ import annotations

import re

from docs.pages import FENCE, PAGES, ROOT, read


def test_the_readme_is_short() -> None:
    lines = read("README.md").splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) <= 120


def test_pictures_of_the_readme_are_small() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", read("README.md"))
    assert pictures
    assert all((ROOT / picture).stat().st_size < 200_000 for picture in pictures)


def test_every_page_is_in_the_contents_of_the_site() -> None:
    listed = {
        line.strip()
        for match in FENCE.finditer(read("docs/index.md"))
        if match[1] == "{toctree}"
        for line in match[2].splitlines()
        if line.strip() and not line.startswith(":")
    }
    pages = {str(page.relative_to(ROOT / "docs").with_suffix("")) for page in PAGES[3:]}
    assert listed == pages - {"index"}
