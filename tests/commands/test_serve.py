"""``serve`` as a process."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from serving.world import World, make_world
from tiny_bundle import make_bundle

from atr_moco_plugin.commands.main import main


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@contextmanager
def started(world: World, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and the address that it prints."""
    command = [sys.executable, "-m", "atr_moco_plugin", "serve", "--index", str(world.index)]
    process = subprocess.Popen(
        [*command, "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores Ctrl-C, and what it starts does too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None
        first, address = process.stdout.readline(), process.stdout.readline().strip()
        assert first.startswith("8 recordings, "), process.communicate()
        yield process, address
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_it_serves_until_ctrl_c(world: World) -> None:
    with started(world) as (process, address):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
        with urllib.request.urlopen(f"{address}api/search?q=a+dog+barks") as answer:
            assert answer.status == 200 and b"long.wav" in answer.read()
            assert "Server" not in answer.headers
        port = address.rstrip("/").rpartition(":")[2]
        request = urllib.request.Request(address, headers={"Host": f"evil.org:{port}"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request)
        # Too long for the page, and longer than some servers take at all.
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}api/search?q={'%F0%9F%90%95+' * 5_000}")
        assert b"has 10,000 characters" in refused.value.read()
        command = ["serve", "--index", str(world.index), "--port", port]
        assert main(command) == 2
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (130, "", "Interrupted.\n")


@pytest.mark.slow
def test_another_address_has_a_token(world: World) -> None:
    with started(world, "--host", "0.0.0.0") as (_, address):
        port = re.search(r":(\d+)/\?token=[\w-]{32}$", address)[1]
        local = f"http://127.0.0.1:{port}/"
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(local)
        query = address.partition("?")[2]
        with urllib.request.urlopen(f"{local}?{query}") as answer:
            assert "HttpOnly" in answer.headers["Set-Cookie"]


def test_what_is_missing_is_one_sentence(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--index", str(world.index.parent / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert main(["serve", "--index", str(world.index)]) == 2
    error = capsys.readouterr().err
    assert error == ("ERROR: serve needs uvicorn, pillow: pip install 'atr-moco-plugin[serve]'\n")


def test_a_correction_without_a_bank_is_one_sentence(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--index", str(world.index), "--port", "0", "--correct"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ERROR: {world.index} has no bank to correct with: run `index` again")


def test_an_index_of_another_model_is_one_sentence(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_bundle(tmp_path / "other", seed=1)
    assert main(["serve", "--index", str(world.index), "--model", str(other), "--port", "0"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "made with another model" in line and str(world.model) in line


def test_the_model_may_have_moved(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world.index, tmp_path / "index")
    moved = world.model.rename(world.model.with_name("moved"))
    try:
        assert main(["serve", "--index", str(tmp_path / "index"), "--port", "0"]) == 2
        assert str(world.model) in capsys.readouterr().err
    finally:
        moved.rename(world.model)
