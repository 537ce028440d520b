"""What docs/plugins.md promises of parts, on a package of its own: no host framework."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from atr_moco_plugin import available, load
from atr_moco_plugin.commands.main import main
from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig
from atr_moco_plugin.model import RetrievalModel, build_model, model_config
from atr_moco_plugin.plugins import GROUPS, MEMBERS, missing

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"
SOURCES = Path(__file__).parent / "acme_atr"
OWN = {
    "audio_encoders": "acme_cnn",
    "text_encoders": "acme_gru",
    "heads": "acme_mlp",
    "criteria": "acme_siglip",
    "hooks": "acme_mean",
}


def acme_model(**options: object) -> RetrievalModel:
    torch.manual_seed(0)
    return build_model(
        model_config(
            {
                "audio": {"name": "acme_cnn", "config": {"width": 12}},
                "text": {"name": "acme_gru", "config": {"vocab_size": 50, "width": 16}},
                "head": {"name": "acme_mlp", "config": {"hidden": 8}},
                "embed_dim": 10,
                "text_pooling": "mean",
                **options,
            }
        )
    )


def test_the_page_shows_the_package_that_is_tested_here() -> None:
    blocks = dict(re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", PAGE.read_text(), re.S))
    files = {"pyproject.toml": SOURCES / "pyproject.toml"}
    files |= {f"acme_atr/{x.name}": x for x in (SOURCES / "src/acme_atr").glob("[!_]*.py")}
    assert blocks.keys() == files.keys()
    for name, file in files.items():
        assert blocks[name] == file.read_text(), name


def test_the_page_names_every_member_of_a_part() -> None:
    page = PAGE.read_text()
    for group, members in MEMBERS.items():
        section = page.partition(f"## `{GROUPS[group]}`")[2].partition("\n## ")[0]
        for member in members:
            assert f"`{member}" in section or f".{member}" in section, (group, member)


def test_its_parts_are_found_and_listed(acme: Path, capsys) -> None:
    for group, name in OWN.items():
        assert available(group)[name].dist.name == "acme-atr"
        assert missing(group, load(group, name)) == []
    assert main(["plugins", "--strict"]) == 0
    listed = capsys.readouterr().out
    assert re.search(r"acme_cnn +acme-atr 0.3 +acme_atr.audio:Cnn\n", listed)
    assert "incomplete" not in listed


def test_own_parts_have_what_is_asked_of_others() -> None:
    for group in GROUPS:
        for name, point in available(group).items():
            if point.dist.name == "atr-moco-plugin":
                assert missing(group, load(group, name)) == [], name


def test_padding_changes_nothing(acme: Path, tiny_batch: Callable) -> None:
    model, batch = acme_model().eval(), tiny_batch(b=1)
    (waveforms, lengths), text = batch["audio"].values(), batch["text"]
    n, words = int(lengths), int(text["mask"].sum())
    for padded, whole in (
        (model.audio(waveforms, lengths)[0], model.audio(waveforms[:, :n], lengths)[0]),
        (model.text(**text)[0], model.text(*(x[:, :words] for x in text.values()))[0]),
    ):
        torch.testing.assert_close(padded, whole)


@pytest.mark.parametrize("name", ["moco_atc_atm", "acme_siglip"])
def test_its_model_learns_with_a_criterion(acme: Path, tiny_batch: Callable, name: str) -> None:
    kind = load("criteria", name)
    options = {"queue_size": 8} | ({"atm_start": 0} if name == "moco_atc_atm" else {})
    config = build_config(kind.config_class, options, "criterion.config")
    criterion = kind(acme_model(), config).train()
    optimizer = torch.optim.AdamW(criterion.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        found = criterion(**tiny_batch())
        assert set(found) == set(kind.measures)
        found["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        criterion.on_optimizer_step()
        losses.append(float(found["loss"].detach()))
    assert losses[-1] < losses[0]
    for name, parameter in criterion.model.named_parameters():
        trained = "loss_atm" in kind.measures or not name.startswith("head")
        assert bool(optimizer.state[parameter]) == trained, name
    assert len(criterion.queues["audio"]) == 8


def test_its_criterion_trains_the_built_in_model(acme, tiny_model, tiny_batch) -> None:
    siglip = load("criteria", "acme_siglip")
    found = siglip(tiny_model(), siglip.config_class(queue_size=4)).train()(**tiny_batch())
    assert torch.isfinite(found["loss"]) and found["loss"].requires_grad


def test_a_foreign_text_encoder_and_the_head_for_bert(acme: Path) -> None:
    with pytest.raises(ValueError, match="needs the text encoder bert, but got Gru.*fusion"):
        acme_model(head={"name": "atm"})


def test_the_head_for_any_encoders(acme: Path, tiny_batch: Callable) -> None:
    if "fusion" not in available("heads"):
        pytest.skip("the installed metadata is older than the head `fusion`; install again")
    criterion = MocoAtcAtm(
        acme_model(head={"name": "fusion"}), MocoAtcAtmConfig(atm_start=0, queue_size=4)
    )
    assert torch.isfinite(criterion.train()(**tiny_batch())["loss_atm"])
