"""Train a small ClapModel on the embedded data set with transformers' Trainer and moco_atc_atm.

    python examples/clap_trainer.py OUT

Offline and from random weights, in about a minute on two cores. With a model of yours, take
ClapModel.from_pretrained in place of `small_clap`, and its own tokenizer and feature extractor.
"""

from __future__ import annotations

import argparse

from torch.optim import AdamW
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    Trainer,
    TrainingArguments,
    set_seed,
)  # fmt: skip

from atr_moco_plugin.data import ToyConfig, open_toy
from atr_moco_plugin.heads.fusion import FusionHeadConfig
from atr_moco_plugin.hosts.transformers import (
    TRAINING_ARGUMENTS,
    ClapCollator,
    ClapTrainerModel,
    MocoCallback,
    PairDataset,
    compute_metrics,
)  # fmt: skip
from atr_moco_plugin.optim.param_groups import parameter_groups
from atr_moco_plugin.text.tokenizer import train_wordpiece

RATE = 16_000


def small_clap(vocab_size: int) -> ClapModel:
    shared = {"initializer_factor": 3.0, "hidden_dropout_prob": 0.0, "hidden_size": 48}
    text = {"vocab_size": vocab_size, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 96, "max_position_embeddings": 80, "pad_token_id": 0}  # fmt: skip
    audio = {"num_mel_bins": 32, "spec_size": 64, "window_size": 4, "patch_embeds_hidden_size": 24,
             "depths": [2, 2], "num_attention_heads": [2, 4]}  # fmt: skip
    return ClapModel(
        ClapConfig(text_config=shared | text, audio_config=shared | audio, projection_dim=64)
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()

    set_seed(0)
    data = open_toy(ToyConfig(
        num_train=200, num_valid=50, num_test=1, single_share=1, popular_share=0, cache=True
    ))  # fmt: skip
    tokenizer = train_wordpiece([text for clip in data.clips("train") for text in clip.captions])
    extractor = ClapFeatureExtractor(
        feature_size=32, sampling_rate=RATE, hop_length=512, max_length_s=4, frequency_max=8000,
        truncation="rand_trunc",
    )  # fmt: skip
    model = ClapTrainerModel(
        small_clap(len(tokenizer)), "moco_atc_atm", head=FusionHeadConfig(layers=1),
        queue_size=512, queue_warmup_steps=60, momentum=0.9,
    )  # fmt: skip
    optimizer = AdamW(parameter_groups(model.criterion, weight_decay=0.05), lr=4e-3)
    arguments = TrainingArguments(
        options.out, **TRAINING_ARGUMENTS, max_steps=options.steps, warmup_steps=10,
        per_device_train_batch_size=32, logging_steps=10, save_steps=options.steps, report_to=[],
    )  # fmt: skip
    trainer = Trainer(
        model, arguments, ClapCollator(tokenizer, extractor), PairDataset(data, "train", RATE),
        PairDataset(data, "valid", RATE), compute_metrics=compute_metrics,
        optimizers=(optimizer, None),
    )  # fmt: skip
    trainer.add_callback(MocoCallback(trainer, rank_every=10))
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    for name in ("a2t_r1", "a2t_r10", "t2a_r1", "t2a_r10", "r_sum"):
        print(f"{name:8} {before['eval_' + name]:6.1f} -> {after['eval_' + name]:6.1f}")
    model.save_pretrained(f"{options.out}/clap")


if __name__ == "__main__":
    main()
