"""The files of a study: one is written and looked at from all sides."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from atr_moco_plugin.study.figures import study_plots
from atr_moco_plugin.study.findings import Study
from atr_moco_plugin.study.page import write_study
from atr_moco_plugin.study.summary import aggregate

FIGURES = (
    "rank_of_queue", "rank_of_held_out", "r_sum", "rank_and_r_sum", "spectra", "rank_over_steps",
)  # fmt: skip

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def study(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> Study:
    runs = tmp_path_factory.mktemp("runs")
    return aggregate(
        make_run(runs / f"q{size}_s{seed}", size, seed, 300.0 + size % 7, reranked=True)
        for size in (0, 16, 64, 2048)
        for seed in (0, 1)
    )


@pytest.fixture(scope="module")
def out(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    write_study(study, "A <study>", out, failed=["q4_s9"])
    return out


def test_figures_are_there_twice(out: Path) -> None:
    assert {path.stem for path in (out / "figures").iterdir()} == set(FIGURES)
    for name in FIGURES:
        assert (out / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        svg = (out / "figures" / f"{name}.svg").read_text()
        assert "</svg>" in svg and "mathdefault" not in svg


def test_the_page_is_whole_and_asks_nobody(out: Path) -> None:
    assert json.loads((out / "rank_study.json").read_text())["failed"] == ["q4_s9"]
    page = (out / "index.html").read_text()
    assert "<title>A &lt;study&gt;</title>" in page and page.count("<svg") == 15
    assert "http://" not in page.replace("http://www.w3.org", "") and "<script" not in page
    assert "Recommended queue size: 16." in page and "q4_s9" in page
    # Ids of one figure must not be those of another.
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_the_table_has_each_figure_beside_random_vectors_and_marks(study: Study, out: Path) -> None:
    text = (out / "rank_study.md").read_text()
    assert text.startswith("# A <study>\n\n**Recommended queue size: 16.** ")
    assert "| 2,048\\* |" in text and "epoch has 1,000 pairs" in text
    header = [cell.strip() for cell in text.split("Retrieval by queue size:")[1].split("|")[1:7]]
    titles = ["R-sum valid", "R-sum test", "re-ranked valid", "re-ranked test", "seeds"]
    assert header == ["queue", *titles]
    size = study.variants[0].sizes[1]
    rank = size.queue["audio"].measures["rankme_centered"]
    assert f"{rank} / {size.queue['audio'].random['rankme_centered']:.1f}" in text
    assert re.search(r"\| 16 to 64 +\| .* no \|", text)
    assert "more than 5 % per doubling" in text and "never filled" not in text


def test_variants_have_files_of_their_own(make_run: MakeRun, tmp_path: Path) -> None:
    study = aggregate(
        make_run(tmp_path / f"q{size}_m{momentum}", size, 0, momentum=momentum)
        for size in (8, 16)
        for momentum in (0.5, 0.9)
    )
    plots = [plot.name for variant in study.variants for plot in study_plots(study, variant)]
    assert plots == [f"{name}_m{m}_pclip" for m in (0.5, 0.9) for name in FIGURES]


def test_a_smaller_queue_of_equal_rows_ends_no_study(make_run: MakeRun, tmp_path: Path) -> None:
    """The gain over it has no end, and JSON has no infinity."""
    runs = [
        make_run(tmp_path / f"q{size}", size, 0, directions=directions)
        for size, directions in ((64, 1), (128, 8))
    ]
    records = (runs[0] / "rank.jsonl").read_text().splitlines()
    changed = []
    for record in map(json.loads, records):
        for source in record["sources"].values():
            source["centered"]["rankme"] = 0.0
        changed.append(json.dumps(record))
    (runs[0] / "rank.jsonl").write_text("\n".join(changed) + "\n")
    write_study(aggregate(runs), "Study", tmp_path)
    steps = json.loads((tmp_path / "rank_study.json").read_text())["variants"][0]["steps"]
    assert steps[0]["modalities"]["audio"]["gain"] is None and steps[0]["worth_it"]
    assert "something from nothing" in (tmp_path / "rank_study.md").read_text()


def test_variants_without_queues_are_shown_too(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"m{m}", 0, 0, momentum=m) for m in (0.5, 0.9)]
    write_study(aggregate(runs), "Study", tmp_path)
    names = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    shown = ("rank_of_held_out", "r_sum", "rank_and_r_sum")
    assert names == {f"{name}_m{m}_pclip" for name in shown for m in (0.5, 0.9)}
    assert "## Momentum 0.5, positives clip" in (tmp_path / "rank_study.md").read_text()
    assert "Tables (momentum 0.9, positives clip)" in (tmp_path / "index.html").read_text()
