"""``KEY=VALUE`` pairs of a command line."""

from __future__ import annotations

from collections.abc import Sequence


def lost_pair(pairs: Sequence[str]) -> str | None:
    """Name a pair that would be lost beside another, which sets all of what it sets a part of.

    For example ``criterion=atc`` sets all of ``criterion``, so ``criterion.config.positives=pair``
    on the same command line would say nothing, wherever it stands.

    Args:
        pairs: ``KEY=VALUE``, keys with dots for those of a section.

    Returns:
        One sentence; None where there is no such pair.
    """
    keys = {pair.partition("=")[0].strip().removeprefix("set:"): pair for pair in pairs}
    for key, pair in keys.items():
        for part, other in keys.items():
            if part.startswith(f"{key}."):
                instead = "set its parts alone"
                if key == "criterion":
                    instead = f"write `criterion.name={pair.partition('=')[2].strip()}`"
                return f"`{pair}` sets all of `{key}`, and `{other}` would be lost: {instead}."
    return None
