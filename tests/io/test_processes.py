"""Which process of a run this is."""

from __future__ import annotations

import pytest

from atr_moco_plugin.io.processes import is_first_process


@pytest.mark.parametrize(
    ("variables", "first"),
    [({}, True), ({"RANK": "0"}, True), ({"RANK": "1"}, False), ({"RANK": ""}, True),
     ({"SLURM_PROCID": "3"}, False), ({"RANK": "0", "SLURM_PROCID": "3"}, True)],
)  # fmt: skip
def test_torchrun_and_slurm_number_processes(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], first: bool
) -> None:
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() == first
