"""Results from rankings and judgements in the format of TREC, of this package or of any other."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.comparison.results import UNLISTED, Result, Way
from atr_moco_plugin.comparison.sides import Source
from atr_moco_plugin.errors import InputError, MissingFileError, counted, listed
from atr_moco_plugin.evaluation.metrics import CUTOFFS
from atr_moco_plugin.evaluation.qrels_files import read_trec
from atr_moco_plugin.evaluation.relevance import DIRECTIONS, DUPLICATES

FOLDER = "trec"
"""Where an evaluation writes its rankings and judgements."""

_DIRECTION = re.compile(rf"({'|'.join(DIRECTIONS)})(?![A-Za-z0-9])")

Ranking = list[tuple[str, float]]
Judged = dict[str, set[str]]


def read_trec_results(
    sources: Sequence[Source], system: str, direction: str | None, qrels: Path | None
) -> list[Result]:
    """Read a ``.run`` file of each source, for a folder that in its ``trec/``.

    Args:
        sources: of all sides.
        system: which file of a folder is read, where its source does not say.
        direction: ``a2t`` or ``t2a``; None where a file's name starts with it, which it must not
            contradict.
        qrels: judgements; None for those beside each file, ``t2a.qrels`` for example.

    Raises:
        InputError: for a file that is missing or contradicts itself, for queries that are in one of
            the two files alone, for rankings of other items, for files of two directions, or where
            the direction is not known or contradicts a file's name.
    """
    files = [source for source in sources if not source.path.is_dir()]
    named: dict[str, str] = {}
    for source in files:
        if found := _DIRECTION.match(source.path.name):
            named.setdefault(found[1], source.path.name)
    if len(named) > 1:
        raise InputError(
            f"{' and '.join(named.values())} are of {' and '.join(named)}, and files of two "
            "directions cannot be compared: give those of one, or rename a file that is called "
            "wrongly."
        )
    stated = next(iter(named), None)
    if direction is not None and stated not in (None, direction):
        raise InputError(
            f"--direction {direction} contradicts the name of {named[str(stated)]}, whose queries "
            f"are those of {stated}: leave it out, or rename the file."
        )
    direction = direction or stated
    if direction is None:
        raise InputError(
            f"The names of {listed([source.path.name for source in files])} do not say a "
            "direction: give --direction t2a for sentences as queries, or a2t for clips."
        )
    results = [_read(source, source.system or system, direction, qrels) for source in sources]
    _check_pools(results)
    return _cut(results)


def _check_pools(results: Sequence[Result]) -> None:
    """Refuse rankings of other items than those that a file ranks for every query: with fewer to
    choose from, any model is better."""
    items = [{item for way in result.ways.values() for item in way.items} for result in results]
    for (one, pool), (other, theirs) in permutations(zip(results, items, strict=True), 2):
        # A list that is shorter than the pool does not say what else there was to choose from.
        if one.depth == len(pool) and (more := sorted(theirs - pool)):
            raise InputError(
                f"{one.name} ranks {counted(len(pool), 'item', 'items')} for every query, and "
                f"{other.name} lists {listed(more, 1)}, which is none of them: a comparison takes "
                "the same items."
            )


def _cut(results: list[Result]) -> list[Result]:
    """The results to the depth of the shortest list: a rank that another list could not have shown
    is no gain."""
    depth = max(max(CUTOFFS), min(result.depth or 0 for result in results))
    return [
        replace(
            result,
            depth=depth,
            ways={
                name: replace(way, rank=np.where(way.rank > depth, UNLISTED, way.rank))
                for name, way in result.ways.items()
            },
        )
        for result in results
    ]


def _read(source: Source, system: str, way: str, qrels: Path | None) -> Result:
    run, beside = source.path, source.path.parent
    suffix = ""
    if run.is_dir():
        beside = run / FOLDER
        suffix = DUPLICATES if system.endswith(DUPLICATES) else ""
        run = beside / f"{way}_{system.removesuffix(DUPLICATES)}.run"
    rankings = read_rankings(run)
    judged_by = qrels or beside / f"{way}{suffix}.qrels"
    if not judged_by.is_file():
        raise MissingFileError(
            f"{judged_by} is not there, which says what is relevant in {run}: give the judgements "
            "with --qrels FILE."
        )
    judged = read_judgements(judged_by)
    unknown, silent = rankings.keys() - judged.keys(), judged.keys() - rankings.keys()
    for queries, one, other in ((unknown, run, judged_by), (silent, judged_by, run)):
        if queries:
            raise InputError(
                f"{one} has {counted(len(queries), 'query', 'queries')} that {other} has not, "
                f"such as {listed(sorted(queries), 2)}: a comparison takes the same queries."
            )
    _check_depth(run, rankings, max(map(len, rankings.values())))
    if not any(item in judged[query] for query, of in rankings.items() for item, _ in of):
        item, needed = rankings[next(iter(judged))][0][0], min(next(iter(judged.values())))
        raise InputError(
            f"{run} lists no relevant item for any query: its items are named like {item!r}, those "
            f"in {judged_by} like {needed!r}; both need the same names."
        )
    text = json.dumps([way, sorted((query, sorted(items)) for query, items in judged.items())])
    return Result(
        str(source),
        judged_by.name,
        hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest(),
        joint=False,
        depth=min(map(len, rankings.values())),
        ways={way: _way(way, judged, rankings)},
    )


def read_judgements(path: Path) -> Judged:
    """The relevant items of each query of a qrels file; those with grade 0 are not relevant.

    Raises:
        InputError: for a line of another form, an item that is judged twice, a query without a
            relevant item, or a file without a line.
    """
    grades: dict[str, dict[str, int]] = {}
    for line in read_trec(path):
        of_query = grades.setdefault(line.query, {})
        for item in line.files:
            if item in of_query:
                raise InputError(
                    f"{path}: {line.row} judges {item} for the query {line.query} a second time; "
                    "take one of the two lines out."
                )
            of_query[item] = line.grade
    if not grades:
        raise InputError(f"{path} has no line `query 0 item grade`: give the judgements.")
    relevant = {q: {item for item, grade in of.items() if grade > 0} for q, of in grades.items()}
    without = [query for query, items in relevant.items() if not items]
    if without:
        raise InputError(
            f"{path}: {counted(len(without), 'query has', 'queries have')} no relevant item, such "
            f"as {listed(without, 2)}: take them out of both files."
        )
    return relevant


def read_rankings(path: Path) -> dict[str, Ranking]:
    """Items and scores of each query of a run file, in the order of the file.

    Raises:
        MissingFileError: if it is not there.
        InputError: for a line that is not ``query Q0 item rank score tag``, a score that is no
            number, an item that is there twice, or ranks that contradict the scores.
    """
    if not path.is_file():
        raise MissingFileError(
            f"{path} is not there: an evaluation writes it with `trec_depth` of 10 or more; "
            "evaluate again, or name a system that was evaluated."
        )
    rankings: dict[str, Ranking] = {}
    ranks: dict[str, list[float]] = {}
    seen: dict[str, set[str]] = {}
    for row, query, item, rank, score in _lines(path):
        if item in seen.setdefault(query, set()):
            raise InputError(
                f"{path}: {row} has {item} for the query {query} a second time; an item has one "
                "place."
            )
        seen[query].add(item)
        rankings.setdefault(query, []).append((item, score))
        ranks.setdefault(query, []).append(rank)
    if not rankings:
        raise InputError(f"{path} has no line `query Q0 item rank score tag`: give a ranking.")
    for query, ranking in rankings.items():
        # Of equal ranks, as of a tool that writes 0 for all, none contradicts a score.
        of_query = sorted(zip(ranks[query], (-score for _, score in ranking), strict=True))
        scores = [-score for _, score in of_query]
        if any(later > earlier for earlier, later in zip(scores, scores[1:], strict=False)):
            raise InputError(
                f"{path}: the scores of the query {query} do not fall from rank to rank; scores "
                "decide, as in trec_eval, and a larger one is better: turn distances round."
            )
    return rankings


def _lines(path: Path) -> Iterator[tuple[str, str, str, float, float]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as ex:
        raise InputError(f"{path} cannot be read as UTF-8 text: {ex}.") from ex
    except OSError as ex:
        raise InputError(f"{path} cannot be read ({ex.strerror or ex}): give access to it.") from ex
    for number, line in enumerate(lines, start=1):
        parts = line.split()
        if not parts:
            continue
        row = f"line {number}"
        if len(parts) != 6:
            raise InputError(
                f"{path}: {row} has {len(parts)} fields, expected six: query, Q0, item, rank, "
                "score, tag."
            )
        try:
            rank, score = float(parts[3]), float(parts[4])
        except ValueError:
            rank = score = math.nan
        if not math.isfinite(rank) or not math.isfinite(score):
            raise InputError(
                f"{path}: {row} has rank {parts[3]!r} and score {parts[4]!r}, expected two numbers."
            )
        yield row, parts[0], parts[2], rank, score


def _check_depth(run: Path, rankings: Mapping[str, Ranking], depth: int) -> None:
    most = max(CUTOFFS)
    items = {item for ranking in rankings.values() for item, _ in ranking}
    short = [q for q, ranking in rankings.items() if len(ranking) < min(most, len(items))]
    if short:
        raise InputError(
            f"{run} lists fewer than {most} items for {len(short):,} of "
            f"{counted(len(rankings), 'query', 'queries')}, such as {listed(short, 1)}, so "
            f"R@{most} is not known: list {most} or more "
            f"(the longest has {depth})."
        )


def _way(way: str, judged: Judged, rankings: Mapping[str, Ranking]) -> Way:
    """Ranks and precisions; among equal scores the irrelevant items come first."""
    queries = sorted(judged)
    items = sorted({item for ranking in rankings.values() for item, _ in ranking})
    number = {item: n for n, item in enumerate(items)}
    ranks, precisions, firsts = [], [], []
    for query in queries:
        relevant = judged[query]
        order = sorted(rankings[query], key=lambda pair: (-pair[1], pair[0] in relevant))
        places = [place for place, (item, _) in enumerate(order, 1) if item in relevant]
        within = [n / place for n, place in enumerate(places, 1) if place <= max(CUTOFFS)]
        ranks.append(places[0] if places else UNLISTED)
        precisions.append(sum(within) / min(max(CUTOFFS), len(relevant)))
        firsts.append(number[order[0][0]])
    return Way(
        queries,
        items,
        _clusters(way, judged, queries, {*items, *(x for of in judged.values() for x in of)}),
        np.array(ranks, dtype=np.int64),
        np.array(precisions),
        np.array(firsts, dtype=np.int64),
        [tuple(sorted(judged[query])) for query in queries],
    )


def _clusters(
    way: str, judged: Judged, queries: Sequence[str], clips: Collection[str]
) -> NDArray[np.int64]:
    """As an evaluation has them: the captions of a clip together, other sentences with the same
    relevant clips together, each clip by itself."""
    numbers: dict[tuple[str, ...], int] = {}
    found = []
    for query in queries:
        clip, mark, _ = query.partition("#")
        if way == "a2t":
            key: tuple[str, ...] = (query,)
        elif mark and clip in clips:
            key = "caption of", clip
        else:
            key = tuple(sorted(judged[query]))
        found.append(numbers.setdefault(key, len(numbers)))
    return np.array(found, dtype=np.int64)
