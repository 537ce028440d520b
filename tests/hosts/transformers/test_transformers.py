"""transformers' Trainer with the criteria: equal to the bare criterion, saved, resumed, exported.

Two gloo processes run this file as a script under torchrun for the test of DDP.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    ASTConfig,
    ASTModel,
    BertConfig,
    BertModel,
    ClapModel,
    EvalPrediction,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

sys.path.append(str(Path(__file__).parents[2]))  # where this file is run as a script
from trainer_world import (
    HEAD,
    RATE,
    Broken,
    make_batch,
    make_clap,
    make_extractor,
    make_trainer,
)

from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig
from atr_moco_plugin.data import ToyConfig, open_toy
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation import retrieval_metrics
from atr_moco_plugin.heads.fusion import FusionHead, FusionHeadConfig
from atr_moco_plugin.hosts.transformers import (
    TRAINING_ARGUMENTS,
    AudioModelTower,
    ClapCollator,
    ClapTrainerModel,
    MocoCallback,
    PairDataset,
    TextModelTower,
    TowerPair,
    TrainerModel,
    compute_metrics,
    last_checkpoint,
)
from atr_moco_plugin.hosts.transformers.trainer.resume import last_good
from atr_moco_plugin.optim.param_groups import parameter_groups
from atr_moco_plugin.text.tokenizer import train_wordpiece
from atr_moco_plugin.tokens import AudioTokens, TextTokens


def assert_equal_states(a: nn.Module, b: nn.Module) -> None:
    first, second = a.state_dict(), b.state_dict()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


class Bare(nn.Module):
    """A ClapModel as the criterion takes it, written down from the public contract."""

    class Audio(nn.Module):
        def __init__(self, clap: ClapModel) -> None:
            super().__init__()
            self.model, self.projection = clap.audio_model, clap.audio_projection

        def forward(self, features: Tensor) -> tuple[Tensor, AudioTokens]:
            output = self.model(features)
            b, width = output.last_hidden_state.shape[:2]
            states = output.last_hidden_state.reshape(b, width, -1).permute(0, 2, 1)
            embedding = self.projection(states.mean(dim=1))
            mask = torch.ones(states.shape[:2], dtype=torch.bool)
            return embedding / embedding.norm(dim=1, keepdim=True), AudioTokens(states, mask)

    class Text(nn.Module):
        def __init__(self, clap: ClapModel) -> None:
            super().__init__()
            self.model, self.projection = clap.text_model, clap.text_projection

        def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, TextTokens]:
            output = self.model(ids, mask)
            embedding = self.projection(output.pooler_output)
            states = output.last_hidden_state
            return (
                embedding / embedding.norm(dim=1, keepdim=True),
                TextTokens(states, mask.bool(), ids),
            )

    def __init__(self, clap: ClapModel, head: nn.Module) -> None:
        super().__init__()
        self.audio, self.text, self.head = self.Audio(clap), self.Text(clap), head
        self.embed_dim = 12

    def match(self, text: TextTokens, audio: AudioTokens) -> Tensor:
        return self.head(None, text, audio)


def test_the_wrapper_has_the_loss_of_the_bare_criterion() -> None:
    options = {"queue_size": 10, "momentum": 0.8, "temperature": 0.1}
    wrapped = ClapTrainerModel(make_clap(), head=HEAD, **options)
    clap = make_clap()
    head = FusionHead(type("Text", (), {"width": 16}), 16, HEAD)
    head.load_state_dict(wrapped.criterion.model.head.state_dict())
    bare = MocoAtcAtm(Bare(clap, head), MocoAtcAtmConfig(**options))
    optimizers = [torch.optim.SGD(x.parameters(), lr=0.05) for x in (wrapped, bare)]
    for step in range(4):  # 16 rows go through a queue of 10
        batch = make_batch(seed=step % 3)
        torch.manual_seed(step)  # of the dropouts
        losses = wrapped(**batch)
        torch.manual_seed(step)
        expected = bare(
            {"features": batch["input_features"]},
            {"ids": batch["input_ids"], "mask": batch["attention_mask"]},
            batch["clip_id"],
            batch["caption_id"],
        )
        assert losses.keys() == expected.keys()
        for name in expected:
            assert losses[name].item() == pytest.approx(expected[name].item(), abs=1e-5), name
        for optimizer, result in zip(optimizers, (losses, expected)):
            optimizer.zero_grad()
            result["loss"].backward()
            optimizer.step()
        wrapped.criterion.on_optimizer_step()
        bare.on_optimizer_step()
    assert len(bare.audio_queue) == 10


def test_embeddings_in_evaluation_are_the_clap_models_and_change_nothing() -> None:
    clap = make_clap()
    model = ClapTrainerModel(clap, head=HEAD, queue_size=10).eval()
    batch = make_batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    output = model(**batch)
    expected = clap(
        **{name: batch[name] for name in ("input_ids", "attention_mask", "input_features")}
    )
    assert torch.allclose(output["audio_embeds"], expected.audio_embeds, atol=1e-6)
    assert torch.allclose(output["text_embeds"], expected.text_embeds, atol=1e-6)
    logits = expected.audio_embeds @ expected.text_embeds.T / 0.07
    both = (logits.log_softmax(1).diagonal() + logits.log_softmax(0).diagonal()) / 2
    assert output["loss"].item() == pytest.approx(-both.mean().item(), abs=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_momentum_copies_take_batch_norms_and_each_tower_is_there_once() -> None:
    model = ClapTrainerModel(make_clap(), head=HEAD, queue_size=10)
    model.train()
    for seed in range(3):
        model(**make_batch(seed=seed))
        model.criterion.on_optimizer_step()
    online = model.criterion.model.audio.encoder.audio_encoder.batch_norm
    copy = model.criterion.audio_m.module.encoder.audio_encoder.batch_norm
    assert torch.equal(online.running_mean, copy.running_mean)
    assert online.running_mean.abs().max() > 1 and not copy.training and online.training
    clap_size = sum(p.numel() for p in make_clap().parameters()) - 2  # without the logit scales
    trained = [p for p in model.parameters() if p.requires_grad]
    head = sum(p.numel() for p in model.criterion.model.head.parameters())
    assert sum(p.numel() for p in trained) == clap_size + head + 1
    assert sum(p.numel() for p in model.parameters()) == 2 * clap_size + head + 1


@pytest.mark.parametrize(
    ("scales", "tau"), [((1 / 0.07, 1 / 0.07), 0.07), ((10.0, 40.0), 0.05), ((1.0, 1.0), 0.5)]
)
def test_the_temperature_is_read_from_the_model_and_written_back(
    scales: tuple[float, float], tau: float, tmp_path: Path
) -> None:
    clap = make_clap()
    clap.logit_scale_a.data.fill_(math.log(scales[0]))
    clap.logit_scale_t.data.fill_(math.log(scales[1]))
    model = ClapTrainerModel(clap, head=HEAD, queue_size=10)
    assert model.criterion.temperature.item() == pytest.approx(tau, rel=1e-6)
    model.criterion.temperature.data.fill_(0.02)
    model.save_pretrained(tmp_path)
    loaded = ClapModel.from_pretrained(tmp_path)
    assert loaded.logit_scale_a.exp().item() == pytest.approx(50, rel=1e-5)
    assert loaded.logit_scale_t.exp().item() == pytest.approx(50, rel=1e-5)
    assert ClapTrainerModel(
        clap, head=HEAD, queue_size=10, temperature=0.3
    ).criterion.temperature.item() == pytest.approx(0.3)


def test_training_evaluates_logs_and_exports_a_plain_model(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, eval_strategy="steps", eval_steps=2)
    trainer.train()
    history = trainer.state.log_history
    losses = [entry for entry in history if "loss" in entry]
    assert [entry["step"] for entry in losses] == [2, 4]
    measures = [entry for entry in history if "loss_atm" in entry]
    assert [entry["step"] for entry in measures] == [2, 4]
    for entry, measured in zip(losses, measures):  # means over the same batches
        assert entry["loss"] == pytest.approx(measured["loss_atc"] + measured["loss_atm"], abs=1e-3)
    assert measures[0]["queue_fill"] == pytest.approx((4 + 8) / 2 / 30)
    lines = [json.loads(line) for line in (tmp_path / "rank.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert lines[1]["sources"]["text"]["rows"] == 16
    ranks = [entry for entry in history if "rank/audio_rankme" in entry]
    assert ranks[1]["rank/audio_rankme"] == lines[1]["sources"]["audio"]["raw"]["rankme"]
    scores = [entry for entry in history if "eval_r_sum" in entry]
    assert len(scores) == 2 and scores[0]["eval_clips"] == 4 and scores[0]["eval_captions"] == 20

    trainer.model.save_pretrained(tmp_path / "clap")
    plain = ClapModel.from_pretrained(tmp_path / "clap").eval()
    batch = trainer.data_collator([trainer.eval_dataset[i] for i in range(0, 20, 5)])
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "input_features")}
    with torch.no_grad():
        expected, output = trainer.model.eval()(**batch), plain(**inputs)
    assert torch.allclose(output.audio_embeds, expected["audio_embeds"], atol=1e-6)
    assert torch.allclose(output.text_embeds, expected["text_embeds"], atol=1e-6)


def test_a_resumed_run_ends_where_the_uninterrupted_one_does(tmp_path: Path) -> None:
    options = {
        "save_strategy": "steps",
        "save_steps": 2,
        "gradient_accumulation_steps": 2,
        "eval_strategy": "steps",  # evaluations must not move the draws of hard negatives
        "eval_steps": 1,
    }
    whole = make_trainer(tmp_path / "whole", **options)
    whole.train()  # writes the checkpoint of step 2 on its way
    resumed = make_trainer(tmp_path / "resumed", **options)
    start = {name: value.clone() for name, value in resumed.model.state_dict().items()}
    checkpoint = tmp_path / "whole" / "checkpoint-2"
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert_equal_states(whole.model, resumed.model)
    assert len(resumed.model.criterion.audio_queue) == 30  # of 4 steps x 2 x 4 rows
    assert resumed.model.criterion.num_steps.item() == 4
    saved = load_file(checkpoint / "model.safetensors")
    assert saved["criterion.num_steps"].item() == 2
    name = "criterion.text_m.module.projection.linear1.weight"
    assert not torch.equal(saved[name], start[name])
    lines = (tmp_path / "resumed" / "rank.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [4]

    # What a kill while a checkpoint is written leaves, and what a bad disk does.
    folder = tmp_path / "whole"
    assert last_checkpoint(folder) == str(folder / "checkpoint-4")
    (folder / "checkpoint-4" / "scheduler.pt").unlink()
    with pytest.warns(UserWarning, match="checkpoint-4 has no scheduler.pt; it is passed over"):
        assert last_checkpoint(folder) == str(checkpoint)
    optimizer = checkpoint / "optimizer.pt"
    data = bytearray(optimizer.read_bytes())
    data[len(data) // 2] ^= 1
    optimizer.write_bytes(data)
    with pytest.warns(), pytest.raises(ValueError, match="cannot go on from any of them"):
        last_checkpoint(folder)
    assert last_checkpoint(tmp_path) is None


def test_the_momentum_copies_move_once_an_optimizer_step(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_steps=1, gradient_accumulation_steps=3)
    model = trainer.model.criterion
    start = model.audio_m.module.projection.linear1.weight.clone()
    trainer.train()
    online = model.model.audio.projection.linear1.weight
    moved = model.audio_m.module.projection.linear1.weight
    assert not torch.equal(online, start)
    assert torch.allclose(moved, start.lerp(online.detach(), 0.1), atol=1e-7)
    assert model.num_steps.item() == 1 and len(model.audio_queue) == 12


def test_a_temperature_that_runs_away_is_clipped(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_steps=1)
    temperature = trainer.model.criterion.temperature
    temperature.data.fill_(0.499)
    trainer.add_callback(Push(temperature))
    trainer.callback_handler.callbacks.reverse()  # its hook comes before the criterion's
    trainer.train()
    assert temperature.item() == 0.5


class Push(TrainerCallback):
    """Stands for an optimizer step that goes too far."""

    def __init__(self, temperature: nn.Parameter) -> None:
        self._temperature = temperature

    def on_train_begin(self, *_: Any, optimizer: Any, **__: Any) -> None:
        push = lambda *_: self._temperature.data.fill_(3.0)
        optimizer.optimizer.register_step_post_hook(push)


def test_a_model_that_fuses_crops_takes_is_longer() -> None:
    model = ClapTrainerModel(
        make_clap(enable_fusion=True, fusion_type="aff_2d"), head=HEAD, queue_size=10
    ).eval()
    batch = make_batch()
    batch["input_features"] = 20 * torch.randn(4, 4, 30, 8) - 40
    short = model(**batch)["audio_embeds"]
    batch["is_longer"][:2] = True
    mixed = model(**batch)["audio_embeds"]
    assert torch.allclose(short[2:], mixed[2:], atol=1e-6)
    assert ((short - mixed)[:2].abs().amax(dim=1) > 1e-4).all()
    model.train()(**batch)["loss"].backward()
    fusion = model.criterion.model.audio.encoder.audio_encoder.patch_embed.fusion_model
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in fusion.parameters())


@pytest.mark.parametrize("criterion", ["moco_atc", "atc"])
def test_other_criteria_by_name(criterion: str, tmp_path: Path) -> None:
    options = {} if criterion == "atc" else {"queue_size": 10}
    model = ClapTrainerModel(make_clap(), criterion, head=HEAD, **options)
    losses = model(**make_batch())
    losses["loss"].backward()
    model.criterion.on_optimizer_step()
    assert losses["loss"].isfinite()
    assert model.criterion.model.head is None  # nothing to train that gets no gradient


class Sequence(nn.Module):
    """An audio encoder whose two layers are one, as tied weights of an encoder are."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.config = type("Config", (), {"hidden_size": 8})

    def forward(self, features: Tensor) -> Any:
        states = self.second(self.first(features).relu())
        return type("Output", (), {"last_hidden_state": states})


def pair_of(audio: nn.Module) -> TrainerModel:
    torch.manual_seed(0)
    bert = BertModel(
        BertConfig(
            vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16,
        )
    )  # fmt: skip
    towers = AudioModelTower(audio, 12), TextModelTower(bert, 12)
    head = FusionHead(towers[1], towers[0].width, HEAD)
    return TrainerModel(TowerPair(*towers, head, 12), queue_size=8, momentum=0.9)


def test_any_two_encoders_of_transformers() -> None:
    ast = ASTModel(
        ASTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            max_length=32, num_mel_bins=16, patch_size=8, frequency_stride=8, time_stride=8,
        )
    )  # fmt: skip
    model = pair_of(ast)
    batch = make_batch()
    del batch["is_longer"]
    batch["input_features"] = torch.randn(4, 32, 16)
    losses = model(**batch)
    losses["loss"].backward()
    model.criterion.on_optimizer_step()
    assert model.criterion.model.audio.encoder.embeddings.cls_token.grad.abs().sum() > 0
    assert model.eval()(**batch)["audio_embeds"].shape == (4, 12)
    with pytest.raises(ValueError, match="'is_longer'.*input_features.*attention_mask"):
        model(**batch, is_longer=torch.zeros(4, 1))


def test_tied_weights_are_saved_once_and_restored(tmp_path: Path) -> None:
    model = pair_of(Sequence())
    trainer = Trainer(model, TrainingArguments(str(tmp_path), use_cpu=True, report_to=[]))
    trainer.save_model(str(tmp_path))
    saved = load_file(tmp_path / "model.safetensors")
    assert "criterion.model.audio.encoder.second.weight" not in saved
    other = pair_of(Sequence())
    other.criterion.model.audio.encoder.first.weight.data.zero_()
    assert not other.load_state_dict(saved, strict=True).missing_keys
    assert_equal_states(model, other)
    audio = other.criterion.model.audio.encoder
    assert audio.first.weight is audio.second.weight and audio.first.weight.abs().sum() > 0


def test_metrics_take_each_clip_once() -> None:
    generator = torch.Generator().manual_seed(0)
    audio, text = (torch.randn(6, 5, generator=generator) for _ in range(2))
    clip_ids = torch.tensor([7, 3, 7, 3, 9, 7]) + 2**62
    caption_ids = torch.tensor([0, 1, 2, 3, 1, 4])
    audio[2] = audio[5] = audio[0]
    audio[3] = audio[1]
    metrics = compute_metrics(
        EvalPrediction((audio.numpy(), text.numpy()), (clip_ids.numpy(), caption_ids.numpy()))
    )
    expected = retrieval_metrics(
        audio[[1, 0, 4]] @ text.T, torch.tensor([1, 0, 1, 0, 2, 1]), caption_ids=caption_ids
    )
    assert metrics == expected and metrics["clips"] == 3


def test_the_collator_takes_what_a_clap_model_takes() -> None:
    data = PairDataset(open_toy(ToyConfig(num_train=2, num_valid=1, num_test=1)), "train", RATE)
    assert len(data) == 10
    tokenizer = train_wordpiece([data[i]["caption"] for i in range(10)], vocab_size=100)
    collator = ClapCollator(tokenizer, make_extractor(), max_tokens=6)
    examples = [data[0], data[5]]
    assert examples[0]["audio"].shape == (4 * RATE,)
    batch = collator(examples)
    assert batch["input_features"].shape == (2, 1, 32, 8)
    assert batch["input_ids"].shape == (2, 6) and batch["is_longer"].shape == (2, 1)
    assert batch["clip_id"].tolist() == [example["clip_id"] for example in examples]
    assert batch["clip_id"].unique().numel() == 2
    with pytest.raises(ValueError, match="no 'clip_id'.*TRAINING_ARGUMENTS"):
        collator([{"audio": examples[0]["audio"], "caption": "a", "caption_id": 1}])


def break_clips(trainer: Trainer, passes: set[int]) -> None:
    """Have the collator hand over a NaN in these batches."""
    collate, number = trainer.data_collator, [0]

    def broken(examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = collate(examples)
        number[0] += 1
        if number[0] in passes:
            batch["input_features"][1] = math.nan
        return batch

    trainer.data_collator = broken


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, save_strategy="steps", save_steps=2, logging_steps=1)
    break_clips(trainer, {3})
    with pytest.raises(FloatingPointError) as caught:
        trainer.train()
    message = str(caught.value)
    assert "The loss of step 3 is nan, in a batch of the clips 'train-0" in message
    assert f"The last good checkpoint is {tmp_path / 'checkpoint-2'}." in message
    state = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert all(bool(x.isfinite().all()) for x in state.values())

    again = make_trainer(tmp_path, max_steps=6)
    with torch.no_grad():
        again.model.criterion.model.text.projection.linear1.weight[0, 0] = math.nan
    with pytest.raises(
        FloatingPointError, match="The loss of step 1 is nan.*model.text.projection"
    ):
        again.train()


def test_the_last_good_checkpoint_is_the_newest_without_nan(tmp_path: Path) -> None:
    for step, value in (("2", 1.0), ("10", math.nan), ("best", 1.0)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file({"weight": torch.full((2,), value)}, folder / "model.safetensors")
        (folder / "trainer_state.json").write_text("{}")
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            torch.save({}, folder / name)
    assert str(tmp_path / "checkpoint-10") in last_good(tmp_path, sound=True)
    assert str(tmp_path / "checkpoint-2") in last_good(tmp_path, sound=False)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_steps_that_are_not_finite_are_left_out_when_asked(tmp_path: Path, accumulate: int) -> None:
    trainer = make_trainer(tmp_path, gradient_accumulation_steps=accumulate, logging_steps=1)
    trainer.pop_callback(MocoCallback)
    trainer.add_callback(MocoCallback(trainer, rank_every=4, max_skipped_steps=1))
    break_clips(trainer, {3})
    step = 3 if accumulate == 1 else 2
    with pytest.warns(UserWarning, match=f"loss of step {step} is nan.*number 1 of the 1"):
        trainer.train()
    assert trainer.state.global_step == 4
    # The running statistics of CLAP's batch norm too.
    assert all(bool(x.isfinite().all()) for x in trainer.model.state_dict().values())


def test_what_cannot_work_is_said_at_once(tmp_path: Path) -> None:
    clap = make_clap()
    with pytest.raises(ValueError, match="queue_sise.*Did you mean `queue_size`"):
        ClapTrainerModel(clap, queue_sise=10)
    with pytest.raises(ValueError, match="moco_atc_atm"):
        ClapTrainerModel(clap, "moco")
    with pytest.raises(TypeError, match="wrap it"):
        MocoCallback(Trainer(clap, TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])))
    model = ClapTrainerModel(clap, head=HEAD, queue_size=10)
    plain = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    with pytest.raises(ValueError, match="label_names.*TRAINING_ARGUMENTS"):
        MocoCallback(Trainer(model, plain, compute_metrics=compute_metrics))
    fusing = make_clap(enable_fusion=True, fusion_type="aff_2d")
    batch = make_batch()
    del batch["is_longer"]
    with pytest.raises(ValueError, match="is_longer"):
        ClapTrainerModel(fusing, head=HEAD, queue_size=10)(**batch)
    pair = TowerPair(nn.Linear(2, 2), nn.Linear(2, 2), nn.Identity(), 2)
    with pytest.raises(ValueError, match="Both towers take input"):
        TrainerModel(pair, "atc")
    trainer = make_trainer(tmp_path, max_steps=1, queue_size=31)
    with pytest.warns(UserWarning, match="31 rows, but an epoch has 30 pairs"):
        trainer.train()


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
    towers = AudioModelTower(Sequence(), 12), TextModelTower(bert, 12)
    head = FusionHead(towers[1], towers[0].width, FusionHeadConfig(layers=1, heads=2, dropout=0.0))
    model = TrainerModel(
        TowerPair(*towers, head, 12), queue_size=10, momentum=0.5, negatives="all_ranks"
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
            torch.testing.assert_close(
                found["state"][name], value, atol=1e-5, rtol=1e-5, msg=lambda m: f"{name}: {m}"
            )
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


def test_layers_of_transformers_models_are_found_for_layer_decay() -> None:
    model = ClapTrainerModel(make_clap(), "atc")
    names = {id(p): name for name, p in model.criterion.named_parameters()}
    groups = parameter_groups(model.criterion, 0.1, lr=1.0, layer_decay=0.5)
    found = {names[id(p)]: group["lr"] for group in groups for p in group["params"]}
    text = {rate for name, rate in found.items() if "text.encoder.encoder.layer.0." in name}
    stages = {rate for name, rate in found.items() if "audio_encoder.layers.1." in name}
    assert len(text) == len(stages) == 1
    assert found["model.text.encoder.embeddings.word_embeddings.weight"] < min(text) <= 0.5
    assert found["model.audio.projection.linear1.weight"] == 1.0


def test_a_tokenizer_that_does_not_fit_the_model_or_the_captions_is_refused(tmp_path: Path) -> None:
    data = PairDataset(open_toy(ToyConfig(num_train=2, num_valid=1, num_test=1)), "train", RATE)
    tokenizer = train_wordpiece([data[i]["caption"] for i in range(10)], vocab_size=100)
    encoder = make_clap(vocab_size=len(tokenizer)).text_model
    ClapCollator(tokenizer, make_extractor(), max_tokens=39).check(encoder, [data])
    # CLAP's text model counts positions from behind the padding id.
    with pytest.raises(InputError, match="`ClapCollator.max_tokens` is 40, .* for 39 tokens"):
        ClapCollator(tokenizer, make_extractor(), max_tokens=40).check(encoder)
    with pytest.raises(InputError, match=f"has {len(tokenizer)} tokens, .* embeddings for 40"):
        ClapCollator(tokenizer, make_extractor(), max_tokens=6).check(make_clap(40).text_model)
    other = ClapCollator(
        train_wordpiece(["\u72ac\u304c"], vocab_size=20), make_extractor(), max_tokens=6
    )
    with pytest.raises(InputError, match="10 of 10 captions .* set `MocoCallback.allow_unknown"):
        other.check(encoder, [data, object()])
    with pytest.warns(UserWarning, match="10 of 10 captions"):
        other.check(encoder, [data], allow_unknown=True)
