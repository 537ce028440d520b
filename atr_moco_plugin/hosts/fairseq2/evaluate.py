"""The evaluation recipe: any checkpoint of a training run on any split of any data set."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, final

import torch
from fairseq2.device import Device
from fairseq2.logging import log
from fairseq2.recipe.base import Recipe, RecipeContext
from fairseq2.recipe.cli import main
from fairseq2.recipe.config import CommonSection, DatasetSection, GangSection, SupportsStructure
from fairseq2.recipe.error import RecipeError
from fairseq2.runtime.dependency import DependencyContainer, DependencyResolver
from fairseq2.task import Task
from fairseq2.utils.config import ConfigMerger
from fairseq2.utils.progress import NOOP_PROGRESS_REPORTER, ProgressReporter
from fairseq2.utils.structured import StructureError, ValueConverter
from fairseq2.utils.validation import Validatable, ValidationResult
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import Module
from typing_extensions import override

from atr_moco_plugin.criterion import TEMPERATURE_RANGE
from atr_moco_plugin.data.dataset import AudioTextDataset, Clip
from atr_moco_plugin.data.loader import iterate_audio
from atr_moco_plugin.distributed import rank
from atr_moco_plugin.evaluation import split_report, test_set_name
from atr_moco_plugin.evaluation.candidates import Candidates, Cosines, find_pairs, match_pairs
from atr_moco_plugin.evaluation.encode import (
    Advance,
    CaptionBatches,
    Encoded,
    distinct_captions,
    encode_shared,
    share,
)
from atr_moco_plugin.evaluation.retrieval import retrieval_figures
from atr_moco_plugin.evaluation.trec import RunFiles, caption_ids, trec_id, write_qrels
from atr_moco_plugin.hosts.fairseq2.errors import ReadableLog, one_line_errors
from atr_moco_plugin.hosts.fairseq2.model import ARCHITECTURES, FAMILY
from atr_moco_plugin.hosts.fairseq2.runs import (
    find_checkpoint,
    load_model,
    read_config,
    read_state,
    score_of,
)
from atr_moco_plugin.hosts.fairseq2.setup import register_all
from atr_moco_plugin.hosts.fairseq2.units import relations
from atr_moco_plugin.model import RetrievalModelConfig, build_model
from atr_moco_plugin.plugins import load
from atr_moco_plugin.rank import RankLogger
from atr_moco_plugin.tokenizer import load_tokenizer, tokenize

_QUIET_SECONDS = 10.0
"""Progress is said at most this often in a log."""


@dataclass(kw_only=True)
class EvaluateDatasetSection(DatasetSection):
    """What to evaluate on. What is not set is the run's; with another ``family`` or ``name`` the
    run's ``config_overrides`` are left out."""

    max_seconds: float | None = None
    """A clip is taken whole up to this length, of a longer one its beginning; None takes that of
    the run's own evaluation."""

    num_workers: int = 2
    """Threads that decode audio ahead on each process."""

    @override
    def validate(self) -> ValidationResult:
        result = ValidationResult()
        if self.max_seconds is not None and self.max_seconds < 0.175:
            result.add_error(f"`max_seconds` is {self.max_seconds}, but must be 0.175 or more.")
        if self.num_workers < 0:
            result.add_error(f"`num_workers` is {self.num_workers}, but must be 0 or more.")
        return result


@dataclass(kw_only=True)
class EvaluateRecipeConfig(SupportsStructure, Validatable):
    """What to evaluate and how. ``gang`` and ``common`` are fairseq2's own sections."""

    run: str | None = None
    """Output folder of a training run, or one of its ``checkpoints/step_N``."""

    checkpoint: str = "best"
    """Of a run's folder: ``best`` by its validation score, ``last`` or ``step_N``."""

    split: str = "valid"
    """Split to evaluate on. The test split is evaluated only when it is named here."""

    dataset: EvaluateDatasetSection = field(default_factory=EvaluateDatasetSection)

    rerank_k: list[int] = field(default_factory=lambda: [16, 64, 256])
    """Numbers of candidates that the matching head re-ranks; empty leaves re-ranking out."""

    batch_size: int = 64
    """Clips, captions or pairs a forward pass on each process."""

    autocast: Literal["off", "bf16"] = "off"
    """``bf16`` runs the towers and the head in bfloat16; cosines stay in float32."""

    trec_depth: int = 100
    """Items listed for a query in the run files for TREC's tools; 0 writes none."""

    save_embeddings: bool = False
    """Write the embeddings to ``embeddings.safetensors``."""

    gang: GangSection = field(default_factory=GangSection)
    common: CommonSection = field(default_factory=lambda: CommonSection(no_sweep_dir=True))

    @override
    def structure(self, resolver: DependencyResolver) -> None:
        if self.run is not None:
            run, _ = find_checkpoint(Path(self.run).expanduser(), self.checkpoint)
            _fill_in(self.dataset, read_config(run), resolver.resolve(ConfigMerger))

    @override
    def validate(self) -> ValidationResult:
        result = ValidationResult()
        if any(k < 1 for k in self.rerank_k):
            result.add_error(f"`rerank_k` is {self.rerank_k}, but holds numbers of 1 or more.")
        if self.batch_size < 1:
            result.add_error(f"`batch_size` is {self.batch_size}, but must be 1 or more.")
        if self.trec_depth < 0:
            result.add_error(f"`trec_depth` is {self.trec_depth}, but must be 0 or more.")
        return result


def _fill_in(
    section: EvaluateDatasetSection, trained: Mapping[str, Any], merger: ConfigMerger
) -> None:
    """Take from a run what the section of the data set leaves open."""
    own = trained["dataset"]
    if section.max_seconds is None:
        seconds = trained.get("evaluation", {}).get("max_seconds")
        section.max_seconds = own["max_seconds"] if seconds is None else seconds
    same = section.family in (None, own["family"]) and section.name in (None, own["name"])
    if same:
        section.family, section.name = own["family"], own["name"]
        overrides = section.config_overrides or {}
        section.config_overrides = merger.merge(own["config_overrides"] or {}, overrides)


def run_evaluation() -> None:
    """Evaluate with the arguments of the command line.

    Raises:
        SystemExit: when the output folder is a training run's, whose files would be overwritten.
    """
    for argument in sys.argv[1:]:
        if "=" not in argument and (Path(argument) / "checkpoints").is_dir():
            raise SystemExit(
                f"{argument} is the output folder of a training run; give the evaluation a folder "
                "of its own, since it would overwrite config.yaml and retrieval.json there."
            )
    logging.getLogger("fairseq2").addFilter(ReadableLog())
    main(EvaluateRecipe())


class EvaluateRecipe(Recipe):
    """Evaluate retrieval with a checkpoint of a training run."""

    @property
    @override
    def config_kls(self) -> type[object]:
        return EvaluateRecipeConfig

    @override
    def register(self, container: DependencyContainer) -> None:
        register_all(container)

    @override
    def create_task(self, context: RecipeContext) -> Task:
        with one_line_errors():
            return self._create_task(context)

    def _create_task(self, context: RecipeContext) -> Task:
        config = context.get_config_as(EvaluateRecipeConfig)
        if config.run is None:
            raise RecipeError(
                "`run` is missing; give the output folder of a training run: --config run=FOLDER."
            )
        run, checkpoint = find_checkpoint(Path(config.run).expanduser(), config.checkpoint)
        trained = read_config(run)
        model = make_model(trained["model"], context.resolver)
        shards = read_state(checkpoint)
        load_model(model, shards, checkpoint)
        model.requires_grad_(False).eval()
        dataset = context.get_dataset_as(AudioTextDataset)
        dataset.cache = False  # every clip is read once
        log.info("{}", dataset.summary())
        return Evaluate(
            config,
            Checkpoint(run, checkpoint, trained, model.to(context.device), temperature_of(shards)),
            dataset,
            context.device,
            context.output_dir,
            context.progress_reporter,
        )


def make_model(section: Mapping[str, Any], resolver: DependencyResolver) -> Module:
    """A model from the section ``model`` of a training run, with weights that are to be replaced.

    Raises:
        RecipeError: when it is of another family, or its configuration does not fit any more.
    """
    if section["family"] != FAMILY or section["arch"] not in (None, *ARCHITECTURES):
        raise RecipeError(
            f"The run's model is {section['family']}/{section['arch']}, but what can be evaluated "
            f"is {FAMILY} with one of the architectures {', '.join(ARCHITECTURES)}."
        )
    config = ARCHITECTURES[section["arch"] or "base"]()
    converter, merger = resolver.resolve(ValueConverter), resolver.resolve(ConfigMerger)
    merged = merger.merge(converter.unstructure(config), section["config_overrides"] or {})
    try:
        return build_model(converter.structure(merged, RetrievalModelConfig))
    except StructureError as ex:
        raise RecipeError(f"The run's model section cannot be read: {ex}") from None


def temperature_of(shards: Sequence[Mapping[str, Tensor]]) -> float:
    """The trained temperature of a checkpoint, clipped as in training."""
    for shard in shards:  # under FSDP one of them has it
        if "temperature" in shard and shard["temperature"].numel() == 1:
            return float(shard["temperature"].float().clamp(*TEMPERATURE_RANGE))
    raise RecipeError("The checkpoint has no temperature, so it is not one of this package's runs.")


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
        self._relevance = dataset.relevance(config.split)

    @override
    def run(self) -> None:
        with one_line_errors(), torch.inference_mode(), self._reporter:
            self._evaluate()

    def _evaluate(self) -> None:
        rerank_k = sorted(set(self._config.rerank_k))
        if rerank_k and not self._checkpoint.matches:
            log.info(
                "Re-ranking is left out: {} does not train the matching head.",
                self._checkpoint.criterion,
            )
            rerank_k = []
        autocast = torch.autocast(self._device.type, dtype=torch.bfloat16)
        with autocast if self._config.autocast == "bf16" else nullcontext():
            text = self._encode_captions(keep_tokens=bool(rerank_k))
            audio = self._encode_clips(keep_tokens=bool(rerank_k))
            cosines = Cosines(audio, text)
            candidates = self._match(audio, text, cosines, max(rerank_k)) if rerank_k else None
        if rank() == 0:
            self._write(audio, text, cosines, candidates, rerank_k)

    def _encode_captions(self, *, keep_tokens: bool) -> Encoded:
        captions = self._captions()
        batches = captions.batches
        with self._progress("Encoding captions", len(captions.rows.unique())) as advance:
            return encode_shared(
                self._checkpoint.model.text,
                ([x.to(self._device) for x in batches[i]] for i in share(len(batches))),
                len(batches),
                rows=captions.rows,
                keep_tokens=keep_tokens,
                gather_states=True,
                advance=advance,
            )

    def _captions(self) -> CaptionBatches:
        run = self._checkpoint.run
        tokenizer = load_tokenizer(str(run / "tokenizer"))
        max_tokens = self._checkpoint.trained["tokenizer"]["max_tokens"]
        ids, mask = tokenize(tokenizer, self._relevance.captions, max_tokens)
        return distinct_captions(ids, mask, self._config.batch_size)

    def _encode_clips(self, *, keep_tokens: bool) -> Encoded:
        clips, size = self._relevance.clips, self._config.batch_size
        total = -(-len(clips) // size)
        own: list[Clip] = []
        for i in share(total):
            own += clips[i * size : (i + 1) * size]
        section = self._config.dataset
        decoded = iterate_audio(
            self._dataset, own, size, float(section.max_seconds or 0), section.num_workers
        )
        with self._progress("Encoding clips", len(clips)) as advance:
            return encode_shared(
                self._checkpoint.model.audio,
                ([x.to(self._device) for x in batch] for batch in decoded),
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
        config, clips = self._config, self._relevance.clips
        strict, duplicates = relations(self._relevance, text.distinct.device)
        folder = self._output_dir / "trec"
        clip_names = [trec_id(clip.key) for clip in clips]
        caption_names = caption_ids(
            [clip.key for clip in clips],
            self._relevance.caption_to_audio,
            len(self._relevance.captions),
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
        print(f"\n{split_report(result)}\n\nFigures: {file}")

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
        if self._relevance.caption_to_audio is not None:
            tensors["caption_to_audio"] = self._relevance.caption_to_audio
        keys = json.dumps([clip.key for clip in self._relevance.clips])
        save_file(tensors, self._output_dir / "embeddings.safetensors", {"clips": keys})

    def _progress(self, name: str, total: int) -> Any:
        return progress(self._reporter, name, total, quiet=rank() != 0)

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


@contextmanager
def progress(
    reporter: ProgressReporter, name: str, total: int, *, quiet: bool = False
) -> Iterator[Advance]:
    """Show how far something is and how long it still takes: as a bar on a terminal, else as a
    line in the log every tenth of the way, at most one in ten seconds.

    Args:
        reporter: draws the bar.
        name: what is done.
        total: number of items.
        quiet: leave the lines out, as on all processes but one.
    """
    lines = not quiet and (reporter is NOOP_PROGRESS_REPORTER or not sys.stderr.isatty())
    start = last = time.monotonic()
    done = said = 0
    with reporter.create_task(name, total) as task:

        def advance(items: int) -> None:
            nonlocal done, said, last
            done += items
            task.step(items)
            now, tenth = time.monotonic(), 10 * done // max(total, 1)
            if lines and tenth > said and now - last >= _QUIET_SECONDS:
                left = (now - start) / done * (total - done)
                log.info("{}: {:,} of {:,}, {} left.", name, done, total, _duration(left))
                said, last = tenth, now

        yield advance


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
