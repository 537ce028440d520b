"""Text files and JSON from unknown writers: which encoding they have, and what is in them."""

from __future__ import annotations

import codecs
import json
import re
import warnings
from pathlib import Path
from typing import Any, BinaryIO

from atr_moco_plugin.errors import InputError, MissingFileError

_CHUNK = 2**20
_MAX_DEPTH = 50
_HALF_PAIR = re.compile(r"\\u[dD]")
_NOT_IN_CP1252 = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
_SAVE_ANEW = "save it as UTF-8 (in Excel: CSV UTF-8)"


def read_text(path: Path, *, warn: bool = True) -> str:
    """A whole text file, in the encoding that :func:`text_encoding` finds.

    Raises:
        MissingFileError, InputError: if it is not there, or not text.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; set the path of the captions")
    return path.read_text(encoding=text_encoding(path, warn=warn))


def text_encoding(path: Path, *, warn: bool = True) -> str:
    """The encoding of a text file: UTF-8, UTF-16 with its byte order mark, or Windows-1252.

    Excel writes the last two as "CSV" and as "Unicode text". No file is ever read as Latin-1, in
    which the quotes and dashes of Windows-1252 are control characters.

    Args:
        path: the file.
        warn: name a file in Windows-1252 in a warning, since its encoding may be a third one.

    Raises:
        InputError: if the file cannot be opened, has zero bytes, as archives and spreadsheets
            have, is UTF-8 in one line and not in another, or has a byte that Windows-1252 does not
            define.
    """
    with open_bytes(path) as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return _utf_16(path)
        file.seek(0)
        if any(b"\0" in chunk for chunk in iter(lambda: file.read(_CHUNK), b"")):
            raise _not_text(path)
        file.seek(0)
        in_utf_8, in_cp1252, example = 0, 0, ""  # the first line of each kind
        for number, line in enumerate(file, start=1):
            if line.isascii():
                continue
            try:
                line.decode("utf-8-sig" if number == 1 else "utf-8")
                in_utf_8 = in_utf_8 or number
            except UnicodeDecodeError as error:
                unknown = _NOT_IN_CP1252.search(line)
                if unknown:
                    raise InputError(
                        f"{path}: line {number} has the byte 0x{unknown[0].hex()}, which is "
                        f"neither UTF-8 nor Windows-1252; {_SAVE_ANEW}"
                    ) from None
                if not in_cp1252:
                    around = line[max(0, error.start - 30) : error.start + 30]
                    in_cp1252, example = number, around.decode("cp1252", "replace").strip()
            if in_utf_8 and in_cp1252:
                raise InputError(
                    f"{path}: line {in_utf_8} is UTF-8 and line {in_cp1252} is not; {_SAVE_ANEW}"
                )
    if not in_cp1252:
        return "utf-8-sig"
    if warn:
        warnings.warn(
            f"{path}: is not UTF-8 (line {in_cp1252}) and is read as Windows-1252, which gives "
            f"{example!r}; if that is not what it says, {_SAVE_ANEW}",
            stacklevel=2,
        )
    return "cp1252"


def open_bytes(path: Path) -> BinaryIO:
    """Open a file to read.

    Raises:
        InputError: if the system refuses.
    """
    try:
        return path.open("rb")
    except OSError as ex:
        raise InputError(
            f"{path}: cannot be read ({ex.strerror}): allow this user to read it"
        ) from ex


def _utf_16(path: Path) -> str:
    decoder = codecs.getincrementaldecoder("utf-16")()
    with path.open("rb") as file:
        try:
            while chunk := file.read(_CHUNK):
                if "\0" in decoder.decode(chunk):
                    raise _not_text(path)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            raise _not_text(path) from None
    return "utf-16"


def _not_text(path: Path) -> InputError:
    return InputError(
        f"{path}: is no text (it has NUL bytes, as sounds, archives and spreadsheets have); give "
        "a CSV, TSV or JSON file in UTF-8"
    )


class KeyTwiceError(InputError):
    """An object of JSON has one key twice.

    Attributes:
        key: that key.
    """

    def __init__(self, key: str) -> None:
        super().__init__(f"an object has the key {key!r} twice")
        self.key = key


def read_json(path: Path, *, otherwise: str = "fetch it again", warn: bool = True) -> Any:
    """What a JSON file holds.

    Args:
        path: the file.
        otherwise: what to do where it is not JSON, for the message.
        warn: as for :func:`text_encoding`.

    Raises:
        MissingFileError, InputError: if it is not there, not text or no JSON.
    """
    text = read_text(path, warn=warn)
    try:
        return parse_json(text)
    except KeyTwiceError as error:
        raise InputError(f"{path}: {error}; keep one") from error
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error}); {otherwise}") from error


def parse_json(content: str | bytes) -> Any:
    """Parse JSON from an unknown writer.

    Half of a surrogate pair (``\\ud800``), which neither files nor tokenizers take, becomes ``?``.

    Raises:
        KeyTwiceError: if an object has a key twice, of which Python would keep the last.
        InputError: if it is no JSON, or lists and objects are nested more than 50 deep.
    """
    text = content
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text))
    try:
        value = json.loads(text, object_pairs_hook=_each_once)
    except RecursionError:
        raise InputError("its lists are nested too deeply") from None
    if text.count("[") + text.count("{") > _MAX_DEPTH and _deeper(value, _MAX_DEPTH):
        raise InputError("its lists are nested too deeply")
    if _HALF_PAIR.search(text):
        value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise KeyTwiceError(next(name for name in names if names.count(name) > 1))
    return found


def _deeper(value: object, levels: int) -> bool:
    containers: list[Any] = [value]
    for _ in range(levels + 1):
        inner = (x.values() if isinstance(x, dict) else x for x in containers)
        containers = [x for items in inner for x in items if isinstance(x, (dict, list))]
        if not containers:
            return False
    return True
