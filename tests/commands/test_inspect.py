from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from other_tokenizers import CAPTIONS

from atr_moco_plugin.commands.dataset_options import dataset_options
from atr_moco_plugin.commands.main import main
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.text.tokenizer import train_wordpiece


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A manifest of two clips with one caption; the second is silent."""
    root = tmp_path / "set"
    root.mkdir()
    rng = np.random.default_rng(0)
    soundfile.write(root / "a.wav", rng.uniform(-0.5, 0.5, 16_000), 16_000)
    soundfile.write(root / "b.wav", np.zeros(16_000), 16_000)
    (root / "manifest.csv").write_text(
        "file_name,caption,split\na.wav,A dog barks,train\nb.wav,A dog barks,test\n"
    )
    return root


def inspect(root: Path, *arguments: object) -> int:
    config = ["dataset.family=manifest", f"dataset.config_overrides.root={root}"]
    return main(["inspect", "--config", *config, *map(str, arguments)])


def test_tables_list_and_page(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    page, listed = tmp_path / "page.html", tmp_path / "exclude.txt"
    assert inspect(root, "--page", page, "--exclude", listed) == 0
    out, err = capfd.readouterr()
    assert "silence" in out and "shared caption" in out
    assert "To be left out: " in out
    assert "no tokenizer was given" in err
    assert listed.read_text() == "b.wav\n"
    assert "<audio" in page.read_text()


def test_the_list_leaves_out_what_was_found(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (root / "manifest.csv").write_text(
        "file_name,caption,split\na.wav,A dog,train\nb.wav,A cat,test\nc.wav,A cow,train\n"
    )
    (root / "c.wav").write_bytes((root / "a.wav").read_bytes())
    listed = tmp_path / "exclude.txt"
    assert inspect(root, "--exclude", listed) == 0
    assert set(listed.read_text().split()) == {"b.wav", "c.wav"}
    capfd.readouterr()
    config = ["dataset.family=manifest", f"dataset.config_overrides.root={root}"]
    config.append(f"dataset.config_overrides.exclude={listed}")
    assert main(["inspect", "--config", *config, "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["exclude"] == []
    assert report["splits"]["train"]["left_out"] == {"excluded": 1}


def test_what_was_found_is_printed_where_a_list_cannot_be_written(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (root / "manifest.csv").write_text('file_name,caption,split\n"b\nb.wav",A dog barks,train\n')
    (root / "b.wav").rename(root / "b\nb.wav")
    assert inspect(root, "--exclude", tmp_path / "exclude.txt") == 2
    out, err = capfd.readouterr()
    assert "silence" in out
    assert "has a line break in its key" in err


def test_json_has_everything(root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train_wordpiece(CAPTIONS * 2).save_pretrained(tmp_path / "tokenizer")
    against = ["dataset.family=manifest", f"dataset.config_overrides.root={root}"]
    tokenizer = ["--tokenizer", tmp_path / "tokenizer", "--max-tokens", 4]
    assert inspect(root, "--json", *tokenizer, "--against", *against) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["against"] == ["manifest (2)"]
    assert report["exclude"] == ["b.wav"]
    assert report["found"]["cut caption"] == {"train": 1, "test": 1}
    kinds = {finding["kind"] for finding in report["findings"]}
    assert {"silence", "shared caption", "leak of audio", "leak of captions"} <= kinds


def test_the_data_set_of_a_run_is_named_by_its_configuration(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "model: {arch: base}\n"
        f"dataset: {{family: manifest, batch_size: 4, config_overrides: {{root: {root}}}}}\n"
    )
    assert main(["inspect", "--config-file", str(file), "--captions-only", "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["splits"]["train"]["audio"] is None
    own = dataset_options(["dataset.config_overrides.split=valid"], file)
    assert own.overrides == {"root": str(root), "split": "valid"}
    assert (own.family, own.decoder) == ("manifest", "soundfile")


def test_a_configuration_below_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "config.yaml").write_text("dataset: {family: toy}")
    for given in ("~/config.yaml", "$HOME/config.yaml"):
        assert dataset_options([], Path(given)).family == "toy"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "dataset.batch_size=4"], "dataset.batch_size=4"),
        (
            ["--config", "dataset.family=toy", "dataset.familiy=esc50"],
            "not 'dataset.familiy=esc50'",
        ),
        (["--config", "dataset.family"], "not 'dataset.family'"),
        (["--config", "dataset.config_overrides.root=x"], "There is no data set: give --config"),
        (["--page", "page.html"], "for files of your own NAME is manifest and PATH a table"),
        (["--config", "dataset.family=cloth"], "Did you mean clotho?"),
        (["--config", "dataset.family=toy", "dataset.decoder=ffmpeg"], "`dataset.decoder` is"),
        (["--config", "dataset.family=toy", "dataset.config_overrides=4"], "expected names"),
        (["--config", "dataset.family=[", "dataset.decoder=x"], "put it in quotes"),
        (["--config-file", "nowhere.yaml"], "nowhere.yaml: there is no such configuration"),
        (["--config", "dataset.family=toy", "--max-tokens", "4"], "nothing without --tokenizer"),
        (["--config", "dataset.family=toy", "--examples", "4"], "nothing without --page"),
        (
            ["--config", "dataset.family=manifest", "dataset.decoder=soundfile"]
            + ["dataset.config_overrides.decoder=torchcodec"],
            "set `dataset.decoder` alone",
        ),
        (
            ["--config", "dataset.family=manifest", "dataset.config_overrides.exclude=./x.txt"]
            + ["--exclude", "x.txt"],
            "is the list that the data set leaves out already",
        ),
        (["--config", "dataset.family=toy", "--page", "page.pdf"], "a page ends in .html"),
        (["--config", "dataset.family=toy", "--page", "/dev/null/a.html"], "cannot be made"),
        (["--config", "dataset.family=toy", "--exclude", "/"], "no file can be written there"),
        (["--config", "dataset.family=toy", "--tokenizer", "./nowhere"], "nowhere"),
        (
            ["--config", "dataset.family=toy", "--against", "dataset.family=toy"]
            + ["dataset.decoder=torchcodec"],
            "the files of all data sets are decoded alike",
        ),
        (
            ["--config", "dataset.family=toy", "--against", "dataset.family=clotho"],
            "Clotho needs its folder",
        ),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", *arguments]) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.startswith("ERROR: ") and error.count("\n") == 1


def test_a_configuration_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    for content in ("dataset: [", "dataset: 4", "- 1", "dataset: {config_overrides: x}"):
        file.write_text(content)
        with pytest.raises(InputError, match="config.yaml"):
            dataset_options([], file)


def test_values_are_read_as_a_recipe_reads_them(tmp_path: Path) -> None:
    """YAML 1.1 has no number in 1e-1, a truth value in no, and 45,000 in 12:30:00."""
    options = {"valid_fraction": "1e-1", "name": "no", "at": "12:30:00"}
    pairs = [f"dataset.config_overrides.{name}={value}" for name, value in options.items()]
    expected = {"valid_fraction": 0.1, "name": "no", "at": "12:30:00"}
    assert dataset_options(["dataset.family=toy", *pairs]).overrides == expected
    file = tmp_path / "config.yaml"
    values = ", ".join(f"{name}: {value}" for name, value in options.items())
    file.write_text(f"dataset: {{family: toy, config_overrides: {{{values}}}}}")
    assert dataset_options([], file).overrides == expected


@pytest.mark.slow
def test_it_works_without_fairseq2(root: Path) -> None:
    code = (
        "import sys; sys.modules['fairseq2'] = None\n"
        "from atr_moco_plugin.commands.main import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    config = ["dataset.family=manifest", f"dataset.config_overrides.root={root}"]
    command = [sys.executable, "-c", code, "inspect", "--config", *config]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "silence" in done.stdout
