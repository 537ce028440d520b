"""Choices that decide what a step holds: the criterion, what is frozen, the crop, the batch."""

from __future__ import annotations

import math

from atr_moco_plugin.finetuning.choices import FREEZE, Choices, number_of, share_of
from atr_moco_plugin.finetuning.facts import Facts
from atr_moco_plugin.finetuning.schedule import epochs_for
from atr_moco_plugin.finetuning.sizes import fixed_bytes, pair_bytes, run_seconds
from atr_moco_plugin.finetuning.steps import (
    captions_each,
    has_copies,
    matches,
    matching_share,
    pairs_a_step,
)
from atr_moco_plugin.io.stdout import duration

LONG_RUN = 2 * 3600.0
"""Seconds above which a run without a GPU trains no layer of a pretrained audio encoder."""

CACHE = "dataset.cache_embeddings"
"""Key of the folder that keeps the outputs of frozen encoders."""

_SPARE = 0.7
"""Share of the memory found that a step may take: the rest is for what is not counted."""


def criterion_for(facts: Facts) -> tuple[str, str]:
    """The criterion, and why."""
    if not facts.matches:
        return "moco_atc", "the model has no matching head"
    if facts.head_trained:
        return "moco_atc_atm", "the matching head of the start is trained on"
    if facts.clips >= 2_000:
        return "moco_atc_atm", f"{facts.clips:,} clips are enough for a matching head to learn from"
    return "moco_atc", f"{facts.clips:,} clips are too few for a new matching head"


def freeze_for(part: str, facts: Facts, choices: Choices) -> tuple[str | int, str]:
    """What of an encoder stands still by the data alone, and why."""
    encoder, clips = facts.part(part), facts.clips
    if choices.adapts(part):
        return "none", "the adapter freezes what it adapts"
    if not encoder.pretrained:
        return "none", "its weights are random"
    if part == "text" and facts.distinct_captions < 500:
        return "all", (
            f"{facts.distinct_captions:,} different captions teach a language model nothing, and "
            "it would forget the others"
        )
    number = clips if part == "audio" else facts.distinct_captions
    what = "clips" if part == "audio" else "different captions"
    quarters = 3 if number < 1_000 else 2 if number < 10_000 else 0
    if not quarters:
        return "none", f"{number:,} {what} are enough to train all layers"
    share = {3: "three quarters", 2: "half"}[quarters]
    if not encoder.layers:
        if quarters == 3:
            return "all", f"{number:,} {what} are few, and the encoder names no layers to choose of"
        return "none", f"the encoder names no layers, of which {share} would be frozen"
    layers = max(1, encoder.layers * quarters // 4)
    return layers, f"the lowest {share} of its {encoder.layers} layers, for {number:,} {what}"


def max_seconds_for(facts: Facts) -> tuple[float, str]:
    """Where longer clips are cropped, and why."""
    most = facts.window_seconds or 10.0
    whose = "the window of the start" if facts.window_seconds else "a usual length"
    if facts.long_clip is None or facts.long_clip >= most:
        return most, f"{whose}; longer clips are cropped at random"
    seconds = max(1.0, math.ceil(facts.long_clip * 2) / 2)
    return min(most, seconds), "nine in ten clips are no longer, and longer ones are cropped"


def batch_size_for(facts: Facts, choices: Choices) -> tuple[int, str]:
    """Pairs a batch on each process, and why; may freeze more where memory is small."""
    wanted = 64 if facts.clips >= 5_000 else 32
    each = captions_each(choices)
    by_data = each * facts.clips // (4 * facts.processes)
    size, reason = wanted, "enough other clips to tell each one from"
    if by_data < wanted:
        size, reason = by_data, f"a quarter of the {facts.clips:,} training clips"
    fits = _fitting(facts, choices)
    if fits < size and all(FREEZE[part] not in choices.given for part in ("audio", "text")):
        if fits < 8 and _freeze_all(facts, choices, "a batch of 8 does not fit into memory else"):
            fits = _fitting(facts, choices)
    if fits < size:
        gib = facts.memory / 2**30
        size, reason = fits, f"what fits into {_SPARE:.0%} of the {gib:.1f} GiB that are free"
    if fits < 2 * each:
        gib = facts.memory / 2**30
        reason = f"the least there can be, though it may not fit into the {gib:.1f} GiB free"
        return 2 * each, reason
    if each > 1:
        clips = max(2, size // each)
        return clips * each, f"{reason}, as {clips} clips with {each} captions each"
    return max(2, 1 << max(0, size.bit_length() - 1)), f"{reason}, rounded down to a power of two"


def _fitting(facts: Facts, choices: Choices) -> int:
    """Pairs of a batch that fit into memory; a great number where nothing is known."""
    audio, text = (share_of(part, facts, choices) for part in ("audio", "text"))
    matching, seconds = matches(choices["criterion.name"]), choices["dataset.max_seconds"]
    each = pair_bytes(
        facts, audio, text, matches=matching, seconds=seconds, captions=captions_each(choices)
    )
    if not facts.memory or not each:
        return 1 << 20
    free = _SPARE * facts.memory - fixed_bytes(facts, audio, text, copies=has_copies(choices))
    return max(0, int(free // each))


def freeze_for_time(facts: Facts, choices: Choices) -> None:
    """Freeze the audio encoder wholly where a run without a GPU would take hours."""
    if facts.device != "cpu" or FREEZE["audio"] in choices.given:
        return
    seconds = planned_seconds(facts, choices)
    if seconds is not None and seconds > LONG_RUN:
        reason = f"training some of it takes about {duration(seconds)} without a GPU"
        _freeze_all(facts, choices, reason, ("audio",))


def planned_seconds(facts: Facts, choices: Choices, *, kept: bool = False) -> float | None:
    """About how long the run takes; ``None`` where nothing was measured.

    Args:
        facts: what was measured.
        choices: what was chosen so far.
        kept: whether outputs of frozen encoders are kept, where the user has not said so.
    """
    kept = kept or choices.value(CACHE) is not None
    pairs = epochs_for(facts)[0] * facts.clips * captions_each(choices)
    steps, batch = (choices.value(key) for key in ("regime.num_steps", "dataset.batch_size"))
    if steps is not None:
        pairs = number_of(steps, 1) * pairs_a_step(facts, choices, number_of(batch or 32, 2))
    audio, text = (share_of(part, facts, choices) for part in ("audio", "text"))
    return run_seconds(
        facts,
        audio,
        text,
        pairs / facts.processes,
        copies=has_copies(choices),
        matching=matching_share(facts, choices),
        seconds=choices["dataset.max_seconds"],
        captions=captions_each(choices),
        kept=kept,
    )


def _freeze_all(
    facts: Facts, choices: Choices, reason: str, parts: tuple[str, ...] = ("audio", "text")
) -> bool:
    """Freeze what is pretrained and has no adapter; whether that changed anything."""
    changed = False
    for part in parts:
        if facts.part(part).pretrained and not choices.adapts(part):
            changed |= choices[FREEZE[part]] != "all"
            choices.make(FREEZE[part], "all", reason)
    return changed
