"""The page of a comparison: tables, figures, and the queries that changed, to listen to."""

from __future__ import annotations

from pathlib import Path

from atr_moco_plugin.comparison.assemble import Comparison
from atr_moco_plugin.comparison.changes import Changes, find_changes
from atr_moco_plugin.comparison.figures import pair_panels
from atr_moco_plugin.comparison.sounds import find_sounds
from atr_moco_plugin.comparison.tables import WAYS, pair_table, pair_verdict, query_sentence
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.atomic import write_atomically
from atr_moco_plugin.report.examples import Sound
from atr_moco_plugin.report.html import render

_TEMPLATE = Path(__file__).with_name("comparison.html.j2")


def write_page(
    comparison: Comparison, file: Path, *, examples: int = 6, sound: bool = True
) -> Path:
    """Write the page.

    Args:
        comparison: what was compared.
        file: where it goes; its folder is made where it is missing.
        examples: queries that got better, and as many that got worse, of each direction and pair.
        sound: whether the data set is opened for the clips.

    Returns:
        The file.

    Raises:
        InputError: where it cannot be written.
    """
    changes = [find_changes(comparison, pair, examples) for pair in comparison.pairs]
    pairs = []
    for pair, changed in zip(comparison.pairs, changes, strict=True):
        pairs.append(
            {
                "verdict": pair_verdict(comparison, pair),
                "queries": query_sentence(comparison, pair),
                "table": pair_table(comparison, pair),
                "panels": list(pair_panels(comparison, pair)),
                "changes": changed,
                "names": [comparison.sides[n].name for n in (pair.base, pair.ours)],
            }
        )
    sounds: dict[str, Sound] = {}
    silent = ""
    keys = {key for changed in changes for key in _keys(changed)}
    if sound and keys:
        sources = (source for side in comparison.sides for source in side.sources)
        sounds, silent = find_sounds(sources, keys)
    text = render(
        _TEMPLATE,
        comparison=comparison,
        title=" beside ".join(side.name for side in reversed(comparison.sides)),
        pairs=pairs,
        sounds=sounds,
        silent=silent,
        ways=WAYS,
    )
    try:
        write_atomically(file, text)
    except OSError as ex:
        raise InputError(
            f"{file} cannot be written ({ex.strerror or ex}): give another place with --page."
        ) from ex
    return file


def _keys(changes: list[Changes]) -> set[str]:
    """Keys of the clips that are shown."""
    keys: set[str] = set()
    for of_way in changes:
        for change in (*of_way.better, *of_way.worse):
            if of_way.way == "a2t":
                keys.add(change.query)
            else:
                keys |= {*change.shown, *(answer.first for answer in change.answers)}
    return keys
