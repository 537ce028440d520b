"""What the host reads or replaces inside LAION-CLAP is still there.

Where a test fails, a release of LAION-CLAP or webdataset has moved something. All such names are in
``atr_moco_plugin/hosts/laion_clap/internals.py``: find the new name in its source and change that
one function. The docstring of each test says what goes wrong otherwise. The tests skip where
LAION-CLAP is not installed.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import nn

from atr_moco_plugin.hosts.laion_clap import internals
from atr_moco_plugin.hosts.laion_clap.decode import soundfile_audio
from atr_moco_plugin.hosts.laion_clap.requirements import find_laion_clap, put_on_path

needs_laion = pytest.mark.skipif(
    find_spec("laion_clap") is None or find_spec("torchvision") is None,
    reason="laion_clap and torchvision are not installed",
)


@needs_laion
def test_their_training_takes_what_replaces_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the launcher would train with LAION-CLAP's own loss, or not start. Look for
    ``create_model``, ``train_one_epoch`` and ``get_data`` in its ``training/main.py``, for
    ``ClipLoss`` in the module of ``train_one_epoch``, and for ``wds.torch_audio`` in the module of
    ``get_data``."""
    monkeypatch.setattr(internals.decode, "needed", lambda: True)
    put_on_path(find_laion_clap())
    laion: Any = import_module("training.main")
    loop, data = (import_module(x.__module__) for x in (laion.train_one_epoch, laion.get_data))
    before = laion.create_model, laion.train_one_epoch, loop.ClipLoss, data.wds.torch_audio

    def create_model(*_: Any) -> Any: ...

    def train_one_epoch(*_: Any) -> None: ...

    with internals.replaced_in_training(laion, create_model, train_one_epoch):
        assert (laion.create_model, laion.train_one_epoch) == (create_model, train_one_epoch)
        assert loop.ClipLoss is internals.ModelLoss
        assert data.wds.torch_audio is soundfile_audio
        assert nn.parallel.DistributedDataParallel is internals.DataParallel
    after = laion.create_model, laion.train_one_epoch, loop.ClipLoss, data.wds.torch_audio
    assert after == before


def test_methods_go_over_one_module_and_its_weights_keep_their_names() -> None:
    """If it fails, Python no longer lets a module change its class: put the criterion's ``forward``
    on the instance instead."""

    class Doubled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    layer, other = nn.Linear(2, 2), nn.Linear(2, 2)
    other.load_state_dict(layer.state_dict())
    internals.add_methods(layer, Doubled)
    x = torch.ones(1, 2)
    assert torch.equal(layer(x), 2 * other(x))
    assert isinstance(layer, nn.Linear) and layer.state_dict().keys() == other.state_dict().keys()


def test_an_unregistered_module_is_called_and_not_saved() -> None:
    """If it fails, ``nn.Module`` registers a module however it is set: keep the pair of towers in a
    tuple. Otherwise every weight of CLAP would be in a checkpoint under two names."""
    outer = nn.Sequential(nn.Linear(2, 2))
    outer.model = nn.Linear(2, 2)
    child = nn.Linear(2, 2)
    internals.set_unregistered(outer, "model", child)
    assert outer.model is child
    assert list(outer.state_dict()) == ["0.weight", "0.bias"]
