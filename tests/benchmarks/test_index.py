"""The benchmark of ``index`` runs, in small."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.index import long_recording, make_bundle, second_run, throughput


@pytest.mark.slow  # starts the command, and encodes minutes of sound
def test_it_runs_in_small(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", "toy")
    assert len(list(throughput(tmp_path, bundle, 40))) == 3
    assert "unchanged" in list(second_run(tmp_path, bundle, 1000))[0][2]
    assert len(list(long_recording(tmp_path, bundle, 0.5))) == 2
