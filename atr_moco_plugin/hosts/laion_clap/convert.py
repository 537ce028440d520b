"""LAION-CLAP's towers as transformers' ``ClapModel``: names of weights, and sizes read from them.

An HTSAT audio branch without fusion and a RoBERTa text branch have the same computation there.
Everything else is refused by name. Imports nothing of ``laion_clap``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

from atr_moco_plugin.errors import InputError

RATE = 48_000
SECONDS = 10
HOP = 480
"""Of every HTSAT configuration that LAION-CLAP has."""

_FMIN, _FMAX = 50, 14_000
_IMAGE = 256  # HTSAT folds the spectrogram into a square of this side
_FIRST_POSITION = 1  # RoBERTa's padding id
_HEAD_WIDTH = 64  # of BERT-like models
_MEL = "audio_branch.logmel_extractor.melW"
_WINDOW = "audio_branch.spectrogram_extractor.stft.conv_real.weight"
_PATCH = "audio_branch.patch_embed.proj.weight"
_TABLE = "attn.relative_position_bias_table"
_ROUNDING = 1e-5  # of filters of about 0.03, that two libraries compute

_PREFIXES = {
    "text_branch.": "text_model.",
    "text_projection.0.": "text_projection.linear1.",
    "text_projection.2.": "text_projection.linear2.",
    "audio_projection.0.": "audio_projection.linear1.",
    "audio_projection.2.": "audio_projection.linear2.",
    "audio_branch.bn0.": "audio_model.audio_encoder.batch_norm.",
    "audio_branch.": "audio_model.audio_encoder.",
    "logit_scale_": "logit_scale_",
}
_IN_BLOCKS = {
    "norm1.": "layernorm_before.",
    "norm2.": "layernorm_after.",
    "attn.proj.": "attention.output.dense.",
    "attn.": "attention.self.",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.fc2.": "output.dense.",
}
_LEFT_OUT = re.compile(
    # How LAION-CLAP makes features; heads of its other losses; and what is computed from the sizes.
    r"audio_branch\.(spectrogram_extractor|logmel_extractor|tscam_conv|head)\."
    r"|(text|audio)_transform\.|.*\.(attn_mask|relative_position_index|position_ids)$"
    r"|text_branch\.embeddings\.token_type_ids$"
)
_BLOCK = re.compile(r"(audio_model\.audio_encoder\.layers\.\d+\.blocks\.\d+\.)(.*)")


def clap_model(state: Mapping[str, Tensor]) -> ClapModel:
    """The ``ClapModel`` of a LAION-CLAP model, in eval mode.

    Args:
        state: of :func:`~atr_moco_plugin.hosts.laion_clap.weights.read_clap`.

    Raises:
        InputError: for towers that ``ClapModel`` has not, by their names.
    """
    check_convertible(state)
    with torch.random.fork_rng([]):
        model = ClapModel(clap_config(state))
    own, found = model.state_dict(), dict(_renamed(state))
    computed = [name for name in own if _LEFT_OUT.fullmatch(name) or _is_computed(name)]
    wrong = sorted(found.keys() ^ (own.keys() - set(computed)))
    wrong += [x for x in found if x in own and found[x].shape != own[x].shape]
    if wrong:
        raise InputError(
            f"The towers of this LAION-CLAP checkpoint are none that ClapModel has ({wrong[0]} has "
            "no place or another shape): only those of HTSAT and roberta are, see "
            "docs/laion_clap.md."
        )
    model.load_state_dict({**{name: own[name] for name in computed}, **found})
    model.requires_grad_(False)
    model.train(False)
    return model


def check_convertible(state: Mapping[str, Tensor]) -> None:
    """Refuse towers that ``ClapModel`` has not.

    Raises:
        InputError: naming the tower.
    """
    tower = None
    if _PATCH not in state:
        tower = "a PANN audio branch"
    elif any("mel_conv" in name or "fusion_model" in name for name in state):
        tower = "an audio branch with --enable-fusion"
    elif any(name.startswith("text_branch.encoder.layers.") for name in state):
        tower = "a BART text branch"
    elif "text_branch.embeddings.word_embeddings.weight" not in state:
        tower = "a text branch like CLIP's"
    elif len(state["text_branch.embeddings.token_type_embeddings.weight"]) > 1:
        tower = "a BERT text branch"
    if tower is not None:
        raise InputError(
            f"This LAION-CLAP checkpoint has {tower}, which ClapModel has not, so no bundle can be "
            "made of it; `python -m atr_moco_plugin.hosts.laion_clap export` writes its weights "
            "for CLAP_Module."
        )


def clap_config(state: Mapping[str, Tensor]) -> ClapConfig:
    """Sizes of the model, from the shapes of its weights."""
    blocks: dict[int, set[int]] = {}
    tables = {}
    for name, x in state.items():
        if found := re.match(r"audio_branch\.layers\.(\d+)\.blocks\.(\d+)\.", name):
            layer = int(found[1])
            blocks.setdefault(layer, set()).add(int(found[2]))
            if name.endswith(_TABLE):
                tables[layer] = x
    width, _, patch, _ = state[_PATCH].shape
    words = state["text_branch.embeddings.word_embeddings.weight"]
    hidden = words.shape[1]
    joint = len(state["audio_projection.0.weight"])
    layers = {name.split(".")[3] for name in state if name.startswith("text_branch.encoder.layer.")}
    text = {
        "vocab_size": len(words),
        "hidden_size": hidden,
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(1, hidden // _HEAD_WIDTH),
        "intermediate_size": len(state["text_branch.encoder.layer.0.intermediate.dense.weight"]),
        "max_position_embeddings": len(state["text_branch.embeddings.position_embeddings.weight"]),
        "type_vocab_size": 1,
        "pad_token_id": _FIRST_POSITION,
        "layer_norm_eps": 1e-5,  # of roberta-base; CLAP in transformers has another default
        "projection_dim": joint,
    }
    sides = [(math.isqrt(len(x)) + 1) // 2 for x in tables.values()]
    audio = {
        "window_size": max(sides),
        "num_mel_bins": len(state["audio_branch.bn0.weight"]),
        "spec_size": _IMAGE,
        "patch_size": patch,
        "patch_stride": [patch, patch],
        "patch_embeds_hidden_size": width,
        "hidden_size": width * 2 ** (len(blocks) - 1),
        "depths": [len(blocks[layer]) for layer in sorted(blocks)],
        "num_hidden_layers": len(blocks),
        "num_attention_heads": [tables[layer].shape[1] for layer in sorted(tables)],
        "enable_fusion": False,
        "projection_dim": joint,
    }
    options = {"text_config": text, "audio_config": audio, "projection_dim": joint}
    config: ClapConfig = ClapConfig(**options)  # type: ignore[no-untyped-call]
    return config


def feature_extractor(state: Mapping[str, Tensor], padding: str) -> ClapFeatureExtractor:
    """What makes the features that LAION-CLAP's audio branch makes of a waveform itself.

    Args:
        state: its weights, in which the filters are.
        padding: ``pad``, ``repeat`` or ``repeatpad``, LAION-CLAP's ``--data-filling``.

    Raises:
        InputError: for filters or a padding that the extractor of transformers has not.
    """
    if padding not in ("pad", "repeat", "repeatpad"):
        raise InputError(
            f"The run's data_filling is {padding!r}, but must be pad, repeat or repeatpad."
        )
    extractor = ClapFeatureExtractor(
        feature_size=len(state["audio_branch.bn0.weight"]),
        sampling_rate=RATE,
        hop_length=HOP,
        max_length_s=SECONDS,
        fft_window_size=state[_WINDOW].shape[-1],
        frequency_min=_FMIN,
        frequency_max=_FMAX,
        truncation="rand_trunc",
        padding=padding,
    )
    ours = torch.from_numpy(extractor.mel_filters_slaney).float()
    theirs = state[_MEL].float()
    if ours.shape != theirs.shape or (ours - theirs).abs().max() > _ROUNDING:
        raise InputError(
            "The mel filters of this LAION-CLAP checkpoint are none that ClapFeatureExtractor "
            f"makes ({_FMIN} to {_FMAX:,} Hz at {RATE:,} Hz), so no bundle can be made of it."
        )
    return extractor


def _renamed(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, x in state.items():
        if _LEFT_OUT.match(name):
            continue
        new = _replaced(name, _PREFIXES)
        if block := _BLOCK.fullmatch(new):
            new = block[1] + _replaced(block[2], _IN_BLOCKS)
        if ".attention.self.qkv." in new:
            # One matrix for queries, keys and values.
            for part, rows in zip(("query", "key", "value"), x.chunk(3), strict=True):
                yield new.replace("qkv", part), rows
        else:
            yield new, x


def _replaced(name: str, beginnings: Mapping[str, str]) -> str:
    for old, new in beginnings.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _is_computed(name: str) -> bool:
    return name.endswith(("relative_position_index", "position_ids", "token_type_ids"))
