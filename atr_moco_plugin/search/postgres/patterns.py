"""Shell patterns as regular expressions of PostgreSQL, and names that are not UTF-8 as text."""

from __future__ import annotations


def searchable(name: str) -> str:
    """A name as patterns see it in PostgreSQL: a byte that is not UTF-8 is one private character.

    >>> searchable("caf\\udce9.wav") == "caf\\U001000e9.wav"
    True
    """
    return "".join(
        chr(0x100000 + ord(char) - 0xDC00) if 0xDC80 <= ord(char) <= 0xDCFF else char
        for char in name
    )


def regular_expression(pattern: str) -> str:
    """A shell pattern as a regular expression that PostgreSQL's ``~`` matches the whole name with.

    It says what :func:`fnmatch.fnmatchcase` says: ``*`` matches ``/`` and newlines too.

    >>> regular_expression("birds/*.w?v")
    '^birds\\\\/.*\\\\.w.v$'
    """
    parts, place = [], 0
    while place < len(pattern):
        char = pattern[place]
        place += 1
        if char in "*?":
            parts.append({"*": ".*", "?": "."}[char])
            continue
        negated = pattern.startswith("!", place)
        first = place + negated
        # A bracket that comes first in a set stands for itself.
        end = pattern.find("]", first + 1) if char == "[" else -1
        if end < 0:
            parts.append(_literal(char))
        else:
            parts.append(_set(pattern[first:end], negated))
            place = end + 1
    return f"^{''.join(parts)}$"


def _set(members: str, negated: bool) -> str:
    """A set of characters, such as ``a-z_``, as PostgreSQL reads it."""
    inner, place = [], 0
    while place < len(members):
        if members[place + 1 : place + 2] == "-" and place + 2 < len(members):
            first, last = members[place], members[place + 2]
            if first <= last:  # a range the wrong way round has no character in it
                inner.append(f"{_literal(first)}-{_literal(last)}")
            place += 3
        else:
            inner.append(_literal(members[place]))
            place += 1
    if not inner:
        return "." if negated else "(?!.*)"
    return f"[{'^' if negated else ''}{''.join(inner)}]"


def _literal(char: str) -> str:
    """A character that stands for itself; a backslash before a letter would have a meaning."""
    return char if char.isalnum() or not char.isascii() else f"\\{char}"
