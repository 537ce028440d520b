"""A checkpoint, a split, and everything that is found out about the two."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from fairseq2.device import Device
from fairseq2.logging import log
from fairseq2.recipe.error import RecipeError
from fairseq2.utils.progress import ProgressReporter
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import Module
from typing_extensions import override

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.loader import iterate_audio
from atr_moco_plugin.distributed import process_index
from atr_moco_plugin.evaluation import split_report, test_set_name
from atr_moco_plugin.evaluation.candidates import Candidates, Cosines, find_pairs, match_pairs
from atr_moco_plugin.evaluation.encode import (
    CaptionBatches,
    Encoded,
    distinct_captions,
    encode_captions,
    encode_shared,
    own_share,
)
from atr_moco_plugin.evaluation.retrieval import retrieval_figures
from atr_moco_plugin.evaluation.trec import RunFiles, caption_ids, trec_id, write_qrels
from atr_moco_plugin.hosts.fairseq2.compat import Task
from atr_moco_plugin.hosts.fairseq2.config.evaluate import EvaluateRecipeConfig
from atr_moco_plugin.hosts.fairseq2.errors import one_line_errors
from atr_moco_plugin.hosts.fairseq2.evaluation.clips import check_all_readable, check_enough
from atr_moco_plugin.hosts.fairseq2.evaluation.progress import progress
from atr_moco_plugin.hosts.fairseq2.runs.folder import score_of
from atr_moco_plugin.hosts.fairseq2.training.units import relevances
from atr_moco_plugin.io.stdout import say
from atr_moco_plugin.plugins import load
from atr_moco_plugin.rank import RankLogger
from atr_moco_plugin.text.checks import check_captions, check_tokenizer
from atr_moco_plugin.text.tokenizer import load_tokenizer, tokenize


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and where it comes from.

    Attributes:
        run: the run's folder.
        folder: the checkpoint's folder.
        trained: the run's configuration.
        model: the model, in eval mode.
        temperature: the trained temperature tau.
    """

    run: Path
    folder: Path
    trained: dict[str, Any]
    model: Module
    temperature: float

    @property
    def criterion(self) -> str:
        """Name of the criterion it was trained with."""
        section = self.trained["criterion"]
        return str(section if isinstance(section, str) else section["name"])

    @property
    def matches(self) -> bool:
        """Whether the matching head was trained."""
        return "loss_atm" in load("criteria", self.criterion).measures


@final
class Evaluate(Task):
    """Evaluate a checkpoint on one split; clips, captions and pairs are shared out over processes.

    The figures go to ``retrieval.json`` in the output folder and as tables to standard output,
    rankings to ``trec/``. They do not depend on the batch size or the number of processes, up to
    the rounding of the encoders.

    Args:
        config: the recipe's configuration.
        checkpoint: what is evaluated.
        dataset: what on.
        device: where the model is.
        output_dir: where files go.
        reporter: shows progress on a terminal.
    """

    def __init__(
        self,
        config: EvaluateRecipeConfig,
        checkpoint: Checkpoint,
        dataset: AudioTextDataset,
        device: Device,
        output_dir: Path,
        reporter: ProgressReporter,
    ) -> None:
        self._config = config
        self._checkpoint = checkpoint
        self._dataset = dataset
        self._device = device
        self._output_dir = output_dir
        self._reporter = reporter
        self._tokenizer = load_tokenizer(str(checkpoint.run / "tokenizer"))
        self._max_tokens: int = checkpoint.trained["tokenizer"]["max_tokens"]
        check_tokenizer(self._tokenizer, checkpoint.model.text.encoder, self._max_tokens)
        for note in check_captions(
            self._tokenizer,
            dataset,
            [config.split],
            self._max_tokens,
            allow_unknown=config.allow_unknown,
            option="allow_unknown",
        ):
            log.info("{}", note)
        self._retrieval_set = dataset.retrieval_set(config.split)
        check_enough(dataset, config.split, self._retrieval_set.clips)
        self._captions = self._tokenized()

    @override
    def run(self) -> None:
        rerank_k = sorted(set(self._config.rerank_k))
        with one_line_errors(), torch.inference_mode():
            if rerank_k and not self._checkpoint.matches:
                log.info(
                    "Re-ranking is left out: {} does not train the matching head.",
                    self._checkpoint.criterion,
                )
                rerank_k = []
            section = self._config.dataset
            check_all_readable(
                self._dataset,
                self._config.split,
                float(section.max_seconds or 0),
                section.num_workers,
                self._device,
            )
            # What is printed while bars are drawn would go to standard error.
            with self._reporter:
                scored = self._score(rerank_k)
            if process_index() == 0:
                self._write(*scored, rerank_k)

    def _score(
        self, rerank_k: Sequence[int]
    ) -> tuple[Encoded, Encoded, Cosines, Candidates | None]:
        """Everything that takes the model, with all processes."""
        autocast = torch.autocast(self._device.type, dtype=torch.bfloat16)
        with autocast if self._config.autocast == "bf16" else nullcontext():
            text = self._encode_captions(keep_tokens=bool(rerank_k))
            audio = self._encode_clips(keep_tokens=bool(rerank_k))
            cosines = Cosines(audio, text)
            candidates = self._match(audio, text, cosines, max(rerank_k)) if rerank_k else None
        return audio, text, cosines, candidates

    def _encode_captions(self, *, keep_tokens: bool) -> Encoded:
        captions = self._captions
        with self._progress("Encoding captions", len(captions.rows.unique())) as advance:
            return encode_captions(
                self._checkpoint.model,
                captions,
                self._device,
                keep_tokens=keep_tokens,
                advance=advance,
            )

    def _tokenized(self) -> CaptionBatches:
        ids, mask = tokenize(self._tokenizer, self._retrieval_set.captions, self._max_tokens)
        return distinct_captions(ids, mask, self._config.batch_size)

    def _encode_clips(self, *, keep_tokens: bool) -> Encoded:
        clips, size = self._retrieval_set.clips, self._config.batch_size
        own, total = own_share(clips, size)
        section = self._config.dataset
        decoded = iterate_audio(
            self._dataset, own, size, float(section.max_seconds or 0), section.num_workers
        )
        with self._progress("Encoding clips", len(clips)) as advance:
            return encode_shared(
                self._checkpoint.model.audio,
                ((waveforms.to(self._device), lengths) for waveforms, lengths in decoded),
                total,
                keep_tokens=keep_tokens,
                gather_states=False,
                advance=advance,
            )

    def _match(self, audio: Encoded, text: Encoded, cosines: Cosines, k: int) -> Candidates:
        pairs = find_pairs(cosines, text, k)
        own = torch.isin(pairs.numbers.cpu() // len(text.distinct), audio.kept).sum()
        with self._progress("Re-ranking pairs", int(own)) as advance:
            return match_pairs(
                self._checkpoint.model,
                audio,
                text,
                pairs,
                batch_size=self._config.batch_size,
                advance=advance,
            )

    def _write(
        self,
        audio: Encoded,
        text: Encoded,
        cosines: Cosines,
        candidates: Candidates | None,
        rerank_k: Sequence[int],
    ) -> None:
        config, clips = self._config, self._retrieval_set.clips
        strict, duplicates = relevances(self._retrieval_set, text.distinct.device)
        folder = self._output_dir / "trec"
        clip_names = [trec_id(clip.key) for clip in clips]
        caption_names = caption_ids(
            [clip.key for clip in clips],
            self._retrieval_set.caption_to_audio,
            len(self._retrieval_set.captions),
        )
        runs = RunFiles(folder, clip_names, caption_names, config.trec_depth)
        with runs if config.trec_depth else nullcontext() as on_scores:
            result = retrieval_figures(
                cosines,
                strict,
                duplicates=duplicates,
                candidates=candidates,
                rerank_k=rerank_k,
                temperature=self._checkpoint.temperature,
                on_scores=on_scores,
            )
        if config.trec_depth:
            write_qrels(folder, strict, clip_names, caption_names)
            if duplicates is not None:
                write_qrels(folder, duplicates, clip_names, caption_names, "_dup")
        embeddings = {"audio": audio.embeddings, "text": text.embeddings}
        result["test_set"] = test_set_name(self._dataset.name, config.split, len(clips))
        result["rank"] = RankLogger(embeddings).log(step=0)
        if config.save_embeddings:
            self._save(embeddings)
        file = self._output_dir / "retrieval.json"
        file.write_text(json.dumps(self._summary(result), indent=2) + "\n")
        say(f"\n{split_report(result)}\n\nFigures: {file}")

    def _summary(self, result: Mapping[str, Any]) -> dict[str, Any]:
        checkpoint, section = self._checkpoint, self._config.dataset
        return {
            "run": str(checkpoint.run),
            "criterion": checkpoint.criterion,
            "seed": checkpoint.trained.get("common", {}).get("seed"),
            "checkpoint": f"{checkpoint.folder.parent.name}/{checkpoint.folder.name}",
            "valid_score": score_of(checkpoint.folder),
            "dataset": {
                "name": self._dataset.name,
                "family": section.family,
                "config_overrides": section.config_overrides,
                "max_seconds": section.max_seconds,
                "missing": self._dataset.missing,
            },
            "autocast": self._config.autocast,
            "splits": {self._config.split: result},
        }

    def _save(self, embeddings: Mapping[str, Tensor]) -> None:
        tensors = {name: x.cpu().contiguous() for name, x in embeddings.items()}
        if self._retrieval_set.caption_to_audio is not None:
            tensors["caption_to_audio"] = self._retrieval_set.caption_to_audio
        keys = json.dumps([clip.key for clip in self._retrieval_set.clips])
        save_file(tensors, self._output_dir / "embeddings.safetensors", {"clips": keys})

    def _progress(self, name: str, total: int) -> Any:
        return progress(self._reporter, name, total, quiet=process_index() != 0)

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
