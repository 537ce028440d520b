"""What a reader of a comparison should know beside its figures."""

from __future__ import annotations

from collections.abc import Sequence

from atr_moco_plugin.comparison.results import Result
from atr_moco_plugin.comparison.sides import Side
from atr_moco_plugin.errors import counted


def same_runs(base: Side, ours: Side) -> bool:
    """Whether two sides are results of the same trained models, such as before and after
    re-ranking."""
    places = [sorted(source.path.resolve() for source in side.sources) for side in (base, ours)]
    return places[0] == places[1] and len(set(places[0])) == len(places[0])


def compare_notes(
    sides: Sequence[Side],
    pairs: Sequence[tuple[int, int]],
    results: Sequence[Sequence[Result]],
    figures: int,
) -> list[str]:
    """Sentences below the tables.

    Args:
        sides: that were compared.
        pairs: which with which.
        results: of each run of each side.
        figures: how many each pair has.
    """
    tests = len(pairs) * figures
    seeds = [len(of_side) for of_side in results]
    notes = [
        f"{sides[n].name} and {sides[base].name} are of the same runs: seeds were drawn for both "
        "together."
        for base, n in pairs
        if len(sides[base].sources) > 1 and same_runs(sides[base], sides[n])
    ]
    notes += [f"p (Holm) is corrected for the {counted(tests, 'test')} of this comparison."]
    if max(seeds) == 1:
        notes.append(
            "One run a side: this is about these trained models on other clips of the same kind, "
            "not about their recipes; another seed may turn it round. Name three seeds a side."
        )
    else:
        notes.append(
            "Seeds were drawn first and clips within them: this is about the recipes, with other "
            "seeds and on other clips of the same kind."
        )
    if min(seeds) == 1 < max(seeds):
        notes.append(
            "A side of one run is taken to vary from seed to seed as much as the others do."
        )
    if results[0][0].depth is not None:
        notes.append("There are no median ranks: a file of TREC ends at some rank.")
    others = [name for name in results[0][0].systems if not name.startswith("dual")]
    if others:
        notes.append(f"The runs have other systems too (--system): {', '.join(others)}.")
    return notes
