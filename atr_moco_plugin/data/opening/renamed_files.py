"""Audio files whose names a download tool has changed."""

from __future__ import annotations

import html
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from atr_moco_plugin.data.tables.file_names import stem_of


def match_renamed(wanted: Sequence[str], files: Sequence[str]) -> dict[str, str]:
    """Pair names with files whose names download tools have changed.

    Names are compared after one change after the other: HTML entities resolved (``&#39;``), then
    also every run of punctuation and space as one and no letter case, then letters and digits
    alone. What one step pairs is not looked at again, and a step pairs only what is unambiguous:
    one name and one file that are left, and no other of the same form.

    Args:
        wanted: file names as captions list them, all different.
        files: relative paths of files that are not yet taken.

    Returns:
        Wanted name to file, for those that were paired.
    """
    pairs: dict[str, str] = {}
    left, free = list(wanted), list(files)
    for form in (_entities, _runs, _letters):
        names_of: dict[str, set[str]] = defaultdict(set)
        files_of: dict[str, list[str]] = defaultdict(list)
        for name in left:
            # An entity whose & ; and # were replaced leaves its number behind: owl_39_s.
            for resolve in (True, False):
                names_of[form(stem_of(name), resolve)].add(name)
        for path in free:
            files_of[form(stem_of(path), True)].append(path)
        found: dict[str, list[str]] = defaultdict(list)
        for key, names in names_of.items():
            if key and len(names) == 1 and len(files_of.get(key, ())) == 1:
                found[names.pop()].extend(files_of[key])
        pairs |= {name: paths[0] for name, paths in found.items() if len(set(paths)) == 1}
        taken = set(pairs.values())
        left = [name for name in left if name not in pairs]
        free = [path for path in free if path not in taken]
    return pairs


def _entities(stem: str, resolve: bool) -> str:
    while resolve and (plain := html.unescape(stem)) != stem:
        stem = plain
    return unicodedata.normalize("NFKC", stem)


def _runs(stem: str, resolve: bool) -> str:
    return re.sub(r"[\W_]+", "_", _entities(stem, resolve).casefold()).strip("_")


def _letters(stem: str, resolve: bool) -> str:
    return re.sub(r"[\W_]+", "", _entities(stem, resolve).casefold())
