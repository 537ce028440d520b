"""From a run of the recipe `esc50` to an answer, by the commands that a user types.

    python -m atr_moco_plugin.recipes.esc50 RUN --config dataset.config_overrides.root=ROOT
    python -m benchmarks.find_sounds RUN ROOT

Exports the run, indexes the clips of its test split, classifies them with the phrases of their
classes, and searches with each phrase. The figures must be those of the run's own evaluation.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from atr_moco_plugin.data.sets.esc50 import Esc50Config, open_esc50
from atr_moco_plugin.evaluation import Table


def command(*arguments: str | Path) -> Any:
    """Run a command of the package; returns what it prints as JSON."""
    start = time.perf_counter()
    line = [sys.executable, "-m", "atr_moco_plugin", *map(str, arguments)]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
    print(f"{time.perf_counter() - start:6.1f} s  atr-moco {arguments[0]}", file=sys.stderr)
    return json.loads(done.stdout) if "--json" in arguments else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("root", type=Path)
    options = parser.parse_args()

    clips = open_esc50(Esc50Config(root=options.root)).clips("test")
    class_of = {str(Path(clip.source).resolve()): clip.caption_group for clip in clips}
    phrases = {clip.caption_group: list(clip.captions) for clip in clips}
    result = json.loads((options.run / "retrieval.json").read_text())
    figures = result["splits"]["test"]["dual"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle, index = folder / "bundle", folder / "index"
        (folder / "files.txt").write_text("".join(f"{path}\n" for path in class_of))
        (folder / "labels.json").write_text(json.dumps(phrases))
        files = ("--list", folder / "files.txt", "--model", bundle)
        command("export", options.run, bundle)
        command("index", *files, "--index", index)
        labelled = command("classify", *files, "--labels-file", folder / "labels.json", "--json")
        right = [class_of[sound["path"]] == sound["label"] for sound in labelled["sounds"]]
        found = []
        for label, sentences in phrases.items():
            for sentence in sentences:
                hits = command("search", sentence, "--index", index, "-k", "1", "--json")
                found.append(class_of[hits[0]["path"]] == label)
    rows = [
        ("classify, right label", len(right), 100 * sum(right) / len(right), figures["a2t_r1"]),
        (
            "search, right first hit",
            len(found),
            100 * sum(found) / len(found),
            figures["t2a_precision1"],
        ),
    ]
    header = ["by the commands", "of", "%", "the run's evaluation, %"]
    cells = [[title, str(n), f"{own:.2f}", f"{recipe:.2f}"] for title, n, own, recipe in rows]
    print(Table(header, cells).text())
    sys.exit(any(abs(own - recipe) > 1e-9 for _, _, own, recipe in rows))


if __name__ == "__main__":
    main()
