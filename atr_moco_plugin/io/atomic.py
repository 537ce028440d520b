"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from atr_moco_plugin.errors import InputError


def write_atomically(path: Path, text: str) -> None:
    """Write a text file through a temporary one, so that no reader ever sees half of it.

    The folder is made where it is missing. File names that are not UTF-8 are written with
    backslashes.
    """
    with new_file(path) as temporary:
        # Python reads file names that are not UTF-8 as half surrogates, which UTF-8 cannot write.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path``, which takes its place at once where nothing goes wrong.

    Its folder is made where it is missing, and its mode is what the user's mask says, whoever
    writes it.

    Raises:
        OSError: where it cannot be written, also by safetensors.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with _usual_mode(temporary):
            yield temporary
        os.replace(temporary, path)
    except SafetensorError as ex:  # it has no number of the error
        raise OSError(f"{path} cannot be written ({ex})") from ex
    finally:
        with suppress(OSError):
            temporary.unlink()


def check_output(path: Path, option: str = "") -> None:
    """Refuse a file that cannot be written, before there is anything to write; its folder is made.

    Args:
        path: of the file, which may be there.
        option: what names it, for messages.

    Raises:
        InputError: for a folder, and a place that may not be written to.
    """
    named = f"{option} {path}" if option else str(path)
    if path.is_dir():
        raise InputError(f"{named} is a folder, no file can be written there: name a file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as ex:
        raise InputError(
            f"{named} cannot be written ({ex.strerror or ex}): its folder cannot be made, give "
            "another."
        ) from ex
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as ex:
        raise InputError(unwritable(named, ex)) from ex


def unwritable(named: object, error: OSError) -> str:
    """The sentence on a file that cannot be written."""
    return (
        f"{named} cannot be written ({error.strerror or error}): give a file in a folder that you "
        "may write to, on a disk with room."
    )


@contextmanager
def new_folder(folder: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary folder beside ``folder``, which becomes ``folder`` where nothing goes wrong.

    Args:
        folder: not there yet, or empty.
        replace: take the place of whatever is there.

    Raises:
        InputError: if something is there and stays, or the folder cannot be written.
    """
    # A link stays one, to the folder that takes the new content.
    folder = Path(folder).expanduser().resolve()
    if not replace and folder.exists() and not is_empty_folder(folder):
        raise InputError(f"{folder} is there already: give another folder, or remove it first.")
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}.tmp")
    old = temporary.with_suffix(".old")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if folder.exists():
            folder.rename(old)
        try:
            temporary.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as ex:  # the second of a full disk
        reason = getattr(ex, "strerror", None) or ex
        raise InputError(
            f"{folder} cannot be written ({reason}): give a folder that you may write "
            "to, on a disk with room."
        ) from ex
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_empty_folder(folder: Path) -> bool:
    """Whether it is a folder with nothing in it."""
    return folder.is_dir() and not any(folder.iterdir())


@contextmanager
def _usual_mode(path: Path) -> Iterator[None]:
    """Give a file that is written meanwhile the mode that the user's mask says. safetensors makes
    files that their owner alone can read."""
    path.touch()
    mode = path.stat().st_mode
    yield
    path.chmod(mode)
