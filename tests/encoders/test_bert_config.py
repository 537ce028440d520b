from __future__ import annotations

import pytest

from atr_moco_plugin.encoders.bert import BertConfig


def test_defaults_are_bert_base() -> None:
    from transformers import BertConfig as Reference

    ours, reference = BertConfig(), Reference()
    for name in vars(ours).keys() - {"pretrained", "sha256"}:
        assert getattr(ours, name) == getattr(reference, name), name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vocab_size": 0}, "`vocab_size` is 0, expected 1 or more"),
        ({"num_hidden_layers": -1}, "`num_hidden_layers` is -1, expected 1 or more"),
        ({"hidden_size": 10, "num_attention_heads": 4}, "`hidden_size` is 10, expected a multiple"),
        (
            {"hidden_dropout_prob": 1.0},
            "`hidden_dropout_prob` is 1.0, expected at least 0 and below 1",
        ),
        ({"attention_probs_dropout_prob": -0.1}, "`attention_probs_dropout_prob` is -0.1"),
        ({"layer_norm_eps": 0.0}, "`layer_norm_eps` is 0.0, expected above 0"),
        (
            {"vocab_size": 5, "pad_token_id": 5},
            "`pad_token_id` is 5, expected an id below `vocab_size`",
        ),
        ({"sha256": "a" * 64}, "set `pretrained` as well"),
        ({"pretrained": "x", "sha256": "a" * 63}, "expected 64 hexadecimal digits"),
        ({"pretrained": "x", "sha256": "g" * 64}, "expected 64 hexadecimal digits"),
    ],
)
def test_bad_values_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BertConfig(**values)
