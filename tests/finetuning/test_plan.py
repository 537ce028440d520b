"""The plan: sizes that fit the data and the machine, with reasons, and a user's values kept."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atr_moco_plugin.finetuning.choices import flattened, nested
from atr_moco_plugin.finetuning.facts import Facts, PartFacts, measured
from atr_moco_plugin.finetuning.plan import make_plan
from atr_moco_plugin.finetuning.sizes import pair_bytes
from atr_moco_plugin.model import build_model
from atr_moco_plugin.model.architectures import ARCHITECTURES
from atr_moco_plugin.model.config import EncoderConfig

GIB = 2**30
BEATS = PartFacts(
    parameters=90_000_000, layers=12, pretrained=True, bytes_each=800_000_000, seconds_each=0.01
)
BERT = PartFacts(
    parameters=110_000_000, layers=12, pretrained=True, bytes_each=40_000_000, seconds_each=0.001
)
SMALL = PartFacts(parameters=1_000_000, layers=4, bytes_each=10_000_000, seconds_each=0.005)


def facts(clips: int = 500, **options: Any) -> Facts:
    values: dict[str, Any] = {
        "captions": clips,
        "distinct_captions": clips,
        "valid_clips": clips // 10,
        "long_clip": 10.0,
        "measured_seconds": 10.0,
        "audio": BEATS,
        "text": BERT,
        "other_parameters": 1_000_000,
        "memory": 80 * GIB,
        "device": "cuda",
    }
    return Facts(clips=clips, **{**values, **options})


AUDIO, TEXT = (f"model.config_overrides.{part}.freeze" for part in ("audio", "text"))


def test_a_users_value_wins_is_shown_and_is_fitted_to() -> None:
    plan = make_plan(facts(), {"dataset.batch_size": 16, "optimizer.config.lr": 0.5})
    assert plan["dataset.batch_size"] == 16 and plan["optimizer.config.lr"] == 0.5
    assert "as you set it; the plan would take 32" in plan.text()
    plain = make_plan(facts())
    assert plan["regime.num_steps"] > plain["regime.num_steps"]
    assert plan.options()["dataset"]["batch_size"] == 16
    choices = json.loads(json.dumps(plan.as_dict()))["choices"]
    assert [x["given"] for x in choices if x["key"] == "optimizer.config.lr"] == [True]
    assert all(x["reason"] for x in choices)


@pytest.mark.parametrize(
    ("clips", "frozen"), [(100, 9), (999, 9), (1_000, 6), (9_999, 6), (10_000, "none")]
)
def test_fewer_clips_freeze_more(clips: int, frozen: object) -> None:
    assert make_plan(facts(clips))[AUDIO] == frozen


def test_few_captions_train_no_text_encoder() -> None:
    plan = make_plan(facts(distinct_captions=50))
    assert plan[TEXT] == "all" and "optimizer.config.text_lr" not in plan
    assert "50 different captions teach a language model nothing" in plan.text()


def test_random_weights_are_never_frozen_and_train_longer() -> None:
    random = make_plan(facts(audio=SMALL, distinct_captions=50))
    assert (random[AUDIO], random[TEXT]) == ("none", "all")
    assert random["regime.num_steps"] > make_plan(facts())["regime.num_steps"]
    assert random["optimizer.config.audio_lr"] == 1e-3
    large = replace(BEATS, pretrained=False)
    assert make_plan(facts(audio=large))["optimizer.config.audio_lr"] == 1e-4


def test_an_adapter_freezes_nothing_else() -> None:
    plan = make_plan(facts(), {"model.config_overrides.audio.adapter.lora.rank": 4})
    assert plan[AUDIO] == "none" and plan["optimizer.config.audio_lr"] == 3e-4


def test_an_encoder_without_layers_is_frozen_wholly_or_not() -> None:
    bare = replace(BEATS, layers=0)
    assert make_plan(facts(500, audio=bare))[AUDIO] == "all"
    assert make_plan(facts(5_000, audio=bare))[AUDIO] == "none"


def test_memory_bounds_the_batch_and_then_freezes() -> None:
    sizes = [make_plan(facts(memory=gib * GIB))["dataset.batch_size"] for gib in (80, 16, 8)]
    assert sizes[0] == 32 and sizes == sorted(sizes, reverse=True) and sizes[2] < 32
    tight = make_plan(facts(memory=4 * GIB))
    assert tight[AUDIO] == tight[TEXT] == "all" and tight["dataset.batch_size"] >= 8
    assert "does not fit into memory" in tight.text()
    # What the user has frozen stays so, and the batch gives way.
    own = make_plan(facts(memory=4 * GIB), {AUDIO: "none"})
    assert own[AUDIO] == "none" and own["dataset.batch_size"] == 2


def test_without_a_gpu_a_run_of_hours_trains_no_audio_encoder() -> None:
    slow = replace(BEATS, seconds_each=0.6)
    plan = make_plan(facts(5_000, audio=slow, device="cpu"))
    assert plan[AUDIO] == "all" and "without a GPU" in plan.text()
    assert plan.seconds is not None and plan.seconds > 0
    short = make_plan(facts(5_000, audio=slow, device="cpu"), {"regime.num_steps": 20})
    assert short[AUDIO] == 6
    assert make_plan(facts(5_000, audio=slow))[AUDIO] == 6


def test_what_keeping_the_outputs_of_frozen_encoders_would_save_is_said() -> None:
    frozen = {AUDIO: "all", TEXT: "all"}
    plan = make_plan(facts(), frozen)
    assert plan.seconds is not None and plan.seconds_kept is not None
    assert plan.seconds_kept < plan.seconds and "dataset.cache_embeddings=FOLDER" in plan.text()
    kept = make_plan(facts(), {**frozen, "dataset.cache_embeddings": "folder"})
    assert kept.seconds == plan.seconds_kept and kept.seconds_kept is None
    assert make_plan(facts(keeps=False), frozen).seconds_kept is None
    assert make_plan(facts(10_000)).seconds_kept is None  # nothing is frozen


def test_the_criterion_fits_the_model_and_the_data() -> None:
    assert make_plan(facts(500))["criterion.name"] == "moco_atc"
    assert make_plan(facts(500, head_trained=True))["criterion.name"] == "moco_atc_atm"
    assert make_plan(facts(5_000))["criterion.name"] == "moco_atc_atm"
    assert make_plan(facts(5_000, matches=False))["criterion.name"] == "moco_atc"
    assert make_plan(facts(5_000))["evaluation.rerank_k"] == 16
    plain = make_plan(facts(captions=600), {"criterion.name": "atc"})
    assert "criterion.config.queue_size" not in plain
    assert plain["criterion.config.positives"] == "clip_or_caption"
    other = make_plan(facts(), {"criterion.name": "siglip"})
    assert other["evaluation.rerank_k"] == 0
    assert not any(choice.key.startswith("criterion.config.") for choice in other.choices)


def test_accumulated_batches_and_captions_of_a_clip_count() -> None:
    plain = make_plan(facts(2_000))
    steps = plain["regime.num_steps"]
    accumulated = make_plan(facts(2_000), {"trainer.grad_accumulation.num_batches": 4})
    assert accumulated["regime.num_steps"] == pytest.approx(steps / 4, abs=10)
    several = make_plan(facts(2_000, captions=10_000), {"dataset.captions_per_clip": 5})
    assert several["dataset.batch_size"] == 30  # six clips with five captions each
    assert several["regime.num_steps"] == pytest.approx(steps * 32 / 6, rel=0.01)
    # A clip is encoded once for all its captions, whose texts take more time.
    one, five = (
        make_plan(facts(2_000, captions=10_000, text=replace(BERT, seconds_each=0.0)), given)
        for given in ({}, {"dataset.captions_per_clip": 5})
    )
    assert five.seconds == pytest.approx(one.seconds, rel=0.05)
    cpu = facts(2_000, device="cpu", processes=2)
    times = [make_plan(x).seconds for x in (cpu, replace(cpu, processes=1))]
    assert times[0] is not None and times[1] is not None
    assert times[0] == pytest.approx(times[1] / 2, rel=0.1)


def test_the_momentum_of_a_pair_keeps_the_time_scale_of_the_step() -> None:
    step = make_plan(facts())
    pair = make_plan(facts(), {"criterion.config.momentum_per": "pair"})
    momentum, each = step["criterion.config.momentum"], pair["criterion.config.momentum"]
    assert each ** step["dataset.batch_size"] == pytest.approx(momentum, abs=1e-4)


def test_what_online_keys_have_no_use_for_is_not_chosen() -> None:
    given = {"keys": "online", "columns": "online", "alpha": 0}
    plan = make_plan(facts(), {f"criterion.config.{key}": x for key, x in given.items()})
    assert "criterion.config.queue_size" in plan
    assert "criterion.config.momentum" not in plan
    assert "criterion.config.alpha_warmup_steps" not in plan
    without = make_plan(facts(), {"criterion.config.alpha": 0})
    assert "criterion.config.momentum" in without
    assert "criterion.config.alpha_warmup_steps" not in without


def test_a_matching_loss_costs_what_it_takes_of_the_run() -> None:
    def seconds(**criterion: object) -> float:
        given = {f"criterion.config.{key}": value for key, value in criterion.items()}
        plan = make_plan(facts(5_000, match_seconds=0.1), given)
        assert plan.seconds is not None
        return plan.seconds

    without = make_plan(facts(5_000, match_seconds=0.0)).seconds
    assert without is not None
    head = seconds(atm_start=0) - without
    assert seconds() - without == pytest.approx(0.4 * head)
    assert seconds(atm_start=0, atm_every=2) - without == pytest.approx(head / 2)


def test_a_queue_holds_different_captions() -> None:
    assert make_plan(facts(1_000))["criterion.config.queue_size"] == 256
    assert make_plan(facts(1_000, distinct_captions=100))["criterion.config.queue_size"] == 64
    assert make_plan(facts(1_000, distinct_captions=50))["criterion.config.queue_size"] == 0


def test_clips_are_cropped_to_what_there_is_and_what_the_start_takes() -> None:
    assert make_plan(facts(long_clip=4.2))["dataset.max_seconds"] == 4.5
    assert make_plan(facts(long_clip=60.0))["dataset.max_seconds"] == 10.0
    assert make_plan(facts(long_clip=60.0, window_seconds=7.0))["dataset.max_seconds"] == 7.0
    assert make_plan(facts(long_clip=None))["dataset.max_seconds"] == 10.0


@given(
    clips=st.integers(6, 200_000),
    memory=st.integers(0, 200 * GIB),
    processes=st.integers(1, 16),
    pretrained=st.booleans(),
    cpu=st.booleans(),
    steps=st.none() | st.integers(1, 10_000),
)
def test_every_plan_can_be_run(
    clips: int, memory: int, processes: int, pretrained: bool, cpu: bool, steps: int | None
) -> None:
    told = facts(
        clips,
        memory=memory,
        processes=processes,
        audio=BEATS if pretrained else SMALL,
        device="cpu" if cpu else "cuda",
    )
    stated = {} if steps is None else {"regime.num_steps": steps}
    plan = make_plan(told, stated)
    steps = plan["regime.num_steps"]
    assert 2 <= plan["dataset.batch_size"] <= max(2, clips)
    # fairseq2 divides by the steps behind the warm-up.
    assert 0 <= plan["lr_scheduler.config.num_warmup_steps"] < max(2, steps)
    assert steps == 1 or plan["lr_scheduler.config.num_warmup_steps"] != steps
    assert 1 <= plan["regime.validate_every_n_steps"] <= steps
    assert 0 <= plan["criterion.config.momentum"] < 1
    assert 0 <= plan["criterion.config.queue_size"] <= clips
    assert plan["criterion.config.queue_warmup_steps"] in (0, "auto")
    assert nested(flattened(plan.options())) == plan.options()
    assert plan.text().count("\n") >= len(plan.choices) - 1


def test_reasons_are_true_at_the_bounds() -> None:
    def reasons(**options: Any) -> dict[str, str]:
        given = {"dataset.batch_size": 64} if options.pop("large", False) else {}
        return {x.key: x.reason for x in make_plan(facts(**options), given).choices}

    short = reasons(clips=100, large=True)["regime.num_steps"]
    assert short.startswith("the least that is planned, not ")
    tight = reasons(memory=2**20)["dataset.batch_size"]
    assert "may not fit" in tight
    random = PartFacts(parameters=1_000_000, layers=4)
    warm_up = reasons(distinct_captions=4, audio=random)["criterion.config.queue_warmup_steps"]
    assert warm_up == "there is no queue"
    # Four rows tell no age: `auto` would be refused.
    few = make_plan(facts(distinct_captions=5, audio=random), {"dataset.batch_size": 2})
    assert few["criterion.config.queue_size"] == 0


def test_memory_of_clips_longer_than_what_was_measured_is_not_underrated() -> None:
    options = dict(ARCHITECTURES["toy"]().audio.config)
    options |= {"encoder_layers": 1, "encoder_embed_dim": 32, "encoder_attention_heads": 8}
    options |= {"input_patch_size": 16, "encoder_ffn_embed_dim": 32}
    tower = build_model(
        replace(ARCHITECTURES["toy"](), audio=EncoderConfig(name="beats", config=options))
    ).audio
    sizes = [
        measured(partial(tower, waveforms=torch.rand(1, 16_000 * n)), tower.parameters())[0]
        for n in (4, 12)
    ]
    clip = PartFacts(parameters=1_000, layers=1, bytes_each=sizes[0])
    text = PartFacts(parameters=1_000, layers=1)
    model = facts(audio=clip, text=text, measured_seconds=4.0)
    assert sizes[1] > 3 * sizes[0]  # attention grows with the square
    assert pair_bytes(model, 1.0, 1.0, matches=False, seconds=12.0) >= sizes[1]
