"""LAION-CLAP checkpoints become bundles; what ``ClapModel`` has not is refused by its name."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.heads.fusion import FusionHeadConfig
from atr_moco_plugin.hosts.laion_clap.convert import check_convertible
from atr_moco_plugin.hosts.laion_clap.export import export_run, find_checkpoint, head_config
from atr_moco_plugin.hosts.laion_clap.model import add_criterion
from atr_moco_plugin.hosts.laion_clap.requirements import find_laion_clap, put_on_path
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.retriever.exported import ExportOptions
from atr_moco_plugin.text.tokenizer import load_tokenizer

needs_laion = pytest.mark.skipif(
    find_spec("laion_clap") is None or find_spec("torchvision") is None,
    reason="laion_clap and torchvision are not installed",
)
RATE = 48_000


def towers(**more: tuple[int, ...]) -> dict[str, Tensor]:
    """Names that tell HTSAT and RoBERTa."""
    shapes = {
        "logit_scale_a": (),
        "audio_projection.0.weight": (4, 4),
        "audio_branch.patch_embed.proj.weight": (4, 1, 4, 4),
        "text_branch.embeddings.word_embeddings.weight": (9, 4),
        "text_branch.embeddings.token_type_embeddings.weight": (1, 4),
        **more,
    }
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("changes", "tower"),
    [
        ({"-": "audio_branch.patch_embed.proj.weight"}, "PANN"),
        ({"audio_branch.patch_embed.mel_conv2d.weight": (4, 1, 4, 12)}, "--enable-fusion"),
        ({"audio_branch.fusion_model.x": (1,)}, "--enable-fusion"),
        ({"text_branch.encoder.layers.0.fc1.weight": (4, 4)}, "BART"),
        ({"text_branch.embeddings.token_type_embeddings.weight": (2, 4)}, "BERT text"),
        ({"-": "text_branch.embeddings.word_embeddings.weight"}, "CLIP"),
    ],
)
def test_other_towers_are_refused_by_name(changes: dict[str, Any], tower: str) -> None:
    gone = changes.pop("-", None)
    state = {name: x for name, x in towers(**changes).items() if name != gone}
    with pytest.raises(InputError, match=f"{tower}.*hosts.laion_clap export"):
        check_convertible(state)


def test_which_epoch(tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "moco"
    for name in ("epoch_2.pt", "epoch_10.pt", "epoch_latest.pt"):
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (folder / "checkpoints" / name).touch()
    assert find_checkpoint(folder, None).name == "epoch_10.pt"
    assert find_checkpoint(folder, "last").name == "epoch_10.pt"
    assert find_checkpoint(folder, "epoch_2").name == "epoch_2.pt"
    with pytest.raises(InputError, match="does not say which checkpoint is the best"):
        find_checkpoint(folder, "best")
    with pytest.raises(InputError, match="'epoch_3'; it has epoch_2, epoch_10"):
        find_checkpoint(folder, "epoch_3")
    with pytest.raises(InputError, match="leave --checkpoint out"):
        find_checkpoint(folder / "checkpoints" / "epoch_2.pt", "last")


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "epoch_1.pt"
    torch.save({"state_dict": {"weight": torch.zeros(2)}}, file)
    with pytest.raises(InputError, match="holds no CLAP weights"):
        export_run(file, ExportOptions())
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="half-written"):
        export_run(file, ExportOptions())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Hub cache with a small RoBERTa and its tokenizer, which this process uses from now on."""
    import huggingface_hub.constants
    import transformers.utils.hub

    place = Path(__file__).with_name("clap_world.py")
    spec = importlib.util.spec_from_file_location("clap_world", place)
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tmp_path_factory.mktemp("clap")
    module.write_hub(root, type_vocab_size=1, layer_norm_eps=1e-5)  # as roberta-base has them
    put_on_path(find_laion_clap())
    import clap_module.model

    real = clap_module.model.create_htsat_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(root / "hub"))
        # transformers 4 has a copy of its own
        cache = str(root / "hub")
        patch.setattr(transformers.utils.hub, "TRANSFORMERS_CACHE", cache, raising=False)
        module.make_small()
        small = clap_module.model.create_htsat_model
        # The name decides, so that real sizes can be built too.
        patch.setattr(
            clap_module.model,
            "create_htsat_model",
            lambda config, *rest: (small if config.class_num == 4 else real)(config, *rest),
        )
        yield root


def laion_model(name: str) -> tuple[Any, dict[str, Any]]:
    """LAION-CLAP's own model with random weights that tell sounds apart, and its configuration."""
    from clap_module.factory import create_model

    torch.manual_seed(0)
    clap, config = create_model(name, "roberta", precision="fp32", device="cpu")
    with torch.no_grad():
        clap.audio_branch.bn0.running_mean.normal_(-40, 3)
        clap.audio_branch.bn0.running_var.uniform_(100, 300)
        for key, weight in clap.named_parameters():
            if key.endswith("relative_position_bias_table"):
                weight.normal_(0, 0.5)
            elif weight.ndim > 1 and "extractor" not in key:
                weight.mul_(2)
    return clap.eval(), config


def sounds() -> list[np.ndarray]:
    """Ten seconds, less, and much less."""
    generator = np.random.default_rng(0)
    time = np.arange(10 * RATE) / RATE
    noise = [generator.standard_normal(n) * a for n, a in ((10 * RATE, 0.1), (RATE, 0.3))]
    tones = [0.3 * np.sin(2 * np.pi * 440 * time[: 4 * RATE])]
    return [x.astype(np.float32) for x in (*noise, *tones)]


@needs_laion
@pytest.mark.parametrize(
    "name",
    [
        "HTSAT-small-test",
        *(pytest.param(x, marks=pytest.mark.slow) for x in ("HTSAT-tiny", "HTSAT-base")),
    ],
)
@pytest.mark.parametrize("filling", ["pad", "repeatpad"])
def test_a_bundle_embeds_as_laion_clap(
    world: Path, tmp_path: Path, name: str, filling: str
) -> None:
    from training.data import get_audio_features, tokenizer

    clap, config = laion_model(name)
    run = tmp_path / "logs" / "moco"
    (run / "checkpoints").mkdir(parents=True)
    state = {f"module.{key}": x for key, x in clap.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, run / "checkpoints" / "epoch_3.pt")
    (run / "params.txt").write_text(f"data_filling: {filling}\nname: moco\nseed: 3\n")
    exported = export_run(run, ExportOptions())
    exported.write(tmp_path / "bundle")
    assert exported.config.origin["seed"] == "3"
    retriever = AudioTextRetriever.from_pretrained(tmp_path / "bundle", device="cpu")
    assert not retriever.can_match
    assert retriever.temperature == pytest.approx(float(torch.exp(-clap.logit_scale_a)))

    features = [
        get_audio_features(
            {}, torch.from_numpy(x), 10 * RATE, "rand_trunc", filling, config["audio_cfg"]
        )
        for x in sounds()
    ]
    captions = ["a low tone", "noise and a high sweep then", "a"]
    with torch.no_grad():
        expected = clap.get_audio_embedding(features)
        text = tokenizer(captions, tmodel="roberta")
        words = torch.nn.functional.normalize(clap.encode_text(text, "cpu"), dim=-1)
    audio = retriever.embed_audio(sounds(), sample_rate=RATE)
    assert (audio - expected).abs().max() < 1e-5
    assert (retriever.embed_text(captions) - words).abs().max() < 1e-5
    # They are no constants.
    assert (audio @ audio.T).min() < 0.999 and (words @ words.T).min() < 0.999


@needs_laion
def test_the_matching_head_comes_along(world: Path, tmp_path: Path) -> None:
    clap, _ = laion_model("HTSAT-small-test")
    add_criterion(
        clap, MocoAtcAtm, MocoAtcAtmConfig(atm_start=0, queue_size=8), FusionHeadConfig(layers=1)
    )
    clap.eval()
    torch.save({"state_dict": clap.state_dict()}, tmp_path / "epoch_1.pt")
    exported = export_run(tmp_path / "epoch_1.pt", ExportOptions())
    assert exported.config.model["head"]["layers"] == 1
    exported.write(tmp_path / "bundle")
    retriever = AudioTextRetriever.from_pretrained(tmp_path / "bundle", device="cpu")
    sound, caption = sounds()[0], "a low tone"
    tokens = load_tokenizer("roberta-base")(caption, return_tensors="pt")
    pair = clap.moco.model
    with torch.no_grad():
        _, clips = pair.audio({"waveform": torch.from_numpy(sound)[None]}, "cpu")
        _, text = pair.text(**{x: tokens[x] for x in ("input_ids", "attention_mask")})
        logits = pair.match(text, clips)[0]
    found = retriever.match([caption], sound, sample_rate=RATE)
    assert found[0] == pytest.approx(float(logits[1] - logits[0]), abs=1e-5)


@needs_laion
def test_other_mel_filters_are_refused(world: Path, tmp_path: Path) -> None:
    clap, _ = laion_model("HTSAT-small-test")
    clap.audio_branch.logmel_extractor.melW.data *= 1.1
    torch.save({"state_dict": clap.state_dict()}, tmp_path / "epoch_1.pt")
    with pytest.raises(InputError, match=r"mel filters .* \(50 to 14,000 Hz"):
        export_run(tmp_path / "epoch_1.pt", ExportOptions())


def test_the_size_of_a_head_is_read_from_its_names() -> None:
    assert head_config({}) is None
    found = head_config({"blocks.0.x": torch.zeros(1), "blocks.1.x": torch.zeros(1)})
    assert found is not None and found.layers == 2
