"""Configurations of transformers' encoders in miniature, for random weights without a network."""

from __future__ import annotations

_SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
_BERT = {**_SIZES, "vocab_size": 60, "max_position_embeddings": 24}
_WAVES = {
    **_SIZES,
    "conv_dim": [8, 8, 8],
    "conv_kernel": [10, 8, 4],
    "conv_stride": [5, 8, 4],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
_T5 = {"d_model": 24, "num_layers": 2, "num_heads": 2, "d_ff": 32, "d_kv": 12, "vocab_size": 60}

TEXT: dict[str, dict[str, object]] = {
    "bert": {"model_type": "bert", **_BERT},
    "xlm-roberta": {"model_type": "xlm-roberta", **_BERT},
    "mpnet": {"model_type": "mpnet", **_BERT},
    "albert": {"model_type": "albert", **_BERT, "embedding_size": 12},
    "deberta-v2": {"model_type": "deberta-v2", **_BERT},
    "distilbert": {
        "model_type": "distilbert",
        "dim": 24,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 32,
        "vocab_size": 60,
        "max_position_embeddings": 24,
    },
    "t5": {"model_type": "t5", **_T5},
    "mt5": {"model_type": "mt5", **_T5},
    "gpt2": {
        "model_type": "gpt2",
        "n_embd": 24,
        "n_layer": 2,
        "n_head": 2,
        "vocab_size": 60,
        "n_positions": 24,
    },
}
AUDIO: dict[str, dict[str, object]] = {
    # With a group norm over time, as the base models have it.
    "wav2vec2": {"model_type": "wav2vec2", **_WAVES},
    "hubert": {"model_type": "hubert", **_WAVES},
    "wavlm": {"model_type": "wavlm", **_WAVES},
    # With layer norms, as the large models have them.
    "wav2vec2-large": {
        "model_type": "wav2vec2",
        **_WAVES,
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
        "conv_bias": True,
    },
    "wav2vec2-bert": {"model_type": "wav2vec2-bert", **_SIZES},
    "ast": {
        "model_type": "audio-spectrogram-transformer",
        **_SIZES,
        "max_length": 128,
        "num_mel_bins": 32,
        "patch_size": 16,
    },
    "whisper": {
        "model_type": "whisper",
        "d_model": 24,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_attention_heads": 2,
        "num_mel_bins": 20,
        "max_source_positions": 100,
    },
}
REFUSED = {
    # Convolutions over the padding between their layers.
    "wav2vec2-conformer": {"model_type": "wav2vec2-conformer", **_WAVES},
    "data2vec-audio": {"model_type": "data2vec-audio", **_WAVES},
    "sew": {"model_type": "sew", "squeeze_factor": 2, **_WAVES},
}
