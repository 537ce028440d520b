"""Clips with captions, in splits: what every data set of this package is once it is open."""

from __future__ import annotations

import hashlib
import json
import warnings
from array import array
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atr_moco_plugin.data.audio.cache import Packed, pack, unpack
from atr_moco_plugin.data.audio.read import check_length, fit_length, resample
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.audio.source import Segment
from atr_moco_plugin.data.clips import Clip, ClipTable
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.ids import normalize_caption
from atr_moco_plugin.sample_rate import check_sample_rate

RelevanceMode = Literal["clip", "label"]


@dataclass(frozen=True)
class RetrievalSet:
    """The A clips and C captions of one split that retrieve each other, and which are relevant.

    Attributes:
        clips: the A clips, in the split's order.
        captions: the C caption texts.
        caption_ids: ``[C]`` int64.
        caption_to_audio: ``[C]`` int64, the one clip of each caption; ``None`` in ``"label"`` mode,
            where a caption has several.
        label_relevance: :attr:`relevance` in ``"label"`` mode; ``None`` in ``"clip"`` mode.
    """

    clips: list[Clip]
    captions: list[str]
    caption_ids: Tensor
    caption_to_audio: Tensor | None = None
    label_relevance: Tensor | None = None

    @cached_property
    def relevance(self) -> Tensor:
        """``[A, C]`` bool, ``True`` where clip and caption are relevant to each other. It is made on
        first use: for 50,000 clips with five captions each it takes 12.5 GB."""
        if self.label_relevance is not None:
            return self.label_relevance
        assert self.caption_to_audio is not None
        return torch.arange(len(self.clips))[:, None] == self.caption_to_audio[None, :]


@dataclass(frozen=True)
class Counts:
    """What opening one split found besides its clips.

    Attributes:
        seconds: duration of the clips, ``None`` where it is not known.
        missing: clips left out because their audio was not found.
        unreadable: clips left out because their file is empty, broken or too short.
        no_caption: clips left out because none of their captions has words in it.
        empty_captions: captions without words, of clips that are kept or not.
        repeated_rows: rows equal to an earlier one, dropped.
        shared_audio: clips whose recording is in another split as well.
        same_audio: clips whose recording is an earlier clip of the split as well.
    """

    seconds: float | None = None
    missing: int = 0
    unreadable: int = 0
    no_caption: int = 0
    empty_captions: int = 0
    repeated_rows: int = 0
    shared_audio: int = 0
    same_audio: int = 0


_NEARLY = 0.9

_NOTES = {
    "unreadable": "unreadable clips left out",
    "no_caption": "clips without a caption left out",
    "empty_captions": "empty captions dropped",
    "repeated_rows": "repeated rows dropped",
    "shared_audio": "clips with audio that another split has",
    "same_audio": "clips with audio that another clip of the split has",
}


class AudioTextDataset:
    """Named splits of clips, and the way to their audio.

    The sampling rate belongs to the model, so a data set has none before :meth:`read_with` says
    one, and refuses to read: nothing is ever read at a rate that nobody asked for.

    Args:
        name: part of every clip id; give two different data sets two names.
        splits: split name to clips. A key may occur only once in the whole data set.
        read: a clip to its waveform, ``[samples]`` float32 mono, where clips are not files but
            rendered; with worker processes that are spawned it must be picklable. ``None`` reads
            ``clip.source`` as :class:`~atr_moco_plugin.data.audio.reader.AudioReader` does.
        read_rate: Hz of what ``read`` returns, required with it. It is resampled once to the rate
            of :meth:`read_with`.
        relevance_mode: the default mode of :meth:`retrieval_set`.
        seconds: total duration, where it is known.
        missing: clips that the data set lists and whose audio was not found.
        counts: the same and more by split, for the summary; of splits left without a clip too.
        cache: keep every waveform in memory after it was first loaded (16-bit where that is exact,
            else 32-bit). Worker processes have a cache each.
        file_rates: how many files have which sampling rate, where headers were read; for a warning.

    Raises:
        ValueError: if there is no clip, a key occurs twice, a clip has no caption, or ``read`` is
            given without its rate.
    """

    def __init__(
        self,
        name: str,
        splits: Mapping[str, Sequence[Clip]],
        *,
        read: Callable[[Clip], NDArray[np.float32]] | None = None,
        read_rate: int | None = None,
        relevance_mode: RelevanceMode = "clip",
        seconds: float | None = None,
        missing: int = 0,
        counts: Mapping[str, Counts] | None = None,
        cache: bool = False,
        file_rates: Mapping[int, int] | None = None,
    ) -> None:
        self.name = name
        self.splits: dict[str, ClipTable] = {
            split: clips if isinstance(clips, ClipTable) else ClipTable(clips)
            for split, clips in splits.items()
        }
        self.relevance_mode: RelevanceMode = relevance_mode
        self.seconds = seconds
        self.missing = missing
        self.counts: dict[str, Counts] = dict(counts or {})
        self.cache = cache
        self.file_rates: dict[int, int] = dict(file_rates or {})
        self._read = read
        self._read_rate = 0
        if read is not None:
            self._read_rate = check_sample_rate(read_rate, f"`read` of the data set {name!r}")
        self._reader: AudioReader | None = None
        self._cached: dict[str, Packed] = {}
        self._check()

    def _check(self) -> None:
        hashes = array("q")  # a million keys would not be small
        for split, clips in self.splits.items():
            for clip in clips:
                hashes.append(hash(clip.key))
                if not clip.captions:
                    raise InputError(
                        f"{self.name}: clip {clip.key!r} of split {split!r} has no caption; give "
                        "it one or leave it out"
                    )
        if not hashes:
            raise InputError(f"{self.name}: the data set has no clips; check its root folder")
        if len(np.unique(hashes)) < len(hashes):
            self._check_keys()

    def _check_keys(self) -> None:
        seen: dict[str, str] = {}
        for split, clips in self.splits.items():
            for clip in clips:
                if clip.key in seen:
                    raise InputError(
                        f"{self.name}: clip {clip.key!r} is in split {seen[clip.key]!r} and again "
                        f"in {split!r}; list every recording once"
                    )
                seen[clip.key] = split

    def clips(self, split: str) -> ClipTable:
        """The clips of a split.

        Raises:
            ValueError: if there is no such split; the message lists the splits there are.
        """
        if split not in self.splits:
            names = ", ".join(repr(name) for name in self.splits)
            raise InputError(
                f"{self.name} has no split {split!r}, but {names}; name one of these, or give some of "
                "the data that split"
            )
        return self.splits[split]

    def clip_id(self, clip: Clip) -> int:
        """The clip's 63-bit id."""
        return clip.clip_id(self.name)

    def read_with(self, reader: AudioReader) -> AudioTextDataset:
        """Say how audio is read, before any is: at which rate, and files with which decoder and
        cache. Clips that are rendered are resampled to that rate.

        Where most audio has a rate of less than nine tenths of the reader's (44.1 kHz for a model
        of 48 kHz loses nothing to speak of), a warning says so: its upper bands are empty.

        Args:
            reader: ``AudioReader(model.sample_rate)``, at least.

        Returns:
            This data set.

        Raises:
            ValueError: if audio is read at another rate already: two models do not share one open
                data set.
        """
        if self._reader is None:
            self._warn_of_lower_rates(reader.sample_rate)
        elif self._reader.sample_rate != reader.sample_rate:
            raise InputError(
                f"{self.name} is read at {self._reader.sample_rate} Hz already, not at "
                f"{reader.sample_rate} Hz; open the data set again for a model of another rate"
            )
        self._reader = reader
        return self

    @property
    def sample_rate(self) -> int:
        """Hz of what :meth:`load` returns.

        Raises:
            ValueError: if :meth:`read_with` has not been called.
        """
        return self._said().sample_rate

    def _said(self) -> AudioReader:
        if self._reader is None:
            raise InputError(
                f"{self.name}: nobody has said at which sampling rate audio is read; call "
                "`dataset.read_with(AudioReader(model.sample_rate))` first"
            )
        return self._reader

    def _warn_of_lower_rates(self, sample_rate: int) -> None:
        rates = self.file_rates
        if self._read is not None:
            rates = {self._read_rate: sum(len(clips) for clips in self.splits.values())}
        total = sum(rates.values())
        lower = {rate: n for rate, n in rates.items() if rate < _NEARLY * sample_rate}
        if 2 * sum(lower.values()) > total:
            most = max(lower, key=lambda rate: lower[rate])
            warnings.warn(
                f"{self.name}: {sum(lower.values()):,} of {total:,} clips have a lower sampling "
                f"rate than the model's {sample_rate} Hz (most {most} Hz), so the upper bands that "
                "it listens to are empty; take the original recordings, or an encoder of that rate",
                stacklevel=3,
            )

    def load(
        self, clip: Clip, samples: int | None = None, generator: torch.Generator | None = None
    ) -> NDArray[np.float32]:
        """The clip's waveform, float32 mono at :attr:`sample_rate`; do not write to it.

        Args:
            clip: a clip of this data set.
            samples: the most samples to return; ``None`` returns all.
            generator: where the start of a longer clip's part comes from; ``None`` takes its
                beginning.

        Returns:
            ``[n]``; a clip shorter than ``samples`` is returned as it is.

        Raises:
            FileNotFoundError, ValueError: if the audio is missing, unreadable or too short, or no
                rate has been said.
        """
        reader = self._said()
        cached = self._cached.get(clip.key)
        if cached is not None:
            waveform = unpack(cached)
        elif samples is not None and not self.cache and self._read is None:
            return reader.crop(clip, samples, generator)
        else:
            waveform = self._whole(clip, reader)
            if self.cache:
                self._cached[clip.key] = pack(waveform, exact=True)
        return waveform if samples is None else fit_length(waveform, samples, generator)

    def _whole(self, clip: Clip, reader: AudioReader) -> NDArray[np.float32]:
        if self._read is None:
            return reader(clip)
        rendered = check_length(self._read(clip), self._read_rate, f"{self.name} clip {clip.key!r}")
        return resample(rendered, self._read_rate, reader.sample_rate)

    def summary(self) -> str:
        """One line: clips and captions a split, duration, shared captions, what was left out."""
        parts = [self._split_summary(split) for split in {**self.splits, **self.counts}]
        if self.seconds is not None:
            parts.append(_duration(self.seconds))
        shared, total = self.shared_captions()
        parts.append(f"{shared:,} of {total:,} captions ({shared / total:.1%}) shared by 2+ clips")
        parts.append(f"{self.missing:,} clips without audio left out")
        for field, words in _NOTES.items():
            number = sum(getattr(counts, field) for counts in self.counts.values())
            if number:
                parts.append(f"{number:,} {words}")
        return f"{self.name}: " + ", ".join(parts)

    def _split_summary(self, split: str) -> str:
        clips = self.splits.get(split, ())
        text = f"{split} {len(clips):,} clips x {_captions_a_clip(clips)} captions"
        counts = self.counts.get(split, Counts())
        notes = [] if counts.seconds is None else [_duration(counts.seconds)]
        for field in ("missing", "unreadable"):
            if getattr(counts, field):
                notes.append(f"{getattr(counts, field):,} {field}")
        return f"{text} ({', '.join(notes)})" if notes else text

    def drop_captions(self, split: str, numbers: Sequence[int]) -> int:
        """Drop captions of a split, and the clips that have no other; both are counted.

        Args:
            split: a split's name.
            numbers: of the captions, counted from 0 over all clips in order.

        Returns:
            Number of clips that are left out.

        Raises:
            ValueError: if there is no such split.
        """
        dropped, kept, number = set(numbers), ClipTable(), 0
        for clip in self.clips(split):
            places = range(number, number + len(clip.captions))
            number = places.stop
            if dropped.isdisjoint(places):
                kept.append(clip)
                continue
            pairs = zip(places, clip.captions, strict=True)
            captions = tuple(text for place, text in pairs if place not in dropped)
            if captions:
                kept.append(replace(clip, captions=captions))
        gone = len(self.clips(split)) - len(kept)
        counts = self.counts.get(split, Counts())
        self.counts[split] = replace(
            counts,
            empty_captions=counts.empty_captions + len(dropped),
            no_caption=counts.no_caption + gone,
        )
        self.splits[split] = kept
        return gone

    def shared_captions(self, split: str | None = None) -> tuple[int, int]:
        """Count captions whose caption id is another clip's as well.

        Args:
            split: the split to count in; ``None`` counts over all clips of the data set.

        Returns:
            ``(shared, total)`` numbers of captions.
        """
        chosen = self.splits if split is None else {split: self.clips(split)}
        ids, owners = array("q"), array("q")
        for owner, clip in enumerate(chain.from_iterable(chosen.values())):
            own = clip.caption_ids
            ids.extend(own)
            owners.extend([owner] * len(own))
        texts = np.unique(ids, return_inverse=True)[1]
        clips_of_text = np.bincount(np.unique(np.stack([texts, owners]), axis=1)[0])
        return int((clips_of_text[texts] > 1).sum()), len(ids)

    def fingerprint(self) -> str:
        """Hexadecimal digest of the name, the splits, keys, captions, labels, groups and segments.

        It is equal for equal content in every process and run, and does not depend on where the
        audio lies.
        """
        digest = hashlib.blake2b(digest_size=16)
        digest.update(json.dumps(["atr-moco-plugin/1", self.name]).encode())
        for split, clips in self.splits.items():
            digest.update(json.dumps([split, len(clips)]).encode())
            for clip in clips:
                row = [clip.key, clip.captions, clip.label, clip.caption_group]
                if isinstance(clip.source, Segment):  # a clip_id may have another part by now
                    row.append((clip.source.start, clip.source.end))
                digest.update(json.dumps(row).encode())
        return digest.hexdigest()

    def retrieval_set(
        self, split: str, mode: RelevanceMode | None = None, without: Container[str] = ()
    ) -> RetrievalSet:
        """Clips, captions and relevance for evaluating retrieval on a split.

        Args:
            split: a split's name.
            mode: ``"clip"``: every caption row is a column and belongs to its clip alone.
                ``"label"``: every distinct caption text (after normalisation) is a column and
                belongs to all clips of its label. ``None`` takes the data set's own mode.
            without: keys of clips that are left out, with their captions.

        Raises:
            ValueError: if there is no such split or mode, or a clip lacks the label it takes.
        """
        clips = self.clips(split)
        if without:
            clips = [clip for clip in clips if clip.key not in without]
        mode = self.relevance_mode if mode is None else mode
        if mode == "clip":
            return _retrieval_by_clip(clips)
        if mode == "label":
            return _retrieval_by_label(clips, self.name)
        raise InputError(f"relevance mode must be 'clip' or 'label', not {mode!r}")


def _retrieval_by_clip(clips: Sequence[Clip]) -> RetrievalSet:
    owner = torch.tensor([row for row, clip in enumerate(clips) for _ in clip.captions])
    return RetrievalSet(
        clips=list(clips),
        captions=[text for clip in clips for text in clip.captions],
        caption_ids=torch.tensor([item for clip in clips for item in clip.caption_ids]),
        caption_to_audio=owner,
    )


def _retrieval_by_label(clips: Sequence[Clip], name: str) -> RetrievalSet:
    texts: dict[str, str] = {}
    ids: dict[str, int] = {}
    labels: dict[str, set[str]] = {}
    clip_labels: list[str] = []
    for clip in clips:
        if clip.label is None:
            raise InputError(
                f"{name}: clip {clip.key!r} has no label; use relevance mode 'clip' instead"
            )
        clip_labels.append(clip.label)
        for text, item in zip(clip.captions, clip.caption_ids, strict=True):
            key = normalize_caption(text)
            texts.setdefault(key, text)
            ids.setdefault(key, item)
            labels.setdefault(key, set()).add(clip.label)
    rows = [[label in labels[key] for key in texts] for label in clip_labels]
    return RetrievalSet(
        clips=list(clips),
        captions=list(texts.values()),
        caption_ids=torch.tensor(list(ids.values()), dtype=torch.int64),
        label_relevance=torch.tensor(rows, dtype=torch.bool),
    )


def _captions_a_clip(clips: Sequence[Clip]) -> str:
    counts = sorted({len(clip.captions) for clip in clips}) or [0]
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h" if seconds >= 360 else f"{seconds:.1f} s"
