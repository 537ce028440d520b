"""What a shard holds: clips and captions read, encoded and gathered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.batch import Tokenize
from atr_moco_plugin.data.loading.evaluation_audio import map_ahead
from atr_moco_plugin.embedding_cache.audio_files import describe_file
from atr_moco_plugin.embedding_cache.encode import encode_clips, encode_texts
from atr_moco_plugin.embedding_cache.outputs import Stage
from atr_moco_plugin.embedding_cache.shards import ShardContent
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.ids import stable_digest

MakeContent = Callable[[range, Stage], ShardContent]
"""What some items, by their numbers, become at a stage."""


class Crops(NamedTuple):
    """A clip as it is read for a cache.

    Attributes:
        waveforms: ``[n]`` float32 each, those that differ.
        rows: for each crop its place in ``waveforms``.
        file: what the clip's file was; ``None`` for a clip that is rendered.
    """

    waveforms: list[NDArray[np.float32]]
    rows: list[int]
    file: list[Any] | None


def read_crops(dataset: AudioTextDataset, clip: Clip, samples: int, crops: int, seed: int) -> Crops:
    """The crops of a clip: its beginning, which an evaluation reads too, and then drawn ones.

    Args:
        dataset: where the clip comes from.
        clip: the clip.
        samples: the most samples of a crop; a clip that has no more has one.
        crops: how many.
        seed: of the drawn ones.

    Raises:
        FileNotFoundError, InputError: if the clip cannot be read.
    """
    file = describe_file(clip.source) if dataset.read is None else None
    waveforms = [dataset.load(clip, samples)]
    rows = [0]
    for number in range(1, crops):
        row = 0
        if len(waveforms[0]) == samples:
            draw = stable_digest("cached crop", seed, clip.key, number)
            waveform = dataset.load(clip, samples, torch.Generator().manual_seed(draw))
            if not np.array_equal(waveform, waveforms[0]):  # not just as long as a crop
                row = len(waveforms)
                waveforms.append(waveform)
        rows.append(row)
    return Crops(waveforms, rows, file)


@dataclass(frozen=True)
class ClipContent:
    """Makes the content of shards of clips.

    Attributes:
        tower: the audio tower, whose encoder is frozen.
        dataset: where the clips come from, at the encoder's rate.
        clips: in the order of the items.
        samples: the most samples of a crop.
        crops: crops of a clip.
        seed: of the crops.
        batch_size: crops a forward pass.
        num_workers: threads that decode ahead.
    """

    tower: Any
    dataset: AudioTextDataset
    clips: Sequence[Clip]
    samples: int
    crops: int
    seed: int
    batch_size: int
    num_workers: int

    def __call__(self, items: range, stage: Stage) -> ShardContent:
        """Read and encode clips; one that cannot be read is noted with the reason.

        Raises:
            InputError: if an output is not finite or beyond float16.
        """
        content = ShardContent()
        clips = [self.clips[item] for item in items]
        read = enumerate(map_ahead(self._read, clips, self.num_workers, ahead=self.batch_size))
        waveforms: list[NDArray[np.float32]] = []
        names: list[str] = []
        for place, clip in read:
            if isinstance(clip, str):
                content.bad[place] = clip
                content.rows.append([])
                continue
            first = len(content.outputs) + len(waveforms)
            content.rows.append([first + row for row in clip.rows])
            waveforms += clip.waveforms
            names += [f"clip {clips[place].key!r}"] * len(clip.waveforms)
            if clip.file is not None:
                content.files[place] = clip.file
            while len(waveforms) >= self.batch_size:
                n = self.batch_size
                content.outputs += encode_clips(self.tower, waveforms[:n], names[:n], stage)
                del waveforms[:n], names[:n]
        content.outputs += encode_clips(self.tower, waveforms, names, stage)
        return content

    def is_readable(self, clip: Clip) -> bool:
        """Whether a clip can be read."""
        return not isinstance(self._read(clip), str)

    def _read(self, clip: Clip) -> Crops | str:
        try:
            return read_crops(self.dataset, clip, self.samples, self.crops, self.seed)
        # Those that the loader of training batches skips too: a file is to blame.
        except (OSError, InputError) as error:
            return str(error)


@dataclass(frozen=True)
class CaptionContent:
    """Makes the content of shards of captions.

    Attributes:
        tower: the text tower, whose encoder is frozen.
        tokenize: the tokenizer.
        texts: in the order of the items.
        batch_size: captions a forward pass.
    """

    tower: Any
    tokenize: Tokenize
    texts: Sequence[str]
    batch_size: int

    def __call__(self, items: range, stage: Stage) -> ShardContent:
        """Encode captions.

        Raises:
            InputError: if an output is not finite or beyond float16.
        """
        content = ShardContent(rows=[[place] for place in range(len(items))])
        texts = iter(self.texts[item] for item in items)
        while batch := list(islice(texts, self.batch_size)):
            ids, mask = self.tokenize(batch)
            names = [f"caption {text!r}" for text in batch]
            content.outputs += encode_texts(self.tower, ids, mask, names, stage)
        return content
