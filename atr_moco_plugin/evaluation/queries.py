"""What each query of an evaluation got, in memory and in ``queries.safetensors``.

Everything that says how sure a figure is, or which of two runs is better, stands on these.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.relevance import DIRECTIONS, Direction
from atr_moco_plugin.io.atomic import new_file
from atr_moco_plugin.io.checkpoints import HALF_WRITTEN

if TYPE_CHECKING:  # metrics work without the libraries that decode audio
    from atr_moco_plugin.data.retrieval_set import RetrievalSet

QUERIES_FILE = "queries.safetensors"
"""Name of the file, beside ``retrieval.json``."""

# One key of the metadata: safetensors writes several in any order, and equal evaluations have equal
# files.
_KEY = "queries"
_VERSION = 1
_DTYPES = {"rank": torch.int64, "precision": torch.float64, "first": torch.int64}


class QueryFigures(NamedTuple):
    """What each of the Q queries of one direction got from one system.

    Attributes:
        rank: ``[Q]`` int64, rank of the best relevant item, ties counted against the system; 0
            where the query has no relevant item.
        precision: ``[Q]`` float64, AP@10 in [0, 1]; 0 where ``rank`` is 0.
        first: ``[Q]`` int64, the item that the system puts first.
    """

    rank: Tensor
    precision: Tensor
    first: Tensor


Systems = Mapping[Direction, Mapping[str, QueryFigures]]
"""Per-query figures by direction and by system: ``dual``, ``reranked_k64``, ``dual_dup``, named as
the files in ``trec/`` with the suffix of the relevance."""


@dataclass(frozen=True)
class SplitQueries:
    """The per-query figures of all systems on one split.

    Attributes:
        test_set: the name of what was evaluated.
        clips: keys of the A clips, which are the queries of ``a2t`` and the items of ``t2a``.
        captions: texts of the C captions, which are the queries of ``t2a``.
        digest: SHA-256 over keys, texts and relevance: of two evaluations the queries can be
            compared one by one where it is equal.
        joint: whether a clip and its captions are one cluster, as where every caption has one clip.
            Otherwise each clip is a cluster of its own, texts with the same relevant clips are one,
            such as the wordings of a class, and the numbers of the two directions have nothing to
            do with each other.
        cluster: by direction ``[Q]`` int64, the cluster of each query.
        systems: by direction and system the figures.
    """

    test_set: str
    clips: tuple[str, ...]
    captions: tuple[str, ...]
    digest: str
    joint: bool
    cluster: Mapping[Direction, Tensor]
    systems: Systems


def split_queries(test_set: str, retrieval_set: RetrievalSet, systems: Systems) -> SplitQueries:
    """The per-query figures of a split with what they are about.

    Args:
        test_set: the name of what was evaluated.
        retrieval_set: clips, captions and relevance.
        systems: the figures.
    """
    clips = tuple(clip.key for clip in retrieval_set.clips)
    captions = tuple(retrieval_set.captions)
    owner = retrieval_set.caption_to_audio
    digest = hashlib.sha256(json.dumps([clips, captions]).encode())
    if owner is not None:
        pairs = torch.stack([torch.arange(len(captions)), owner.cpu()], dim=1)
        of_text = owner.cpu().long()
    else:
        relevant = retrieval_set.relevance.cpu().T
        pairs = relevant.nonzero()
        # Wordings of a class are found or missed together, as captions of a clip are.
        of_text = relevant.unique(dim=0, return_inverse=True)[1]
    digest.update(pairs.contiguous().numpy().astype("<i8").tobytes())
    return SplitQueries(
        test_set,
        clips,
        captions,
        digest.hexdigest(),
        joint=owner is not None,
        cluster={
            "a2t": torch.arange(len(clips)),
            "t2a": of_text,
        },
        systems=systems,
    )


def write_queries(path: Path, splits: Mapping[str, SplitQueries]) -> None:
    """Write per-query figures, so that no reader ever sees half of a file.

    Tensors are ``SPLIT/DIRECTION/SYSTEM/rank``, ``.../precision``, ``.../first`` and
    ``SPLIT/DIRECTION/cluster``; the key ``queries`` of the metadata has the rest as JSON, by the
    split's name under ``splits``.

    Args:
        path: usually :data:`QUERIES_FILE` beside ``retrieval.json``.
        splits: by the name of the split.

    Raises:
        OSError: where the file cannot be written.
    """
    # Cloned, since safetensors refuses tensors that share memory.
    tensors: dict[str, Tensor] = {}
    for split, queries in splits.items():
        for way in DIRECTIONS:
            tensors[f"{split}/{way}/cluster"] = queries.cluster[way].clone().contiguous()
            for system, figures in queries.systems[way].items():
                for name, values in figures._asdict().items():
                    tensors[f"{split}/{way}/{system}/{name}"] = values.cpu().clone().contiguous()
    described = {
        split: {
            "test_set": queries.test_set,
            "clips": queries.clips,
            "captions": queries.captions,
            "digest": queries.digest,
            "joint": queries.joint,
        }
        for split, queries in splits.items()
    }
    about = json.dumps({"version": _VERSION, "splits": described})
    with new_file(path) as temporary:
        save_file(tensors, temporary, {_KEY: about})


def read_queries(path: Path) -> dict[str, SplitQueries]:
    """Read a file of :func:`write_queries`.

    Returns:
        By the name of the split.

    Raises:
        InputError: for a file that is not there, cannot be read, is damaged, or is another one.
    """
    if not path.is_file():
        raise InputError(
            f"{path} is not there: an evaluation writes it beside retrieval.json since it has "
            "intervals; evaluate the run again."
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as ex:
        raise InputError(f"{path} cannot be read ({ex.strerror or ex}): give access to it.") from ex
    except SafetensorError as ex:
        raise InputError(f"{path} {HALF_WRITTEN}: evaluate the run again.") from ex
    if _KEY not in metadata:
        raise InputError(
            f"{path} has no per-query figures: give the {QUERIES_FILE} that an evaluation writes."
        )
    try:
        about = json.loads(metadata[_KEY])
        if about["version"] != _VERSION:
            raise InputError(
                f"{path} has per-query figures of version {about['version']}, but this package "
                f"reads version {_VERSION}: evaluate the run again with this one."
            )
        return {split: _split(split, of, tensors) for split, of in about["splits"].items()}
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as ex:
        reason = " ".join(str(ex).split())
        raise InputError(f"{path} is damaged ({reason}): evaluate the run again.") from ex


def _split(split: str, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SplitQueries:
    """One split of a file.

    Raises:
        KeyError, TypeError, ValueError: where the parts of the file do not fit.
    """
    clips, captions = tuple(about["clips"]), tuple(about["captions"])
    cluster: dict[Direction, Tensor] = {}
    systems: dict[Direction, dict[str, QueryFigures]] = {}
    for way in DIRECTIONS:
        queries, items = (clips, captions) if way == "a2t" else (captions, clips)
        start = f"{split}/{way}/"
        cluster[way] = _checked(tensors, f"{start}cluster", torch.int64, len(queries))
        # A split's name may have slashes; a system's has none.
        names = {
            name.removeprefix(start).removesuffix("/rank")
            for name in tensors
            if name.startswith(start) and name.endswith("/rank")
        }
        systems[way] = {
            system: QueryFigures(
                **{
                    name: _checked(tensors, f"{start}{system}/{name}", dtype, len(queries))
                    for name, dtype in _DTYPES.items()
                }
            )
            for system in sorted(names)
        }
        for system, figures in systems[way].items():
            inside = (figures.rank >= 0) & (figures.rank <= len(items))
            inside &= (figures.first >= 0) & (figures.first < len(items))
            inside &= (figures.precision >= 0) & (figures.precision <= 1)
            if not bool(inside.all()):
                raise ValueError(f"{start}{system} has values out of range")
    return SplitQueries(
        about["test_set"], clips, captions, about["digest"], about["joint"], cluster, systems
    )


def _checked(tensors: Mapping[str, Tensor], name: str, dtype: torch.dtype, rows: int) -> Tensor:
    values = tensors[name]
    if values.dtype != dtype or values.shape != (rows,):
        raise ValueError(f"{name} is {values.dtype} {list(values.shape)}, not {dtype} [{rows}]")
    return values
