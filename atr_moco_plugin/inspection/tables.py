"""The tables of an inspection, for a terminal and for its page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from atr_moco_plugin.data.summary import NO_SPLIT, Counts
from atr_moco_plugin.errors import listed
from atr_moco_plugin.evaluation.tables import Table
from atr_moco_plugin.inspection.findings import keys_to_exclude
from atr_moco_plugin.inspection.kinds import ordered
from atr_moco_plugin.inspection.report import (
    Inspection,
    audio_figures,
    least_median_most,
    left_out,
)

_SHOWN = 2
_ROWS = 8
_LEFT_OUT = {
    "missing": "without audio",
    "unreadable": "unreadable",
    "no_caption": "without a caption",
    "empty_captions": "empty captions dropped",
    "repeated_rows": "repeated rows dropped",
    "excluded": "left out by exclude",
}


def tables(inspection: Inspection) -> list[Table]:
    """Clips, captions and findings by split."""
    return [*clip_tables(inspection), caption_table(inspection), finding_table(inspection)]


def clip_tables(inspection: Inspection) -> list[Table]:
    """What was opened, and what the audio is like where it was looked at."""
    splits = inspection.dataset.splits
    counts = {split: left_out(inspection.dataset.counts.get(split, Counts())) for split in splits}
    rows = [["clips", *(f"{len(clips):,}" for clips in splits.values())]]
    for key, words in _LEFT_OUT.items():
        if any(key in own for own in counts.values()):
            rows.append([words, *(f"{own.get(key, 0):,}" for own in counts.values())])
    lost = left_out(inspection.dataset.counts.get(NO_SPLIT, Counts()))
    words_lost = [f"{number:,} {_LEFT_OUT.get(key, key)}" for key, number in lost.items()]
    notes = [f"In no split yet: {', '.join(words_lost)}."] if lost else []
    audio = inspection.audio
    if audio is not None:
        figures = {split: audio_figures(audio, split) for split in splits}
        rows += _rows(
            figures,
            {
                "hours": lambda own: f"{own['total_seconds'] / 3600:.2f}",
                "seconds, least": lambda own: _number(own["seconds"], 0, ".2f"),
                "seconds, median": lambda own: _number(own["seconds"], 1, ".2f"),
                "seconds, most": lambda own: _number(own["seconds"], 2, ".2f"),
            },
        )
        rows += _of_each(figures, "rates", lambda rate: f"at {rate / 1000:g} kHz", "at")
        rows += _of_each(figures, "channels", lambda n: f"with {n} channel{'s' * (n != 1)}", "with")
    return [Table(["", *splits], rows, "Clips", notes=notes)]


def caption_table(inspection: Inspection) -> Table:
    """Numbers of captions, what they share, their lengths and languages."""
    figures = inspection.captions.figures
    rows = _rows(
        figures,
        {
            "captions": lambda own: f"{own['captions']:,}",
            "different texts": lambda own: f"{own['texts']:,}",
            "shared, to the letter": _share("shared_to_the_letter"),
            "shared in the split": _share("shared_in_the_split"),
            "shared in any split": lambda own: _part(own["found"]["shared caption"], own),
            "nearly shared": lambda own: _part(own["found"]["near caption"], own),
            "words, least": lambda own: _number(own["words"], 0, "g"),
            "words, median": lambda own: _number(own["words"], 1, "g"),
            "words, most": lambda own: _number(own["words"], 2, "g"),
        },
    )
    if any(own["languages"] is not None for own in figures.values()):
        rows += _rows(figures, {"languages": lambda own: _numbers(own["languages"] or {})})
    notes = ["Shared is a caption whose text another clip has too."]
    if tokens := inspection.captions.tokens:
        least, median, most = least_median_most(tokens.lengths.tolist()) or (0, 0, 0)
        notes.append(f"Tokens a caption: {least:g} to {most:g}, the median {median:g}.")
    if groups := sum(own["of_groups"] for own in figures.values()):
        notes.append(f"Captions of classes, whose clips share them on purpose: {groups:,}.")
    return Table(["", *figures], rows, "Captions", notes=notes)


def finding_table(inspection: Inspection) -> Table:
    """Findings by kind and split; each number is of captions or of clips, as the kind is."""
    splits = list(inspection.dataset.splits)
    found = inspection.found()
    proposed = Counter(finding.kind for finding in inspection.findings if finding.exclude)
    rows = [
        [
            kind,
            *(f"{found[kind][split]:,}" for split in splits),
            f"{proposed[kind]:,}" if proposed[kind] else "",
        ]
        for kind in ordered(found)
    ]
    keys = list(keys_to_exclude(inspection.findings))
    note = "" if rows else "Nothing was found."
    if keys:
        note = f"To be left out: {listed(keys)}; --exclude FILE writes the list."
    return Table(["", *splits, "leave out"], rows, "Findings", notes=[note] if note else [])


def _rows(
    figures: Mapping[str, dict[str, Any]], cells: Mapping[str, Callable[[dict[str, Any]], str]]
) -> list[list[str]]:
    return [[title, *(cell(own) for own in figures.values())] for title, cell in cells.items()]


def _of_each(
    figures: Mapping[str, dict[str, Any]], key: str, words: Callable[[int], str], before: str
) -> list[list[str]]:
    """A row for each value with its clips by split, the most frequent first; of many values the
    rest is one row."""
    total: Counter[int] = Counter()
    for own in figures.values():
        total.update(own[key])
    values = [value for value, _ in total.most_common()]
    shown = values if len(values) <= _ROWS else values[: _ROWS - 1]
    rows = [
        [f"clips {words(value)}", *(f"{own[key].get(value, 0):,}" for own in figures.values())]
        for value in shown
    ]
    if rest := values[len(shown) :]:
        clips = (sum(own[key].get(value, 0) for value in rest) for own in figures.values())
        rows.append([f"clips {before} {len(rest)} other {key}", *(f"{n:,}" for n in clips)])
    return rows


def _share(key: str) -> Callable[[dict[str, Any]], str]:
    return lambda own: _part(own[key], own)


def _part(number: int, own: dict[str, Any]) -> str:
    return f"{number:,} ({number / own['captions']:.1%})" if number else "0"


def _number(values: Sequence[float] | None, at: int, form: str) -> str:
    return "" if values is None else format(values[at], form)


def _numbers(values: Mapping[Any, int]) -> str:
    """``en`` where all are one, else ``en 20, de 13, 4 other`` with those of a hundredth or more,
    two at most."""
    if len(values) == 1:
        return str(next(iter(values)))
    total = sum(values.values())
    shown = [key for key, number in list(values.items())[:_SHOWN] if number >= total / 100]
    other = total - sum(values[key] for key in shown)
    parts = [f"{key} {values[key]:,}" for key in shown] + ([f"{other:,} other"] if other else [])
    return ", ".join(parts)
