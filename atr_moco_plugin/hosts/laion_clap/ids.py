"""Clip and caption ids of a batch of LAION-CLAP's WebDataset loader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.ids import caption_id, clip_id, stable_digest

_KEYS = ("__url__", "__key__", "raw_text")


def batch_ids(batch: Mapping[str, Any], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Ids of the clips of a batch and of the captions that were drawn for them.

    See :func:`tar_clip_id`.

    Args:
        batch: with ``__url__``, ``__key__`` and ``raw_text``, lists of B; a ``raw_text`` is a
            string or a list of one.
        device: where the ids go.

    Returns:
        Clip ids and caption ids, ``[B]`` int64 each. A caption without letters or digits is of its
        clip alone.

    Raises:
        InputError: when one of the three is not in the batch.
    """
    missing = [key for key in _KEYS if key not in batch]
    if missing:
        raise InputError(
            f"The batch has no {', '.join(missing)}, which tell positives from negatives; train on "
            "tars (--dataset-type webdataset)."
        )
    clips = [
        tar_clip_id(url, key) for url, key in zip(batch["__url__"], batch["__key__"], strict=True)
    ]
    captions = [
        _caption_id(text, clip) for text, clip in zip(batch["raw_text"], clips, strict=True)
    ]
    ids = torch.tensor([clips, captions], dtype=torch.int64).to(device, non_blocking=True)
    return ids[0], ids[1]


def tar_clip_id(url: str, key: str) -> int:
    """Id of a clip: named by the last three parts of its tar's address,
    ``<data set>/<split>/<i>.tar``, and by its key, the same wherever the tars lie.

    Args:
        url: the tar's address.
        key: the clip's name in it, without its suffix; a ``./`` that ``tar`` puts before it does
            not count.
    """
    return clip_id("/".join(url.split("/")[-3:]), key.removeprefix("./"))


def _caption_id(text: str | list[str], clip: int) -> int:
    text = text if isinstance(text, str) else text[0]
    try:
        return caption_id(text)
    except ValueError:
        # Their tars have such captions and their training takes them.
        return stable_digest("caption without words", clip)
