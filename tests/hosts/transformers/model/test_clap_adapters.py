"""Low-rank adapters in a ``ClapModel``: trained, resumed, saved as a plain one and exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_world import RATE, make_batch, make_clap, make_trainer
from transformers import ClapModel

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers import ClapTrainerModel
from atr_moco_plugin.hosts.transformers.export import export_run
from atr_moco_plugin.model import AdapterConfig, LoraConfig
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.retriever.exported import ExportOptions

pytest.importorskip("peft", reason="needs the extra peft")

LORA = AdapterConfig(lora=LoraConfig(rank=2))
ADAPTER = {"audio": LORA, "text": LORA}


def trained(steps: int = 2) -> ClapTrainerModel:
    model = ClapTrainerModel(make_clap(), "moco_atc", queue_size=8, adapter=ADAPTER).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for seed in range(steps):
        model(**make_batch(seed=seed))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def features(clap: ClapModel) -> list[torch.Tensor]:
    batch = make_batch(seed=7)
    with torch.no_grad():
        return [
            clap.eval().get_audio_features(batch["input_features"], batch["is_longer"]),
            clap.get_text_features(batch["input_ids"], batch["attention_mask"]),
        ]


def test_only_adapters_train_in_the_encoders_and_a_plain_model_is_saved(tmp_path: Path) -> None:
    before = make_clap().state_dict()
    model = trained()
    towers = model.criterion.model
    for tower in (towers.audio, towers.text):
        names = {name for name, p in tower.encoder.named_parameters() if p.requires_grad}
        assert names and all(".lora_" in x for x in names)
        assert all(p.requires_grad for p in tower.projection.parameters())
    # Statistics of the batch norm stand still too.
    norm = "audio_model.audio_encoder.batch_norm.running_mean"
    assert torch.equal(model.clap.state_dict()[norm], before[norm])
    expected = features(model.clap)
    model.save_pretrained(tmp_path / "clap")
    loaded, report = ClapModel.from_pretrained(tmp_path / "clap", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    for found, right, start in zip(features(loaded), expected, features(make_clap()), strict=True):
        torch.testing.assert_close(found, right, atol=1e-5, rtol=0)
        assert (found - start).abs().max() > 1e-3


def test_a_training_resumes_and_is_exported(tmp_path: Path) -> None:
    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    whole = make_trainer(tmp_path / "whole", model_options={"adapter": ADAPTER}, **options)
    whole.train()
    checkpoint = str(tmp_path / "whole" / "checkpoint-2")
    again = make_trainer(tmp_path / "again", model_options={"adapter": ADAPTER}, **options)
    again.train(resume_from_checkpoint=checkpoint)
    expected = whole.model.state_dict()
    assert all(torch.equal(x, expected[name]) for name, x in again.model.state_dict().items())

    with pytest.raises(InputError, match="the checkpoint has and the model has not those of crit"):
        make_trainer(tmp_path / "no").train(resume_from_checkpoint=checkpoint)
    plain = make_trainer(tmp_path / "plain", **options)
    plain.train()
    adapted = make_trainer(tmp_path / "yes", model_options={"adapter": ADAPTER})
    with pytest.raises(InputError, match="the model has and the checkpoint has not those of crit"):
        adapted.train(resume_from_checkpoint=str(tmp_path / "plain" / "checkpoint-2"))

    exported = export_run(tmp_path / "whole", ExportOptions(checkpoint="last"))
    exported.write(tmp_path / "bundle")
    assert not any("lora" in name for name in exported.model.state_dict())
    retriever = AudioTextRetriever.from_pretrained(tmp_path / "bundle", device="cpu")
    data: Any = whole.eval_dataset
    whole.model.eval()
    with torch.no_grad():
        right = whole.model(**whole.data_collator([data[0], data[5]]))
    text = retriever.embed_text([data[0]["caption"], data[5]["caption"]])
    audio = retriever.embed_audio([data[0]["audio"], data[5]["audio"]], sample_rate=RATE)
    torch.testing.assert_close(text, right["text_embeds"], atol=1e-5, rtol=0)
    torch.testing.assert_close(audio, right["audio_embeds"], atol=1e-5, rtol=0)


def test_another_tower_is_refused() -> None:
    with pytest.raises(InputError, match="`adapter` is for 'sound', expected audio or text"):
        ClapTrainerModel(make_clap(), "atc", adapter={"sound": LORA})
    with pytest.raises(InputError, match="`adapter.text.lora.targets` has 'q', which"):
        lora = AdapterConfig(lora=LoraConfig(targets=["q"]))
        ClapTrainerModel(make_clap(), "atc", adapter={"text": lora})
