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


class PairDataset(Dataset[dict[str, Any]]):
    """All (clip, caption) pairs of a split of this package's data sets, as
    :class:`~atr_moco_plugin.hosts.transformers.data.collator.ClapCollator` takes them.

    Args:
        dataset: an open data set, from :mod:`atr_moco_plugin.data`.
        split: name of the split.
        sample_rate: what the feature extractor works at; files are read at it.

    Raises:
        ValueError: there is no such split, or the data set is read at another rate already.
    """

    def __init__(self, dataset: AudioTextDataset, split: str, sample_rate: int) -> None:
        self._split, self._rate = split, sample_rate
        self._list(dataset)

    def _list(self, dataset: AudioTextDataset) -> None:
        self._clips = ClipDataset(dataset, self._split, self._rate)
        self._pairs = [
            (clip, caption, caption_id)
            for clip in dataset.clips(self._split)
            for caption, caption_id in zip(clip.captions, clip.caption_ids, strict=True)
        ]

    def check_captions(
        self, tokenizer: PreTrainedTokenizerBase, max_tokens: int, *, allow_unknown: bool
    ) -> None:
        """Drop captions that the tokenizer leaves nothing of, and refuse a tokenizer that knows too
        few, see :func:`~atr_moco_plugin.text.checks.check_captions`; ``MocoCallback`` does."""
        dataset = self._clips.dataset
        check_captions(
            tokenizer,
            dataset,
            [self._split],
            max_tokens,
            allow_unknown=allow_unknown,
            option="MocoCallback.allow_unknown",
        )
        if len(self._pairs) != sum(len(clip.captions) for clip in dataset.clips(self._split)):
            self._list(dataset)

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self._pairs)

    def by_clip(self) -> ClipDataset:
        """The same split with one example a clip, which has all of its captions. ``MocoCallback``
        has ``Trainer`` evaluate that, so that each clip is read and encoded once."""
        return self._clips

    def fingerprint(self) -> str:
        """Digest of the data set's content, see
        :meth:`~atr_moco_plugin.data.dataset.AudioTextDataset.fingerprint`."""
        return self._clips.dataset.fingerprint()

    def name_clips(self, ids: Sequence[int]) -> Mapping[int, str]:
        """What the clips with these ids are called in the data set."""
        return self._clips.name_clips(ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``audio`` (``[samples]`` float32), ``sampling_rate``, ``name``, ``caption``, ``clip_id``
        and ``caption_id``; where the audio cannot be read, ``problem`` says why."""
        clip, caption, caption_id = self._pairs[index]
        return {**self._clips.read(clip), "caption": caption, "caption_id": caption_id}


class ClipDataset(Dataset[dict[str, Any]]):
    """All clips of a split, each with all of its captions.

    Args:
        dataset: as of :class:`PairDataset`, like the others.
        split: name of the split.
        sample_rate: what the feature extractor works at.
    """

    def __init__(self, dataset: AudioTextDataset, split: str, sample_rate: int) -> None:
        self.dataset = dataset.read_with(AudioReader(sample_rate))
        self._split = split
        self._clips = dataset.clips(split)

    def __len__(self) -> int:
        """Number of clips."""
        return len(self._clips)

    def name_clips(self, ids: Sequence[int]) -> Mapping[int, str]:
        """What the clips with these ids are called in the data set."""
        return name_clips_of(self.dataset, self._split)(ids)

    def read(self, clip: Clip) -> dict[str, Any]:
        """An example without captions."""
        example: dict[str, Any] = {
            "audio": None,
            "sampling_rate": self.dataset.sample_rate,
            "clip_id": self.dataset.clip_id(clip),
            "name": clip.key,
        }
        try:
            example["audio"] = self.dataset.load(clip)
        except (OSError, ValueError) as ex:
            example["problem"] = str(ex)
        return example

    def __getitem__(self, index: int) -> dict[str, Any]:
        """As of :class:`PairDataset`, but ``caption`` and ``caption_id`` are lists."""
        clip = self._clips[index]
        captions = {"caption": list(clip.captions), "caption_id": list(clip.caption_ids)}
        return {**self.read(clip), **captions}
