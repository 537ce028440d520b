"""Which runs stand on which side, from the words of a command line."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atr_moco_plugin.comparison.recorded import Recorded, read_recorded
from atr_moco_plugin.errors import InputError, MissingFileError, listed
from atr_moco_plugin.io.paths import expanded

SYSTEM = "dual"
"""Whose results are compared where nobody says."""


@dataclass(frozen=True)
class Source:
    """Where the results of one model are.

    Attributes:
        path: the output folder of a run or of an evaluation, or a ``.run`` file of TREC.
        system: whose results are meant, such as ``dual``; None for what the command says.
        recorded: what the folder says about itself.
    """

    path: Path
    system: str | None = None
    recorded: Recorded = Recorded()

    def __str__(self) -> str:
        return f"{self.path}:{self.system}" if self.system else str(self.path)


@dataclass(frozen=True)
class Side:
    """What is compared with another side: one run, or several seeds of a recipe.

    Attributes:
        name: for tables.
        sources: its runs.
    """

    name: str
    sources: tuple[Source, ...]


def parse_sides(
    arguments: Sequence[str], *, group: bool = True, system: str = SYSTEM
) -> tuple[list[Side], list[str]]:
    """The sides that a command line names.

    Args:
        arguments: each a run, or ``NAME=RUN,RUN`` for a side of several. ``RUN:SYSTEM`` means the
            results of that system.
        group: whether runs without a name that differ in their seed alone make one side, where two
            sides or more are left.
        system: whose results are meant where an argument does not say.

    Returns:
        The sides in the order of their first runs, and a sentence on whatever a reader should know.

    Raises:
        MissingFileError: for a path that is not there.
        InputError: for fewer than two sides, a name or a run that is there twice, a seed that is
            twice on a side, several systems on a side, or a file that is none of TREC.
    """
    named: list[tuple[str, list[Source]]] = []
    for argument in arguments:
        name, sources = _parse(argument)
        named.append((name, sources))
    unnamed = [source for name, sources in named for source in sources if not name]
    notes: list[str] = []
    if group:
        named = _grouped(named, notes)
    sides = _with_names(named)
    if len(sides) < 2:
        raise InputError(
            "A comparison takes two sides or more: name two runs, or NAME=RUN,RUN NAME=RUN,RUN for "
            "several seeds a side."
        )
    _check_sides(sides, system)
    for side in sides:
        _check_runs(side, system)
        notes += _differences(side)
    return sides, notes + _not_found(unnamed if group else [])


def _parse(argument: str) -> tuple[str, list[Source]]:
    """Name, empty where none is given, and sources of one argument."""
    if _is_there(argument) or "=" not in argument:
        return "", [_source(argument)]
    name, _, rest = argument.partition("=")
    if not name.strip() or not rest.strip(", "):
        raise InputError(f"{argument!r} is no side: write NAME=RUN or NAME=RUN,RUN,RUN.")
    paths = [rest] if _is_there(rest) else rest.split(",")
    return name.strip(), [_source(path.strip()) for path in paths if path.strip()]


def _is_there(text: str) -> bool:
    """Whether a text is a path as it stands or with a system behind it, and so no NAME=RUN."""
    path, _, system = text.rpartition(":")
    for one in (text, "" if "," in system else path):
        try:
            if one and os.path.lexists(expanded(one, "RUN")):
                return True
        except InputError:  # `$x=RUN` and `~x=RUN` are sides with such a name
            pass
    return False


def _source(text: str) -> Source:
    path, system = text, None
    if not os.path.lexists(expanded(text, "RUN")) and ":" in text:
        path, _, system = text.rpartition(":")
    found = expanded(path, "RUN")
    if not found.exists():
        raise MissingFileError(
            f"{found} is not there: give the output folder of a run or of an evaluation, or a .run "
            "file of TREC."
        )
    if found.is_file() and found.suffix in (".json", ".safetensors"):
        raise InputError(f"{found} is no .run file of TREC: give its folder, {found.parent}.")
    if found.is_file() and system:
        raise InputError(f"{text} names a system of a file, which has one: give {found}.")
    return Source(found, system or None, read_recorded(found) if found.is_dir() else Recorded())


def _grouped(
    named: list[tuple[str, list[Source]]], notes: list[str]
) -> list[tuple[str, list[Source]]]:
    """Runs without a name, those that differ in their seed alone together."""
    groups: dict[str, tuple[str, list[Source]]] = {}
    for number, (name, sources) in enumerate(named):
        recorded = sources[0].recorded
        key = f"{number}"  # a side of its own
        if not name and recorded.config is not None and recorded.seed is not None:
            key = json.dumps([sources[0].system, recorded.config], sort_keys=True, default=str)
        groups.setdefault(key, (name, []))[1].extend(sources)
    if len(groups) == 1 and len(named) > 1:
        runs = ", ".join(str(source) for _, sources in named for source in sources)
        seeds = [source.recorded.seed for _, sources in named for source in sources]
        notes.append(
            f"{runs} differ in their seed alone: what is different is chance of training."
            if len(set(seeds)) == len(seeds)
            else f"{runs} have one configuration, and some of them one seed: is a run there twice?"
        )
    if len(groups) < 2 or len(groups) == len(named):
        return named
    for _, sources in groups.values():
        if len(sources) > 1:
            runs = ", ".join(str(source) for source in sources)
            notes.append(f"{runs} differ in their seed alone and are one side.")
    return list(groups.values())


def _with_names(named: Sequence[tuple[str, list[Source]]]) -> list[Side]:
    given = [name for name, _ in named if name]
    for name in given:
        if given.count(name) > 1:
            raise InputError(f"The side {name!r} is there twice: give each side its own name.")
    short = [name or _short_name(sources) for name, sources in named]
    return [
        Side(name if short.count(name) == 1 else str(sources[0]), tuple(sources))
        for name, (_, sources) in zip(short, named, strict=True)
    ]


def _short_name(sources: Sequence[Source]) -> str:
    """The folder's name, or what the names of several have in common before a number."""
    names = [source.path.resolve().name for source in sources]
    common = re.sub(r"[-_. ]*(seed|s)?[-_. ]*\d*$", "", os.path.commonprefix(names))
    name = common if len(names) > 1 and common else names[0]
    return f"{name}:{sources[0].system}" if sources[0].system else name


def _check_sides(sides: Sequence[Side], system: str) -> None:
    """Refuse a run on two sides: what it gets would count as an agreement of the two."""
    seen: dict[tuple[Path, str], Side] = {}
    for side in sides:
        for source in side.sources:
            other = seen.setdefault(_place(source, system), side)
            if other is not side:
                raise InputError(
                    f"{source} is there on two sides: a run cannot be compared with itself; name "
                    "another run, or another system of it, as in RUN:SYSTEM."
                )


def _place(source: Source, system: str) -> tuple[Path, str]:
    return source.path.resolve(), source.system or system


def _check_runs(side: Side, system: str) -> None:
    folders = [source for source in side.sources if source.path.is_dir()]
    for source in folders[1:]:
        here, first = source.system or system, folders[0].system or system
        if here != first:
            raise InputError(
                f"The side {side.name!r} has results of {first!r} in {folders[0].path} and of "
                f"{here!r} in {source.path}: runs of a side are seeds of one recipe; name one "
                "system for all of them, or make them two sides."
            )
    for number, source in enumerate(side.sources):
        for earlier in side.sources[:number]:
            if _place(source, system) == _place(earlier, system):
                raise InputError(
                    f"{source} is on the side {side.name!r} twice: a run counts once; name another "
                    "seed."
                )
            own, other = source.recorded, earlier.recorded
            if own.config is not None and own == other and own.seed is not None:
                raise InputError(
                    f"{earlier} and {source} on the side {side.name!r} have one configuration and "
                    f"both the seed {own.seed}: name one of them, since copies look like seeds "
                    "that agree."
                )


def _not_found(sources: Sequence[Source]) -> list[str]:
    """A sentence where evaluations name runs whose configuration is not there: runs that differ in
    their seed alone are told by it.

    Args:
        sources: those that may be put into one side, which are not in one that the user has named.
    """
    lost = [(str(source), source.recorded.lost) for source in sources if source.recorded.lost]
    if not lost:
        return []
    file = lost[0][1]
    begins = "" if file.is_absolute() else "compare from the folder in which this path begins, "
    return [
        f"{listed([name for name, _ in lost])}: there is no {file}, which says which runs differ "
        f"in their seed alone. Put the run back, {begins}or write NAME=RUN,RUN for the seeds of a "
        "recipe."
    ]


def _differences(side: Side) -> list[str]:
    """A sentence where runs of a side differ in more than their seed."""
    configs = [source.recorded.config for source in side.sources]
    first = configs[0]
    keys: set[str] = set()
    for config in configs[1:]:
        if first is not None and config is not None:
            every = first.keys() | config.keys()
            keys |= {key for key in every if first.get(key) != config.get(key)}
    if not keys:
        return []
    named = listed(sorted(keys), 4)
    return [f"The runs of {side.name} differ in more than their seed: {named}."]
