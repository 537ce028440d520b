"""How many processes a run has, and which of them this is."""

from __future__ import annotations

import pytest

from atr_moco_plugin.io.processes import is_first_process, process_count


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


@pytest.mark.parametrize(
    ("variables", "count"),
    [({}, 1), ({"WORLD_SIZE": "4"}, 4), ({"WORLD_SIZE": ""}, 1), ({"SLURM_NTASKS": "8"}, 1),
     ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, 8), ({"SLURM_PROCID": "0"}, 1),
     ({"WORLD_SIZE": "4", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, 4)],
)  # fmt: skip
def test_torchrun_and_slurm_count_processes(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], count: int
) -> None:
    for name in ("WORLD_SIZE", "SLURM_NTASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert process_count() == count
