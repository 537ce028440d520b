"""Where the members of a tar shard are, found without unpacking it.

A shard may come from anywhere, so nothing in it is trusted: names are only ever keys and never
paths, links and devices are passed over, and neither a header nor a member may take more memory
than it should.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from atr_moco_plugin.data.audio.source import MAX_SLICE_BYTES, FileSlice
from atr_moco_plugin.data.tables.encoding import parse_json
from atr_moco_plugin.data.tables.file_names import AUDIO_SUFFIXES
from atr_moco_plugin.ids import has_words

_HEADER_BYTES = 2**20
_TEXT_BYTES = 2**20
_BLOCK = 512
_AUDIO = ""  # in place of any suffix of audio


@dataclass(slots=True)
class Sample:
    """A clip of a shard.

    Attributes:
        key: member name without its suffix.
        captions: at least one, each with words in it.
        audio: where its audio is.
    """

    key: str
    captions: tuple[str, ...]
    audio: FileSlice


@dataclass
class Shard:
    """What is in one shard.

    Attributes:
        path: the shard.
        samples: the usable clips, in the order of their first members.
        keys: clips it has, usable or not.
        complete: those of them with both audio and a text, JSON or plain.
        no_audio: keys with a text alone.
        no_caption: keys whose text is absent, damaged or has no words.
        too_large: keys whose audio is larger than :data:`~.source.MAX_SLICE_BYTES`.
        empty_captions: captions without words.
        repeated: names of members that an earlier one has too.
        same_key: names of sounds whose key an earlier sound of another suffix has.
        problem: what is wrong where the shard breaks off, else empty.
    """

    path: Path
    samples: list[Sample] = field(default_factory=list)
    keys: int = 0
    complete: int = 0
    no_audio: list[str] = field(default_factory=list)
    no_caption: list[str] = field(default_factory=list)
    too_large: list[str] = field(default_factory=list)
    empty_captions: int = 0
    repeated: list[str] = field(default_factory=list)
    same_key: list[str] = field(default_factory=list)
    problem: str = ""


def read_shard(path: Path) -> Shard:
    """Index a shard of ``<key>.flac`` (or another audio suffix) with ``<key>.json`` or
    ``<key>.txt``.

    LAION's JSON has captions under ``text``; open_clip's plain text is one caption, over as many
    lines as it likes. Where a clip has both, the JSON's captions are taken, since the plain text is
    then one of them, and the plain text where the JSON holds metadata alone.

    What comes before a truncation or damage is kept. Of two members of one name the first counts,
    and so it does of two sounds of one key, such as ``<key>.flac`` and ``<key>.wav``.

    Raises:
        OSError: if the file cannot be opened.
    """
    shard = Shard(path)
    members: dict[str, dict[str, FileSlice]] = {}
    with path.open("rb") as file:
        for member in tar_members(file, shard):
            stem, suffix = os.path.splitext(member.name)
            suffix = suffix.lower()
            if suffix in AUDIO_SUFFIXES:
                suffix = _AUDIO
            elif suffix not in (".json", ".txt"):
                continue
            parts = members.setdefault(stem, {})
            first = parts.setdefault(suffix, member)
            if first is not member:
                again = shard.repeated if first.name == member.name else shard.same_key
                again.append(member.name)
        shard.keys = len(members)
        for key, parts in members.items():
            _add(shard, key, parts, file)
    return shard


def _add(shard: Shard, key: str, parts: dict[str, FileSlice], file: IO[bytes]) -> None:
    audio = parts.get(_AUDIO)
    if audio is None:
        shard.no_audio.append(key)
        return
    values, plain = parts.get(".json"), parts.get(".txt")
    shard.complete += values is not None or plain is not None
    captions = () if values is None else json_captions(file, values)
    if plain is not None and not any(map(has_words, captions)):
        captions = _plain_caption(file, plain)
    kept = tuple(caption for caption in captions if has_words(caption))
    shard.empty_captions += len(captions) - len(kept)
    if not kept:
        shard.no_caption.append(key)
    elif audio.size > MAX_SLICE_BYTES:
        shard.too_large.append(key)
    else:
        shard.samples.append(Sample(key, kept, audio))


def json_captions(file: IO[bytes], member: FileSlice) -> tuple[str, ...]:
    """``text`` of a JSON member, a string or a list of them; empty where there is none.

    Args:
        file: the tar, open.
        member: where its bytes are.
    """
    if member.size > _TEXT_BYTES:
        return ()
    file.seek(member.offset)
    try:
        values = parse_json(file.read(member.size))
    except ValueError:
        return ()
    text = values.get("text") if isinstance(values, dict) else None
    texts = text if isinstance(text, list) else [text]
    return tuple(item.strip() for item in texts if isinstance(item, str))


def _plain_caption(file: IO[bytes], member: FileSlice) -> tuple[str, ...]:
    """The whole of a text member as one caption, line ends as spaces; empty where it is no text."""
    if member.size > _TEXT_BYTES:
        return ()
    file.seek(member.offset)
    try:
        text = file.read(member.size).decode("utf-8-sig")
    except UnicodeDecodeError:
        return ()
    return (" ".join(text.split()),)


def tar_members(file: IO[bytes], shard: Shard) -> Iterator[FileSlice]:
    """The regular files of a tar that are not hidden, in order; sets ``shard.problem`` where it
    breaks off."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    headers = _Headers(file)
    try:
        archive = tarfile.open(fileobj=headers, mode="r:")
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # or all stay in memory
            headers.left = _HEADER_BYTES
            if info.size < 0 or info.offset_data < 0:
                raise tarfile.ReadError("a member has a negative size")
            name = info.name.removeprefix("./")
            regular = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and info.sparse is None
            if not regular or os.path.basename(name).startswith("."):
                continue
            if info.offset_data + info.size > end:
                raise tarfile.ReadError(f"it ends within member {name!r}")
            yield FileSlice(shard.path, info.offset_data, info.size, name)
        # tarfile takes a broken header for the end of the archive, which is a block of zeros.
        file.seek(archive.offset)
        if file.read(_BLOCK).strip(b"\0"):
            raise tarfile.ReadError(f"there is no member header at byte {archive.offset:,}")
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        shard.problem = str(error).splitlines()[0].rstrip(".") if str(error) else "damaged header"


class _Headers:
    """A file as tarfile reads headers from it, no more than is reasonable for each.

    A header may say that its own extension is of any size, also a negative one, and tarfile would
    read that much.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.left = _HEADER_BYTES

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.left:
            raise tarfile.ReadError("a member header is too large")
        self.left -= size
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
