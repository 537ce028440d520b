"""Training clips that cannot be read: how many a run puts up with, and the note of each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from atr_moco_plugin.errors import InputError

_LOGGER = logging.getLogger(__name__)


def tolerated_clips(clips: int) -> int:
    """Unreadable clips at which a split of that size does not stop: one in a thousand, at least 10.

    If there are more, the fault is no longer in single files: a disk, a download or a folder is
    gone.
    """
    return max(10, clips // 1_000)


class BadClips:
    """Warns of each unreadable clip once, and stops at one too many.

    Args:
        name: of the data set and the split, for messages.
        max_bad: clips that are put up with.
        on_bad: called with the key of every clip and the reason, once for each.

    Attributes:
        keys: of the clips met so far, in the order they were met (a dict with no values).
    """

    def __init__(
        self, name: str, max_bad: int, on_bad: Callable[[str, str], None] | None = None
    ) -> None:
        self.keys: dict[str, None] = {}
        self._name, self._max_bad, self._on_bad = name, max_bad, on_bad

    def note(self, bad_clips: Iterable[tuple[str, str]]) -> None:
        """Note clips by key and reason.

        Raises:
            InputError: if there are more than ``max_bad``.
        """
        for key, reason in bad_clips:
            if key not in self.keys:
                self.keys[key] = None
                _LOGGER.warning("%s: clip %r is skipped: %s", self._name, key, reason)
                if self._on_bad is not None:
                    self._on_bad(key, reason)
            if len(self.keys) > self._max_bad:
                raise InputError(
                    f"{self._name}: {len(self.keys)} clips cannot be used, more than "
                    f"max_bad={self._max_bad}; the last is {key!r}: {reason}"
                )
