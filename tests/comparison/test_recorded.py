"""What a folder says of itself."""

from __future__ import annotations

import json
from pathlib import Path

from atr_moco_plugin.comparison.recorded import read_recorded


def test_what_an_evaluation_writes_besides_is_no_part_of_its_recipe(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("common: {seed: 1}\nlr: 0.1\n")
    found = []
    b = "correct: [nnn]\nsplit: valid\ncorrect_bank_size: 500\n"
    for name, content in (("a", "split: test\nsave_embeddings: true\n"), ("b", b)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.yaml").write_text(content)
        (folder / "retrieval.json").write_text(json.dumps({"run": str(tmp_path / "run")}))
        found.append(read_recorded(folder).config)
    assert found[0] == {"lr of the run": 0.1, "split": "test"}
    assert found[1] == {"lr of the run": 0.1, "split": "valid", "correct_bank_size": 500}
