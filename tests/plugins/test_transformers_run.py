"""The package of ``docs/plugins.md`` under transformers' ``Trainer``, at 16, 32 and 48 kHz."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

if importlib.util.find_spec("accelerate") is None:
    pytest.skip("accelerate is not installed", allow_module_level=True)

from transformers import Trainer, TrainingArguments

from atr_moco_plugin.data.loading.batch import pad_waveforms
from atr_moco_plugin.data.sets.manifest import ManifestConfig, open_manifest
from atr_moco_plugin.hosts.transformers import (
    TRAINING_ARGUMENTS,
    MocoCallback,
    PairDataset,
    TrainerModel,
    compute_metrics,
)
from atr_moco_plugin.model import build_model, model_config
from atr_moco_plugin.text.tokenizer import tokenize, train_wordpiece

FILE_RATE = 48_000


class Collator:
    """Waveforms and captions as the towers of ``RetrievalModel`` take them; keeps what it saw."""

    def __init__(self, tokens: Any) -> None:
        self.tokens = tokens
        self.waveforms: list[Tensor] = []

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        waveforms, lengths = pad_waveforms([example["audio"] for example in examples])
        self.waveforms.append(waveforms)
        input_ids, mask = self.tokens([example["caption"] for example in examples])
        ids = {
            name: torch.tensor([example[name] for example in examples])
            for name in ("clip_id", "caption_id")
        }
        return {
            "waveforms": waveforms, "lengths": lengths, "input_ids": input_ids, "mask": mask, **ids
        }  # fmt: skip


MATCHING = {"criterion": "moco_atc_atm", "queue_size": 8, "atm_start": 0}


@pytest.mark.parametrize(
    ("sample_rate", "options"),
    [
        (16_000, MATCHING),
        (32_000, MATCHING),
        (48_000, MATCHING),
        (16_000, {"criterion": "acme_siglip", "queue_size": 8}),
    ],
)
def test_any_pair_of_its_encoders_trains_at_its_rate(
    acme: Path, tmp_path: Path, sample_rate: int, options: dict[str, Any]
) -> None:
    rng = np.random.default_rng(0)
    rows = ["file_name,caption,split"]
    for k in range(12):
        wave = rng.uniform(-0.5, 0.5, FILE_RATE // 2 + 600 * k)
        soundfile.write(tmp_path / f"{k}.wav", wave, FILE_RATE, subtype="FLOAT")
        rows.append(f"{k}.wav,noise number {k},{'train' if k < 8 else 'valid'}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    data = open_manifest(ManifestConfig(root=tmp_path))
    tokenizer = train_wordpiece([text for clip in data.clips("train") for text in clip.captions])
    torch.manual_seed(0)
    parts = {
        "audio": {"name": "acme_cnn", "config": {"width": 24, "sample_rate": sample_rate}},
        "text": {"name": "acme_gru", "config": {"vocab_size": len(tokenizer), "width": 20}},
        "head": {"name": "acme_mlp"},
    }
    retrieval = build_model(model_config({**parts, "embed_dim": 12, "text_pooling": "mean"}))
    model = TrainerModel(retrieval, **options)
    before = {name: value.clone() for name, value in model.named_parameters()}
    collator = Collator(partial(tokenize, tokenizer, max_tokens=16))
    arguments = TrainingArguments(
        str(tmp_path / "out"), **TRAINING_ARGUMENTS, max_steps=4, per_device_train_batch_size=4,
        per_device_eval_batch_size=4, report_to=[], save_strategy="no", learning_rate=1e-2,
        use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(
        model, arguments, collator, PairDataset(data, "train", retrieval.sample_rate),
        PairDataset(data, "valid", retrieval.sample_rate), compute_metrics=compute_metrics,
    )  # fmt: skip
    trainer.add_callback(MocoCallback(trainer))
    assert math.isfinite(trainer.train().training_loss)
    assert 0 <= trainer.evaluate()["eval_r_sum"] <= 600
    moved = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    assert any("encoder.first" in name for name in moved)

    assert data.sample_rate == sample_rate
    for waveforms in collator.waveforms:
        assert sample_rate * 0.5 <= waveforms.shape[1] <= sample_rate * 0.7
        power = np.abs(np.fft.rfft(waveforms[0].double().numpy())) ** 2
        hertz = np.fft.rfftfreq(waveforms.shape[1], 1 / sample_rate)
        share = power[hertz > 8_000].sum() / power.sum()
        # Of noise up to 24 kHz, what an encoder of this rate can hear above 8 kHz.
        assert share == pytest.approx(1 - 16_000 / sample_rate, abs=0.05)
