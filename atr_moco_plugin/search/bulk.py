"""One embedding a recording, for many recordings that no index keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.search.embedding import embed_groups
from atr_moco_plugin.search.plan import Task, in_groups
from atr_moco_plugin.search.walk import Found

Group = tuple[list[Found], NDArray[np.float32], list[tuple[str, str]]]
"""Sounds, their embeddings ``[N, d]``, and name and reason of those that cannot be read."""

_THREADS = 2
"""That decode."""


def embed_each(found: Sequence[Found], retriever: AudioTextRetriever) -> Iterator[Group]:
    """Embed sounds as :meth:`~atr_moco_plugin.retriever.AudioTextRetriever.embed_audio` does: a
    long one is the normalised mean of its windows. A bar on standard error shows the time left.

    Args:
        found: sounds.
        retriever: embeds.

    Yields:
        Groups of sounds, in their order.
    """
    tasks = [Task(x, digest="", known=False) for x in found]
    groups = in_groups(tasks, retriever.batch_size)
    with tqdm(total=len(tasks), unit="recording") as bar:
        for outcomes in embed_groups(groups, retriever, threads=_THREADS):
            read = [x for x in outcomes if x.embedded is not None and not x.problem]
            sums = [x.embedded.embeddings.sum(axis=0, dtype=np.float64) for x in read if x.embedded]
            problems = [(x.task.found.name, x.problem) for x in outcomes if x.problem]
            table = np.array(sums).reshape(len(sums), retriever.embed_dim)
            means = retriever.mean_embeddings(torch.from_numpy(table)).numpy()
            yield [x.task.found for x in read], means, problems
            bar.update(len(outcomes))
