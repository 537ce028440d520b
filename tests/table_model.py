"""A model whose embeddings are the rows of a table, so that a loss can be computed by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class Table(nn.Module):
    """A tower: item i has row i."""

    def __init__(self, items: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(items, dim))

    def forward(self, items: Tensor) -> tuple[Tensor, Any]:
        return normalize(self.weight[items], dim=1), None


class TableModel(nn.Module):
    """Both towers."""

    def __init__(self, items: int = 24, dim: int = 6, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed_dim = dim
        self.audio, self.text = Table(items, dim), Table(items, dim)


def table_batch(b: int, seed: int, *, mixed: bool = False, items: int = 24) -> dict[str, Any]:
    """Items with ids such that some share a clip and others a caption."""
    generator = torch.Generator().manual_seed(seed)
    shape = (b, 2) if mixed else (b,)
    clips, captions = (torch.randint(0, 9, shape, generator=generator) for _ in range(2))
    if mixed:
        plain = torch.rand(b, generator=generator) < 0.5
        clips[plain, 1] = captions[plain, 1] = -1
    rows = torch.randperm(items, generator=generator)[:b]
    return {
        "audio": {"items": rows},
        "text": {"items": rows},
        "clip_ids": clips,
        "caption_ids": captions,
    }
