"""How much memory and time a training step takes, from what was measured of one pair."""

from __future__ import annotations

from atr_moco_plugin.finetuning.facts import Facts

MATCHING_PASSES = 3
"""The matching head sees each caption with its clip, with a wrong clip, and a wrong caption."""

_FLOAT = 4


def trained_share(freeze: object, layers: int) -> float:
    """The share of an encoder above what is frozen.

    Args:
        freeze: ``none``, ``all`` or the number of lowest layers.
        layers: how many there are; 0 where that is unknown.
    """
    if freeze == "all":
        return 0.0
    if isinstance(freeze, int) and not isinstance(freeze, bool) and layers:
        return min(1.0, max(0.0, 1 - freeze / layers))
    return 1.0


def fixed_bytes(facts: Facts, audio: float, text: float, *, copies: bool) -> int:
    """Bytes that a step takes whatever the batch: float32 weights, and of what is trained the
    gradients, AdamW's two averages and the momentum copy.

    Args:
        facts: the model.
        audio: share of the audio encoder that is trained.
        text: share of the text encoder.
        copies: whether there are momentum copies.
    """
    trained = facts.audio.parameters * audio + facts.text.parameters * text
    trained += facts.other_parameters
    return int(_FLOAT * (facts.parameters + (4 if copies else 3) * trained))


def pair_bytes(
    facts: Facts,
    audio: float,
    text: float,
    *,
    matches: bool,
    seconds: float | None = None,
    captions: int = 1,
) -> int:
    """Bytes that a pair of a batch takes at the peak of a step.

    Args:
        facts: what was measured of one clip of ``facts.measured_seconds`` and of one caption.
        audio: share of the audio encoder that is trained.
        text: share of the text encoder.
        matches: whether the matching head is trained.
        seconds: length of the clips of a batch; ``None`` takes what was measured.
        captions: of a clip, which is encoded once for all of them.
    """
    length = _length(facts, seconds)
    if length > 1:
        length *= length  # attention keeps something for each pair of moments
    # What is frozen keeps nothing, but a layer's own states are there while it runs.
    clip = length * facts.audio.bytes_each * max(audio, 1 / max(facts.audio.layers, 8))
    caption = facts.text.bytes_each * max(text, 1 / max(facts.text.layers, 8))
    if matches:
        # Text layers that stand still keep nothing for gradients of their own in the head's passes.
        still = MATCHING_PASSES * facts.text.bytes_each * (1 - text)
        caption += max(0.0, facts.match_bytes - still)
    return int(clip / captions + caption)


def run_seconds(
    facts: Facts,
    audio: float,
    text: float,
    pairs: float,
    *,
    copies: bool,
    matching: float,
    seconds: float | None = None,
    captions: int = 1,
    kept: bool = False,
) -> float | None:
    """About how long a training takes on this machine; ``None`` where nothing was measured.

    A forward pass through all layers is 1. What is trained takes 2 more for its backward pass, and
    1 for that of the momentum copy; what is frozen runs once.

    Args:
        facts: what was measured of one clip and one caption.
        audio: share of the audio encoder that is trained.
        text: share of the text encoder.
        pairs: that are seen in the whole run, on this process.
        copies: whether there are momentum copies.
        matching: share of the steps with a matching loss.
        seconds: length of the clips; ``None`` takes what was measured.
        captions: of a clip in a batch, which is encoded once for all of them.
        kept: whether outputs of wholly frozen encoders are kept from the first epoch on.
    """
    if not facts.audio.seconds_each:
        return None
    above = 3 if copies else 2
    clip = _length(facts, seconds) * facts.audio.seconds_each * (1 + above * audio)
    caption = facts.text.seconds_each * (1 + above * text)
    # A forward and a backward pass.
    head = 3 * facts.match_seconds * matching
    encoded = facts.clips if kept and not audio else pairs / captions
    read = facts.captions if kept and not text else pairs
    return encoded * clip + read * caption + pairs * head


def _length(facts: Facts, seconds: float | None) -> float:
    """The length of a batch's clips, in clips as they were measured."""
    if seconds is None or not facts.measured_seconds:
        return 1.0
    return seconds / facts.measured_seconds
