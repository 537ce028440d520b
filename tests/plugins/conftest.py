"""The package ``acme-atr``, as an installer would leave it: sources and metadata on the path."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ACME = Path(__file__).parent / "acme_atr"


@pytest.fixture
def acme(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the package on the path, entry points and all; returns the folder."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(ACME / "src" / "acme_atr", site / "acme_atr")
    project = tomllib.loads((ACME / "pyproject.toml").read_text())["project"]
    info = site / f"acme_atr-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    sections = [
        "\n".join([f"[{group}]", *(f"{name} = {path}" for name, path in points.items())])
        for group, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n\n".join(sections) + "\n")
    for module in [name for name in sys.modules if name.split(".")[0] == "acme_atr"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(site)
    return site
