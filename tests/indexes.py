"""Small indexes for tests: recordings with made-up embeddings."""

from __future__ import annotations

import hashlib

import numpy as np

from atr_moco_plugin.search.bank import Bank, make_bank
from atr_moco_plugin.search.store import Embedded, Filter, IndexInfo, Recording, Store

DIM = 16
INFO = IndexInfo(
    model="/models/tiny",
    fingerprint="f" * 64,
    embed_dim=DIM,
    sample_rate=16_000,
    window_seconds=10.0,
    hop_seconds=5.0,
)


def embedded(path: str, windows: int, seed: int = 0, member: str = "") -> Embedded:
    """A recording with ``windows`` windows that overlap by half; 0 for a broken one.

    The same arguments give the same embeddings, exact in float16 but for their length.
    """
    digest = hashlib.sha256(
        f"{path}\0{member}\0{seed}".encode(errors="surrogateescape")
    ).hexdigest()
    random = np.random.default_rng(int(digest[:12], 16))
    vectors = random.normal(size=(windows, DIM))
    starts = INFO.hop_seconds * np.arange(windows)
    return Embedded(
        Recording(
            path=path,
            member=member,
            size=100 + seed,
            mtime_ns=1_700_000_000_000_000_000 + seed,
            digest=digest,
            seconds=INFO.hop_seconds * (windows + 1) if windows else 0.0,
            problem="" if windows else "it is empty",
        ),
        np.stack([starts, starts + INFO.window_seconds], axis=1),
        unit(vectors),
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1 in float32."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-9)).astype(np.float32)


def make_up_bank(vectors: np.ndarray, name: str = "") -> Bank:
    """A bank of sentences without a meaning that have these embeddings."""
    return make_bank([f"{name} {n:06}" for n in range(len(vectors))], lambda _: vectors)


def some_bank(seed: int, sentences: int = 40) -> Bank:
    """A bank of made-up sentences, the same for the same arguments."""
    rows = np.random.default_rng(seed).normal(size=(sentences, DIM)) + 0.5
    return make_up_bank(unit(rows), str(seed))


QUERIES = unit(np.random.default_rng(5).normal(size=(3, DIM)))


def answers(store: Store, only: Filter | None = None) -> list[object]:
    """All that an index says, but for the numbers of windows and what differs by rounding."""
    bank = store.bank()
    found: list[object] = [store.counts(), list(store.recordings())]
    for alpha in (0.0,) if bank is None else (0.0, 1.0):
        hits = store.nearest(QUERIES, 7, only, alpha)
        found.append([[(x.recording, x.start, x.end, x.score) for x in row] for row in hits])
        windows = store.recording_scores(QUERIES, only, alpha).windows.ravel().tolist()
        found.append([(x.recording, x.start, x.end) for x in store.windows(windows)])
    return found if bank is None else [*found, bank]
