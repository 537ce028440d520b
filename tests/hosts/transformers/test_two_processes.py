"""Two gloo processes train, evaluate and resume as one. They run this file as a script."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[2]))  # where this file is run as a script
from trainer_world import (
    RATE,
    Broken,
    TiedEncoder,
    make_batch,
    make_trainer,
)
from transformers import (
    BertConfig,
    BertModel,
    Trainer,
    TrainingArguments,
)

from atr_moco_plugin.heads.fusion import FusionHead, FusionHeadConfig
from atr_moco_plugin.hosts.transformers import (
    TRAINING_ARGUMENTS,
    AudioModelTower,
    MocoCallback,
    TextModelTower,
    TowerPair,
    TrainerModel,
)


def uneven_clips() -> list[dict[str, Any]]:
    """Seven clips of one to three captions, the fourth of them broken: two processes have not
    equally many."""
    generator = torch.Generator().manual_seed(0)
    clips = []
    for row, number in enumerate((1, 3, 2, 1, 1, 2, 3)):
        audio = torch.rand(RATE, generator=generator) * (math.nan if row == 3 else 1)
        ids = list(range(10 * row, 10 * row + number))
        clip = {"audio": audio, "caption": ["rain"] * number, "caption_id": ids, "clip_id": row}
        clips.append(clip)
    return clips


def ddp_run(out: Path) -> None:
    """One of two processes: train, evaluate, and leave the state of this rank."""
    trainer = make_trainer(out, ddp_backend="gloo", save_strategy="steps", save_steps=2)
    # With several processes on a CPU, Trainer loads optimizers to "cpu:0", which torch refuses.
    trainer.args.__dict__["_setup_devices"] = torch.device("cpu")
    trainer.train_dataset = Broken(trainer.train_dataset, {2})  # ranks' batches differ in size
    ddp: list[nn.Module] = []
    trainer.model.register_forward_pre_hook(lambda *_: ddp.append(trainer.model_wrapped))
    checkpoint = out / "checkpoint-2"
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint.exists() else None)
    buffers = {id(buffer) for buffer in ddp[0].modules_buffers}
    queues = trainer.model.criterion.queues.values()
    assert buffers and not any(id(b) in buffers for queue in queues for b in queue.buffers())
    metrics = trainer.evaluate()
    trainer.args.per_device_eval_batch_size = 2
    uneven = trainer.evaluate(uneven_clips())
    result = {
        "state": trainer.model.state_dict(),
        "r_sum": metrics["eval_r_sum"],
        "skipped": sorted(trainer.model.skipped_in_training),
        "uneven": {name: uneven[f"eval_{name}"] for name in ("r_sum", "clips", "captions")},
    }
    torch.save(result, out / f"{trainer.args.process_index}.pt")


def run_without_noise(out: Path, batch_size: int) -> dict[str, Any]:
    """Twenty steps of two accumulated batches without dropout and batch norm, whose results depend
    on how a batch is split; plain SGD, since Adam makes much of a rounded gradient."""
    torch.manual_seed(0)
    bert = BertModel(
        BertConfig(
            vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
    )  # fmt: skip
    towers = AudioModelTower(TiedEncoder(), 12), TextModelTower(bert, 12)
    head = FusionHead(towers[1], towers[0].width, FusionHeadConfig(layers=1, heads=2, dropout=0.0))
    model = TrainerModel(
        TowerPair(*towers, head, 12),
        queue_size=10,
        momentum=0.5,
        negatives="all_ranks",
        atm_start=0,
    )
    batch = make_batch(b=24, seed=1)
    batch["input_features"] = batch["input_features"][:, 0] / 20 + 2
    del batch["is_longer"]
    data = [{name: values[i] for name, values in batch.items()} for i in range(24)]
    options = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "save_strategy": "no"}
    arguments = TrainingArguments(
        str(out), **TRAINING_ARGUMENTS, **options, max_steps=20, data_seed=3, logging_steps=1,
        per_device_train_batch_size=batch_size, gradient_accumulation_steps=2,
        dataloader_pin_memory=False,
    )  # fmt: skip
    named = dict(model.named_parameters())
    temperature = named.pop("criterion.temperature")
    weights = [p for p in named.values() if p.requires_grad]
    groups = [{"params": weights}, {"params": [temperature], "lr": 1e-4}]
    optimizers = torch.optim.SGD(groups, lr=0.1), None
    trainer = Trainer(model, arguments, train_dataset=data, optimizers=optimizers)
    trainer.add_callback(MocoCallback(trainer))
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"losses": losses, "state": model.state_dict()}


@pytest.mark.slow
def test_two_processes_agree_and_resume(tmp_path: Path) -> None:
    results = []
    for _ in ("train", "resume"):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", "2", __file__, str(tmp_path)]
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=300, check=False,
            cwd=Path(__file__).parents[3],
        )  # fmt: skip
        assert result.returncode == 0, result.stderr[-3000:]
        results += [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    first, second, resumed, _ = results
    for name, value in first["state"].items():
        assert torch.equal(value, resumed["state"][name]), name
        # Running statistics have moved with the rank's last batch; DDP sends rank 0's before the
        # next one.
        assert ".running_" in name or torch.equal(value, second["state"][name]), name
    assert first["r_sum"] == second["r_sum"] == resumed["r_sum"]
    assert first["uneven"] == second["uneven"]
    assert first["uneven"]["clips"] == 6 and first["uneven"]["captions"] == 12
    assert set(first["skipped"]) | set(second["skipped"])
    assert first["state"]["criterion.audio_queue.clip_ids"].unique().numel() > 4


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", __file__, str(tmp_path), "without-noise"]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False,
        cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    single = run_without_noise(tmp_path / "single", batch_size=4)
    state = single["state"]
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found["state"].keys() == state.keys()
        for name, value in state.items():
            torch.testing.assert_close(found["state"][name], value, atol=1e-5, rtol=1e-5, msg=name)
        if rank == 0:  # the mean over both, rounded to four digits
            assert found["losses"] == pytest.approx(single["losses"], abs=2e-4)
    # 20 steps of 8 rows went through 10, and moved what they train.
    assert state["criterion.num_steps"] == 20
    assert state["criterion.text_queue.position"][:2].tolist() == [10, 0]
    assert single["losses"][-1] != pytest.approx(single["losses"][0], abs=0.01)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    if sys.argv[2:] == ["without-noise"]:
        found = run_without_noise(folder / "two", batch_size=2)
        torch.save(found, folder / f"{torch.distributed.get_rank()}.pt")
    else:
        ddp_run(folder)
