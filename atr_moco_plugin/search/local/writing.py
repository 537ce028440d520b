"""Fill an index in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
from tqdm import tqdm

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.lock import FILE as LOCK_FILE
from atr_moco_plugin.io.lock import FolderLock
from atr_moco_plugin.search.bank import Bank
from atr_moco_plugin.search.checks import check_bank, check_embedded, refuse_other
from atr_moco_plugin.search.local import banks, catalog
from atr_moco_plugin.search.local.faults import told
from atr_moco_plugin.search.local.reading import LocalReader
from atr_moco_plugin.search.local.snapshot import stretches
from atr_moco_plugin.search.local.vectors import (
    DTYPE,
    map_rows,
    sync_folder,
    vector_file,
    vector_files,
    write_rows,
)
from atr_moco_plugin.search.names import name_to_bytes
from atr_moco_plugin.search.store import Embedded, IndexInfo

LEAST_DEAD = 1024
"""Rows of removed recordings that are not worth a new file."""

_COPIED = 16384


class LocalWriter(LocalReader):
    """An index in a folder, opened by its one writer.

    Rows of vectors are on the disk before the transaction that names them; those after the last
    that it names are overwritten. Where more than half of the rows are of removed recordings, the
    rest moves to a new file.

    Args:
        folder: of the index.
        info: makes an index where there is none, and is compared with that of one that is there.

    Raises:
        InputError: where another process has it, the folder cannot be written, there is no index
            and no ``info``, or another one.
    """

    def __init__(self, folder: Path, info: IndexInfo | None = None) -> None:
        if info is None and not (folder / catalog.FILE).exists():
            raise InputError(f"{folder} holds no index: fill it with `index` first.")
        self._lock = FolderLock(folder)
        try:
            with told(folder):
                if info is not None:
                    _make(folder, info)
                super().__init__(folder)
            if info is not None:
                self._adopt(info)
            with self._transaction() as connection:
                state = catalog.read_state(connection, folder)
                self._bank = banks.read_bank(connection, state.info.embed_dim)
            for path in vector_files(folder):
                if path != vector_file(folder, state.vectors):
                    path.unlink()  # of a writer that was killed on its way to the next file
        except BaseException:
            self._lock.release()
            raise

    def _adopt(self, info: IndexInfo) -> None:
        """Compare the index that is there with one that is wanted."""
        if replace(info, model=self._info.model) != self._info:
            refuse_other(self._folder, self._info, info)
        if info != self._info:  # the model has moved
            with self._turn, told(self._folder), catalog.change(self._connection):
                catalog.update_info(self._connection, info)
            self._info = info

    def _connect(self) -> None:
        self._connection, self._frozen = catalog.connect_writer(self._folder), False
        self._file = self._file_now()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it and let another process write."""
        try:
            super().__exit__(kind, error, trace)
        finally:
            self._lock.release()

    def put(self, embedded: Sequence[Embedded]) -> None:
        """Add recordings; one that is there already, by path and member, is replaced."""
        for item in embedded:
            check_embedded(item, self._info.embed_dim)
        items = {item.recording.key: item for item in embedded}  # the last of the same name counts
        if not items:
            return
        with self._turn, told(self._folder), catalog.change(self._connection):
            state = catalog.read_state(self._connection, self._folder)
            row, number = state.rows, state.next
            vectors = np.concatenate([item.embeddings for item in items.values()]).astype(DTYPE)
            write_rows(vector_file(self._folder, state.vectors), row, vectors)
            columns: list[tuple[object, ...]] = []
            windows = []
            for item in items.values():
                count = len(item.spans)
                spans = np.ascontiguousarray(item.spans, "<f8").tobytes()
                columns.append((number, *catalog.columns_of(item.recording), row, count, spans))
                windows.append((number, count))
                row, number = row + count, number + max(count, 1)
            removed = self._delete(list(items))
            self._connection.executemany(
                f"INSERT INTO recordings VALUES ({', '.join('?' * 11)})", columns
            )
            if self._bank is not None:
                banks.write_offsets(self._connection, self._bank, windows, vectors)
            live = state.live - removed + row - state.rows
            catalog.update_state(self._connection, replace(state, rows=row, live=live, next=number))
        self._compact()

    def remove(self, keys: Sequence[tuple[str, str]]) -> None:
        """Remove recordings by path and member; unknown ones are passed over."""
        if not keys:
            return
        with self._turn, told(self._folder), catalog.change(self._connection):
            state = catalog.read_state(self._connection, self._folder)
            live = state.live - self._delete(keys)
            catalog.update_state(self._connection, replace(state, live=live))
        self._compact()

    def touch(self, times: Mapping[tuple[str, str], int]) -> None:
        """Set ``mtime_ns`` of recordings by path and member; unknown ones are passed over."""
        if not times:
            return
        with self._turn, told(self._folder), catalog.change(self._connection):
            self._connection.executemany(
                "UPDATE recordings SET mtime_ns = ? WHERE path = ? AND member = ?",
                [(time, *map(name_to_bytes, key)) for key, time in times.items()],
            )

    def set_bank(self, bank: Bank | None, *, progress: bool = False) -> None:
        """Keep another bank, or none, and the offset of every window, from its vector."""
        check_bank(bank, self._info.embed_dim)
        with self._turn, told(self._folder), catalog.change(self._connection):
            state = catalog.read_state(self._connection, self._folder)
            banks.write_bank(self._connection, bank)
            if bank is not None:
                self._add_offsets(bank, state, progress)
            catalog.update_state(self._connection, state)
        self._bank = bank

    def finish(self, *, progress: bool = False) -> None:
        """Add the offsets of what a version has put that knows no bank; else there is nothing to
        do."""
        if self._bank is None:
            return
        with self._turn, told(self._folder), catalog.change(self._connection):
            if banks.without_offsets(self._connection):
                state = catalog.read_state(self._connection, self._folder)
                self._add_offsets(self._bank, state, progress)
                catalog.update_state(self._connection, state)

    def _add_offsets(self, bank: Bank, state: catalog.State, progress: bool) -> None:
        """Compute the offsets that are missing; a part of a change."""
        matrix = map_rows(
            vector_file(self._folder, state.vectors), state.rows, self._info.embed_dim
        )
        missing = banks.without_offsets(self._connection)
        total = sum(count for *_, count in missing)
        with tqdm(desc="bank: windows", total=total, disable=not progress) as bar:
            for part in banks.in_parts(missing):
                first, counts = np.array(part, np.int64)[:, 1:].T
                windows = [(number, count) for number, _, count in part]
                rows = stretches(first, counts)
                banks.write_offsets(self._connection, bank, windows, matrix[rows])
                bar.update(len(rows))

    def _delete(self, keys: Sequence[tuple[str, str]]) -> int:
        """Remove recordings; a part of a change. Returns how many windows they had."""
        windows = 0
        for path, member in keys:
            name = (name_to_bytes(path), name_to_bytes(member))
            found = self._connection.execute(
                "SELECT id, windows FROM recordings WHERE path = ? AND member = ?", name
            ).fetchone()
            if found is not None:
                self._connection.execute("DELETE FROM recordings WHERE id = ?", found[:1])
                windows += found[1]
        return windows

    def _compact(self) -> None:
        """Move the rows that count to a new file, where most do not."""
        with self._turn, told(self._folder):
            state = catalog.read_state(self._connection, self._folder)
            if state.rows - state.live <= max(state.live, LEAST_DEAD):
                return
            old = vector_file(self._folder, state.vectors)
            new = vector_file(self._folder, state.vectors + 1)
            with catalog.change(self._connection):
                found = self._connection.execute(
                    "SELECT id, first_row, windows FROM recordings WHERE windows > 0 ORDER BY id"
                ).fetchall()
                rows = stretches(*np.array(found, np.int64).reshape(-1, 3).T[1:])
                matrix = map_rows(old, state.rows, self._info.embed_dim)
                new.unlink(missing_ok=True)
                for start in range(0, len(rows), _COPIED):
                    write_rows(new, start, matrix[rows[start : start + _COPIED]])
                first = 0
                for number, _, count in found:
                    self._connection.execute(
                        "UPDATE recordings SET first_row = ? WHERE id = ?", (first, number)
                    )
                    first += count
                moved = replace(state, vectors=state.vectors + 1, rows=len(rows))
                catalog.update_state(self._connection, moved)
            old.unlink()


def _make(folder: Path, info: IndexInfo) -> None:
    """An empty index, where there is none."""
    others = [path.name for path in folder.iterdir() if not _ours(path.name)]
    if others and not (folder / catalog.FILE).exists():
        raise InputError(
            f"{folder} has other files in it, such as {min(others)!r}: give a new or an empty "
            "folder for the index."
        )
    connection = catalog.connect_writer(folder)
    try:
        with catalog.change(connection):
            if not catalog.is_made(connection):
                catalog.make(connection, info)
        sync_folder(folder)
    finally:
        connection.close()


def _ours(name: str) -> bool:
    return name == LOCK_FILE or name.startswith((catalog.FILE, "vectors-"))
