"""What all option dataclasses share: paths are expanded and values are checked.

For example::

    @dataclass
    class NoiseConfig(Config):
        kind: Literal["white", "pink"] = "white"
        probability: float = 0.5
        file: Path | None = None

        def problems(self) -> Iterator[str]:
            yield from in_range(self, "probability", least=0, most=1)

``NoiseConfig(probability=2)`` raises ``InputError: `probability` is 2, expected 0 to 1.`` An
unknown ``kind`` is refused and a ``~`` in ``file`` replaced without another line.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Collection, Iterator
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.paths import expanded


class Config:
    """Base of a dataclass of options, which are checked when it is made.

    Options whose type names ``Path`` are expanded (see
    :func:`~atr_moco_plugin.io.paths.expanded`). Options whose type is a ``Literal`` must have one
    of its values, ``None`` is for options whose type names it, and a number is no bool, a whole one
    no fraction. A subclass checks the rest in :meth:`problems`.

    Raises:
        InputError: for the first option that cannot be used.
    """

    def __post_init__(self) -> None:
        types = _option_types(type(self))
        for name, kind in types.items():
            value = getattr(self, name)
            if Path in (kind, *get_args(kind)) and isinstance(value, (str, os.PathLike)):
                # Many of the classes are frozen.
                object.__setattr__(self, name, expanded(value, name))
        for name, kind in types.items():
            value = getattr(self, name)
            unset = value is None and kind in (bool, int, float, str)
            chosen = not _has_choices(kind) or _is_choice(value, kind)
            if unset or not chosen or _is_other_number(value, kind):
                raise InputError(f"`{name}` is {value!r}, expected {describe_type(kind)}.")
        for problem in self.problems():
            raise InputError(problem)

    def problems(self) -> Iterator[str]:
        """One sentence for each option that cannot be used.

        A subclass of a class with checks starts with ``yield from super().problems()``.
        """
        yield from ()


def in_range(
    config: object,
    *names: str,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> Iterator[str]:
    """One sentence for each option that is outside of a range, NaN or infinite.

    Args:
        config: the object with the options.
        names: the options, which are numbers; ``None`` is passed over.
        least: the smallest value.
        above: a bound that every value is above.
        most: the greatest value.
        below: a bound that every value is below.
    """
    bounds = [("at least", least), ("above", above), ("at most", most), ("below", below)]
    expected = " and ".join(f"{word} {bound}" for word, bound in bounds if bound is not None)
    if least is not None and above is most is below is None:
        expected = f"{least} or more"
    elif least is not None and most is not None:
        expected = f"{least} to {most}"
    for name in names:
        value = getattr(config, name)
        if value is not None and not (
            -math.inf < value < math.inf  # `isfinite` takes no integer of 400 digits
            and (least is None or value >= least)
            and (above is None or value > above)
            and (most is None or value <= most)
            and (below is None or value < below)
        ):
            yield f"`{name}` is {value}, expected {expected}."


ConfigT = TypeVar("ConfigT", bound=Config)


def as_loaded(user: ConfigT, loaded: ConfigT, own: Collection[str], source: object) -> ConfigT:
    """The options that a file of weights says, with those of a user that are the user's to choose.

    Args:
        user: what is wished; a default is no wish.
        loaded: what the file says.
        own: names that are ``user``'s.
        source: the file, for the message.

    Raises:
        InputError: ``user`` wishes for another option something else than the file has.
    """
    for field in dataclasses.fields(user):  # type: ignore[arg-type]
        wish, fact = getattr(user, field.name), getattr(loaded, field.name)
        if field.name not in own and wish != fact and wish != field.default:
            raise InputError(
                f"`{field.name}` is {wish}, but {source} has {fact}: leave it out, for the "
                "architecture comes from the file."
            )
    return dataclasses.replace(loaded, **{name: getattr(user, name) for name in own})  # type: ignore[type-var]


def describe_type(kind: Any) -> str:
    """A type in words: ``one of fast, exact`` for a ``Literal``, ``int or auto`` for a union."""
    options = get_args(kind)
    if get_origin(kind) is Literal:
        return ("one of " if len(options) > 1 else "") + ", ".join(map(str, options))
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(map(describe_type, options))
    return "None" if kind is NoneType else getattr(kind, "__name__", None) or str(kind)


def _option_types(config_class: type) -> dict[str, Any]:
    hints = get_type_hints(config_class)
    return {field.name: hints[field.name] for field in dataclasses.fields(config_class)}


def _is_other_number(value: object, kind: Any) -> bool:
    """Whether a value is a bool or a fraction where a type names other numbers alone: YAML reads
    ``yes`` as 1, and every 2.5th step is none."""
    options = (kind, *get_args(kind))
    if isinstance(value, bool):
        return bool not in options and (int in options or float in options)
    if isinstance(value, (list, tuple)):
        lists = [option for option in options if get_origin(option) in (list, tuple)]
        kinds = [x for option in lists for x in get_args(option) if x is not ...]
        return any(kinds and all(_is_other_number(x, y) for y in kinds) for x in value)
    is_fraction = isinstance(value, Real) and not isinstance(value, Integral)
    return is_fraction and int in options and float not in options


def _has_choices(kind: Any) -> bool:
    return any(get_origin(option) is Literal for option in (kind, *get_args(kind)))


def _is_choice(value: object, kind: Any) -> bool:
    """Whether a value is one that the ``Literal`` in a type allows, or of another of its types."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return any(_is_choice(value, option) for option in get_args(kind))
    if kind is NoneType:
        return value is None
    # In ``int | Literal["auto"]`` a string has to be "auto", and ``None`` is not there.
    return value is not None and (kind is str or not isinstance(value, str))
