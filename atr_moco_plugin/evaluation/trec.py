"""Rankings and relevance in the format of TREC, for trec_eval, ir_measures, ranx and others."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TextIO
from urllib.parse import quote, unquote

import torch
from torch import Tensor

from atr_moco_plugin.evaluation.relevance import Direction, Relevance

_BLOCK = 256


def trec_id(key: str) -> str:
    """A clip's key as an id without white space: percent-encoded, :func:`clip_key` undoes it.

    Example:
        >>> trec_id("birds & rain #2.wav")
        'birds%20%26%20rain%20%232.wav'
    """
    return quote(key, safe="", errors="surrogateescape")


def clip_key(identifier: str) -> str:
    """The key of the clip that an id of :func:`trec_id`, or of one of its captions, is for."""
    return unquote(identifier.partition("#")[0], errors="surrogateescape")


def caption_ids(keys: Sequence[str], caption_to_audio: Tensor | None, captions: int) -> list[str]:
    """An id for each of C captions: ``<clip id>#<n>``, n from 0 among the captions of its clip.

    Args:
        keys: the A clips' keys.
        caption_to_audio: ``[C]`` the clip of each caption; None where a caption has several, and
            the ids are ``#<n>``.
        captions: C.
    """
    if caption_to_audio is None:
        return [f"#{n}" for n in range(captions)]
    seen = [0] * len(keys)
    ids = []
    for clip in caption_to_audio.tolist():
        ids.append(f"{trec_id(keys[clip])}#{seen[clip]}")
        seen[clip] += 1
    return ids


class RunFiles:
    """Writes ``<direction>_<system>.run`` files, of any number of systems, query by query.

    A line is ``query Q0 item rank score tag``. Ranks are the ranks of the metrics: among
    equal scores the irrelevant items come first. The written score is the number of listed items
    from the rank on, so that it falls strictly and no reader can order ties in another way.

    Pass it as ``on_scores`` to :func:`~atr_moco_plugin.evaluation.retrieval.rank_queries`,
    inside of a ``with``.

    Args:
        folder: where the files go; made when it is missing.
        clips: the A clips' ids.
        captions: the C captions' ids.
        depth: items listed for a query.
    """

    def __init__(
        self, folder: Path, clips: Sequence[str], captions: Sequence[str], depth: int
    ) -> None:
        self._folder = folder
        self._ids: dict[Direction, tuple[Sequence[str], Sequence[str]]] = {
            "a2t": (clips, captions),
            "t2a": (captions, clips),
        }
        self._depth = depth
        self._files: dict[str, TextIO] = {}
        self._stack = ExitStack()

    def __enter__(self) -> RunFiles:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def __call__(
        self, direction: Direction, system: str, start: int, scores: Tensor, relevant: Tensor
    ) -> None:
        """Write the ranking of n queries.

        Args:
            direction: ``a2t`` or ``t2a``.
            system: its name.
            start: number of the first query.
            scores: ``[n, items]``.
            relevant: ``[n, items]`` bool.
        """
        queries, items = self._ids[direction]
        file = self._file(f"{direction}_{system}")
        for row, order in enumerate(best_first(scores, relevant, self._depth).tolist()):
            query = queries[start + row]
            file.writelines(
                f"{query} Q0 {items[item]} {rank} {len(order) - rank + 1} {system}\n"
                for rank, item in enumerate(order, start=1)
            )

    def _file(self, name: str) -> TextIO:
        if name not in self._files:
            path = self._folder / f"{name}.run"
            file = path.open("w", encoding="utf-8", newline="\n")
            self._files[name] = self._stack.enter_context(file)
        return self._files[name]


def best_first(scores: Tensor, relevant: Tensor, depth: int) -> Tensor:
    """Items of each query in the order that the metrics see.

    Args:
        scores: ``[n, items]``, larger is better.
        relevant: ``[n, items]`` bool; among equal scores the irrelevant items come first.
        depth: how many.

    Returns:
        ``[n, min(depth, items)]`` int64.
    """
    order = relevant.byte().sort(dim=1, stable=True).indices
    by_score = scores.gather(1, order).sort(dim=1, descending=True, stable=True).indices
    return order.gather(1, by_score)[:, :depth]


def write_qrels(
    folder: Path,
    relevance: Relevance,
    clips: Sequence[str],
    captions: Sequence[str],
    suffix: str = "",
) -> None:
    """Write ``a2t<suffix>.qrels`` and ``t2a<suffix>.qrels``, a line ``query 0 item 1`` a pair.

    Args:
        folder: where they go.
        relevance: which clips and captions belong together.
        clips: the A clips' ids.
        captions: the C captions' ids.
        suffix: part of the names.
    """
    ids: dict[Direction, tuple[Sequence[str], Sequence[str]]] = {
        "a2t": (clips, captions),
        "t2a": (captions, clips),
    }
    for direction, (queries, items) in ids.items():
        path = folder / f"{direction}{suffix}.qrels"
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for start in range(0, len(queries), _BLOCK):
                block = relevance.block(direction, start, min(start + _BLOCK, len(queries)))
                pairs = torch.nonzero(block)
                file.writelines(
                    f"{queries[start + query]} 0 {items[item]} 1\n"
                    for query, item in pairs.tolist()
                )
