"""A file that is written is whole or the old one."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from atr_moco_plugin.io.atomic import write_atomically


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    write_atomically(path, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # as on a full disk
    try:
        with pytest.raises(OSError):
            write_atomically(path, "new" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]
