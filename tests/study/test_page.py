from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from atr_moco_plugin.study.page import write_study
from atr_moco_plugin.study.summary import aggregate
from atr_moco_plugin.study.table import study_markdown

FIGURES = (
    "rank_of_queue", "rank_of_held_out", "r_sum", "rank_and_r_sum", "spectra", "rank_over_steps",
)  # fmt: skip


@pytest.fixture
def folders(make_run, tmp_path: Path) -> list[Path]:
    return [
        make_run(tmp_path / f"q{size}_s{seed}", size, seed, 300.0 + size % 7, reranked=True)
        for size in (0, 16, 64, 2048)
        for seed in (0, 1)
    ]


def test_a_study_leaves_table_figures_and_page(folders, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write_study(aggregate(folders), "A <study>", out, failed=["q4_s9"])
    assert json.loads((out / "rank_study.json").read_text())["failed"] == ["q4_s9"]
    for name in FIGURES:
        assert (out / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        svg = (out / "figures" / f"{name}.svg").read_text()
        assert "</svg>" in svg and "mathdefault" not in svg
    page = (out / "index.html").read_text()
    assert "<title>A &lt;study&gt;</title>" in page and page.count("<svg") == 15
    assert "http://" not in page.replace("http://www.w3.org", "") and "<script" not in page
    assert "Recommended queue size: 16." in page and "q4_s9" in page
    # Ids of one figure must not be those of another.
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_the_table_has_each_figure_beside_random_vectors_and_marks(folders) -> None:
    study = aggregate(folders)
    text = study_markdown(study, "Study")
    assert "| 2,048\\* |" in text and "epoch has 1,000 pairs" in text
    header = [cell.strip() for cell in text.split("Retrieval by queue size:")[1].split("|")[1:7]]
    titles = ["R-sum valid", "R-sum test", "re-ranked valid", "re-ranked test", "seeds"]
    assert header == ["queue", *titles]
    size = study.variants[0].sizes[1]
    rank = size.queue["audio"].measures["rankme_centered"]
    assert f"{rank} / {size.queue['audio'].random['rankme_centered']:.1f}" in text
    assert re.search(r"\| 16 to 64 +\| .* no \|", text)
    assert "more than 5 % per doubling" in text and "never filled" not in text


def test_variants_have_files_of_their_own(make_run, tmp_path: Path) -> None:
    folders = [
        make_run(tmp_path / f"q{size}_m{momentum}", size, 0, momentum=momentum)
        for size in (8, 16)
        for momentum in (0.5, 0.9)
    ]
    write_study(aggregate(folders), "Study", tmp_path)
    names = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    assert names == {f"{name}_m{m}_pclip" for name in FIGURES for m in (0.5, 0.9)}
    assert "## Momentum 0.5, positives clip" in (tmp_path / "rank_study.md").read_text()


def test_a_study_without_queues_is_shown_too(make_run, tmp_path: Path) -> None:
    write_study(aggregate([make_run(tmp_path / "q0_s0", 0, 0)]), "Study", tmp_path)
    names = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    assert names == {"rank_of_held_out", "r_sum", "rank_and_r_sum"}
