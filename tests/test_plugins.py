from __future__ import annotations

import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from atr_moco_plugin import available, load
from atr_moco_plugin.commands.main import main
from atr_moco_plugin.criterion import MocoAtc, MocoAtcAtm
from atr_moco_plugin.plugins import GROUPS, published

EXPECTED = {
    "criteria": {"moco_atc_atm", "moco_atc", "atc", "dcl", "siglip", "sogclr"},
    "audio_encoders": {"beats"},
    "text_encoders": {"bert"},
    "heads": {"atm"},
    "hooks": {"rank"},
}


@pytest.mark.parametrize("group", GROUPS)
def test_every_part_of_this_package_is_there_and_loads(group: str) -> None:
    assert EXPECTED[group] <= set(available(group))
    for name in EXPECTED[group]:
        assert callable(load(group, name))


def test_full_group_names_work() -> None:
    assert load("atr_moco_plugin.criteria", "moco_atc_atm") is MocoAtcAtm
    assert "atr_moco_plugin" in available("fairseq2.extension")


def test_an_unknown_name_lists_what_is_there_and_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"installed: .*moco_atc.*Did you mean moco_atc_atm\?"):
        load("criteria", "moco_atc_amt")
    with pytest.raises(ValueError, match="installed: rank"):
        load("hooks", "xyz")


def publish(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    text: str,
    points: str | None = None,
    metadata: str = "Metadata-Version: 2.1\nName: {}\nVersion: 1.2\n",
) -> None:
    """Put a package with one criterion on the path."""
    (folder / f"{package}.py").write_text(text)
    info = folder / f"{package}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(metadata.format(package))
    points = points or f"{package} = {package}:Criterion"
    (info / "entry_points.txt").write_text(f"[atr_moco_plugin.criteria]\n{points}\n")
    monkeypatch.syspath_prepend(folder)


def test_a_third_partys_part_is_found(tmp_path, monkeypatch) -> None:
    publish(tmp_path, monkeypatch, "theirs_good", "class Criterion: ...\n")
    assert load("criteria", "theirs_good").__module__ == "theirs_good"


@pytest.mark.parametrize(
    ("package", "text", "reason"),
    [
        ("bad_import", "import no_such_module", "ModuleNotFoundError: No module named 'no_such_mo"),
        ("bad_attribute", "", "AttributeError: .*'Criterion'"),
        ("bad_exit", "raise SystemExit('needs a GPU')", "SystemExit: needs a GPU"),
    ],
)
def test_a_broken_part_is_named_and_leaves_the_others(
    tmp_path, monkeypatch, capsys, package: str, text: str, reason: str
) -> None:
    publish(tmp_path, monkeypatch, package, f"print('noise')\n{text}\n")
    assert package in available("criteria")
    with pytest.raises(ValueError, match=f"'{package}' of {package} 1.2 cannot .*{reason}"):
        load("criteria", package)
    assert load("criteria", "moco_atc_atm") is MocoAtcAtm

    capsys.readouterr()
    assert main(["plugins"]) == 0 and main(["plugins", "--strict"]) == 1
    listed = capsys.readouterr().out
    assert re.search(rf"  {package} +{package} 1.2 +{package}:Criterion +BROKEN: {reason}", listed)
    assert len(re.findall("BROKEN", listed)) == 2 and "noise" not in listed
    assert len(re.findall(r"moco_atc_atm +atr-moco-plugin [\d.]+ +atr_moco", listed)) == 2


@pytest.mark.parametrize(
    ("package", "points", "metadata"),
    [
        ("no_value", "name without a value", "Name: {}\nVersion: 1.2\n"),
        ("no_module", "broken = :", "Name: {}\nVersion: 1.2\n"),
        ("no_name", "fine = no_name:Criterion", "Version: 1.2\n"),
        ("no_version", "fine = no_version:Criterion", "Name: {}\n"),
        ("empty_metadata", "fine = empty_metadata:Criterion", ""),
    ],
)
def test_broken_metadata_leaves_the_others(
    tmp_path, monkeypatch, capsys, package: str, points: str, metadata: str
) -> None:
    publish(tmp_path, monkeypatch, package, "class Criterion: ...\n", points, metadata)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            assert EXPECTED["criteria"] <= set(available("criteria"))
    assert len(caught) == (package == "no_value")
    assert all(str(tmp_path) in str(warning.message) for warning in caught)
    assert load("criteria", "moco_atc_atm") is MocoAtcAtm
    if points.startswith("fine"):
        assert load("criteria", "fine").__module__ == package
    assert main(["plugins"]) == 0
    listed = capsys.readouterr().out
    assert "moco_atc_atm" in listed and ("BROKEN" in listed) == (package == "no_module")


def test_two_packages_with_one_name_are_both_named_once(tmp_path, monkeypatch, capsys) -> None:
    for package in ("theirs_b", "theirs_a"):  # the path does not decide
        (tmp_path / package).mkdir()
        points = f"shared = {package}:Criterion\nmoco_atc = {package}:Criterion"
        publish(tmp_path / package, monkeypatch, package, "class Criterion: ...\n", points)
    with pytest.warns(UserWarning) as caught:
        for _ in range(2):
            assert available("criteria")["shared"].value == "theirs_a:Criterion"
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 3  # shared, and moco_atc of either
    assert sum("theirs_a 1.2 and theirs_b 1.2 both publish 'shared'" in m for m in messages) == 1
    assert sum("that of atr-moco-plugin" in m for m in messages) == 2
    assert load("criteria", "moco_atc") is MocoAtc
    assert load("criteria", "shared").__module__ == "theirs_a"

    assert main(["plugins", "--strict"]) == 0
    listed = capsys.readouterr().out
    assert re.search(
        r"shared +theirs_b 1.2 .*not used: theirs_a 1.2 publishes this name too", listed
    )


def test_a_package_found_twice_is_one(tmp_path, monkeypatch) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        publish(tmp_path / folder, monkeypatch, "twice_found", "class Criterion: ...\n")
    assert len(published("criteria")["twice_found"]) == 1


def test_a_package_found_twice_under_two_spellings_is_one(tmp_path, monkeypatch) -> None:
    text = "class Criterion: ...\n"
    publish(tmp_path, monkeypatch, "acme_twice", text)
    old = tmp_path / "acme_twice-1.1.dist-info"
    shutil.copytree(tmp_path / "acme_twice-1.2.dist-info", old)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-twice\nVersion: 1.1\n")
    assert len(published("criteria")["acme_twice"]) == 1


def test_nothing_is_said_of_a_broken_package_that_another_hides(tmp_path, monkeypatch) -> None:
    text = "class Criterion: ...\n"
    for folder, points in (("hidden", "name without a value"), ("first", None)):
        (tmp_path / folder).mkdir()
        publish(tmp_path / folder, monkeypatch, "acme_hides", text, points)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(published("criteria")["acme_hides"]) == 1


def test_the_listing_needs_no_fairseq2() -> None:
    code = (
        "import sys; sys.modules['fairseq2'] = None; sys.argv = ['atr_moco_plugin', 'plugins']\n"
        "import runpy; runpy.run_module('atr_moco_plugin', run_name='__main__')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "setup_fairseq2_extension" in result.stdout and "BROKEN" not in result.stdout


def test_help(capsys) -> None:
    assert main([]) == 0
    assert "plugins" in capsys.readouterr().out
