"""fairseq2's options on layers change what a step costs and not what it computes."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.optim import SGD

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig
from atr_moco_plugin.hosts.fairseq2.training.layers import (
    checkpoint_layers,
    compile_layers,
    layer_stacks,
)

CHECKPOINTING = "trainer.activation_checkpointing.mode=layerwise"
# `aot_eager` traces forward and backward as the default does, and then runs PyTorch's own kernels:
# generating code for a CPU takes minutes.
COMPILED = ("model.compile=true", "model.compile_options.backend=aot_eager")


def losses(out: Path) -> list[float]:
    lines = (out / "metrics" / "train.jsonl").read_text().splitlines()
    return [json.loads(line)["Loss"] for line in lines]


def state(out: Path, step: int) -> dict[str, torch.Tensor]:
    (file,) = (out / "checkpoints" / f"step_{step}" / "model").rglob("*.pt")
    return torch.load(file, weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(CHECKPOINTING,), COMPILED], ids=["checkpointed", "compiled"])
def test_a_run_computes_the_same(run, trained: Path, tmp_path: Path, options) -> None:
    assert run(tmp_path, *options) == 0
    assert losses(tmp_path) == pytest.approx(losses(trained), abs=1e-5)
    last = max(int(x.name.removeprefix("step_")) for x in (trained / "checkpoints").glob("step_*"))
    ours, reference = state(tmp_path, last), state(trained, last)
    # The same names, so that either run could go on with the other's checkpoint.
    assert list(ours) == list(reference)
    for name, value in reference.items():
        # Once a step: the layers run twice, the queue is written once.
        torch.testing.assert_close(ours[name], value, atol=1e-4, rtol=1e-4, msg=name)


def test_what_is_kept_for_backward_is_less(tiny_model, tiny_batch) -> None:
    def kept(checkpoint: bool) -> int:
        torch.manual_seed(0)
        criterion = MocoAtcAtm(tiny_model(), MocoAtcAtmConfig(atm_start=0, queue_size=8)).train()
        if checkpoint:
            checkpoint_layers(criterion, 1)
        sizes = []

        def pack(x: torch.Tensor) -> torch.Tensor:
            sizes.append(x.nbytes)
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            criterion(**tiny_batch(b=4, samples=60_000))
        return sum(sizes)

    assert kept(True) < kept(False) / 2


def test_momentum_copies_are_compiled_and_never_checkpointed(tiny_model) -> None:
    criterion = MocoAtcAtm(tiny_model(), MocoAtcAtmConfig(atm_start=0, queue_size=8))
    names = list(criterion.state_dict())
    copies = [x for copy in (criterion.audio_m, criterion.text_m) for x in layer_stacks(copy)]
    before = [layer for stack in copies for layer in stack]
    checkpoint_layers(criterion, 1)
    assert [layer for stack in copies for layer in stack] == before
    compile_layers(criterion, backend="eager")
    assert all(layer._compiled_call_impl is not None for layer in before)
    assert list(criterion.state_dict()) == names


def test_an_encoder_of_another_kind_is_refused() -> None:
    from fairseq2.recipe.error import RecipeError

    model = torch.nn.Module()
    model.audio = model.text = torch.nn.Linear(1, 1)
    with pytest.raises(
        RecipeError, match="`trainer.activation_checkpointing.mode=layerwise` works"
    ):
        checkpoint_layers(model, 1)
    with pytest.raises(RecipeError, match="the audio encoder of this run, Linear, has none"):
        compile_layers(model)


@pytest.mark.slow
def test_both_at_once_compute_the_same_with_dropout_too(tiny_model, tiny_batch) -> None:
    def train(change: Callable[[MocoAtcAtm], object]) -> tuple[list[float], MocoAtcAtm]:
        criterion = MocoAtcAtm(
            tiny_model(), MocoAtcAtmConfig(atm_start=0, queue_size=20, queue_warmup_steps=1)
        )
        for module in criterion.model.modules():
            for name in ("p", "dropout", "attention_dropout"):
                if isinstance(getattr(module, name, None), float):
                    setattr(module, name, 0.2)
        change(criterion)
        # Unlike Adam it does not enlarge a rounding error.
        optimizer = SGD([p for p in criterion.parameters() if p.requires_grad], lr=0.1)
        torch.manual_seed(7)
        found = []
        for step in range(3):
            loss = criterion.train()(**tiny_batch(seed=step))["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            criterion.on_optimizer_step()
            found.append(loss.item())
        return found, criterion

    def both(criterion: MocoAtcAtm) -> None:
        checkpoint_layers(criterion, 1)
        compile_layers(criterion, backend="eager", fullgraph=True)

    plain, reference = train(lambda criterion: None)
    for change in (partial(checkpoint_layers, every_nth_layer=1), both):
        found, criterion = train(change)
        assert found == pytest.approx(plain, abs=1e-5)
        assert len(criterion.queues["audio"]) == len(criterion.queues["text"]) == 3 * 4
        for name, value in reference.state_dict().items():
            torch.testing.assert_close(
                criterion.state_dict()[name], value, atol=1e-5, rtol=0, msg=name
            )


@pytest.mark.slow
def test_a_run_goes_on_with_the_options_changed(run, trained: Path, tmp_path: Path) -> None:
    changed, back = tmp_path / "changed", tmp_path / "back"
    for begun, out, more in ((trained, changed, COMPILED), (changed, back, ())):
        shutil.copytree(begun, out)
        shutil.rmtree(out / "checkpoints" / "step_4")
        (out / "checkpoints" / "scores" / "step_4.txt").unlink()
        assert run(out, *more) == 0
        assert losses(out) == pytest.approx(losses(trained), abs=1e-5)
        found, expected = state(out, 4), state(trained, 4)
        for name in ("audio_queue.clip_ids", "audio_queue.position", "num_steps"):
            assert torch.equal(found[name], expected[name])
