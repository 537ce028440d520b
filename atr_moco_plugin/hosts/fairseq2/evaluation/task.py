"""The task of the evaluation recipe: one checkpoint, one split, and the files about the two."""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from fairseq2.device import Device
from fairseq2.logging import log
from fairseq2.recipe.error import RecipeError
from fairseq2.utils.progress import ProgressReporter
from safetensors.torch import save_file
from typing_extensions import override

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.distributed import process_index
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation import split_report
from atr_moco_plugin.evaluation.correction_tables import hubness_report
from atr_moco_plugin.evaluation.encode import Advance
from atr_moco_plugin.evaluation.queries import QUERIES_FILE, write_queries
from atr_moco_plugin.evaluation.relevance import relevances
from atr_moco_plugin.evaluation.split import Scores, Split, prepare_split, score_split
from atr_moco_plugin.evaluation.split_figures import final_figures
from atr_moco_plugin.evaluation.trec import RunFiles, caption_ids, trec_id, write_qrels
from atr_moco_plugin.evaluation.unreadable import check_all_readable
from atr_moco_plugin.hosts.fairseq2.compat import Task
from atr_moco_plugin.hosts.fairseq2.config.evaluate import EvaluateRecipeConfig
from atr_moco_plugin.hosts.fairseq2.errors import one_line_errors
from atr_moco_plugin.hosts.fairseq2.evaluation.checkpoint import Checkpoint
from atr_moco_plugin.hosts.fairseq2.evaluation.clips import check_evaluated, has_other_data
from atr_moco_plugin.hosts.fairseq2.evaluation.corrections import (
    CorrectionSplits,
    EncodedSplits,
    Prepare,
    corrected_figures,
    correction_splits,
    encode_corrections,
    prepare_corrections,
)
from atr_moco_plugin.hosts.fairseq2.evaluation.judged import Judged, together
from atr_moco_plugin.hosts.fairseq2.evaluation.progress import progress
from atr_moco_plugin.hosts.fairseq2.runs.folder import score_of
from atr_moco_plugin.hosts.fairseq2.runs.output import TREC
from atr_moco_plugin.io.stdout import say
from atr_moco_plugin.text.checks import check_captions, check_tokenizer
from atr_moco_plugin.text.tokenizer import load_tokenizer_for, tokenize


@final
@dataclass
class Evaluate(Task):
    """Evaluate a checkpoint on one split; clips, captions and pairs are shared out over processes.

    The figures go to ``retrieval.json`` in the output folder and as tables to standard output,
    what each query got to ``queries.safetensors``, rankings to ``trec/``. They do not depend on the
    batch size or the number of processes, up to the rounding of the encoders.

    Attributes:
        config: the recipe's configuration.
        checkpoint: the model.
        dataset: has the split.
        device: where the model is.
        output_dir: where files go.
        reporter: shows progress on a terminal.

    Raises:
        InputError: for a tokenizer, a split or a caption that cannot be evaluated, and for clips
            that the run was trained on.
    """

    config: EvaluateRecipeConfig
    checkpoint: Checkpoint
    dataset: AudioTextDataset
    device: Device
    output_dir: Path
    reporter: ProgressReporter

    def __post_init__(self) -> None:
        config = self.config
        if self.checkpoint.factor is not None and "dual_softmax" in config.correct:
            raise InputError(
                f"`correct` has dual_softmax, and {self.checkpoint.criterion} ranks by scores that "
                "are at most 0: their product with a share of the softmax puts far items first. "
                "Leave it out."
            )
        encoder: Any = self.checkpoint.model.text.encoder
        tokenizer = load_tokenizer_for(encoder, str(self.checkpoint.run / "tokenizer"))
        max_tokens: int = self.checkpoint.trained["tokenizer"]["max_tokens"]
        check_tokenizer(tokenizer, encoder, max_tokens)
        run = self.checkpoint.run
        other_data = has_other_data(config, run, self.checkpoint.trained, self.dataset, tokenizer)
        for note in check_captions(
            tokenizer,
            self.dataset,
            [config.split, *correction_splits(config)],
            max_tokens,
            allow_unknown=config.allow_unknown,
            option="allow_unknown",
            tokens_option="tokenizer.max_tokens",
            trained=True,
        ):
            log.info("{}", note)
        self._seen = check_evaluated(config, run, self.dataset, other_data=other_data)
        to_tokens = partial(tokenize, tokenizer, max_tokens=max_tokens)

        def prepare(name: str, without: Collection[str] = ()) -> Split:
            return prepare_split(
                self.dataset,
                name,
                to_tokens,
                batch_size=config.batch_size,
                max_seconds=config.dataset.max_seconds or 0.0,
                num_workers=config.dataset.num_workers,
                without=without,
            )

        self._prepare: Prepare = prepare
        self._split = prepare(config.split)
        self._rerank_k = sorted(set(config.rerank_k))
        self._judged = Judged(
            config,
            self._split.retrieval_set,
            self._rerank_k if self.checkpoint.matches else [],
            self.output_dir,
        )

    @override
    def run(self) -> None:
        split = self._split
        with one_line_errors(), torch.inference_mode():
            if self._rerank_k and not self.checkpoint.matches:
                log.info(
                    "Re-ranking is left out: {}.",
                    f"{self.checkpoint.criterion} does not train the matching head"
                    if self.checkpoint.head_trained
                    else "the matching loss had not begun when the checkpoint was saved",
                )
                self._rerank_k = []
            check_all_readable(
                self.dataset, split.name, split.max_seconds, split.num_workers, self.device
            )
            corrections = prepare_corrections(self.config, self.dataset, self._prepare, self.device)
            autocast = torch.autocast(self.device.type, dtype=torch.bfloat16)
            # What is printed while bars are drawn would go to standard error.
            with self.reporter, autocast if self.config.autocast == "bf16" else nullcontext():
                score = partial(
                    score_split,
                    self.checkpoint.model,
                    device=self.device,
                    factor=self.checkpoint.factor,
                )
                scores = score(split, rerank_k=self._rerank_k, progress=self._progress)
                if corrections is not None:
                    encoded = encode_corrections(score, corrections, self._progress)
            if process_index() == 0:
                self._write(scores, None if corrections is None else (corrections, encoded))

    def _progress(self, name: str, total: int) -> AbstractContextManager[Advance]:
        return progress(self.reporter, name, total, quiet=process_index() != 0)

    def _write(
        self, scores: Scores, corrections: tuple[CorrectionSplits, EncodedSplits] | None
    ) -> None:
        split, depth = self._split, self.config.trec_depth
        retrieval_set, folder = split.retrieval_set, self.output_dir / TREC
        clips = [trec_id(clip.key) for clip in retrieval_set.clips]
        captions = caption_ids(
            [clip.key for clip in retrieval_set.clips],
            retrieval_set.caption_to_audio,
            len(retrieval_set.captions),
        )
        with ExitStack() as stack:
            listeners = self._judged.listeners(stack)
            if depth:
                listeners.append(stack.enter_context(RunFiles(folder, clips, captions, depth)))
            result, queries = final_figures(
                scores, split, self._rerank_k, self.checkpoint.temperature, together(listeners)
            )
            if corrections is not None:
                result["corrections"], queries = corrected_figures(
                    *corrections, scores, split, queries, together(listeners)
                )
        result |= self._judged.figures(queries.cluster["t2a"])
        if depth:
            self._judged.write_qrels(folder, clips, captions)
            for suffix, relevance in relevances(retrieval_set, self.device).items():
                write_qrels(folder, relevance, clips, captions, suffix)
        if self.config.save_embeddings:
            self._save_embeddings(scores)
        write_queries(self.output_dir / QUERIES_FILE, {split.name: queries})
        file = self.output_dir / "retrieval.json"
        file.write_text(json.dumps(self._summary(result), indent=2) + "\n")
        report = f"{split_report(result)}{self._judged.report(result)}"
        say(f"\n{report}\n\n{hubness_report(result)}\n\nFigures: {file}")

    def _summary(self, result: dict[str, Any]) -> dict[str, Any]:
        checkpoint, section = self.checkpoint, self.config.dataset
        return {
            # Whole, so that a comparison finds it from any folder.
            "run": str(checkpoint.run.resolve()),
            "criterion": checkpoint.criterion,
            "seed": checkpoint.trained.get("common", {}).get("seed"),
            "checkpoint": f"{checkpoint.folder.parent.name}/{checkpoint.folder.name}",
            "valid_score": score_of(checkpoint.folder),
            "dataset": {
                "name": self.dataset.name,
                "family": section.family,
                "config_overrides": section.config_overrides,
                "max_seconds": section.max_seconds,
                "missing": self.dataset.missing,
            },
            "autocast": self.config.autocast,
            **({} if checkpoint.factor is None else {"score": "learned distance"}),
            **({"seen_by_run": self._seen} if self._seen else {}),
            "splits": {self._split.name: result},
        }

    def _save_embeddings(self, scores: Scores) -> None:
        retrieval_set = self._split.retrieval_set
        tensors = {name: x.cpu().contiguous() for name, x in scores.embeddings.items()}
        if retrieval_set.caption_to_audio is not None:
            tensors["caption_to_audio"] = retrieval_set.caption_to_audio
        # By which a criterion finds a teacher's embeddings.
        ids = [self._split.dataset.clip_id(clip) for clip in retrieval_set.clips]
        tensors["clip_ids"] = torch.tensor(ids)
        tensors["caption_ids"] = retrieval_set.caption_ids.contiguous()
        keys = json.dumps([clip.key for clip in retrieval_set.clips])
        save_file(tensors, self.output_dir / "embeddings.safetensors", {"clips": keys})

    @override
    def request_stop(self) -> None:
        raise RecipeError("The evaluation was asked to stop; nothing was written.")

    @override
    def close(self) -> None:
        pass

    @property
    @override
    def step_nr(self) -> int:
        return 0
