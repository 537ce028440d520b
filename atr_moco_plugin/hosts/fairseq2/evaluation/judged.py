"""What an evaluation makes where sentences have several relevant clips: the options ``qrels`` and
``dcase``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor

from atr_moco_plugin.data.retrieval_set import RetrievalSet
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.clip_names import file_name
from atr_moco_plugin.evaluation.graded import GradedMetrics
from atr_moco_plugin.evaluation.graded_table import graded_table
from atr_moco_plugin.evaluation.qrels import read_qrels, write_graded_qrels
from atr_moco_plugin.evaluation.relevance import Direction
from atr_moco_plugin.evaluation.rerank import DUAL, RERANKINGS, System
from atr_moco_plugin.evaluation.rescoring import INDUCTIVE
from atr_moco_plugin.evaluation.retrieval import OnScores
from atr_moco_plugin.evaluation.submission import Submissions
from atr_moco_plugin.hosts.fairseq2.config.evaluate import EvaluateRecipeConfig
from atr_moco_plugin.hosts.fairseq2.runs.output import DCASE
from atr_moco_plugin.io.paths import expanded


class Judged:
    """Graded figures and DCASE's files of one evaluation, for the options that ask for them.

    Both options are checked here, before anything is encoded.

    Args:
        config: the recipe's configuration.
        retrieval_set: clips and captions of the split.
        rerank_k: numbers of candidates that are re-ranked.
        out: the output folder.

    Raises:
        InputError: for a file of judgements that cannot be used, a system that is not evaluated,
            and two clips of one file name where DCASE's files are asked for.
    """

    def __init__(
        self,
        config: EvaluateRecipeConfig,
        retrieval_set: RetrievalSet,
        rerank_k: Sequence[int],
        out: Path,
    ) -> None:
        self._qrels = self._graded = self._submissions = None
        if config.qrels is not None:
            self._qrels = read_qrels(expanded(config.qrels, "qrels"), retrieval_set)
            self._graded = GradedMetrics(self._qrels)
        if config.dcase:
            known = [DUAL, *(System(k, score) for k in rerank_k for score in RERANKINGS)]
            names = [system.name for system in known]
            names += [name for name in config.correct if name in INDUCTIVE]
            for name in config.dcase:
                if name not in names:
                    raise InputError(
                        f"`dcase` names the system {name!r}, but this evaluation has "
                        f"{', '.join(names)}; name one of them."
                    )
            files = [file_name(clip) for clip in retrieval_set.clips]
            systems = list(dict.fromkeys(config.dcase))
            self._submissions = Submissions(out / DCASE, systems, retrieval_set.captions, files)

    def listeners(self, stack: ExitStack) -> list[OnScores]:
        """What is to see the scores; files are open as long as the stack is."""
        found: list[OnScores] = [] if self._graded is None else [self._graded]
        if self._submissions is not None:
            found.append(stack.enter_context(self._submissions))
        return found

    def figures(self, cluster: Tensor) -> dict[str, Any]:
        """``graded``, the graded figures, for a split of ``retrieval.json``; empty without them.

        Args:
            cluster: ``[C]`` int64, the cluster of each caption.
        """
        return {} if self._graded is None else {"graded": self._graded.compute(cluster)}

    @staticmethod
    def report(result: Mapping[str, Any]) -> str:
        """The table of the graded figures of a split, for a terminal; empty without them."""
        if "graded" not in result:
            return ""
        table = graded_table(result["graded"])
        return f"\n\n{table.caption}\n{table.text()}"

    def write_qrels(self, folder: Path, clips: Sequence[str], captions: Sequence[str]) -> None:
        """Write the judgements beside the rankings, with the ids that they have."""
        if self._qrels is not None:
            write_graded_qrels(folder, self._qrels, clips, captions)


def together(listeners: Sequence[OnScores]) -> OnScores | None:
    """One that tells all; None where there is none."""
    if not listeners:
        return None

    def tell(
        direction: Direction, system: str, start: int, scores: Tensor, relevant: Tensor
    ) -> None:
        for listener in listeners:
            listener(direction, system, start, scores, relevant)

    return tell
