"""A training of ``Trainer`` with m-LTM evaluates and exports its learned distance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from trainer_world import RATE, make_batch, make_clap, make_trainer

from atr_moco_plugin.criterion import MLtm
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.exporting import export_clap
from atr_moco_plugin.finetuning.start import find_start
from atr_moco_plugin.hosts.transformers import ClapTrainerModel
from atr_moco_plugin.hosts.transformers.export import export_run
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.retriever.exported import ExportOptions


def test_evaluation_gives_vectors_that_rank_by_the_distance() -> None:
    model = ClapTrainerModel(make_clap(), "m_ltm", temperature=0.05)
    assert isinstance(model.criterion, MLtm)
    with torch.no_grad():
        model.criterion.metric.copy_(torch.linspace(-2, 3, 12))
    batch = make_batch()
    model.eval()
    with torch.no_grad():
        found = model(**batch)
        a, _ = model.criterion.model.audio(batch["input_features"], batch["is_longer"])
        u, _ = model.criterion.model.text(batch["input_ids"], batch["attention_mask"])
    assert found["audio_embeds"].shape == found["text_embeds"].shape == (4, 16)
    weights = torch.nn.functional.softplus(model.criterion.metric.detach()).double()
    squares = ((a.double()[:, None] - u.double()) ** 2 * weights).sum(dim=2)
    cosines = (found["audio_embeds"] @ found["text_embeds"].T).double()
    assert_close(cosines, -squares / (4 * weights.max()), atol=2e-7, rtol=0)


def test_a_pretrained_temperature_is_not_that_of_the_plan() -> None:
    assert float(ClapTrainerModel(make_clap(), "m_ltm").criterion.temperature) == pytest.approx(
        0.03
    )
    assert ClapTrainerModel(make_clap(), "atc").criterion.temperature.item() != 0.03


def test_a_bundle_embeds_as_the_trained_model(tmp_path: Path) -> None:
    trainer = make_trainer(
        tmp_path / "run",
        criterion="m_ltm_full",
        save_strategy="steps",
        save_steps=4,
    )
    trainer.train()
    exported = export_run(tmp_path / "run", ExportOptions())
    exported.write(tmp_path / "bundle")
    retriever = AudioTextRetriever.from_pretrained(tmp_path / "bundle", device="cpu")
    data: Any = trainer.eval_dataset
    examples = [data[i] for i in range(0, len(data), 5)]
    trainer.model.eval()
    with torch.no_grad():
        expected = trainer.model(**trainer.data_collator(examples))
    audio = retriever.embed_audio([x["audio"] for x in examples], sample_rate=RATE)
    text = retriever.embed_text([x["caption"] for x in examples])
    assert retriever.embed_dim == audio.shape[1] == 16
    assert (audio - expected["audio_embeds"]).abs().max() < 1e-5
    assert (text - expected["text_embeds"]).abs().max() < 1e-5

    with pytest.raises(InputError, match="learned distance, which a ClapModel cannot hold"):
        export_clap(retriever, tmp_path / "clap")
    with pytest.warns(UserWarning, match="without the distance that m_ltm_full has learned"):
        trainer.model.save_pretrained(tmp_path / "clap")
    # To train on, it is a model of cosines again.
    for init in (tmp_path / "bundle", tmp_path / "run"):
        with pytest.warns(UserWarning, match=f"{init} ranks by a learned distance.*left behind"):
            start = find_start(init)
        # Its own is the strength of Sinkhorn's regularisation, and none of cosines.
        assert start.temperature is None
        started = start.build()
        assert started.model.embed_dim == 12 and started.model.audio.distance is None
