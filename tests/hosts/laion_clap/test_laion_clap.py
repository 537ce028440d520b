"""LAION-CLAP's real training, in miniature; skipped where ``laion_clap`` is not installed."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_clap import loader_of, their_args

from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig
from atr_moco_plugin.data.sets.tar_index import read_shard
from atr_moco_plugin.heads.fusion import FusionHeadConfig
from atr_moco_plugin.hosts.laion_clap.__main__ import main
from atr_moco_plugin.hosts.laion_clap.epoch import follow_epoch
from atr_moco_plugin.hosts.laion_clap.model import CriterionForward, add_criterion, is_own
from atr_moco_plugin.hosts.laion_clap.requirements import find_laion_clap, put_on_path
from atr_moco_plugin.hosts.laion_clap.towers import ClapAudio
from atr_moco_plugin.hosts.laion_clap.weights import read_clap
from atr_moco_plugin.io.checkpoints import allow_numpy
from atr_moco_plugin.safety import FiniteGuard, NonFiniteError
from atr_moco_plugin.tokens import AudioTokens, TextTokens

pytestmark = pytest.mark.skipif(
    find_spec("laion_clap") is None or find_spec("torchvision") is None,
    reason="laion_clap and torchvision are not installed",
)

WORLD = Path(__file__).with_name("clap_world.py")
EPOCHS, STEPS = 2, 2  # of 8 clips in batches of 4


@pytest.fixture(scope="session")
def world() -> Any:
    spec = importlib.util.spec_from_file_location("clap_world", WORLD)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def home(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the tars and a Hub cache, which this process uses from now on."""
    import huggingface_hub.constants
    import transformers.utils.hub

    root = tmp_path_factory.mktemp("clap")
    world.write_hub(root / "hf")
    world.write_tars(root / "tars")
    world.write_tars(root / "two", shards=2)
    put_on_path(find_laion_clap())
    with pytest.MonkeyPatch.context() as patch:
        cache = str(root / "hf" / "hub")
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", cache)
        # transformers 4 has a copy of its own
        patch.setattr(transformers.utils.hub, "TRANSFORMERS_CACHE", cache, raising=False)
        world.make_small()
        yield root


def run(argv: list[str]) -> int:
    """The command line in this process; what their training does to its loggers is taken back."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    loggers = [root, *map(logging.getLogger, root.manager.loggerDict)]
    levels = {logger: logger.level for logger in loggers}
    try:
        return main(argv)
    finally:
        for handler in [handler for handler in root.handlers if handler not in handlers]:
            root.removeHandler(handler)
            handler.close()
        for name in root.manager.loggerDict:
            logger = logging.getLogger(name)
            logger.setLevel(levels.get(logger, logging.NOTSET))
        root.setLevel(levels[root])


def arguments(home: Path, name: str, *more: str) -> list[str]:
    """A small training; arguments that come later win."""
    return [
        *("--datasetpath", str(home / "tars"), "--datasetnames", "toy"),
        *("--dataset-type", "webdataset", "--amodel", "HTSAT-small-test", "--tmodel", "roberta"),
        *("--precision", "fp32", "--batch-size", "4", "--workers", "1", "--prefetch-factor", "2"),
        *("--lr", "1e-4", "--wd", "0", "--warmup", "1", "--seed", "3", "--epochs", str(EPOCHS)),
        *("--save-frequency", "1", "--logs", str(home / "logs"), "--name", name, "--no-eval"),
        *("--queue-size", "12", "--head-layers", "1", "--rank-every", "1"),
        *more,
    ]


def state(home: Path, name: str, epoch: int = EPOCHS) -> dict[str, Tensor]:
    with allow_numpy():
        path = home / "logs" / name / "checkpoints" / f"epoch_{epoch}.pt"
        return torch.load(path, weights_only=True)["state_dict"]


def records(home: Path, name: str) -> list[dict[str, Any]]:
    lines = (home / "logs" / name / "rank.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="session")
def trained(home: Path) -> str:
    """The name of a training of two epochs."""
    assert run(arguments(home, "whole")) == 0
    return "whole"


def test_training_fills_the_queues_and_logs_the_rank(home: Path, trained: str) -> None:
    saved = state(home, trained)
    assert saved["moco.num_steps"].item() == EPOCHS * STEPS
    assert saved["moco.audio_queue.position"].tolist()[0] == 12
    rows = saved["moco.text_queue.embeddings"]
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(12))
    # Eight clips in twelve rows: four are there twice, under the same id.
    assert len(saved["moco.audio_queue.clip_ids"].unique()) == 8
    log = records(home, trained)
    assert [record["step"] for record in log] == [1, 2, 3, 4]
    assert [record["sources"]["audio"]["rows"] for record in log] == [4, 8, 12, 12]
    scale = saved["logit_scale_a"]
    torch.testing.assert_close(scale, -saved["moco.temperature"].log().squeeze())


def test_momentum_copies_follow_at_their_rate(home: Path, trained: str) -> None:
    first, last = state(home, trained, 1), state(home, trained)
    name = "text_projection.0.weight"
    copy = "moco.text_m.module.projection.0.weight"
    moved = (last[name] - first[name]).norm()
    lagged = (last[copy] - first[copy]).norm()
    assert 0 < lagged < 0.05 * moved


def test_a_resumed_training_ends_like_one_that_was_never_stopped(home: Path, trained: str) -> None:
    checkpoint = home / "logs" / trained / "checkpoints" / "epoch_1.pt"
    assert run(arguments(home, "resumed", "--resume", str(checkpoint))) == 0
    whole, resumed = state(home, trained), state(home, "resumed")
    assert whole.keys() == resumed.keys()
    different = [name for name in whole if not torch.equal(whole[name], resumed[name])]
    assert different == []
    assert records(home, "resumed") == records(home, trained)[STEPS:]


@pytest.mark.slow
@pytest.mark.parametrize("criterion", ["dcl", "siglip", "sogclr"])
def test_a_rival_goes_on_to_the_last_bit(home: Path, criterion: str) -> None:
    def options(name: str, *more: str) -> list[str]:
        every = arguments(home, name, "--criterion", criterion, *more)
        for option in ("--queue-size", "--head-layers"):  # it has neither
            at = every.index(option)
            every = every[:at] + every[at + 2 :]
        return every

    assert run(options(criterion)) == 0
    checkpoint = home / "logs" / criterion / "checkpoints" / "epoch_1.pt"
    assert run(options(f"{criterion}_again", "--resume", str(checkpoint))) == 0
    whole, resumed = state(home, criterion), state(home, f"{criterion}_again")
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
    torch.testing.assert_close(whole["logit_scale_a"], -whole["moco.temperature"].log().squeeze())
    if criterion == "sogclr":
        assert len(whole["moco.clip_sums.ids"]) == 8 and whole["moco.num_steps"].item() == 4


def test_an_export_loads_into_clap_module_and_starts_a_training(home: Path, trained: str) -> None:
    from laion_clap import CLAP_Module

    plain = home / "plain.pt"
    checkpoint = home / "logs" / trained / "checkpoints" / "epoch_2.pt"
    assert run(["export", str(checkpoint), str(plain)]) == 0
    module = CLAP_Module(amodel="HTSAT-small-test", device="cpu")
    module.load_ckpt(str(plain), verbose=False)
    saved = state(home, trained)
    loaded = module.model.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in saved.items() if not is_own(k))
    assert module.get_text_embedding(["a low tone", "noise"]).shape == (2, 32)

    begun = arguments(home, "begun", "--pretrained", str(plain), "--lr", "0", "--epochs", "1")
    assert run(begun) == 0
    after = state(home, "begun", 1)
    name = "text_branch.embeddings.word_embeddings.weight"
    assert torch.equal(after[name], saved[name])
    assert torch.equal(
        after["moco.audio_m.module.projection.0.weight"], saved["audio_projection.0.weight"]
    )


def test_what_embed_makes_of_the_tars_teaches_and_goes_on(home: Path) -> None:
    from tiny_bundle import make_bundle

    from atr_moco_plugin.commands.main import main as atr_moco

    bundle, captions = make_bundle(home / "teacher"), home / "captions.txt"
    texts = [
        text
        for tar in (home / "tars").rglob("*.tar")
        for clip in read_shard(tar).samples
        for text in clip.captions
    ]
    captions.write_text("\n".join(dict.fromkeys(texts)))
    file, tars = home / "teacher.safetensors", str(home / "tars")
    embed = ["embed", tars, "--text", str(captions), "--output", str(file)]
    assert atr_moco([*embed, "--model", str(bundle)]) == 0
    teachers = "--teachers", str(file)
    assert run(arguments(home, "taught", *teachers)) == 0
    checkpoint = home / "logs" / "taught" / "checkpoints" / "epoch_1.pt"
    assert run(arguments(home, "taught_again", *teachers, "--resume", str(checkpoint))) == 0
    whole, resumed = state(home, "taught"), state(home, "taught_again")
    assert int(whole["moco.teachers_digest"])
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


def test_the_loss_falls(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[float] = []
    step = CriterionForward.on_optimizer_step

    def recorded(self: CriterionForward) -> None:
        losses.append(self.measures["loss"].item())
        step(self)

    monkeypatch.setattr(CriterionForward, "on_optimizer_step", recorded)
    # A queue of one batch is full after the first step, so that later losses compare.
    options = ("--queue-size", "4", "--epochs", "6", "--lr", "3e-4", "--save-frequency", "6")
    options = (*options, "--atm-start", "0")
    assert run(arguments(home, "falls", *options)) == 0
    assert len(losses) == 12
    assert sum(losses[-4:]) < 0.8 * sum(losses[1:5])


class LaionAudio(nn.Module):
    """LAION's own way to an audio embedding, with all of its tokens."""

    def __init__(self, clap: Any) -> None:
        super().__init__()
        self.clap = clap

    def forward(self, batch: Any, device: Any) -> tuple[Tensor, AudioTokens]:
        tokens = self.clap.encode_audio(batch, device)["fine_grained_embedding"]
        embedded = self.clap(batch, None, device)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
        return nn.functional.normalize(embedded, dim=-1), AudioTokens(tokens, mask)


class LaionText(nn.Module):
    """LAION's own way to a text embedding, of captions with all their padding."""

    def __init__(self, clap: Any) -> None:
        super().__init__()
        self.clap = clap

    def forward(self, **text: Tensor) -> tuple[Tensor, TextTokens]:
        tokens = self.clap.text_branch(**text).last_hidden_state
        embedded = nn.functional.normalize(self.clap(None, text, torch.device("cpu")), dim=-1)
        return embedded, TextTokens(tokens, text["attention_mask"].bool(), text["input_ids"])


class LaionPair(nn.Module):
    embed_dim = 32

    def __init__(self, clap: Any, head: Any) -> None:
        super().__init__()
        self.audio, self.text, self.head = LaionAudio(clap), LaionText(clap), head

    def match(self, text: TextTokens, audio: AudioTokens) -> Tensor:
        return self.head(None, text, audio)


def make_clap(amodel: str = "HTSAT-small-test", tmodel: str = "roberta") -> Any:
    from clap_module import create_model

    torch.manual_seed(0)
    return create_model(amodel, tmodel)[0]


def make_batch(tmodel: str = "roberta") -> dict[str, Any]:
    from training.data import tokenizer

    generator = torch.Generator().manual_seed(1)
    captions = ["a low tone", "a quiet sweep and then noise", "A low tone.", "..."]
    texts = [tokenizer(caption, tmodel=tmodel) for caption in captions]
    return {
        "waveform": 0.1 * torch.randn(4, 480_000, generator=generator),
        "longer": torch.zeros(4, 1, dtype=torch.bool),
        "text": {k: torch.stack([text[k] for text in texts]) for k in texts[0]},
        "raw_text": captions,
        "__url__": ["/data/toy/train/0.tar"] * 4,
        "__key__": ["a", "b", "a", "c"],
    }


def test_the_loss_is_that_of_the_bare_criterion(home: Path) -> None:
    clap = make_clap()
    config = MocoAtcAtmConfig(atm_start=0, queue_size=6)
    clap = add_criterion(clap, MocoAtcAtm, config, FusionHeadConfig(layers=1, dropout=0.0))
    bare = MocoAtcAtm(LaionPair(make_clap(), clap.matching_head), config)
    clap.moco.audio_m.module.load_state_dict(clap.moco.model.audio.state_dict())
    generator = torch.Generator().manual_seed(2)
    rows = nn.functional.normalize(torch.randn(2, 5, 32, generator=generator), dim=-1)
    ids = torch.arange(5)
    for criterion in (clap.moco, bare):
        criterion.audio_queue.enqueue(rows[0], ids, ids)
        criterion.text_queue.enqueue(rows[1], ids, ids)
    # Training itself, without what it draws: dropout and masks of the spectrogram.
    clap.eval()
    bare.eval()
    clap.training = True
    batch = make_batch()
    loss, *_ = clap(batch, batch["text"], torch.device("cpu"))
    clip_ids = torch.tensor([10, 11, 10, 12])
    caption_ids = torch.tensor([20, 21, 20, 22])
    audio = {"batch": batch, "device": torch.device("cpu")}
    expected = bare(audio, batch["text"], clip_ids, caption_ids)
    assert clap.measures["loss_atm"].item() == pytest.approx(expected["loss_atm"].item(), abs=1e-5)
    assert loss.item() == pytest.approx(expected["loss"].item(), abs=1e-5)


# Of its PANNs LAION-CLAP can train Cnn14 alone: the smaller ones do not take its batches.
@pytest.mark.parametrize("amodel", ["HTSAT-small-test", "PANN-14"])
def test_every_32nd_audio_state_is_all_of_them(home: Path, amodel: str) -> None:
    clap = make_clap(amodel).eval()
    samples = 480_000 if "HTSAT" in amodel else 96_000
    with torch.no_grad():
        batch = {"waveform": torch.randn(1, samples), "longer": torch.zeros(1, 1)}
        every = clap.encode_audio(batch, "cpu")["fine_grained_embedding"]
        _, tokens = ClapAudio(clap)(batch, "cpu")
    assert torch.equal(tokens.states.repeat_interleave(32, dim=1), every)


def test_pann_and_bert_train(home: Path) -> None:
    clap = add_criterion(
        make_clap("PANN-14", "bert"), MocoAtcAtm, MocoAtcAtmConfig(atm_start=0, queue_size=8)
    )
    batch = make_batch("bert")
    batch["waveform"] = batch["waveform"][:, :48_000]
    loss, *rest, scale, _ = clap.train()(batch, batch["text"], torch.device("cpu"))
    loss.backward()
    assert rest == [None, None, None]
    assert scale.item() == pytest.approx(1 / 0.07, rel=1e-5)
    for name in ("audio_branch.conv_block1.conv1", "text_branch.pooler.dense"):
        assert clap.get_submodule(name).weight.grad.abs().sum() > 0
    assert clap.matching_head.classifier.weight.grad.abs().sum() > 0
    assert all(p.grad is None for n, p in clap.named_parameters() if "_m." in n)


def test_it_trains_in_autocast(home: Path) -> None:
    clap = add_criterion(
        make_clap(), MocoAtcAtm, MocoAtcAtmConfig(atm_start=0, queue_size=8)
    ).train()
    batch = make_batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, *_ = clap(batch, batch["text"], torch.device("cpu"))
    loss.backward()
    assert loss.dtype == torch.float32
    assert clap.moco.audio_queue.valid[0].dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in clap.parameters() if p.grad is not None)


def test_a_loss_that_is_not_finite_stops_the_run(home: Path) -> None:
    clap = add_criterion(
        make_clap(), MocoAtcAtm, MocoAtcAtmConfig(atm_start=0, queue_size=8)
    ).train()
    batch = make_batch()
    batch["waveform"][1] = math.nan
    optimizer = torch.optim.AdamW(clap.parameters(), lr=1e-4)
    clap.guard = FiniteGuard(optimizer, clap)
    clap(batch, batch["text"], torch.device("cpu"))[0].backward()
    with pytest.raises(NonFiniteError, match="The loss of step 1 is nan"):
        optimizer.step()


class OneWeight(nn.Module):
    """A model of which the loop sees a weight, and which counts its optimizer steps."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.moco = SimpleNamespace(queues={})
        self.measures: dict[str, Tensor] = {}
        self.steps = 0

    def on_optimizer_step(self) -> None:
        self.steps += 1


@pytest.mark.parametrize("split", [False, True])
def test_a_step_that_the_scaler_leaves_out_moves_no_average(split: bool) -> None:
    def loop(model: Any, data: Any, epoch: int, optimizer: Any, scaler: Any, *_: Any) -> None:
        every = list(optimizer.values()) if split else [optimizer]
        for factor in (1.0, math.inf, 1.0):
            scaler.scale((model.weight * factor).sum()).backward()
            for one in every:
                scaler.step(one)
            scaler.update()
            model.zero_grad()

    model = OneWeight()
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.1)
    if split:
        optimizer = {"pretrained": optimizer, "new": torch.optim.SGD(model.parameters(), lr=0.1)}
    scaler = torch.amp.GradScaler("cpu")
    followed = follow_epoch(loop, rank_every=1)
    followed(model, loader_of(3), 0, optimizer, scaler, None, their_args())
    assert model.steps == 2


def test_two_processes_fill_equal_queues(home: Path, tmp_path: Path) -> None:
    more = ("--batch-size", "2", "--dist-backend", "gloo", "--epochs", "1")
    process = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--master-port", "29731", "--", str(WORLD)),
            *arguments(home, "two", *more, "--datasetpath", str(home / "two")),
        ],
        env={**os.environ, "HF_HOME": str(home / "hf"), "CLAP_WORLD_QUEUES": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["moco.audio_queue.position"].tolist()[0] == 12
    different = [k for k in first if "_queue." in k and not torch.equal(first[k], second[k])]
    assert different == []
    # One process of the two logs and saves.
    assert [record["step"] for record in records(home, "two")] == [1, 2, 3, 4]
    saved = state(home, "two", 1)
    assert all(torch.equal(saved[f"module.{name}"], first[name]) for name in first)
    assert "moco.temperature" not in read_clap(home / "logs/two/checkpoints/epoch_1.pt")


def test_the_page_runs(home: Path, trained: str) -> None:
    """The launch line of the page, with small things in the place of large ones."""
    page = (Path(__file__).parents[3] / "docs" / "laion_clap.md").read_text()
    line = next(x for x in page.split("```bash\n") if x.startswith("python -m") and "\\\n" in x)
    _, _, module, *options = shlex.split(line.split("```")[0].replace("\\\n", " "))
    assert module == "atr_moco_plugin.hosts.laion_clap"
    small = arguments(home, "page", "--epochs", "1", "--head-layers", "1")
    assert run([*options, *small]) == 0
    assert state(home, "page", 1)["moco.num_steps"].item() == STEPS

    code = page.split("```python\n")[1].split("```")[0]
    checkpoint = home / "logs" / trained / "checkpoints" / "epoch_2.pt"
    assert run(["export", str(checkpoint), str(home / "clap.pt")]) == 0
    code = code.replace("HTSAT-tiny", "HTSAT-small-test").replace("clap.pt", f"{home}/clap.pt")
    exec(compile(code, "laion_clap.md", "exec"), {})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--tmodel", "transformer"], "--tmodel is transformer"),
        (["--clap-mlploss"], "--clap-mlploss is a loss of its own"),
        (["--ddp-static-graph"], "--ddp-static-graph does not go with a matching loss"),
        (["--precision", "fp16"], "take amp or fp32"),
        (["--resume", "nowhere.pt"], "--resume nowhere.pt is not a checkpoint"),
        (["--pretrained", "nowhere.pt"], "nowhere.pt is not a file"),
        (["--queue-size", "many"], "criterion.queue_size"),
        (["--criterion", "moco_atc_amt"], "Did you mean moco_atc_atm?"),
    ],
)
def test_what_does_not_fit_is_said_before_training(
    home: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert run(arguments(home, "refused", *more)) == 1
    assert message in capsys.readouterr().err
    assert not (home / "logs" / "refused").exists()


def test_plain_weights_cannot_be_resumed(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = tmp_path / "plain.pt"
    torch.save({"epoch": 3, "state_dict": make_clap().state_dict()}, plain)
    assert run(arguments(home, "refused", "--resume", str(plain))) == 1
    assert "--pretrained" in capsys.readouterr().err


def test_a_log_folder_that_exists_is_an_error(home: Path, trained: str) -> None:
    assert run(arguments(home, trained)) == 1
