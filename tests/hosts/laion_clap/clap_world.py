"""Everything LAION-CLAP's training needs, in miniature: tars, tokenizers, towers.

Run as a script with the arguments of the host, it trains in a process of its own with the small
audio tower, as the tests do in theirs.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
import soundfile
import torch

RATE = 48_000
CLIPS = 8
WORDS = "low high quiet loud steady pulsing tone noise sweep with a of and then".split()


def write_tars(root: Path, shards: int = 1) -> None:
    """Data set ``toy``: ``train`` with :data:`CLIPS` clips a shard, and ``valid`` with four."""
    for split, count, number in (("train", CLIPS, shards), ("valid", 4, 1)):
        folder = root / "toy" / split
        folder.mkdir(parents=True)
        for shard in range(number):
            with tarfile.open(folder / f"{shard}.tar", "w") as tar:
                for index in range(count):
                    _add_clip(tar, shard * count + index)
        sizes = {f"{shard}.tar": count for shard in range(number)}
        (folder / "sizes.json").write_text(json.dumps(sizes))


def _add_clip(tar: tarfile.TarFile, index: int) -> None:
    time = np.arange(RATE) / RATE  # filled up to ten seconds by LAION-CLAP
    wave = 0.3 * np.sin(2 * np.pi * 110 * 2 ** (index / 2) * time)
    audio = io.BytesIO()
    soundfile.write(audio, wave, RATE, format="FLAC", subtype="PCM_16")
    first, second = WORDS[index % 7], WORDS[(index // 2) % 7 + 6]
    captions = [f"a {first} {second}", f"{second} and then {first}"]
    for name, data in (
        (f"clip{index}.flac", audio.getvalue()),
        (f"clip{index}.json", json.dumps({"text": captions, "tag": []}).encode()),
    ):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


def write_hub(home: Path, **roberta: object) -> None:
    """A Hugging Face cache with the three tokenizers and two text towers of one layer; of RoBERTa's
    more options can be said."""
    from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

    torch.manual_seed(0)
    # The width is fixed in LAION-CLAP.
    size = {
        "hidden_size": 768,
        "num_hidden_layers": 1,
        "num_attention_heads": 12,
        "intermediate_size": 32,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.0,
    }
    pieces = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4}
    letters = [*"abcdefghijklmnopqrstuvwxyz", "\u0120"]
    bpe = json.dumps({**pieces, **{letter: 5 + i for i, letter in enumerate(letters)}})
    merges = "#version: 0.2\n"
    for name in ("roberta-base", "facebook/bart-base"):
        folder = _snapshot(home, name)
        (folder / "vocab.json").write_text(bpe)
        (folder / "merges.txt").write_text(merges)
    folder = _snapshot(home, "bert-base-uncased")
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n")
    BertModel(BertConfig(vocab_size=len(vocab), **size)).save_pretrained(folder)
    sizes = {"vocab_size": 40, "max_position_embeddings": 80, "pad_token_id": 1, **size, **roberta}
    config = RobertaConfig(**sizes)
    RobertaModel(config).save_pretrained(_snapshot(home, "roberta-base"))


def _snapshot(home: Path, name: str) -> Path:
    """The folder of a model of the Hub, made with the reference that points to it."""
    repository = home / "hub" / f"models--{name.replace('/', '--')}"
    revision = "0" * 40
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(revision)
    folder = repository / "snapshots" / revision
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def small_htsat(audio_cfg, enable_fusion: bool = False, fusion_type: str = "None"):
    """LAION-CLAP's HTSAT in a twentieth of its smallest size."""
    from clap_module.htsat import HTSAT_Swin_Transformer

    return HTSAT_Swin_Transformer(
        spec_size=256,
        patch_size=16,
        patch_stride=(16, 16),
        num_classes=4,
        embed_dim=24,
        depths=[1, 1],
        num_heads=[2, 2],
        window_size=8,
        config=audio_cfg,
        enable_fusion=enable_fusion,
        fusion_type=fusion_type,
    )


SMALL_CONFIG = {
    "embed_dim": 48,
    "audio_cfg": {
        "audio_length": 1024,
        "clip_samples": 480_000,
        "mel_bins": 64,
        "sample_rate": RATE,
        "window_size": 1024,
        "hop_size": 480,
        "fmin": 50,
        "fmax": 14_000,
        "class_num": 4,
        "model_type": "HTSAT",
        "model_name": "tiny",
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49_408,
        "width": 512,
        "heads": 8,
        "layers": 12,
    },
    "joint_embed_shape": 32,
}


def make_small() -> None:
    """Let LAION-CLAP build the small tower under the name ``HTSAT-small-test``."""
    import clap_module.factory
    import clap_module.model

    clap_module.factory._MODEL_CONFIGS["HTSAT-small-test"] = SMALL_CONFIG
    clap_module.model.create_htsat_model = small_htsat


def keep_weights(folder: Path) -> None:
    """Let every process write its state after each step, as ``<rank>.pt``."""
    from atr_moco_plugin.hosts.laion_clap.model import CriterionForward

    step = CriterionForward.on_optimizer_step

    def kept(model) -> None:
        step(model)
        torch.save(model.state_dict(), folder / f"{os.environ['RANK']}.pt")

    CriterionForward.on_optimizer_step = kept


if __name__ == "__main__":
    from atr_moco_plugin.hosts.laion_clap.__main__ import main
    from atr_moco_plugin.hosts.laion_clap.requirements import find_laion_clap, put_on_path

    put_on_path(find_laion_clap())
    make_small()
    if "CLAP_WORLD_QUEUES" in os.environ:
        keep_weights(Path(os.environ["CLAP_WORLD_QUEUES"]))
    sys.exit(main(sys.argv[1:]))
