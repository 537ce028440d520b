"""What can be wrong with the files of an index, in one sentence each."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.search.local import catalog


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """Tell in one sentence what is wrong with the files of an index, or with the disk."""
    file = folder / catalog.FILE
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{folder} holds no index: fill it with `index` first.") from None
    except FloatingPointError:
        raise InputError(
            f"the vectors of {folder} hold what is no embedding, so that their file is damaged: "
            "make the index anew."
        ) from None
    except sqlite3.OperationalError as ex:
        if "unable to open" in str(ex) and not file.exists():
            raise InputError(f"{folder} holds no index: fill it with `index` first.") from None
        raise InputError(
            f"{file} cannot be read or written ({ex}): what was put in before is whole; see that "
            "the disk has space and works."
        ) from None
    except sqlite3.DatabaseError as ex:
        if isinstance(ex, sqlite3.ProgrammingError | sqlite3.IntegrityError):
            raise  # a bug
        raise InputError(f"{file} is damaged ({ex}): make the index anew.") from None
    except UnicodeDecodeError:  # of a message of SQLite, or a part of it
        raise InputError(f"{file} is damaged: make the index anew.") from None
    except OSError as ex:
        raise InputError(
            f"{folder} cannot be read or written ({ex.strerror}): what was put in before is whole; "
            "see that the disk has space and works."
        ) from None
