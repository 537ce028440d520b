"""The parts of the LAION-CLAP host that need no ``laion_clap``."""

from __future__ import annotations

import io
import json
import math
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from gloo import process_group, run_on_ranks
from torch import Tensor, nn
from toy_clap import Clap, criterion_clap, follow, loader_of, their_args

from atr_moco_plugin.criterion import Atc, AtcConfig, MLtm, MLtmConfig, MocoAtc, MocoAtcConfig
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.laion_clap import requirements
from atr_moco_plugin.hosts.laion_clap.__main__ import main
from atr_moco_plugin.hosts.laion_clap.decode import soundfile_audio
from atr_moco_plugin.hosts.laion_clap.epoch import StepLog, follow_epoch
from atr_moco_plugin.hosts.laion_clap.ids import batch_ids
from atr_moco_plugin.hosts.laion_clap.model import add_criterion
from atr_moco_plugin.hosts.laion_clap.options import parse
from atr_moco_plugin.hosts.laion_clap.resume import check_resumed
from atr_moco_plugin.hosts.laion_clap.weights import export, read_clap, read_towers
from atr_moco_plugin.io.checkpoints import allow_numpy
from atr_moco_plugin.queue import EmbeddingQueue
from atr_moco_plugin.safety import CollapseWatch, NonFiniteError

WATCH = CollapseWatch(after=10)


def test_options_are_told_from_theirs() -> None:
    options, theirs = parse(
        [
            *("--datasetnames", "audiocaps", "Clotho", "--criterion", "moco_atc", "--lr", "1e-4"),
            *("--queue-size", "auto", "--momentum", "0.9", "--ema-momentum", "1", "--alpha", "0"),
            *("--positives", "clip", "--wd", "0.0"),
        ]
    )
    assert options.criterion_class is MocoAtc
    assert options.config.queue_size == "auto"
    assert (options.config.momentum, options.config.alpha) == (1.0, 0.0)
    assert options.config.positives == "clip"
    # --momentum is SGD's and stays where it was.
    assert theirs == [
        *("--datasetnames", "audiocaps", "Clotho", "--lr", "1e-4"),
        *("--momentum", "0.9", "--wd", "0.0"),
    ]


def test_a_criterion_has_its_own_options_alone() -> None:
    options, theirs = parse(["--criterion", "atc", "--queue-size", "8"])
    assert options.criterion_class is Atc
    assert theirs == ["--queue-size", "8"]  # which their parser refuses
    with pytest.raises(SystemExit):
        parse(["--criterion", "atc", "--criterion", "moco_atc"])


def test_a_head_for_a_criterion_without_one_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="--head-layers 4 does nothing, since --criterion atc has"):
        parse(["--criterion", "atc", "--head-layers", "4"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parse(["--criterion", "atc"])
        options, _ = parse(["--criterion", "moco_atc_atm", "--head-layers", "4"])
    assert options.head.layers == 4 and parse([])[0].head.layers == 2


def test_true_is_no_number() -> None:
    for option in ("--alpha", "--queue-size"):
        with pytest.raises(InputError, match="is True, expected|criterion.queue_size"):
            parse([option, "true"])


def test_the_help_names_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("--queue-size", "--ema-momentum", "export CHECKPOINT"))


def test_ids_do_not_depend_on_where_the_tars_lie() -> None:
    batch = {
        "__url__": ["/data/audiocaps/train/0.tar", "/data/audiocaps/train/1.tar"],
        "__key__": ["7", "7"],
        "raw_text": ["A dog barks.", ["a dog barks"]],
    }
    clips, captions = batch_ids(batch, "cpu")
    moved, _ = batch_ids({**batch, "__url__": [f"/mnt{url}" for url in batch["__url__"]]}, "cpu")
    assert torch.equal(clips, moved)
    assert clips[0] != clips[1]
    assert captions[0] == captions[1]


def test_captions_without_words_are_no_positives_of_each_other() -> None:
    batch = {"__url__": ["a/b/0.tar"] * 2, "__key__": ["1", "2"], "raw_text": ["...", "..."]}
    captions = batch_ids(batch, "cpu")[1]
    assert captions[0] != captions[1]


def test_a_batch_without_keys_is_refused() -> None:
    with pytest.raises(ValueError, match="--dataset-type webdataset"):
        batch_ids({"waveform": torch.zeros(1, 4)}, "cpu")


def test_soundfile_decodes_what_torchaudio_would() -> None:
    samples = np.stack([np.linspace(-0.5, 0.5, 100), np.zeros(100)], axis=1)
    file = io.BytesIO()
    soundfile.write(file, samples, 48_000, format="FLAC", subtype="PCM_24")
    decoded, rate = soundfile_audio("clip.flac", file.getvalue())
    assert rate == 48_000
    assert decoded.dtype == torch.float32
    np.testing.assert_allclose(decoded.numpy(), samples.T, atol=1e-6)
    assert soundfile_audio("clip.json", b"{}") is None


def test_an_empty_cache_without_network_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requirements.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(requirements.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"roberta-base \(tokenizer\).*HF_HUB_OFFLINE=1"):
        requirements.check_hub_files()
    with pytest.raises(ValueError, match=r"roberta-base \(tokenizer and weights\)"):
        requirements.check_hub_files("roberta")
    monkeypatch.setattr(requirements.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(requirements.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="the Hub does not answer"):
        requirements.check_hub_files()


@pytest.mark.parametrize(
    ("missing", "message"),
    [("laion_clap", "pip install laion-clap"), ("torchvision", "torchvision is missing")],
)
def test_what_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str, message: str
) -> None:
    for name in {"laion_clap", "torchvision"} - {missing}:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    find = requirements.find_spec
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        requirements, "find_spec", lambda name: None if name == missing else find(name)
    )
    with pytest.raises(ValueError, match=message):
        requirements.find_laion_clap()


def plain_weights() -> dict[str, torch.Tensor]:
    return {
        "logit_scale_a": torch.tensor(2.0),
        "audio_projection.0.weight": torch.ones(2, 2),
        "text_branch.embeddings.position_embeddings.weight": torch.ones(5, 2),
    }


def test_a_checkpoint_of_their_training_is_read_without_running_it(tmp_path: Path) -> None:
    # Their schedule leaves a numpy number in the optimizer.
    optimizer = {"param_groups": [{"lr": np.float64(0.25)}]}
    state = {f"module.{name}": value for name, value in plain_weights().items()}
    state["module.moco.temperature"] = torch.ones(1)
    path = tmp_path / "epoch_1.pt"
    torch.save({"epoch": 1, "state_dict": state, "optimizer": optimizer}, path)
    assert read_clap(path).keys() == plain_weights().keys()
    with allow_numpy():
        checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["optimizer"] == optimizer

    out = tmp_path / "plain.pt"
    assert export(path, out) == 4
    exported = torch.load(out, weights_only=True)
    assert exported["text_branch.embeddings.position_ids"].tolist() == [[0, 1, 2, 3, 4]]


def test_what_is_no_checkpoint_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, other = tmp_path / "text.pt", tmp_path / "other.pt"
    text.write_text("not a checkpoint")
    torch.save({"weight": torch.ones(1)}, other)
    for path, message in ((text, "cannot be read"), (other, "holds no CLAP weights")):
        assert main(["export", str(path), str(tmp_path / "out.pt")]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out.pt").exists()


def test_measures_and_ranks_reach_the_writer(tmp_path: Path) -> None:
    queue = EmbeddingQueue(4, 3)
    queue.enqueue(torch.eye(3), torch.arange(3), torch.arange(3))
    model = SimpleNamespace(
        moco=SimpleNamespace(queues={"audio": queue}), measures={"loss": torch.tensor(2.5)}
    )
    written: list[tuple[str, float, int]] = []
    writer = SimpleNamespace(add_scalar=lambda *scalar: written.append(scalar))
    args = SimpleNamespace(rank=0, logs=str(tmp_path), name="run", wandb=False)
    log = StepLog(model, args, writer, rank_every=2, collapse=WATCH, last=3)
    for step in (1, 2, 3):
        log.log(step)
    losses = [(step, value) for name, value, step in written if name == "train/loss"]
    assert losses == [(1, 2.5), (3, 2.5)]
    ranks = [(step, value) for name, value, step in written if name == "rank/audio_rankme"]
    assert ranks == [(2, pytest.approx(3.0, abs=1e-3))]
    (line,) = (tmp_path / "run" / "rank.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 2


def test_other_ranks_log_nothing(tmp_path: Path) -> None:
    model = SimpleNamespace(moco=SimpleNamespace(queues={"audio": EmbeddingQueue(4, 3)}))
    args = SimpleNamespace(rank=1, logs=str(tmp_path), name="run", wandb=False)
    StepLog(model, args, None, rank_every=1, collapse=WATCH, last=1).log(1)
    assert list(tmp_path.iterdir()) == []


class OneWeight(nn.Module):
    """A model of which the loop sees a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.moco, self.measures = SimpleNamespace(queues={}), {}

    def on_optimizer_step(self) -> None:
        pass


@pytest.mark.parametrize("split", [False, True])
def test_a_gradient_that_is_not_finite_stops_the_training(split: bool) -> None:
    def loop(model: Any, data: Any, epoch: int, optimizer: Any, *_: Any) -> None:
        for factor in (1.0, float("inf")):
            (model.weight * factor).sum().backward()
            for one in optimizer.values() if split else [optimizer]:
                one.step()
            model.zero_grad()

    model = OneWeight()
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.1)
    if split:
        optimizer = {"pretrained": optimizer, "new": torch.optim.SGD(model.parameters(), lr=0.1)}
    with pytest.raises(NonFiniteError, match="step 5 is finite, but the gradient of weight is not"):
        follow_epoch(loop, rank_every=1)(
            model, loader_of(3), 1, optimizer, None, None, their_args()
        )
    assert bool(model.weight.isfinite())


def test_the_criterion_follows_their_optimizer() -> None:
    clap = criterion_clap()
    before = clap.moco.text_m.module.projection[0].weight.clone()
    assert follow(clap, {}) == [1, 2, 3]
    assert not torch.equal(clap.moco.text_m.module.projection[0].weight, before)
    torch.testing.assert_close(clap.logit_scale_a, -clap.moco.temperature.log().squeeze())
    assert clap.guard is None
    assert follow(clap, {}) == [4, 5, 6]  # the next epoch


@pytest.mark.parametrize("name", ["m_ltm", "m_ltm_full"])
def test_a_learned_distance_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"--criterion {name} learns a distance.*another host"):
        parse(["--criterion", name, "--lr", "1e-4"])


def test_no_export_drops_a_learned_distance(tmp_path: Path) -> None:
    """Earlier versions trained one, of which the checkpoints are still there."""
    clap = add_criterion(Clap(), MLtm, MLtmConfig())
    state = {"audio_projection.0.weight": torch.zeros(4, 4), **clap.state_dict()}
    torch.save({"state_dict": state}, tmp_path / "epoch_1.pt")
    for read in (read_towers, lambda path: export(path, tmp_path / "out.pt")):
        with pytest.raises(InputError, match=r"epoch_1.pt was trained with a learned distance"):
            read(tmp_path / "epoch_1.pt")
    assert not (tmp_path / "out.pt").exists()
    assert "logit_scale_a" in read_clap(tmp_path / "epoch_1.pt")  # --pretrained takes its towers


def test_a_training_goes_on_with_the_options_it_began_with(tmp_path: Path) -> None:
    checkpoint = tmp_path / "x" / "checkpoints" / "epoch_1.pt"
    begun = MocoAtcConfig(queue_size=8, momentum=0.5, temperature=0.2)
    check_resumed(checkpoint, MocoAtc, begun)  # of an earlier version
    follow(criterion_clap(), {}, logs=str(tmp_path))
    check_resumed(checkpoint, MocoAtc, begun)  # the checkpoint has the temperature
    check_resumed(checkpoint, MocoAtc, replace(begun, queue_size=16))
    for criterion, config, changed in (
        (MocoAtc, replace(begun, alpha=0.1), "--alpha was 0.4 and is 0.1"),
        (MocoAtc, replace(begun, momentum=0.9), "--ema-momentum was 0.5 and is 0.9"),
        (Atc, AtcConfig(), "the criterion was MocoAtc and is Atc"),
    ):
        with pytest.raises(InputError, match=rf"cannot go on with other options: .*{changed}"):
            check_resumed(checkpoint, criterion, config)


def test_an_overflow_that_their_scaler_leaves_out_is_no_step() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    clap = criterion_clap()
    assert follow(clap, {1: math.inf}, scaler) == [1, 1, 2]
    assert all(bool(x.isfinite().all()) for x in clap.state_dict().values())


@pytest.mark.parametrize("step", [1, 2])
def test_a_loss_that_is_not_finite_stops_a_training_with_a_scaler(step: int) -> None:
    clap = criterion_clap()
    with pytest.raises(
        NonFiniteError, match=rf"The loss of step {step + 1} is nan.*--precision fp32"
    ):
        follow(clap, {step: math.nan}, torch.amp.GradScaler("cpu"))
    assert all(bool(x.isfinite().all()) for x in clap.state_dict().values())


def rank_main(rank: int, folder: Path) -> None:
    """In one of two processes: the second alone has a NaN for the loss of its second step."""

    def broken(moco: Any, _: Any, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        factor = math.nan if rank == 1 and int(moco.num_steps) == 1 else 1.0
        return {**losses, "loss": losses["loss"] * factor}

    clap = criterion_clap()
    clap.moco.register_forward_hook(broken)
    with process_group(rank, 2, folder):
        try:
            follow(clap, {})
        except NonFiniteError as ex:
            (folder / f"{rank}.txt").write_text(str(ex))


@pytest.mark.slow
def test_all_processes_stop_where_one_has_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    run_on_ranks(__file__, 2, tmp_path)
    first, second = ((tmp_path / f"{rank}.txt").read_text() for rank in (0, 1))
    assert first == second
    assert "The loss of step 2 is nan on process(es) 1, in a batch" in first
    assert "--resume it" in first


if __name__ == "__main__":
    rank_main(int(sys.argv[1]), Path(sys.argv[2]))
