"""The clips of a folder of ``datasets``: rows that are one clip, and what is left out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from atr_moco_plugin.data.audio.source import MAX_SLICE_BYTES, FileSlice, FileSource
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.opening.duplicates import equal_sources, file_identity
from atr_moco_plugin.data.tables import column_names
from atr_moco_plugin.data.tables.columns import Row, cell_text, filled_cell, row_captions
from atr_moco_plugin.errors import InputError
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
        recordings: key of a clip to the recording that its rows say it is of.
    """

    missing: int = 0
    too_large: int = 0
    empty_captions: int = 0
    repeated_rows: int = 0
    recordings: dict[str, str] = field(default_factory=dict)
    _clips: dict[object, Clip] = field(default_factory=dict)
    _seen: set[int] = field(default_factory=set)
    # Of each clip_id the audio of its rows, and where each of them is.
    _audio: dict[str, list[tuple[str, FileSource]]] = field(default_factory=dict)

    def add(self, where: str, key: str, row: Row, source: FileSource | None) -> None:
        """Add a row.

        Args:
            where: the table and the row, for messages.
            key: of its clip, where it is the first row of it.
            row: its columns.
            source: its audio; ``None`` where there is none.

        Raises:
            InputError: if two rows of a clip name two recordings.
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
        mark = hash((identity, *map(str, row.values())))
        if mark in self._seen:
            self.repeated_rows += 1
            return
        self._seen.add(mark)
        texts = row_captions(row)
        captions = tuple(text for text in texts if has_words(text))
        self.empty_captions += len(texts) - len(captions)
        clip = self._clips.get(identity, Clip(key, (), source))
        self._clips[identity] = replace(clip, captions=clip.captions + captions)
        if said := filled_cell(row, column_names.RECORDINGS):
            before = self.recordings.setdefault(clip.key, said)
            if before != said:
                raise InputError(
                    f"{where} and an earlier row are of one clip, {clip.key!r}, and have the "
                    f"{said} and {before}; keep one of them"
                )

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
