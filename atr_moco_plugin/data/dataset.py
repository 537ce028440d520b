"""Clips with captions, in splits: every data set of this package once it is open."""

from __future__ import annotations

import warnings
from array import array
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray

from atr_moco_plugin.data.audio.cache import Packed, pack, unpack
from atr_moco_plugin.data.audio.read import check_length, fit_length, resample
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.audio.source import FileSource
from atr_moco_plugin.data.clips import Clip, ClipTable, content_digest
from atr_moco_plugin.data.retrieval_set import RelevanceMode, RetrievalSet, make_retrieval_set
from atr_moco_plugin.data.summary import Counts, low_rates, summarize, total_seconds
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.sample_rate import check_sample_rate


class AudioTextDataset:
    """Named splits of clips, and the way to their audio.

    The sampling rate belongs to the model. A data set has none before :meth:`read_with` sets it,
    and refuses to read until then.

    Args:
        name: part of every clip id; give two different data sets two names.
        splits: split name to clips. A key may occur only once in the whole data set.
        read: turns a clip into its waveform, ``[samples]`` float32 mono, for clips that are
            rendered and not read from files. It must be picklable if worker processes are spawned.
            ``None`` reads ``clip.source`` with the reader of :meth:`read_with`.
        read_rate: Hz of what ``read`` returns, required with it. The waveform is resampled once, to
            the rate of :meth:`read_with`.
        read_key: what decides about what ``read`` returns, as text; with it, the reader's
            ``cache_dir`` keeps rendered clips too.
        made_of: what is heard in a clip of ``read`` besides what its key and captions say, as text
            that is equal wherever files lie; it is part of :meth:`fingerprint`.
        relevance_mode: the default of :meth:`retrieval_set`.
        counts: split name, or :data:`~.summary.NO_SPLIT`, to what opening it counted, also for
            splits left without a clip.
        cache: keep every waveform in memory once it has been loaded (16-bit where that is exact,
            else 32-bit). Each worker process has a cache of its own.
        file_rates: number of files for each sampling rate, where headers were read; for a warning.

    Raises:
        InputError: if there is no clip, a key occurs twice, a clip has no caption, or ``read`` is
            given without its rate.
    """

    unreadable: tuple[FileSource, ...] = ()
    """Audio of the clips that opening left out since it cannot be read."""

    def __init__(
        self,
        name: str,
        splits: Mapping[str, Sequence[Clip]],
        *,
        read: Callable[[Clip], NDArray[np.float32]] | None = None,
        read_rate: int | None = None,
        read_key: Callable[[Clip], str] | None = None,
        made_of: Callable[[Clip], str] | None = None,
        relevance_mode: RelevanceMode = "clip",
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
        self.counts: dict[str, Counts] = dict(counts or {})
        self.cache = cache
        self.file_rates: dict[int, int] = dict(file_rates or {})
        self.read = read
        self.read_key = read_key
        self.made_of = made_of
        self.read_rate = 0
        if read is not None:
            self.read_rate = check_sample_rate(read_rate, f"`read` of the data set {name!r}")
            self.file_rates = {self.read_rate: sum(map(len, self.splits.values()))}
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

    @property
    def seconds(self) -> float | None:
        """Duration of all clips; ``None`` if unknown."""
        return total_seconds(self.counts.values())

    @property
    def missing(self) -> int:
        """Clips that the data set lists and whose audio was not found."""
        return sum(counts.missing for counts in self.counts.values())

    def clips(self, split: str) -> ClipTable:
        """The clips of a split.

        Raises:
            InputError: if there is no such split; the message lists the splits there are.
        """
        if split not in self.splits:
            names = ", ".join(repr(name) for name in self.splits)
            raise InputError(
                f"{self.name} has no split {split!r}, but {names}; name one of these, or give some "
                "of the data that split"
            )
        return self.splits[split]

    def clip_id(self, clip: Clip) -> int:
        """The clip's 63-bit id."""
        return clip.clip_id(self.name)

    def read_with(self, reader: AudioReader) -> AudioTextDataset:
        """Set how audio is read, before any is: the rate, and for files the decoder and the cache.

        Rendered clips are resampled to that rate. If most audio has less than nine tenths of the
        reader's rate, a warning says that the model's upper bands are empty.

        Args:
            reader: ``AudioReader(model.sample_rate)``, at least.

        Returns:
            This data set.

        Raises:
            InputError: if audio is already read at another rate: two models cannot share one open
                data set.
        """
        if self._reader is None:
            if low := low_rates(self.name, self.file_rates, reader.sample_rate):
                warnings.warn(low, stacklevel=2)
        elif self._reader.sample_rate != reader.sample_rate:
            raise InputError(
                f"{self.name} is read at {self._reader.sample_rate} Hz already, not at "
                f"{reader.sample_rate} Hz; open the data set again for a model of another rate"
            )
        self._reader = reader
        return self

    @property
    def is_read(self) -> bool:
        """Whether :meth:`read_with` has been called."""
        return self._reader is not None

    @property
    def sample_rate(self) -> int:
        """Hz of the waveforms that :meth:`load` returns.

        Raises:
            InputError: if :meth:`read_with` has not been called.
        """
        return self.reader.sample_rate

    @property
    def reader(self) -> AudioReader:
        """What :meth:`read_with` set; raises as :attr:`sample_rate` does."""
        if self._reader is None:
            raise InputError(
                f"{self.name}: nobody has said at which sampling rate audio is read; call "
                "`dataset.read_with(AudioReader(model.sample_rate))` first"
            )
        return self._reader

    def load(
        self, clip: Clip, samples: int | None = None, generator: torch.Generator | None = None
    ) -> NDArray[np.float32]:
        """The clip's waveform, float32 mono at :attr:`sample_rate`; do not write to it.

        Args:
            clip: a clip of this data set.
            samples: the most samples to return; ``None`` returns all.
            generator: draws where the part of a longer clip starts; ``None`` takes its beginning.

        Returns:
            ``[n]``; a clip shorter than ``samples`` is returned as it is.

        Raises:
            FileNotFoundError, InputError: if the audio is missing, unreadable or too short, or
                :meth:`read_with` has not been called.
        """
        reader = self.reader
        cached = self._cached.get(clip.key)
        if cached is not None:
            waveform = unpack(cached)
        elif self.read is None and not self.cache:
            return reader(clip.source, samples, generator)
        else:
            waveform = self._whole(clip, reader)
            if self.cache:
                self._cached[clip.key] = pack(waveform, exact=True)
        return waveform if samples is None else fit_length(waveform, samples, generator)

    def _whole(self, clip: Clip, reader: AudioReader) -> NDArray[np.float32]:
        read = self.read
        if read is None:
            return reader(clip.source)

        def render() -> NDArray[np.float32]:
            rendered = check_length(read(clip), self.read_rate, f"{self.name} clip {clip.key!r}")
            return resample(rendered, self.read_rate, reader.sample_rate)

        return render() if self.read_key is None else reader.kept(self.read_key(clip), render)

    def summary(self) -> str:
        """One line: clips and captions a split, duration, shared captions, what was left out."""
        return summarize(self.name, self.splits, self.counts)

    def drop_captions(self, split: str, numbers: Sequence[int]) -> int:
        """Drop captions of a split, and clips that have no other caption; both are counted.

        Args:
            split: a split's name.
            numbers: of the captions, counted from 0 over all clips in order.

        Returns:
            Number of clips that are left out.

        Raises:
            InputError: if there is no such split.
        """
        dropped, kept, number = set(numbers), ClipTable(), count()
        for clip in self.clips(split):
            captions = tuple(text for text in clip.captions if next(number) not in dropped)
            if captions:
                kept.append(replace(clip, captions=captions))
        num_clips = len(self.clips(split)) - len(kept)
        counts = self.counts.get(split, Counts())
        self.counts[split] = replace(
            counts,
            empty_captions=counts.empty_captions + len(dropped),
            no_caption=counts.no_caption + num_clips,
        )
        self.splits[split] = kept
        return num_clips

    def fingerprint(self) -> str:
        """Hexadecimal digest of the name, the splits, keys, captions, labels, groups and segments,
        and of what rendered clips are made of.

        It is equal for equal content in every process and run, and does not depend on where the
        audio lies.
        """
        return content_digest(self.name, self.splits, self.made_of)

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
            InputError: if there is no such split or mode, or a clip lacks the label it takes.
        """
        clips: Sequence[Clip] = self.clips(split)
        if without:
            clips = [clip for clip in clips if clip.key not in without]
        return make_retrieval_set(clips, self.relevance_mode if mode is None else mode, self.name)
