"""Small indexes for tests: recordings with made-up embeddings."""

from __future__ import annotations

import hashlib

import numpy as np

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


QUERIES = unit(np.random.default_rng(5).normal(size=(3, DIM)))


def answers(store: Store, only: Filter | None = None) -> list[object]:
    """All that an index says, but for the numbers of windows and what differs by rounding."""
    hits = [
        [(hit.recording, hit.start, hit.end, hit.score) for hit in row]
        for row in store.nearest(QUERIES, 7, only)
    ]
    windows = store.recording_scores(QUERIES, only).windows
    best = [(hit.recording, hit.start, hit.end) for hit in store.windows(windows.ravel().tolist())]
    return [store.counts(), list(store.recordings()), hits, best]
