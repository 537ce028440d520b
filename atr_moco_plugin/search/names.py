"""Names of recordings: as they are shown, and as bytes, since a file's name need not be UTF-8."""

from __future__ import annotations

import re

_PART = re.compile(r"#t=([0-9.e+-]+),([0-9.e+-]+)")


def shown_name(path: str, member: str) -> str:
    """A recording's name as it is shown: ``a.wav``, ``shard.tar/a.wav``, ``a.wav#t=30,40``."""
    if not member or member.startswith("#"):
        return path + member
    return f"{path}/{member}"


def name_to_bytes(name: str) -> bytes:
    """The bytes of a name, which an index keeps."""
    return name.encode("utf-8", "surrogateescape")


def name_from_bytes(data: bytes) -> str:
    """The name of :func:`name_to_bytes`, as ``os.fsdecode`` has it."""
    return data.decode("utf-8", "surrogateescape")


def part_of(member: str) -> tuple[float, float] | None:
    """Start and end in seconds of the part of a file that ``#t=30,40`` names; None for a member of
    a tar."""
    match = _PART.fullmatch(member)
    return (float(match[1]), float(match[2])) if match else None
