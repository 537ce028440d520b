from __future__ import annotations

from atr_moco_plugin.inspection.findings import Finding, keys_to_exclude


def test_a_clip_with_two_remarks_is_left_out_once_and_in_order() -> None:
    findings = [
        Finding("silence", "test", "b", "It is silent.", exclude=True),
        Finding("clipping", "train", "c", "It is clipped."),
        Finding("same audio", "train", "a", "Equal to b.", (("d", "test", "b"),), exclude=True),
        Finding("same audio", "test", "b", "Equal to a.", (("d", "train", "a"),), exclude=True),
    ]
    assert keys_to_exclude(findings) == ["b", "a"]
    assert keys_to_exclude([]) == []
