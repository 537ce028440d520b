"""The command ``search`` as a user sees it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from sound_folders import write_sound
from tiny_bundle import make_bundle, make_public_clap

from atr_moco_plugin.commands import search as command
from atr_moco_plugin.commands.main import main
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.search.local import create_local
from atr_moco_plugin.search.store import IndexInfo

ODD = ["new\nline \x1b[31m.wav", "\N{DOG FACE}" * 40 + ".wav", os.fsdecode(b"\xe9t\xe9.wav")]
DOG = "a dog barks far away"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Path:
    folder = tmp_path_factory.mktemp("search")
    for number, name in enumerate(["a.wav", "b/c.wav", "b/long.wav", *ODD]):
        path = folder / "sounds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sound(folder / "x.wav", number, 3.0 if "long" in name else 0.5).rename(path)
    assert main([*"index --device cpu --index".split(), str(folder / "index"), "--model"]
                + [str(bundle), str(folder / "sounds")]) == 0  # fmt: skip
    return folder / "index"


def search(index: Path, *arguments: str) -> int:
    return main(["search", "--index", str(index), "--device", "cpu", *arguments])


def error(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    lines = [x for x in err.splitlines() if x.startswith("ERROR: ")]
    assert len(lines) == 1 and out == ""
    return lines[0].removeprefix("ERROR: ")


def found(index: Path, capsys: Any, *arguments: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert search(index, "--json", *arguments) == 0
    hits: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return hits


def test_a_sound_below_the_home_folder(
    index: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("HOME", str(index.parent))
    sounds = index.parent / "sounds"
    for given in ("~/sounds/a.wav", "$HOME/sounds/a.wav"):
        (like, *_) = found(index, capsys, "--like", given)
        assert like["path"] == str(sounds / "a.wav")


def test_hits_as_json(index: Path, bundle: Path, capsys: Any) -> None:
    hits = found(index, capsys, DOG)
    assert len(hits) == 6
    keys = {"path", "member", "start", "end", "moment", "score", "cosine", "reranked"}
    assert set(hits[0]) == keys | {"problem"} and not any(hit["problem"] for hit in hits)
    assert {Path(hit["path"]).name for hit in hits} == {"a.wav", "c.wav", "long.wav", *ODD}
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    (long,) = (hit for hit in hits if hit["path"].endswith("long.wav"))
    assert (long["start"], long["end"]) == (0, 3) and long["reranked"] is None
    # The best of its windows, by the model itself.
    retriever = AudioTextRetriever.from_pretrained(bundle, device="cpu")
    windows = list(retriever.windows(long["path"]))
    text = retriever.embed_text([DOG]).numpy()[0]
    cosines = [float(retriever.embed_windows([x.waveform])[0] @ text) for x in windows]
    best = windows[cosines.index(max(cosines))]
    assert long["moment"] == [best.start, best.end]
    assert long["score"] == pytest.approx(max(cosines), abs=1e-3)
    (first,) = found(index, capsys, DOG, "-k", "1")
    assert (first["moment"], first["score"]) == (hits[0]["moment"], hits[0]["score"])


def test_the_table(index: Path, capsys: Any) -> None:
    assert search(index, DOG) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert len(lines) == 7 and lines[0].split() == ["score", "from", "to", "best", "at", "path"]
    assert "\x1b" not in out and "new\\nline \\x1b[31m.wav" in out and "\\udce9t" in out
    assert "\N{DOG FACE}" * 40 in out  # a pipe has all of it
    assert any(line.split()[1:3] == ["0:00", "0:03"] for line in lines if "long.wav" in line)


def test_a_terminal_is_not_overrun(
    index: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert search(index, DOG) == 0
    for line in capsys.readouterr().out.splitlines():
        assert len(line) + line.count("\N{DOG FACE}") <= 60
        assert line.endswith(("path", ".wav"))


def test_several_sentences_and_sounds(
    index: Path, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = found(index, capsys, DOG, "--and", "rain", "--not", "siren")
    assert sorted(hit["path"] for hit in one) == sorted(
        h["path"] for h in found(index, capsys, DOG)
    )
    assert [hit["score"] for hit in one] == sorted((hit["score"] for hit in one), reverse=True)
    sound = one[-1]["path"]
    (like, *_) = found(index, capsys, "--like", sound)
    assert like["path"] == sound and like["score"] == pytest.approx(1, abs=2e-3)
    # A name that argparse would take for an option.
    (tmp_path / "-dog-3.wav").write_bytes(Path(sound).read_bytes())
    monkeypatch.chdir(tmp_path)
    assert found(index, capsys, "--like=-dog-3.wav")[0]["path"] == sound
    (both, *_) = found(index, capsys, "--like", sound, "--like", sound)
    assert both["path"] == sound
    assert len(found(index, capsys, DOG, "--like", sound)) == 6


def test_rerank(index: Path, capsys: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    hits = found(index, capsys, DOG, "--rerank")
    scores = [hit["reranked"] for hit in hits]
    assert scores == sorted(scores, reverse=True) and len(hits) == 6
    # The first of all is the first, however few are asked for.
    assert found(index, capsys, DOG, "--rerank", "-k", "1") == hits[:1]
    gone = Path(found(index, capsys, DOG)[0]["path"])
    gone.rename(gone.with_suffix(".gone"))
    try:
        assert search(index, DOG, "--rerank") == 0
        assert "no such file" in caplog.text
        lines = capsys.readouterr().out.splitlines()
        assert lines[1].split()[0].endswith("*") and lines[-1].startswith("* not re-ranked")
    finally:
        gone.with_suffix(".gone").rename(gone)


def test_files_that_are_gone_or_have_changed_are_said(
    bundle: Path, capsys: Any, tmp_path: Path
) -> None:
    sounds = [write_sound(tmp_path / "sounds" / f"{number}.wav", number) for number in range(4)]
    arguments = ["--model", str(bundle), "--device", "cpu", "--index", str(tmp_path / "index")]
    assert main(["index", str(tmp_path / "sounds"), *arguments]) == 0
    sounds[0].unlink()
    write_sound(sounds[1], 7, 0.9)
    said = {Path(x["path"]).name: x["problem"] for x in found(tmp_path / "index", capsys, DOG)}
    assert said.pop("0.wav") == "The file is gone since it was indexed."
    assert said.pop("1.wav").startswith("The file has changed since it was indexed: index again")
    assert said == {"2.wav": "", "3.wav": ""}
    assert search(tmp_path / "index", DOG) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 5 and err == (
        "NOTE: the files of 2 of the 4 hits are gone or have changed since they were indexed "
        "(--json says which): run `index` again.\n"
    )


@pytest.fixture(scope="module")
def banked(index: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a bank."""
    folder = tmp_path_factory.mktemp("banked")
    bank = folder / "bank.txt"
    bank.write_text("".join(f"a dog barks {n} times far away in the rain\n" for n in range(50)))
    sounds = str(index.parent / "sounds")
    options = ["--bank", str(bank), "--device", "cpu", "--model", str(bundle)]
    assert main(["index", sounds, "--index", str(folder / "index"), *options]) == 0
    return folder / "index"


def test_correct(index: Path, banked: Path, bundle: Path, capsys: Any) -> None:
    plain = found(banked, capsys, DOG)
    assert plain == found(index, capsys, DOG) == found(banked, capsys, DOG, "--correct", "0")
    hits = found(banked, capsys, DOG, "--correct")
    assert hits == found(banked, capsys, DOG, "--correct=0.75")
    assert [x["score"] for x in hits] == sorted((x["score"] for x in hits), reverse=True)
    # By the formula, with embeddings of the model itself.
    retriever = AudioTextRetriever.from_pretrained(bundle, device="cpu")
    lines = (banked.parent / "bank.txt").read_text().splitlines()
    bank = retriever.embed_text(lines).numpy().astype(float)
    text = retriever.embed_text(DOG).numpy()[0]
    for hit in hits:
        (window,) = [x for x in retriever.windows(hit["path"]) if [x.start, x.end] == hit["moment"]]
        vector = retriever.embed_windows([window.waveform])[0]
        offset = np.sort(bank @ vector)[-5:].mean()
        assert hit["cosine"] == pytest.approx(vector @ text, abs=1e-3)
        assert hit["score"] == pytest.approx(vector @ text - 0.75 * offset, abs=1e-3)
    (first,) = found(banked, capsys, DOG, "--correct", "-k", "1")
    assert first["score"] == hits[0]["score"]
    both = found(banked, capsys, DOG, "--and", "rain", "--not", "a bird", "--correct")
    assert len(both) == 6 and both != found(banked, capsys, DOG, "--and", "rain", "--not", "a bird")
    # The matching head scores what the correction has brought as it does without.
    reranked = {x["path"]: x["reranked"] for x in found(banked, capsys, DOG, "--rerank")}
    for hit in found(banked, capsys, DOG, "--rerank", "--correct"):
        assert hit["reranked"] == pytest.approx(reranked[hit["path"]], abs=1e-3)


def test_corrections_that_cannot_be(index: Path, banked: Path, capsys: Any) -> None:
    assert search(index, DOG, "--correct") == 2
    assert error(capsys) == (
        f"{index} has no bank to correct with: run `index` again with --bank SENTENCES.txt, or "
        "leave the correction out."
    )
    for more in ([], [DOG]):
        assert search(banked, *more, "--like", "a.wav", "--correct") == 2
        assert "--correct is for sentences, since the bank has no sounds" in error(capsys)
    for value, message in (
        (DOG, "is no number (give a sentence before it, or write --correct=0.75)"),
        ("7", "A correction of 7 is none: give a number from 0 to 4"),
        ("nan", "A correction of nan is none"),
    ):
        with pytest.raises(SystemExit, match="2"):
            search(banked, "--correct", value)
        assert message in capsys.readouterr().err


def test_filters(index: Path, capsys: Any) -> None:
    assert {Path(x["path"]).name for x in found(index, capsys, DOG, "--path", "*/b/*")} == {
        "c.wav",
        "long.wav",
    }
    assert len(found(index, capsys, DOG, "--min-seconds", "1")) == 1
    assert len(found(index, capsys, DOG, "--max-seconds", "1")) == 5
    assert search(index, DOG, "--path", "b") == 0
    out, err = capsys.readouterr()
    assert out == "" and "--path is compared with whole paths, '*b*' finds a part" in err
    assert found(index, capsys, DOG, "--min-seconds", "100") == []
    assert search(index, DOG, "--min-seconds", "2", "--max-seconds", "1") == 2
    assert "recordings of 2 s or more and 1 s or less are none" in error(capsys)
    assert search(index, DOG, "--path", "") == 2
    assert "the pattern of paths is empty" in error(capsys)


@pytest.mark.parametrize("option", ["--path", "--min-seconds", "--max-seconds"])
def test_a_filter_is_given_once(index: Path, capsys: Any, option: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        search(index, DOG, option, "1", option, "2")
    assert f"argument {option}: is given twice: give it once" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "There is nothing to search for: give a sentence"),
        ([""], "A sentence is empty"),
        ([" \n\t"], "A sentence is empty"),
        ([DOG, "--and", ""], "A sentence is empty"),
        ([DOG, "--not", " "], "A sentence is empty"),
        (["--not", DOG], "There is nothing to search for"),
        (["\udcff"], "has half of a character"),
        ([DOG, "--rerank", "--and", DOG], "--rerank compares one sentence"),
        (["--like", "missing.wav"], "There is no audio file missing.wav"),
        (["--like", __file__], "not readable as audio"),
    ],
)
def test_what_cannot_be_asked(
    index: Path, arguments: list[str], message: str, capsys: Any, tmp_path: Path
) -> None:
    assert search(index, *arguments) == 2
    assert message in error(capsys)


def test_odd_sentences(index: Path, capsys: Any) -> None:
    for sentence in (
        "<script>alert(1)</script> <b>dog</b>",
        "\N{DOG FACE}",
        "a\0dog",
        "dog " * 5000,
    ):
        capsys.readouterr()
        assert search(index, sentence, "-k", "1") == 0
        err = capsys.readouterr().err
        assert "tokens and are cut" in err or len(sentence) < 100
        assert all(line.startswith("NOTE: ") for line in err.splitlines())


def test_no_index_and_an_empty_one(tmp_path: Path, bundle: Path, capsys: Any) -> None:
    assert search(tmp_path / "none", DOG) == 2
    assert error(capsys) == f"{tmp_path}/none holds no index: fill it with `index` first."
    info = IndexInfo(
        model=str(bundle), fingerprint="0", embed_dim=12, sample_rate=16_000,
        window_seconds=1.0, hop_seconds=1.0,
    )  # fmt: skip
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/index.sqlite").write_bytes(b"what is this" * 1000)
    assert search(tmp_path / "damaged", DOG) == 2
    assert "damaged/index.sqlite is damaged (file is not a database): make" in error(capsys)
    create_local(tmp_path / "empty", info).__exit__(None, None, None)
    assert search(tmp_path / "empty", DOG) == 2
    assert error(capsys) == f"{tmp_path}/empty has no recordings yet: fill it with `index`."


def test_another_model(index: Path, tmp_path: Path, bundle: Path, capsys: Any) -> None:
    for other in (make_bundle(tmp_path / "other", seed=1), make_public_clap(tmp_path / "clap")):
        assert search(index, DOG, "--model", str(other)) == 2
        assert f"was made with the model {bundle}" in error(capsys)
    copy = shutil.copytree(bundle, tmp_path / "copy")
    assert found(index, capsys, DOG, "--model", str(copy)) == found(index, capsys, DOG)


def test_a_model_that_is_gone(tmp_path: Path, capsys: Any) -> None:
    bundle = make_bundle(tmp_path / "bundle", hop_seconds=0.5)
    write_sound(tmp_path / "sounds/a.wav")
    arguments = ["index", str(tmp_path / "sounds"), "--model", str(bundle), "--device", "cpu"]
    assert main([*arguments, "--index", str(tmp_path / "index")]) == 0
    moved = bundle.rename(tmp_path / "moved")
    capsys.readouterr()
    assert search(tmp_path / "index", DOG) == 2
    assert "cannot be loaded, --model says where it is now" in error(capsys)
    assert len(found(tmp_path / "index", capsys, DOG, "--model", str(moved))) == 1


def test_a_query_at_another_rate_and_with_channels(
    index: Path, capsys: Any, tmp_path: Path
) -> None:
    hit = found(index, capsys, DOG)[0]
    samples, rate = soundfile.read(hit["path"])
    soundfile.write(tmp_path / "stereo.flac", samples[:, None].repeat(2, axis=1), rate)
    (like, *_) = found(index, capsys, "--like", str(tmp_path / "stereo.flac"))
    assert like["path"] == hit["path"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (5, "0:05"), (62.5, "1:02.5"), (59.97, "1:00"), (7200, "2:00:00")],
)
def test_times(seconds: float, text: str) -> None:
    assert command._clock(seconds) == text


def test_a_sentence_without_quotes(index: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit, match="2"):
        search(index, "a", "dog", "barks")
    assert (
        "unrecognized arguments: dog barks (put the sentence in quotes)" in capsys.readouterr().err
    )


def test_version(capsys: Any) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out.split()[-1][0].isdigit()
