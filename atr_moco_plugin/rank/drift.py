"""How far the keys of a fixed batch move while an encoder trains: the age of a queue in cosines.

A row of a queue is the key that its encoder made when the row was written. How much of it is still
true shows a probe: a few items that are encoded again every so many steps. The cosine between the
keys of one item now and some steps ago is 1 without drift (Wang et al. 2020, "slow drift", measure
its complement); a queue is stale where it comes near the cosine of different items.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.atomic import new_file
from atr_moco_plugin.rank.spectrum import to_float64

Probe = Callable[[], Mapping[str, Tensor]]
"""Encodes the same items at each call: modality to ``[P, d]``. Two probes with different
``fingerprint`` (text, optional) are of different items."""

Found = dict[str, Any]

LONGEST = 20
"""Ages up to ``2 ** LONGEST`` probes have names for a metric recorder."""

_WINDOW = 32
_DIGITS = 6


def same_item(now: Tensor, then: Tensor) -> float:
    """Mean cosine between the embeddings of the same items at two times.

    Args:
        now: ``[P, d]``.
        then: ``[P, d]``, row i of the same item.

    Example:
        >>> same_item(torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        0.5
    """
    return float((_rows(now) * _rows(then)).sum(dim=1).mean())


def different_items(now: Tensor) -> float | None:
    """Mean cosine between the embeddings of different items.

    Args:
        now: ``[P, d]``.

    Returns:
        The mean over the P (P - 1) pairs; ``None`` for fewer than two rows.
    """
    if len(now) < 2:
        return None
    x = _rows(now)
    total = x.sum(dim=0).square().sum() - x.square().sum()
    return float(total / (len(x) * (len(x) - 1)))


class KeyDrift:
    """Keeps the keys of a probe and compares them with those of earlier steps.

    Every ``every`` steps the probe is encoded. At step n ``every`` its keys are compared with those
    of 1, 2, 4, ... probes ago, of 2^k where 2^k divides n: as many comparisons as probes double,
    and memory for log n batches of keys. The last 32 probes are kept besides, so that a run that
    goes on from a checkpoint of that time finds what it had then.

    Args:
        probe: see :data:`Probe`.
        every: steps between two probes, at least 1.
        path: ``.npz`` file of the keys and what was found; ``None`` keeps them in memory. What is
            there is taken up, unless it is of another ``every`` or of other items.

    Raises:
        InputError: the file is not one that this class wrote.
    """

    def __init__(self, probe: Probe, every: int, path: Path | None = None) -> None:
        self._probe = probe
        self._every = every
        self._path = path
        self._name = str(getattr(probe, "fingerprint", ""))
        self._keys: dict[int, dict[str, Tensor]] = {}
        self._found: dict[int, Found] = {}
        self._looked = False
        if path is not None and path.exists():
            self._load(path)

    def look(self, step: int) -> None:
        """Encode the probe where it is due; a second call at one step does nothing.

        Args:
            step: optimizer steps made so far. A smaller one than before, as after a resume, drops
                what was found later; the first look also what a file has of its own step, which may
                be that of another model.
        """
        first = step + 1 if self._looked else step
        self._looked = True
        for later in [x for x in self._keys if x >= first]:
            del self._keys[later], self._found[later]
        if step % self._every or step in self._keys:
            return
        number = step // self._every
        now = {name: x.detach().float().cpu() for name, x in self._probe().items()}
        self._found[step] = {
            name: {"different": _rounded(different_items(x)), "same": self._ages(number, name, x)}
            for name, x in now.items()
        }
        self._keys[step] = now
        oldest = max(0, number - _WINDOW)
        kept = {x * self._every for x in [*_prefixes(oldest), *range(oldest, number + 1)]}
        self._keys = {x: keys for x, keys in self._keys.items() if x in kept}
        self._found = {x: found for x, found in self._found.items() if x in kept}
        if self._path is not None:
            self._save(self._path)

    def record(self) -> Found | None:
        """The last that was found of each age, ready for JSON; ``None`` before the first probe.

        ``every``, and in ``sources`` for each modality ``different``, the mean cosine of different
        items, and ``same``, from the age in steps to the mean cosine of the same item.
        """
        if not self._keys:
            return None
        last = max(self._keys)
        sources: dict[str, Any] = {
            name: {"different": x["different"], "same": {}} for name, x in self._found[last].items()
        }
        for number in sorted(_prefixes(last // self._every)):
            found = self._found.get(number * self._every, {})
            for name, source in sources.items():
                source["same"].update(found.get(name, {}).get("same", {}))
        for source in sources.values():
            source["same"] = dict(sorted(source["same"].items(), key=lambda x: int(x[0])))
        return {"every": self._every, "sources": sources}

    def _ages(self, number: int, name: str, now: Tensor) -> dict[str, float | None]:
        """Age in steps to the cosine with the keys of that time, where 2^k divides ``number``."""
        same = {}
        age = 1
        while number and number % age == 0:
            then = self._keys.get((number - age) * self._every, {}).get(name)
            if then is not None and then.shape == now.shape:
                same[str(age * self._every)] = _rounded(same_item(now, then))
            age *= 2
        return same

    def _save(self, path: Path) -> None:
        state = {
            "every": self._every,
            "items": self._name,
            "found": [[step, found] for step, found in self._found.items()],
            "names": {name: None for keys in self._keys.values() for name in keys},
        }
        arrays: dict[str, Any] = {
            f"{step}/{name}": x.numpy()
            for step, keys in self._keys.items()
            for name, x in keys.items()
        }
        with new_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, state=np.array(json.dumps(state)), **arrays)

    def _load(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as file:
                state = json.loads(str(file["state"]))
                if (state["every"], state["items"]) != (self._every, self._name):
                    return
                self._found = {int(step): found for step, found in state["found"]}
                self._keys = {step: {} for step in self._found}
                for entry in file.files:
                    if entry != "state":
                        step, name = entry.split("/", 1)
                        self._keys[int(step)][name] = torch.from_numpy(file[entry])
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{path} does not hold the keys of a probe; remove it, and drift begins anew."
            ) from error


def drift_scalars(record: Mapping[str, Any]) -> dict[str, float | None]:
    """The ``drift`` of a rank record as flat names: ``audio_different``, ``audio_same_1x``,
    ``audio_same_2x``, ... for ages in probes."""
    drift = record.get("drift") or {"sources": {}}
    flat = {}
    for name, source in drift["sources"].items():
        flat[f"{name}_different"] = source["different"]
        for age, value in source["same"].items():
            flat[f"{name}_same_{int(age) // drift['every']}x"] = value
    return flat


def _rows(x: Tensor) -> Tensor:
    return F.normalize(to_float64(x), dim=1)


def _rounded(value: float | None) -> float | None:
    """Rounded as JSON takes it: ``None`` for a cosine of embeddings that are not finite."""
    return None if value is None or not np.isfinite(value) else round(value, _DIGITS)


def _prefixes(number: int) -> Iterator[int]:
    """``number`` and what is left of it as its lowest set bits go, down to 0: of each k the last
    multiple of 2^k."""
    while number:
        yield number
        number &= number - 1
    yield 0
