"""What a finished run is worth: retrieval on the splits it is tested on, and measures of its
validation split.

The measures are those that might tell, without the test split, how good a run is.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.data import AudioReader, PairLoader
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.sets.scenes import SEEN
from atr_moco_plugin.evaluation.split import Scores, Split, prepare_split, score_split
from atr_moco_plugin.evaluation.split_figures import final_figures
from atr_moco_plugin.hosts.fairseq2.evaluation.checkpoint import open_checkpoint
from atr_moco_plugin.hosts.fairseq2.runs.folder import find_checkpoint, read_state
from atr_moco_plugin.io.atomic import write_atomically
from atr_moco_plugin.plugins import load
from atr_moco_plugin.rank import RankLogger
from atr_moco_plugin.rank.measures import alignment, modality_gap
from atr_moco_plugin.text.tokenizer import load_tokenizer_for, tokenize
from benchmarks.negatives.rows import finite

TESTED = ("test", SEEN)
"""The splits of figures; the second one is there where scenes are."""

FIXED_TEMPERATURE = 0.07
_TEMPERATURES = torch.logspace(-2, 0, 41)
_CPU = torch.device("cpu")
_BATCH = 64


@torch.inference_mode()
def evaluate(run: Path, dataset: AudioTextDataset, rerank_k: int) -> dict[str, Any]:
    """Evaluate the best checkpoint of a run, and keep its embeddings and spectra beside it.

    Args:
        run: the folder of a training run.
        dataset: its data.
        rerank_k: candidates that a trained matching head re-ranks on the splits of :data:`TESTED`.

    Returns:
        ``dual``, figures by split, and ``reranked``, the same with the matching head, None without
        one; ``measures`` by name, those of embeddings before a learned distance; ``start``, the
        step at which the matching loss began, None where there is none.
    """
    checkpoint = open_checkpoint(run)
    model, config = checkpoint.model, checkpoint.trained
    section, tokens = config["dataset"], config["tokenizer"]["max_tokens"]
    dataset.read_with(
        AudioReader(model.sample_rate, section["decoder"], _path(section["cache_dir"]))
    )
    tokenizer = load_tokenizer_for(model.text.encoder, str(run / "tokenizer"))

    def to_tokens(captions: list[str]) -> tuple[Tensor, Tensor]:
        return tokenize(tokenizer, captions, tokens)

    def prepared(name: str) -> Split:
        return prepare_split(
            dataset, name, to_tokens, batch_size=_BATCH, max_seconds=section["max_seconds"],
            num_workers=0,
        )  # fmt: skip

    tested = [name for name in TESTED if name in dataset.splits]
    splits = {name: prepared(name) for name in ("valid", *tested)}
    again = [rerank_k] if checkpoint.matches else []
    scores = {
        name: score_split(
            model, split, _CPU, again if name != "valid" else [], factor=checkpoint.factor
        )
        for name, split in splits.items()
    }
    figures = {
        name: final_figures(scores[name], splits[name], again, checkpoint.temperature)[0]
        for name in tested
    }
    embeddings = {
        f"{name}_{side}": x.contiguous()
        for name, found in scores.items()
        for side, x in found.embeddings.items()
    }
    save_file(embeddings, run / "embeddings.safetensors")
    record = RankLogger(scores["valid"].plain, pairs=()).log(step=0)
    spectra = {"held_out": record, "queue": _last(run / "rank.jsonl")}
    write_atomically(run / "spectra.json", json.dumps(finite(spectra)) + "\n")
    measures = _measures(scores["valid"], splits["valid"], checkpoint.temperature)
    for prefix, found in spectra.items():
        if found is not None:
            scalars = RankLogger.scalars(found).items()
            measures |= {f"{prefix}_{x}": y for x, y in scalars if not x.endswith("_random")}
    size = min(section["batch_size"], len(dataset.clips("valid")))
    loader = PairLoader(
        dataset, "valid", to_tokens, size, max_seconds=section["max_seconds"],
        shuffle=False, seed=0, drop_last=True,
    )  # fmt: skip
    if not config["criterion"]["config"].get("teachers"):  # they know the training items alone
        measures["valid_own_loss"] = own_loss(run, model, config, loader)
    return {
        "dual": {name: _kept(found["dual"]) for name, found in figures.items()},
        "reranked": {name: _kept(found["reranked"]) for name, found in figures.items()}
        if again
        else None,
        "measures": measures,
        "temperature": checkpoint.temperature,
        "start": matching_start(run),
    }


def contrastive_loss(scores: Tensor, relevance: Tensor, temperature: float) -> float:
    """Cross-entropy over all items of the other kind, mean over both directions; the relevant items
    of a query have equal shares.

    Args:
        scores: ``[A, C]`` float.
        relevance: ``[A, C]`` bool.
        temperature: tau.
    """
    losses = []
    for values, relevant in ((scores, relevance), (scores.T, relevance.T)):
        logs = F.log_softmax(values.double() / temperature, dim=1)
        number = relevant.sum(dim=1)
        own = torch.where(relevant, logs, 0.0).sum(dim=1)[number > 0] / number[number > 0]
        losses.append(-float(own.mean()))
    return sum(losses) / 2


def own_loss(run: Path, model: Any, config: dict[str, Any], loader: PairLoader) -> float:
    """Mean loss of the run's own criterion over the batches of a split, without a trace."""
    section = config["criterion"]
    kind = load("criteria", section["name"])
    criterion = kind(model, build_config(kind.config_class, section["config"], "criterion.config"))
    criterion.total_steps = config["regime"]["num_steps"]
    criterion.load_state_dict(read_state(find_checkpoint(run)[1])[0])
    criterion.eval()
    losses = [float(criterion(x.audio, x.text, x.clip_ids, x.caption_ids)["loss"]) for x in loader]
    return sum(losses) / len(losses) if losses else math.nan


def matching_start(run: Path) -> int | None:
    """The step at which the matching loss began; None where it never did or there is none."""
    state = read_state(find_checkpoint(run, "last")[1])[0]
    since = state.get("matching_start.since")
    if since is None or int(since) < 0:
        return None
    return int(since)


def _measures(scores: Scores, split: Split, temperature: float) -> dict[str, float]:
    relevance = split.retrieval_set.relevance
    cosines = scores.cosines.matrix()
    rows, columns = relevance.nonzero(as_tuple=True)
    audio, text = scores.plain["audio"], scores.plain["text"]  # as rank is measured
    return {
        "valid_loss": contrastive_loss(cosines, relevance, temperature),
        "valid_loss_fixed": contrastive_loss(cosines, relevance, FIXED_TEMPERATURE),
        "valid_loss_best": min(
            contrastive_loss(cosines, relevance, float(t)) for t in _TEMPERATURES
        ),
        "held_out_alignment": alignment(audio[rows], text[columns]),
        "held_out_modality_gap": modality_gap(audio, text),
    }


def _kept(figures: dict[str, float]) -> dict[str, float]:
    names = [f"{way}_{name}" for way in ("a2t", "t2a") for name in ("r1", "r5", "r10", "map10")]
    return {name: figures[name] for name in ("r_sum", *names) if name in figures}


def _last(file: Path) -> dict[str, Any] | None:
    if not file.exists():
        return None
    lines = file.read_text(encoding="utf-8").splitlines()
    return json.loads(lines[-1]) if lines else None


def _path(value: Any) -> Path | None:
    return None if value is None else Path(value)
