"""The towers and the head of a model on a device, batch by batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atr_moco_plugin.errors import DeviceError, InputError
from atr_moco_plugin.evaluation.captions import distinct_captions
from atr_moco_plugin.retriever.backbone import Backbone, Samples
from atr_moco_plugin.retriever.recordings import Part
from atr_moco_plugin.text.tokenizer import tokenize
from atr_moco_plugin.tokens import AudioTokens, TextTokens, take_tokens

Progress: TypeAlias = Callable[[int], None]
"""Told how many more are done."""

_SENTENCES = 4_096
"""Sentences that are tokenized at once."""


class SentenceTokens(NamedTuple):
    """Sentences as a matching head reads them, each distinct one once.

    Attributes:
        ids: ``[D, L]`` int64.
        mask: ``[D, L]`` bool.
        rows: of each sentence, its row in them.
    """

    ids: Tensor
    mask: Tensor
    rows: list[int]


class Runner:
    """Computes with a model, without gradients.

    Args:
        backbone: its model is moved to the device.
        device: where to compute.
        dtype: of the computations, by autocast; weights and embeddings stay float32.
    """

    def __init__(self, backbone: Backbone, device: torch.device, dtype: torch.dtype) -> None:
        self.backbone, self.device, self.dtype = backbone, device, dtype
        self.model = backbone.model.to(device)
        self.embed_dim = self.model.embed_dim
        self._one_at_a_time = Lock()  # a tokenizer keeps how it cuts and pads

    def windows(self, part: Part, batch_size: int) -> NDArray[np.float32]:
        """``[N, d]`` float32, unit-norm, of N windows, so many at once.

        Raises:
            InputError: by its name, for one whose embedding is not finite.
        """
        found = np.empty((len(part.waveforms), self.embed_dim), np.float32)
        for rows in self._batches(part.waveforms, batch_size):
            embeddings, _ = self._audio([part.waveforms[i] for i in rows])
            found[rows] = embeddings.float().cpu().numpy()
        _check_finite(found, part.names.__getitem__)
        return found

    def sentences(
        self,
        sentences: Sequence[str],
        batch_size: int,
        progress: Progress | None = None,
    ) -> Tensor:
        """``[N, d]`` float32 on the CPU, unit-norm, of N sentences, so many at once.

        ``progress`` is told of each batch how many it has; those that repeat come last.

        Raises:
            InputError: by its number, for a sentence without a word, or whose embedding is not
                finite.
        """
        found = [torch.zeros(0, self.embed_dim)]
        unread = _Unread()
        for start in range(0, len(sentences), _SENTENCES):
            some = sentences[start : start + _SENTENCES]
            numbers = range(start, start + len(some))
            captions = distinct_captions(*self._tokenized(some, numbers, unread), batch_size)
            rows = []
            for batch in captions.batches:
                rows.append(self._text(*batch)[0].float().cpu())
                if progress is not None:
                    progress(len(rows[-1]))
            if progress is not None:
                progress(len(some) - sum(map(len, rows)))
            found.append(torch.cat(rows)[captions.rows])
        unread.warn(self.backbone.config.max_tokens)
        embeddings = torch.cat(found)
        _check_finite(embeddings.numpy(), lambda i: f"sentence {i} ({sentences[i][:60]!r})")
        return embeddings

    def tokens(self, sentences: Sequence[str]) -> SentenceTokens:
        """What :meth:`log_odds` reads of N sentences.

        Raises:
            InputError: by its number, for a sentence without a word.
        """
        first: dict[str, int] = {}  # of each distinct sentence, its number
        for number, sentence in enumerate(sentences):
            first.setdefault(sentence, number)
        place = {sentence: row for row, sentence in enumerate(first)}
        unread = _Unread()
        ids = mask = torch.empty(0)
        if first:
            ids, mask = self._tokenized(list(first), list(first.values()), unread)
        unread.warn(self.backbone.config.max_tokens)
        return SentenceTokens(ids, mask, [place[sentence] for sentence in sentences])

    def log_odds(self, tokens: SentenceTokens, part: Part, batch_size: int) -> Tensor:
        """``[P]`` float32 on the CPU, of P windows, so many at once: each with the sentence that
        has the number of its recording.

        Raises:
            InputError: by its name, for one whose log-odds are not finite.
        """
        found = torch.empty(len(part.waveforms))
        for rows in self._batches(part.waveforms, batch_size):
            wanted = torch.tensor([tokens.rows[part.rows[i]] for i in rows])
            once, place = torch.unique(wanted, return_inverse=True)
            ids, mask = tokens.ids[once], tokens.mask[once]
            longest = int(mask.sum(dim=1).max())
            _, text = self._text(ids[:, :longest], mask[:, :longest])
            _, audio = self._audio([part.waveforms[i] for i in rows])
            with self._computing():
                text = take_tokens(text, place.to(self.device))
                logits = self.model.match(text, audio).float()
            found[rows] = (logits[:, 1] - logits[:, 0]).cpu()
        _check_finite(found.numpy(), part.names.__getitem__)
        return found

    def _audio(self, waveforms: Sequence[Samples]) -> tuple[Tensor, AudioTokens]:
        inputs = self._moved(self.backbone.audio_inputs(waveforms))
        with self._computing():
            result: tuple[Tensor, AudioTokens] = self.model.audio(**inputs)
        return result

    def _text(self, input_ids: Tensor, mask: Tensor) -> tuple[Tensor, TextTokens]:
        inputs = self._moved(self.backbone.text_inputs(input_ids, mask))
        with self._computing():
            result: tuple[Tensor, TextTokens] = self.model.text(**inputs)
        return result

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Without gradients, in the dtype; what a device cannot do becomes one sentence."""
        half = self.dtype != torch.float32
        try:
            with torch.inference_mode(), torch.autocast(self.device.type, self.dtype, half):
                yield
        except torch.cuda.OutOfMemoryError as ex:
            raise DeviceError(
                f"{self.device} has no memory left for a batch: give a smaller batch size"
            ) from ex
        except RuntimeError as ex:
            if not half or "not implemented" not in str(ex):
                raise
            raise DeviceError(
                f"{str(self.dtype).removeprefix('torch.')} cannot be computed on {self.device} "
                f"({str(ex).splitlines()[0]}): take float32"
            ) from ex

    def _moved(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        # The lengths stay: encoders count with them on the CPU.
        return {k: v if k == "lengths" else v.to(self.device) for k, v in inputs.items()}

    def _batches(self, waveforms: Sequence[Samples], batch_size: int) -> Iterator[list[int]]:
        lengths = [len(waveform) for waveform in waveforms]
        return batches(lengths, batch_size, self.backbone.any_padding)

    def _tokenized(
        self, sentences: Sequence[str], numbers: Sequence[int], unread: _Unread
    ) -> tuple[Tensor, Tensor]:
        """Ids and mask of sentences, which have these numbers in messages; what the model does not
        read of them is added to ``unread``."""
        tokenizer, most = self.backbone.tokenizer, self.backbone.config.max_tokens
        with self._one_at_a_time:
            ids, mask = tokenize(tokenizer, sentences, most, numbers)
            # Only a sentence that is as long as it may be can have been cut.
            full = [sentences[i] for i in (mask.sum(dim=1) == most).nonzero().flatten().tolist()]
            whole = tokenizer(full, truncation=False, verbose=False)["input_ids"] if full else []
        unread.sentences += len(sentences)
        unread.cut += sum(len(x) > most for x in whole)
        unknown = tokenizer.unk_token_id
        if unknown is not None and (ids == unknown).any():
            special = torch.tensor(sorted(set(tokenizer.all_special_ids) - {unknown}))
            known = mask & (ids != unknown) & ~torch.isin(ids, special)
            lost = (~known.any(dim=1)).nonzero().flatten().tolist()
            if lost and not unread.lost:
                unread.example = sentences[lost[0]]
            unread.lost += len(lost)
        return ids, mask


@dataclass
class _Unread:
    """What a model does not read of sentences that are tokenized part by part."""

    sentences: int = 0
    cut: int = 0
    lost: int = 0
    example: str = ""

    def warn(self, most: int) -> None:
        """Say it once, of all of them, in the line that has called the retriever."""
        if self.cut:
            warnings.warn(
                f"{self.cut:,} of {self.sentences:,} sentences are longer than the model's {most} "
                "tokens and are cut: the rest of them is not looked at",
                stacklevel=4,
            )
        if self.lost:
            warnings.warn(
                f"the model knows no word of {self.lost:,} of {self.sentences:,} sentences, such "
                f"as {self.example[:60]!r}: what is found for them is chance",
                stacklevel=4,
            )


def batches(
    lengths: Sequence[int], batch_size: int, any_padding: bool = True
) -> Iterator[list[int]]:
    """Numbers of items in batches of similar length, so that little is padded.

    Args:
        lengths: of the items.
        batch_size: most items of a batch.
        any_padding: whether items of different lengths may be in one batch.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    batch: list[int] = []
    for i in order:
        apart = bool(batch) and not any_padding and lengths[batch[0]] != lengths[i]
        if len(batch) == batch_size or apart:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def usable_device(device: str | torch.device | None) -> torch.device:
    """The device of that name; None takes a GPU where there is one.

    Raises:
        InputError: if it cannot be used here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as ex:
        reason = str(ex).splitlines()[0]
        raise InputError(f"`device` is {str(device)!r}, which cannot be used: {reason}") from ex
    return found


def _check_finite(values: NDArray[np.float32], name: Callable[[int], str]) -> None:
    """Refuse results that are not finite, with the name of the first row that has one."""
    bad = np.flatnonzero(~np.isfinite(values.sum(axis=tuple(range(1, values.ndim)))))
    if len(bad):
        raise InputError(
            f"the model's result for {name(int(bad[0]))} is not finite: look at it, or use float32 "
            "in place of float16"
        )
