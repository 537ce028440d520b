"""``finetune`` from Python: any form of pairs, and a ClapModel."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

if importlib.util.find_spec("accelerate") is None:
    pytest.skip("accelerate is not installed", allow_module_level=True)

from docs.pages import run_python
from finetune_world import stated
from trainer_world import make_clap, make_extractor

import atr_moco_plugin
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.text.tokenizer import train_wordpiece

RATE = 8_000


def tone(number: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Half a second, another one for each number."""
    time = np.arange(RATE // 2, dtype=np.float32) / RATE
    return (0.3 * np.sin(2 * np.pi * (200 + 50 * number) * time)).astype(np.float32)


def options(**changes: Any) -> dict[str, Any]:
    """Those of a tiny run without its data set, which the pairs are."""
    tree = stated(**changes)
    del tree["dataset"]["family"], tree["dataset"]["config_overrides"], tree["init"]
    return tree


def test_pairs_become_a_retriever(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs: list[Any] = []
    for number in range(24):
        caption = f"a tone of height {number}"
        if number % 2:
            pairs.append(({"array": tone(number), "sampling_rate": RATE}, caption))
        else:
            soundfile.write(tmp_path / f"{number}.wav", tone(number), RATE)
            pairs.append({"audio": str(tmp_path / f"{number}.wav"), "caption": [caption, "a tone"]})
    out, config = tmp_path / "out", options()
    config["common"] = {"seed": None}  # the default
    retriever = atr_moco_plugin.finetune(
        pairs, init="random", output_dir=out, config=config, device="cpu"
    )
    assert retriever.embed_audio([tone(1)], sample_rate=RATE).shape == (1, 16)
    shown = capsys.readouterr().out
    assert "regime.num_steps" in shown and "as you set it" in shown
    assert (out / "bundle" / "config.json").is_file() and (out / "retrieval.json").is_file()


def test_the_code_of_finetune_md(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sounds").mkdir()
    for number, name in enumerate(("dog", "rain")):
        soundfile.write(tmp_path / "sounds" / f"{name}.wav", tone(number), RATE)
    others = [((tone(number), RATE), f"a tone of height {number}") for number in range(2, 24)]
    given = {"others": others, "start": "random"}
    found = run_python("docs/finetune.md", {**given, "config": options()})
    assert found["retriever"].embed_dim == 16


def test_a_clap_model_goes_on_training(tmp_path: Path) -> None:
    captions = [f"a tone of height {number}" for number in range(24)]
    tokenizer = train_wordpiece(captions)
    tokenizer.model_max_length = 32
    source = tmp_path / "clap"
    make_clap(len(tokenizer)).save_pretrained(source)
    make_extractor(max_length_s=1).save_pretrained(source)
    tokenizer.save_pretrained(source)
    config = options()
    del config["model"], config["loop"]
    config["model"] = {"config_overrides": {"text": {"freeze": "all"}}}
    retriever = atr_moco_plugin.finetune(
        [((tone(number), RATE), caption) for number, caption in enumerate(captions)],
        init=source, output_dir=tmp_path / "out", config=config, device="cpu",
    )  # fmt: skip
    assert retriever.embed_text(["a tone of height 3"]).shape == (1, 12)
    again = atr_moco_plugin.AudioTextRetriever.from_pretrained(tmp_path / "out" / "bundle")
    assert again.fingerprint == retriever.fingerprint


def test_what_cannot_be_asked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`loop` is fairseq2"):
        atr_moco_plugin.finetune([], output_dir=tmp_path, config={"loop": "fairseq2"})
    with pytest.raises(InputError, match="whose splits are its own"):
        atr_moco_plugin.finetune(tmp_path, output_dir=tmp_path / "out", valid=[])
