"""From the command to a bundle: a folder of 240 clips, with and without fairseq2.

    python -m benchmarks.finetune SHARED/data/esc50-16k [OUT]

Of the ten classes of ESC-10, 24 clips each are copied into sub-folders, whose names are captions.
The audio encoder is the small third-party one of ``tests/plugins/acme_atr``, from random weights;
the text encoder is the MiniLM, frozen. A row for each loop: seconds from the start of the command
to its end, and precision@1 on the test clips. Beside it the recipe ``esc50`` with the same encoders
on the same clips: its captions are three phrases a class, its splits those of the table.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
CLIPS = 24
TABLE = "esc50_16k.csv"
OPTIONS = (
    "model.arch=small",
    "model.config_overrides.audio.name=acme_cnn",
    "model.config_overrides.text.freeze=all",
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("esc50", type=Path, help="folder with esc50_16k.csv and audio/")
    parser.add_argument("out", type=Path, nargs="?", help="where the runs are kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        folder, layout = out / "folder", out / "layout"
        copied = copy_clips(options.esc50, folder, layout)
        install_acme(out / "site")
        print(f"{copied} clips\n\n| run | seconds | a2t P@1 | t2a P@1 |\n|---|---:|---:|---:|")
        for loop in ("fairseq2", "transformers"):
            measure(loop, out, "finetune", [f"root={folder}"], [f"loop={loop}", *OPTIONS])
            assert (out / loop / "bundle" / "config.json").is_file()
        measure("esc50", out, "esc50", [f"root={layout}"], OPTIONS[1:])


def measure(name: str, out: Path, recipe: str, data: Sequence[str], keys: Sequence[str]) -> None:
    """Run a recipe, and print its row."""
    run = out / name
    shutil.rmtree(run, ignore_errors=True)
    values = [*(f"dataset.config_overrides.{x}" for x in data), *keys]
    command = [sys.executable, "-m", f"atr_moco_plugin.recipes.{recipe}", str(run)]
    path = os.pathsep.join(map(str, (ROOT, out / "site")))
    started = time.perf_counter()
    with (out / f"{name}.log").open("w") as log:
        subprocess.run(
            [*command, "--config", *values],
            check=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            stdout=log,
            stderr=log,
        )
    seconds = time.perf_counter() - started
    dual = json.loads((run / "retrieval.json").read_text())["splits"]["test"]["dual"]
    print(f"| {name} | {seconds:.0f} | {dual['a2t_r1']:.1f} | {dual['t2a_r1']:.1f} |", flush=True)


def copy_clips(esc50: Path, folder: Path, layout: Path) -> int:
    """Copy clips into a sub-folder for each class, and again in ESC-50's layout; how many."""
    for place in (folder, layout):
        shutil.rmtree(place, ignore_errors=True)
    (layout / "audio").mkdir(parents=True)
    counts: Counter[str] = Counter()
    rows = []
    with (esc50 / TABLE).open(newline="") as lines:
        for row in csv.DictReader(lines):
            if row["esc10"] == "True" and counts[row["category"]] < CLIPS:
                counts[row["category"]] += 1
                rows.append(row)
    for row in rows:
        for place in (folder / row["category"], layout / "audio"):
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(esc50 / "audio" / row["filename"], place)
    with (layout / TABLE).open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    return len(rows)


def install_acme(site: Path) -> None:
    """Put the package ``acme_atr`` of the tests into a folder, entry points and all."""
    source = ROOT / "tests" / "plugins" / "acme_atr"
    shutil.rmtree(site, ignore_errors=True)
    shutil.copytree(source / "src" / "acme_atr", site / "acme_atr")
    info = site / "acme_atr-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-atr\nVersion: 0.1\n")
    points = "[atr_moco_plugin.audio_encoders]\nacme_cnn = acme_atr.audio:Cnn\n"
    (info / "entry_points.txt").write_text(points)


if __name__ == "__main__":
    main()
