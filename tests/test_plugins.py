from __future__ import annotations

from pathlib import Path

import pytest

from atr_moco_plugin import available, load
from atr_moco_plugin.criterion import MocoAtcAtm
from atr_moco_plugin.plugins import GROUPS

EXPECTED = {
    "criteria": {"moco_atc_atm", "moco_atc", "atc"},
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


def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, text: str) -> None:
    """Put a package with one criterion on the path."""
    (tmp_path / f"{module}.py").write_text(text)
    info = tmp_path / f"{module}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.2\n")
    points = f"[atr_moco_plugin.criteria]\n{module} = {module}:Criterion\n"
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)


def test_a_third_partys_part_is_found(tmp_path, monkeypatch) -> None:
    publish(tmp_path, monkeypatch, "theirs_good", "class Criterion: ...\n")
    assert load("criteria", "theirs_good").__module__ == "theirs_good"


def test_a_broken_part_is_named_and_leaves_the_others(tmp_path, monkeypatch) -> None:
    publish(tmp_path, monkeypatch, "theirs_bad", "import no_such_module\n")
    assert "theirs_bad" in available("criteria")
    with pytest.raises(ValueError, match="'theirs_bad' of theirs_bad 1.2 cannot be imported"):
        load("criteria", "theirs_bad")
    assert load("criteria", "moco_atc_atm") is MocoAtcAtm
