"""The command ``index`` as a user sees it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sound_folders import write_sound
from tiny_bundle import make_bundle

from atr_moco_plugin.commands import index as command
from atr_moco_plugin.commands.main import main
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.search.local import create_local, open_local


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    for number in range(3):
        write_sound(tmp_path / f"sounds/{number}.wav", number)
    return tmp_path / "sounds"


def index(sounds: Path, bundle: Path, *more: str) -> int:
    arguments = ["index", str(sounds), "--model", str(bundle), "--device", "cpu"]
    return main([*arguments, "--index", str(sounds.parent / "index"), *more])


def error(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("ERROR: ")]
    assert len(lines) == 1
    return lines[0].removeprefix("ERROR: ")


def test_it_says_what_it_did(sounds: Path, bundle: Path, capsys: Any) -> None:
    (sounds / "broken.wav").write_text("text")
    (sounds / "notes.txt").write_text("text")
    assert index(sounds, bundle) == 0
    out, err = capsys.readouterr()
    assert "3 new, 1 broken; 3 windows of 2 s embedded" in out
    assert "1 other file passed over (1 .txt)" in out
    assert f"{sounds.resolve()}/broken.wav: not readable as audio" in err
    assert "4 of 4 recordings" in err
    assert index(sounds, bundle) == 0
    assert "3 unchanged, 1 broken" in capsys.readouterr().out


def test_a_home_folder_is_one_in_every_argument(
    sounds: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A shell leaves ``~`` after ``=`` as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    given = ["index", "~/sounds", "--model", str(bundle), "--device", "cpu", "--index=~/s.index"]
    assert main(given) == 0
    assert (tmp_path / "s.index").is_dir() and not (tmp_path / "~").exists()
    assert main(["search", "a dog", "--index=$HOME/s.index", "--device", "cpu"]) == 0


def test_json_on_standard_output_alone(sounds: Path, bundle: Path, capsys: Any) -> None:
    name = os.fsdecode(b"\xff\n.wav")
    (sounds / name).write_text("no sound")
    assert index(sounds, bundle, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["new"], report["windows"], report["interrupted"]) == (3, 3, False)
    assert report["broken"][0][0] == f"{sounds.resolve()}/{name}"


def test_odd_names_are_indexed_and_shown_on_one_line(
    sounds: Path, bundle: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["new\nline.wav", "\U0001f415.wav", os.fsdecode(b"\xe9t\xe9.wav"), "--index.wav"]
    for number, name in enumerate(names):
        write_sound(sounds / "x.wav", number).rename(sounds / name)
    (sounds / "bro\nken.wav").write_text("no sound")
    monkeypatch.chdir(sounds.parent)
    sounds.rename("-sounds")
    arguments = ["--model", str(bundle), "--index", "index", "--device", "cpu", "--", "-sounds"]
    assert main(["index", *arguments]) == 0
    assert "bro\\nken.wav: not readable" in capsys.readouterr().err
    with open_local(tmp_path / "index") as store:
        found = {os.path.basename(x.path) for x in store.recordings() if not x.problem}
    assert found == {*names, "0.wav", "1.wav", "2.wav"}


def test_a_folder_without_sounds_makes_no_index(tmp_path: Path, bundle: Path, capsys: Any) -> None:
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds/a.m4a").touch()
    assert index(tmp_path / "sounds", bundle) == 2
    assert "has no sounds (passed over: 1 .m4a); give another folder" in error(capsys)
    assert index(tmp_path / "none", bundle) == 2
    assert error(capsys) == f"{tmp_path.resolve()}/none: no such file or folder"
    assert not (tmp_path / "index").exists()


def test_an_index_of_another_model_or_other_windows_is_refused(
    sounds: Path, bundle: Path, tmp_path: Path, capsys: Any
) -> None:
    assert index(sounds, bundle) == 0
    before = (tmp_path / "index/index.sqlite").read_bytes()
    for other in (
        make_bundle(tmp_path / "other", 1, hop_seconds=0.5),
        make_bundle(tmp_path / "windows", hop_seconds=1.0),
    ):
        capsys.readouterr()
        assert index(sounds, other) == 2
        assert "model" in error(capsys)
    assert (tmp_path / "index/index.sqlite").read_bytes() == before


def sentences(file: Path, numbers: range, *more: str) -> str:
    words = "a dog barks far away rain falls siren wails".split()
    lines = [f"{' '.join(random.Random(n).choices(words, k=5))} {n}" for n in numbers]
    file.write_text("\n".join([*lines, *more]))
    return str(file)


def corrected(folder: Path) -> tuple[list[float], list[float]]:
    """Cosines and scores of the windows."""
    with open_local(folder) as store:
        query = np.eye(1, store.info.embed_dim, dtype=np.float32)
        hits = sorted(store.nearest(query, 9, alpha=1.0)[0], key=lambda hit: hit.window)
        return [hit.cosine for hit in hits], [hit.score for hit in hits]


def test_a_bank_is_kept_and_changed_without_reading_a_sound(
    sounds: Path, bundle: Path, tmp_path: Path, capsys: Any
) -> None:
    bank, folder = tmp_path / "bank.txt", tmp_path / "index"
    assert index(sounds, bundle, "--bank", sentences(bank, range(40))) == 0
    out, err = capsys.readouterr()
    assert "; a bank of 40 sentences, 4 neighbours\n" in out and "40/40" in err
    cosines, first = corrected(folder)
    assert all(cosine != score for cosine, score in zip(cosines, first, strict=True))
    # The same sentences in another order and twice are the same bank: nothing is embedded again.
    twice = bank.read_text().splitlines()[7:9]
    assert index(sounds, bundle, "--bank", sentences(bank, range(39, -1, -1), *twice)) == 0
    out, err = capsys.readouterr()
    assert "3 unchanged" in out and "sentence" not in err
    # A recording that comes later is corrected too, without naming the bank again.
    write_sound(sounds / "later.wav", 8)
    assert index(sounds, bundle, "--json") == 0
    assert json.loads(capsys.readouterr().out)["bank"]["sentences"] == 40
    assert len(corrected(folder)[1]) == 4
    # Another bank: from the vectors, so that sounds that nobody could read do not matter.
    cosines, first = corrected(folder)
    for path in sounds.iterdir():
        state = path.stat()
        path.write_bytes(bytes(state.st_size))
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert index(sounds, bundle, "--bank", sentences(bank, range(100, 300)), "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["unchanged"], report["windows"], report["broken"]) == (4, 0, [])
    assert (report["bank"]["sentences"], report["bank"]["neighbours"]) == (200, 20)
    second = corrected(folder)
    assert second[0] == cosines and second[1] != first
    # The same sentences, of which fewer count.
    assert index(sounds, bundle, "--bank", str(bank), "--neighbours", "1") == 0
    assert "a bank of 200 sentences, 1 neighbour\n" in capsys.readouterr().out
    assert all(a < b for a, b in zip(corrected(folder)[1], second[1], strict=True))
    capsys.readouterr()
    assert index(sounds, bundle, "--neighbours", "1") == 2
    assert error(capsys) == "--neighbours are sentences of a bank: give --bank FILE too."
    # What is refused changes no bank.
    assert index(tmp_path / "nowhere", bundle, "--no-bank") == 2
    assert index(tmp_path / "nowhere", bundle, "--bank", str(bank)) == 2
    table = tmp_path / "table.csv"
    table.write_text(f"file_name,caption\n{sounds / 'a.wav'},rain\n,wind\n")
    capsys.readouterr()
    for changed in (["--no-bank"], ["--bank", sentences(tmp_path / "other.txt", range(50))]):
        assert index(table, bundle, *changed) == 2
        assert "row 2 names no file" in error(capsys)
    assert all(a < b for a, b in zip(corrected(folder)[1], second[1], strict=True))
    capsys.readouterr()
    assert index(sounds, bundle, "--no-bank") == 0
    assert "a bank of" not in capsys.readouterr().out
    with pytest.raises(InputError, match="has no bank"):
        corrected(folder)


def test_notes_on_a_bank_count_all_of_it(
    sounds: Path, bundle: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atr_moco_plugin.retriever.runner._SENTENCES", 8)  # tokenized at once
    long = [f"a dog barks {'far away ' * 20}{n}" for n in range(5)]
    bank = tmp_path / "bank.txt"
    bank.write_text("\n".join([*(f"rain {n}" for n in range(40)), *long, *"\u72ac\u732b\u9ce5"]))
    assert index(sounds, bundle, "--bank", str(bank)) == 0
    err = capsys.readouterr().err
    cut, lost = (line for line in err.splitlines() if line.startswith("NOTE: "))
    assert cut.startswith("NOTE: 5 of 48 sentences are longer than the model's 16 tokens")
    assert lost.startswith("NOTE: the model knows no word of 3 of 48 sentences, such as '")
    assert "48/48" in err


def test_a_bank_is_left_where_ctrl_c_is_pressed(bundle: Path, tmp_path: Path) -> None:
    retriever = AudioTextRetriever.from_pretrained(bundle, device="cpu", batch_size=4)
    asked = iter([False, True])
    lines = Path(sentences(tmp_path / "bank.txt", range(40))).read_text().splitlines()
    assert command._embedded(retriever, lines, lambda: next(asked)) is None
    assert next(asked, None) is None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "has no line: give one sentence a line"),
        ("a dog barks\n" * 30, "has 1 different sentences, expected 10 to 100,000: give captions"),
        ("a dog barks\n\nrain\n", "line 2: '' has no word; correct or remove it"),
        ("caf\xe9", "cannot be read as UTF-8 text"),
    ],
)
def test_a_bank_that_is_none_is_refused_before_there_is_an_index(
    sounds: Path, bundle: Path, tmp_path: Path, capsys: Any, lines: str, message: str
) -> None:
    bank = tmp_path / "bank.txt"
    assert index(sounds, bundle, "--bank", str(bank)) == 2
    assert error(capsys) == f"{bank}: there is no such file of sentences."
    (tmp_path / "bank.csv").write_text("file,caption\n" + "a.wav,a dog barks\n" * 30)
    assert index(sounds, bundle, "--bank", str(tmp_path / "bank.csv")) == 2
    assert error(capsys).endswith("bank.csv is a table: give a text file with one sentence a line.")
    bank.write_bytes(lines.encode("latin-1"))
    assert index(sounds, bundle, "--bank", str(bank)) == 2
    said = error(capsys)
    assert str(bank) in said and message in said
    assert not (tmp_path / "index").exists()
    with pytest.raises(SystemExit):
        index(sounds, bundle, "--bank", str(bank), "--no-bank")


def test_two_writers_are_refused(sounds: Path, bundle: Path, capsys: Any) -> None:
    assert index(sounds, bundle) == 0
    capsys.readouterr()
    with open_local(sounds.parent / "index") as reader:
        info = reader.info
    code = (
        "import sys; from pathlib import Path\n"
        "from atr_moco_plugin.search.local import open_local\n"
        "store = open_local(Path(sys.argv[1]), write=True); print('open', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(sounds.parent / "index")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "open\n"
        assert index(sounds, bundle) == 2
        assert f"process {other.pid}" in error(capsys)
        other.kill()
    with create_local(sounds.parent / "index", info):
        pass


def test_a_folder_that_cannot_be_an_index_is_refused(
    sounds: Path, bundle: Path, capsys: Any
) -> None:
    assert main(["index", str(sounds), "--model", str(bundle), "--index", str(sounds)]) == 2
    assert "has other files in it" in error(capsys)


@pytest.mark.slow  # starts the command a few times
def test_ctrl_c_writes_what_is_embedded_and_the_next_run_goes_on(
    tmp_path: Path, bundle: Path
) -> None:
    for number in range(1500):
        write_sound(tmp_path / f"sounds/{number:04}.wav", number, 1.0)
    command = [
        sys.executable, "-m", "atr_moco_plugin", "index", str(tmp_path / "sounds"), "--json",
        "--model", str(bundle), "--device", "cpu", "--index", str(tmp_path / "index"),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stderr is not None and running.stdout is not None
        text = b""
        while b"windows" not in text:  # of the bar
            text += running.stderr.read1(100)  # type: ignore[attr-defined]
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    report = json.loads(out)
    assert running.returncode == 130 and report["interrupted"] and 0 < report["new"] < 1500
    assert b"Interrupted: run the same command again to go on." in err
    again = subprocess.run(command, capture_output=True, check=True, timeout=300)
    rest = json.loads(again.stdout)
    assert (rest["new"], rest["unchanged"]) == (1500 - report["new"], report["new"])


@pytest.mark.slow  # starts the command
def test_a_full_disk_is_one_sentence_and_the_index_stays_whole(
    tmp_path: Path, bundle: Path
) -> None:
    def write(numbers: range) -> None:
        for number in numbers:
            write_sound(tmp_path / f"sounds/{number:04}.wav", number)

    arguments = [
        "index", str(tmp_path / "sounds"), "--json", "--model", str(bundle), "--device", "cpu",
        "--index", str(tmp_path / "index"),
    ]  # fmt: skip
    command = [sys.executable, "-m", "atr_moco_plugin", *arguments]
    write(range(100))
    subprocess.run(command, capture_output=True, check=True)
    write(range(100, 500))
    # No file may grow beyond this, as on a disk that is full then.
    limit = "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (80_000, r.RLIM_INFINITY));"
    code = f"import sys; {limit} from atr_moco_plugin.commands.main import main; sys.exit(main())"
    ended = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("ERROR: ") and "disk" in ended.stderr
    with open_local(tmp_path / "index") as store:
        done = store.counts().recordings
    assert 100 <= done < 500
    again = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert (again["unchanged"], again["new"]) == (done, 500 - done)
