"""``finetune`` from Python: any form of pairs, and a ClapModel."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

if importlib.util.find_spec("accelerate") is None:
    pytest.skip("accelerate is not installed", allow_module_level=True)

from docs.pages import run_python
from finetune_world import stated
from sound_folders import write_sound
from tiny_bundle import make_public_clap
from trainer_world import make_clap, make_extractor

import atr_moco_plugin
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.finetuning.pairs import open_pairs
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


class Prepared(Exception):
    """Ends a call before its training."""


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Calls ``finetune``, and returns the run before its first step."""

    def stop(prepared: Any) -> None:
        raise Prepared(prepared)

    def call(pairs: Any, **options: Any) -> Any:
        with pytest.raises(Prepared) as found:
            atr_moco_plugin.finetune(pairs, tell=str, **options)
        return found.value.args[0]

    monkeypatch.setattr("atr_moco_plugin.hosts.transformers.finetune.function.run", stop)
    return call


def tones(count: int = 24) -> list[Any]:
    return [((tone(number), RATE), f"a tone of height {number}") for number in range(count)]


def test_the_start_may_be_in_the_configuration(tmp_path: Path, ready: Callable[..., Any]) -> None:
    source = make_public_clap(tmp_path / "clap")
    config = {**options(), "init": source}
    del config["model"]
    assert ready(tones(), output_dir=tmp_path / "out", config=config).start.name == str(source)
    ready(tones(), output_dir=tmp_path / "out", config=config, init=source)
    with pytest.raises(InputError, match="`init` is set twice, to '.*clap' and to 'random'"):
        ready(tones(), output_dir=tmp_path / "out", config=config, init="random")
    unset = {**options(), "init": None}
    assert ready(tones(), output_dir=tmp_path / "o", config=unset).config.init == "random"


def test_a_folder_of_pairs_may_be_in_the_configuration_once(
    tmp_path: Path, ready: Callable[..., Any]
) -> None:
    sounds = tmp_path / "sounds"
    for number in range(24):
        write_sound(sounds / "ab"[number % 2] / f"{number}.wav", number)
    config = {**options(), "dataset.config_overrides.root": sounds}
    run = ready(sounds, output_dir=tmp_path / "out", config=config)
    assert run.config.dataset.config_overrides == {"root": str(sounds)}
    with pytest.raises(InputError, match="root` is set twice, to '.*sounds' and to '.*other'"):
        ready(tmp_path / "other", output_dir=tmp_path / "out", config=config)


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_loop_is_transformers_where_it_is_left_open(
    tmp_path: Path, ready: Callable[..., Any], in_memory: bool
) -> None:
    sounds = tmp_path / "sounds"
    for number in range(24):
        write_sound(sounds / "ab"[number % 2] / f"{number}.wav", number)
    pairs = tones() if in_memory else sounds
    config = options(loop="auto")
    run = ready(pairs, output_dir=tmp_path / "out", config=config)
    assert run.config.loop == "transformers"
    with pytest.raises(InputError, match="`gang.x` is not known to the loop of transformers"):
        ready(pairs, output_dir=tmp_path / "out", config={**config, "gang.x": 1})
    with pytest.raises(InputError, match="`loop` is 'jax'"):
        ready(pairs, output_dir=tmp_path / "out", config={**config, "loop": "jax"})


def test_splits_are_drawn_by_the_seed_of_the_run(tmp_path: Path, ready: Callable[..., Any]) -> None:
    """They were drawn by 0 where none was set, and the run said 2."""
    run = ready(tones(), output_dir=tmp_path / "out", config=options())
    again = {**options(), "common.seed": run.config.common.seed}
    other = ready(tones(), output_dir=tmp_path / "out", config=again)
    assert other.dataset.fingerprint() == run.dataset.fingerprint()
    with pytest.raises(InputError, match="`common.seed` is 'x'"):
        ready(tones(), output_dir=tmp_path / "out", config={**options(), "common.seed": "x"})


def test_a_run_of_splits_that_were_drawn_otherwise_goes_on_with_them_alone(tmp_path: Path) -> None:
    config = options(regime__num_steps=3, common__seed=2)
    where: dict[str, Any] = {"output_dir": tmp_path, "config": config, "device": "cpu"}
    before = open_pairs(tones(), seed=0)  # as earlier releases drew them
    first = atr_moco_plugin.finetune(before, **where)
    with pytest.raises(InputError, match="fingerprint was '.*resume with the settings of the run"):
        atr_moco_plugin.finetune(tones(), **where)
    again = atr_moco_plugin.finetune(open_pairs(tones(), seed=0), **where)
    assert again.fingerprint == first.fingerprint


def test_what_cannot_be_asked_for_is_refused(tmp_path: Path) -> None:
    data = open_pairs(tones())
    for split in ("valid", "test"):
        with pytest.raises(InputError, match="an open data set, whose splits are its own: leave"):
            atr_moco_plugin.finetune(data, output_dir=tmp_path / "out", **{split: tones()})
    other = {"valid": "dataset.valid_split", "test": "evaluation.test_split"}
    for split, key in other.items():
        call = {"output_dir": tmp_path / "out", "config": {key: "train"}, split: tones()}
        with pytest.raises(InputError, match=f"`{key}` is set twice, to 'train' and to '{split}'"):
            atr_moco_plugin.finetune(tones(), **call)
    with pytest.raises(InputError, match="`loop` is fairseq2"):
        atr_moco_plugin.finetune([], output_dir=tmp_path, config={"loop": "fairseq2"})
    with pytest.raises(InputError, match="whose splits are its own"):
        atr_moco_plugin.finetune(tmp_path, output_dir=tmp_path / "out", valid=[])
