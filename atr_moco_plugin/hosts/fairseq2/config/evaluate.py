"""Configuration of the evaluation recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fairseq2.recipe.config import CommonSection, DatasetSection, GangSection, SupportsStructure
from fairseq2.runtime.dependency import DependencyResolver
from fairseq2.utils.config import ConfigMerger
from fairseq2.utils.validation import Validatable, ValidationResult
from typing_extensions import override

from atr_moco_plugin.config import in_range
from atr_moco_plugin.evaluation.rescoring import INDUCTIVE, TRANSDUCTIVE
from atr_moco_plugin.hosts.fairseq2.config.checks import result_of, unsupported
from atr_moco_plugin.hosts.fairseq2.config.sections import MIN_SECONDS, open_with_decoder
from atr_moco_plugin.hosts.fairseq2.runs.folder import find_checkpoint, read_config, run_folder


@dataclass(kw_only=True)
class EvaluateDatasetSection(DatasetSection):
    """What to evaluate on. What is not set is the run's; with another ``family`` or ``name`` the
    run's ``config_overrides`` are left out. One of the run's that does nothing here, such as
    ``test_fraction`` where another ``root`` has splits of its own, is no mistake."""

    max_seconds: float | None = None
    """A clip is taken whole up to this length, of a longer one its beginning; None takes that of
    the run's own evaluation."""

    decoder: Literal["soundfile", "torchcodec"] | None = None
    """What decodes audio files; None takes the run's."""

    num_workers: int = 2
    """Threads that decode audio ahead on each process."""

    @override
    def validate(self) -> ValidationResult:
        return result_of(
            in_range(self, "max_seconds", least=MIN_SECONDS),
            in_range(self, "num_workers", least=0),
        )


@dataclass(kw_only=True)
class EvaluateRecipeConfig(SupportsStructure, Validatable):
    """What to evaluate and how. ``gang`` and ``common`` are fairseq2's own sections."""

    run: str | None = None
    """Output folder of a training run, or one of its ``checkpoints/step_N``."""

    checkpoint: str | None = None
    """Of a run's folder: ``best`` by its validation score, which is the default, ``last`` or
    ``step_N``. A ``run`` that is a checkpoint says it already."""

    split: str = "valid"
    """Split to evaluate on. The test split is evaluated only when it is named here."""

    dataset: EvaluateDatasetSection = field(default_factory=EvaluateDatasetSection)

    allow_unknown: bool = False
    """Evaluate also where more than half of the captions are ``[UNK]`` alone to the run's
    tokenizer."""

    allow_trained: bool = False
    """Evaluate also a split with clips that the run was trained on. Its training split needs no
    leave, where it has that name here too."""

    rerank_k: list[int] = field(default_factory=lambda: [16, 64, 256])
    """Numbers of candidates that the matching head re-ranks; empty leaves re-ranking out."""

    correct: list[str] = field(default_factory=list)
    """Corrections of the cosines against hubs, in tables of their own: ``nnn``,
    ``inverted_softmax``, ``qb_norm``, ``csls`` by a bank of training items, and the transductive
    ``sinkhorn``, ``dual_softmax``, ``csls_test`` by the test queries themselves."""

    correct_bank: str | None = None
    """Split that the bank is drawn from; None takes what the run trained on."""

    correct_bank_size: int = 5_000
    """Most clips in the bank, drawn at random with a fixed seed; their captions come with them."""

    correct_chosen_on: str | None = None
    """Split that the parameters of corrections are chosen on, another than ``split``; None takes
    what the run validated on."""

    batch_size: int = 64
    """Clips, captions or pairs a forward pass on each process."""

    autocast: Literal["off", "bf16"] = "off"
    """``bf16`` runs the towers and the head in bfloat16; cosines stay in float32."""

    trec_depth: int = 100
    """Items listed for a query in the run files for TREC's tools; 0 writes none."""

    qrels: str | None = None
    """A file that says which clips are relevant to which captions, with grades: figures of several
    relevant clips a query are added. Its formats are in ``docs/graded.md``."""

    dcase: list[str] = field(default_factory=list)
    """Systems, such as ``dual`` and ``reranked_k64``, whose files for DCASE's task of audio
    retrieval are written to ``dcase/``."""

    save_embeddings: bool = False
    """Write the embeddings to ``embeddings.safetensors``."""

    overwrite: bool = False
    """Remove an earlier evaluation from the output folder, which otherwise is refused."""

    gang: GangSection = field(default_factory=GangSection)
    common: CommonSection = field(default_factory=lambda: CommonSection(no_sweep_dir=True))

    @override
    def structure(self, resolver: DependencyResolver) -> None:
        if self.run is not None:
            run, _ = find_checkpoint(run_folder(self.run), self.checkpoint)
            merger = resolver.resolve(ConfigMerger)
            trained = read_config(run)
            _fill_in(self.dataset, trained, merger)
            self.correct_bank = self.correct_bank or trained["dataset"].get("train_split", "train")
            self.correct_chosen_on = self.correct_chosen_on or trained["dataset"].get(
                "valid_split", "valid"
            )
            open_with_decoder(self.dataset, merger)

    @override
    def validate(self) -> ValidationResult:
        small = [k for k in self.rerank_k if k < 1]
        return result_of(
            unsupported(self.gang),
            (f"`rerank_k` is {self.rerank_k}, expected numbers of 1 or more." for _ in small[:1]),
            self._wrong_corrections(),
            in_range(self, "correct_bank_size", least=2),
            in_range(self, "batch_size", least=1),
            in_range(self, "trec_depth", least=0),
        )

    def _wrong_corrections(self) -> Iterator[str]:
        unknown = [name for name in self.correct if name not in INDUCTIVE | TRANSDUCTIVE]
        if unknown:
            names = ", ".join(INDUCTIVE | TRANSDUCTIVE)
            yield (
                f"`correct` has {unknown[0]!r}, expected any of {names}; write a list, such as "
                "correct=[nnn]."
            )
        elif self.correct and self.correct_chosen_on == self.split:
            yield (
                f"`split` and `correct_chosen_on` are both {self.split!r}: parameters of a "
                "correction are never chosen on what is evaluated; give another `split`, such as "
                "split=test."
            )
        elif set(self.correct) & INDUCTIVE.keys():
            for name in ("split", "correct_chosen_on"):
                if self.correct_bank == getattr(self, name):
                    yield (
                        f"`correct_bank` and `{name}` are both {self.correct_bank!r}: a bank has "
                        "no query of the split that it corrects; give the training split."
                    )


def _fill_in(
    section: EvaluateDatasetSection, trained: Mapping[str, Any], merger: ConfigMerger
) -> None:
    """Take from a run what the section of the data set leaves open."""
    own = trained["dataset"]
    if section.max_seconds is None:
        seconds = trained.get("evaluation", {}).get("max_seconds")
        section.max_seconds = own["max_seconds"] if seconds is None else seconds
    if section.decoder is None:
        section.decoder = own["decoder"]
    same = section.family in (None, own["family"]) and section.name in (None, own["name"])
    if same:
        section.family, section.name = own["family"], own["name"]
        overrides = section.config_overrides or {}
        options = {k: v for k, v in (own["config_overrides"] or {}).items() if k != "decoder"}
        section.config_overrides = merger.merge(options, overrides)


def options_of_the_run(section: EvaluateDatasetSection, trained: Mapping[str, Any]) -> list[str]:
    """The options of the data set that are as the run has recorded them.

    Args:
        section: with what it has from the run.
        trained: the run's configuration.
    """
    own: Mapping[str, Any] = trained["dataset"]
    overrides: Any = section.config_overrides or {}
    if (section.family, section.name) != (own["family"], own["name"]):
        return []
    recorded = own["config_overrides"] or {}
    return [key for key, value in recorded.items() if overrides.get(key) == value]
