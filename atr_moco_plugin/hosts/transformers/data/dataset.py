"""Splits of this package's data sets as examples for the collator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.safety.names import name_clips_of
from atr_moco_plugin.text.checks import check_captions


class ClipDataset(Dataset[dict[str, Any]]):
    """The clips of a split, each with all of its captions.

    Args:
        dataset: an open data set, from :mod:`atr_moco_plugin.data`.
        split: name of the split.
        sample_rate: rate of the feature extractor in Hz; files are read at it.

    Raises:
        InputError: there is no such split, or the data set is already read at another rate.
    """

    def __init__(self, dataset: AudioTextDataset, split: str, sample_rate: int) -> None:
        self._dataset = dataset.read_with(AudioReader(sample_rate))
        self._split = split
        self._clips = dataset.clips(split)

    @property
    def name(self) -> str:
        """Name of the data set and of the split."""
        return f"{self._dataset.name} {self._split}"

    @property
    def source(self) -> tuple[AudioTextDataset, str]:
        """The data set, and the name of the split."""
        return self._dataset, self._split

    def __len__(self) -> int:
        """Number of examples."""
        return len(self._clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """As :meth:`PairDataset.__getitem__`, but ``caption`` and ``caption_id`` are lists."""
        clip = self._clips[index]
        captions = {"caption": list(clip.captions), "caption_id": list(clip.caption_ids)}
        return {**self._audio(clip), **captions}

    def fingerprint(self) -> str:
        """Digest of the data set's content, see
        :meth:`~atr_moco_plugin.data.dataset.AudioTextDataset.fingerprint`."""
        return self._dataset.fingerprint()

    def name_clips(self, ids: Sequence[int]) -> Mapping[int, str]:
        """Clip ids to the names of the clips in the data set."""
        return name_clips_of(self._dataset, self._split)(ids)

    def _audio(self, clip: Clip) -> dict[str, Any]:
        example: dict[str, Any] = {
            "audio": None,
            "sampling_rate": self._dataset.sample_rate,
            "clip_id": self._dataset.clip_id(clip),
            "name": clip.key,
        }
        try:
            example["audio"] = self._dataset.load(clip)
        except (OSError, ValueError) as ex:
            example["problem"] = str(ex)
        return example


class PairDataset(ClipDataset):
    """All (clip, caption) pairs of a split of this package's data sets, as examples for
    :class:`~atr_moco_plugin.hosts.transformers.ClapCollator`.

    Args:
        dataset: an open data set, from :mod:`atr_moco_plugin.data`.
        split: name of the split.
        sample_rate: rate of the feature extractor in Hz; files are read at it.

    Raises:
        InputError: there is no such split, or the data set is already read at another rate.
    """

    def __init__(self, dataset: AudioTextDataset, split: str, sample_rate: int) -> None:
        super().__init__(dataset, split, sample_rate)
        self._pairs = self._list_pairs()

    def _list_pairs(self) -> list[tuple[Clip, int]]:
        clips = self._dataset.clips(self._split)
        return [(clip, number) for clip in clips for number in range(len(clip.captions))]

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self._pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``audio`` (``[samples]`` float32), ``sampling_rate``, ``name``, ``caption``, ``clip_id``
        and ``caption_id``; where the audio cannot be read, ``problem`` says why."""
        clip, number = self._pairs[index]
        caption = {"caption": clip.captions[number], "caption_id": clip.caption_ids[number]}
        return {**self._audio(clip), **caption}

    def by_clip(self) -> ClipDataset:
        """The same split with one example for each clip. ``MocoCallback`` has ``Trainer`` evaluate
        it, so that each clip is read and encoded once."""
        return ClipDataset(self._dataset, self._split, self._dataset.sample_rate)

    def check_captions(
        self, tokenizer: PreTrainedTokenizerBase, max_tokens: int, *, allow_unknown: bool
    ) -> None:
        """Drop captions of which the tokenizer leaves no token, and refuse a tokenizer that knows
        too few of them, see :func:`~atr_moco_plugin.text.checks.check_captions`. ``MocoCallback``
        calls it."""
        check_captions(
            tokenizer,
            self._dataset,
            [self._split],
            max_tokens,
            allow_unknown=allow_unknown,
            option="MocoCallback.allow_unknown",
            tokens_option="ClapCollator.max_tokens",
        )
        self._pairs = self._list_pairs()
