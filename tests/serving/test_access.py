"""Names, tokens and sockets of a server."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.serving.access import Access, listen

LOCAL = Access(port=8000)


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "127.0.0.1", "[::1]"])
def test_the_loopback_names_are_known_with_the_port(name: str) -> None:
    assert LOCAL.knows_host(f"{name}:8000")
    assert not LOCAL.knows_host(f"{name}:8001")
    assert not LOCAL.knows_host(name)
    assert Access(port=80).knows_host(name)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "evil.org:8000",
        "localhost.evil.org:8000",
        "127.0.0.1.evil.org:8000",
        "evil.org:8000@localhost:8000",
        "localhost:8000 ",
        "::1:8000",
        "10.0.0.7:8000",
        "0.0.0.0:8000",
    ],
)
def test_other_names_are_not_known(header: str) -> None:
    assert not LOCAL.knows_host(header)


def test_a_server_on_all_addresses_goes_by_each_of_them_but_by_no_other_name() -> None:
    access = Access(port=8000, any_address=True, token="x" * 16)
    assert access.knows_host("192.168.1.7:8000") and access.knows_host("[fe80::1]:8000")
    assert not access.knows_host("evil.org:8000")


def test_a_name_of_a_proxy_is_taken_as_a_whole() -> None:
    access = Access(port=8000, also=frozenset({"sounds.example.org"}))
    assert access.knows_host("sounds.example.org")
    assert not access.knows_host("sounds.example.org:8000")


def test_on_the_loopback_address_no_token_is_needed_but_one_is_taken() -> None:
    listener = listen()
    with listener.socket:
        assert not listener.access.token
        assert listener.url == f"http://127.0.0.1:{listener.access.port}/"
    listener = listen(token="correct-horse_battery")
    with listener.socket:
        assert listener.access.token == "correct-horse_battery"


@pytest.mark.parametrize(
    "arguments", [{"host": "0.0.0.0"}, {"also": ["sounds.example.org"]}], ids=["all", "proxy"]
)
def test_what_others_can_reach_has_a_token_of_its_own_each_time(arguments: dict) -> None:
    tokens = set()
    for _ in range(2):
        listener = listen(**arguments)
        with listener.socket:
            [token] = parse_qs(urlsplit(listener.url).query)["token"]
            assert token == listener.access.token and len(token) >= 32
            assert listener.access.knows_token(token)
            assert not listener.access.knows_token(token[:-1])
            assert not listener.access.knows_token("")
            assert not listener.access.knows_token("\udcff")
            tokens.add(token)
    assert len(tokens) == 2


@pytest.mark.parametrize("token", ["", "short", "with blanks in it here", "ä" * 20])
def test_a_token_that_cannot_be_used_is_refused(token: str) -> None:
    with pytest.raises(InputError, match="--token must have at least 16 characters"):
        listen(token=token)


def test_a_port_in_use_is_said_in_one_sentence() -> None:
    first = listen()
    with first.socket, pytest.raises(InputError, match="cannot listen on port .*--port"):
        listen(port=first.access.port)


@pytest.mark.parametrize("host", ["no such host", "no-such-host.invalid", "203.0.113.1", "a" * 300])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(InputError, match="--host"):
        listen(host)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(InputError, match="--port is"):
        listen(port=port)


def test_the_files_of_the_page_need_no_network() -> None:
    import atr_moco_plugin.serving as serving

    folder = Path(serving.__file__).parent
    files = [*folder.glob("templates/*"), *folder.glob("static/*")]
    assert len(files) >= 4
    for file in files:
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text and "//cdn" not in text, file
