"""The clips of a folder of ``datasets``: rows that are one clip, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from atr_moco_plugin.data.audio.source import MAX_SLICE_BYTES, FileSlice, FileSource
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.opening.checks import number_of
from atr_moco_plugin.data.opening.duplicates import equal_sources, file_identity
from atr_moco_plugin.data.sets.row_recordings import recording_of_rows, said_recordings
from atr_moco_plugin.data.tables import column_names
from atr_moco_plugin.data.tables.columns import Row, cell_text, row_captions
from atr_moco_plugin.errors import InputError, listed
from atr_moco_plugin.ids import has_words


@dataclass
class StoredClips:
    """What was found of one split: its clips, and what was left out.

    Rows of one ``clip_id`` are one clip, and so are rows of one file. It has the key of the first.

    Attributes:
        missing: rows without audio.
        too_large: rows whose audio is longer than is read.
        empty_captions: captions without words.
        repeated_rows: rows equal to an earlier one of their clip.
    """

    missing: int = 0
    too_large: int = 0
    empty_captions: int = 0
    repeated_rows: int = 0
    _clips: dict[object, Clip] = field(default_factory=dict)
    _seen: set[int] = field(default_factory=set)
    # Of a clip's key the rows that say its recording.
    _recordings: dict[str, list[tuple[str, dict[str, str]]]] = field(default_factory=dict)
    # Of each clip_id the audio of its rows, and where each of them is.
    _audio: dict[str, list[tuple[str, FileSource]]] = field(default_factory=dict)

    def add(self, where: str, key: str, row: Row, source: FileSource | None) -> None:
        """Add a row.

        Args:
            where: the table and the row, for messages.
            key: of its clip, where it is the first row of it.
            row: its columns.
            source: its audio; ``None`` where there is none.
        """
        if source is None:
            self.missing += 1
            return
        if isinstance(source, FileSlice) and source.size > MAX_SLICE_BYTES:
            self.too_large += 1
            return
        clip_id = cell_text(row.get(column_names.CLIP_ID))
        if clip_id:
            self._audio.setdefault(clip_id, []).append((where, source))
        identity: object = clip_id
        if not clip_id:
            identity = (source if isinstance(source, FileSlice) else file_identity(source),)
        texts, said = row_captions(row), said_recordings(row)
        # Without lists, which may be embeddings: their text would take longer than all else.
        cells = (x if isinstance(x, (str, int, float)) else None for x in row.values())
        mark = hash((identity, *texts, *cells))
        if mark in self._seen:
            self.repeated_rows += 1
            return
        self._seen.add(mark)
        captions = tuple(text for text in texts if has_words(text))
        self.empty_captions += len(texts) - len(captions)
        clip = self._clips.get(identity, Clip(key, (), source))
        self._clips[identity] = replace(clip, captions=clip.captions + captions)
        if said:
            self._recordings.setdefault(clip.key, []).append((where, said))

    def clip_ids(self, clips: Sequence[Clip]) -> dict[str, str]:
        """Each ``clip_id`` of some of its clips to the place of its first row."""
        keys = {clip.key for clip in clips}
        found = {name: rows[0][0] for name, rows in self._audio.items()}
        return {name: where for name, where in found.items() if self._clips[name].key in keys}

    def recordings(self) -> dict[str, str]:
        """Key of a clip to the recording that its rows say it is of.

        Raises:
            InputError: if two rows of a clip name two recordings.
        """
        return {key: recording_of_rows(key, rows) for key, rows in self._recordings.items()}

    def joined(self) -> tuple[list[Clip], int]:
        """The clips that have a caption, in order, and the number of those that have none.

        Raises:
            InputError: if rows of one ``clip_id`` have different audio.
        """
        several = {name: rows for name, rows in self._audio.items() if len(rows) > 1}
        sources = [source for rows in several.values() for _, source in rows]
        groups = equal_sources(sources, silence=True)
        group_of = {at: number for number, group in enumerate(groups) for at in group}
        at = 0
        for name, rows in several.items():
            for number, (where, source) in enumerate(rows):
                same = group_of.get(at, -1) == group_of.get(at + number, -2)
                if source != rows[0][1] and not same:
                    raise InputError(
                        f"{rows[0][0]} and {where} have the clip_id {name!r} and different audio; "
                        "one clip_id is one recording: give each its own, or rename the column"
                    )
            at += len(rows)
        clips = [clip for clip in self._clips.values() if clip.captions]
        return clips, len(self._clips) - len(clips)


def check_clip_ids(name: str, splits: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse a ``clip_id`` that is in two splits.

    Args:
        name: of the data set.
        splits: split to its :meth:`StoredClips.clip_ids`.

    Raises:
        InputError: with the rows.
    """
    for first, second in combinations(splits, 2):
        one, two = splits[first], splits[second]
        if both := [clip_id for clip_id in one if clip_id in two]:
            raise InputError(
                f"{name}: {number_of(both, 'clip')} in both {first!r} and {second!r}: "
                f"{listed(list(map(repr, both)))}; a clip_id may be in one split only, take it out "
                f"of one of the two ({one[both[0]]} and {two[both[0]]})"
            )
