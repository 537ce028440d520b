"""Bundles: written and read back, and what is refused in one sentence."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_bundle import make_bundle, make_clap_bundle, make_public_clap

from atr_moco_plugin.commands.main import main
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.retriever import AudioTextRetriever, BundleConfig, read_bundle, write_bundle
from atr_moco_plugin.retriever.card import model_card
from atr_moco_plugin.retriever.exported import Exported
from atr_moco_plugin.retriever.kept_card import PLACE, card_record
from atr_moco_plugin.retriever.loading import load_backbone

WORDS = ["a dog", "rain"]
load = AudioTextRetriever.from_pretrained


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_a_bundle_has_the_files_that_the_page_names(folder: Path) -> None:
    names = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    # The first is written by transformers 4 alone.
    assert names - {"tokenizer/special_tokens_map.json"} == {
        "config.json",
        "model.safetensors",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
    }
    # Whoever may read one of them may read all.
    assert len({(folder / name).stat().st_mode for name in names}) == 1
    config = read_bundle(folder).config
    assert config.packages == {
        "audio_encoders/beats": "atr-moco-plugin 0.1.0",
        "text_encoders/bert": "atr-moco-plugin 0.1.0",
        "heads/atm": "atr-moco-plugin 0.1.0",
    }


def test_a_whole_number_of_seconds_is_one_model_however_it_is_written(
    folder: Path, copy: Path
) -> None:
    content = json.loads((copy / "config.json").read_text())
    content |= {"window_seconds": 1, "hop_seconds": 1}
    (copy / "config.json").write_text(json.dumps(content))
    assert load(copy).fingerprint == load(folder).fingerprint


def test_what_else_is_in_a_bundle_s_folder_is_not_lost(copy: Path) -> None:
    retriever = load(copy)
    (copy / "notes.txt").write_text("precious")
    with pytest.raises(InputError, match="more in it than a bundle, notes.txt, which would be lo"):
        retriever.save_pretrained(copy)
    (copy / "notes.txt").unlink()
    retriever.save_pretrained(copy)
    assert load(copy).fingerprint == retriever.fingerprint


def test_a_card_that_is_not_utf_8_is_no_obstacle(copy: Path, tmp_path: Path) -> None:
    """It ended in a traceback where a bundle was saved or exported again."""
    card, content = copy / "README.md", "# mine\n\nLicence: café".encode("latin-1")
    card.write_bytes(content)
    retriever = load(copy)
    retriever.save_pretrained(tmp_path / "other")
    assert (tmp_path / "other" / "README.md").read_text() == "# mine\n\nLicence: caf\ufffd"
    assert main(["export", str(copy), str(tmp_path / "exported")]) == 0
    with pytest.warns(
        UserWarning, match="README.md may have been filled in: it is README.old.md now"
    ):
        retriever.save_pretrained(copy)  # over itself: its bytes are nowhere else
    assert (copy / "README.old.md").read_bytes() == content
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        retriever.save_pretrained(copy)


def test_an_export_knows_the_card_that_it_wrote(folder: Path, tmp_path: Path) -> None:
    parts, out = load_backbone(folder), tmp_path / "out"

    def export(seed: int) -> None:
        config = replace(parts.config, origin={"seed": seed})  # which is in the card
        Exported(config=config, model=parts.model, tokenizer=parts.tokenizer).write(out)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export(1)
        export(2)
        card = out / "README.md"
        card.write_bytes(card.read_bytes().replace(b"\n", b"\r\n"))  # as a checkout may
        export(3)
    card.write_text(card.read_text().replace("# out", "# Dogs"))
    with pytest.warns(UserWarning, match="README.md may have been filled in"):
        export(1)


def test_a_card_that_was_filled_in_is_kept_beside_the_new_one(folder: Path, copy: Path) -> None:
    card = copy / "README.md"
    config = read_bundle(folder).config
    first, later = (model_card(config, title=x) for x in ("first", "later"))
    parts = load_backbone(folder)

    def write(text: str) -> None:
        recorded = replace(config, origin=card_record(text))
        write_bundle(copy, recorded, parts.model, parts.tokenizer, card=text)

    write(first)
    edited = (
        "my own",
        first.replace(f"{PLACE}.", "The paper of this model."),
        first.replace("license: unknown", "license: mit"),
        f"{first}\n## Limitations\n\nTrained on birds alone.\n",
        first.replace("## Licence", "### Limitations\n\nNot for gunshots.\n\n## Licence"),
        first.replace("Finds sounds by", "My own words.\n\nFinds sounds by"),
        first.replace("tags:", "datasets: [me/mine]\ntags:"),
    )
    for number, text in enumerate(edited):
        card.write_text(text)
        name = f"README.old{number or ''}.md"
        said = f"copy/README.md may have been filled in: it is {name} now"
        with pytest.warns(UserWarning, match=said):
            write(later)
        assert card.read_text() == later and (copy / name).read_text() == text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(later)  # the same card
        # The card of a run is nobody's work, and its figures are not those of another run.
        write(first)
        load(copy).save_pretrained(copy)
        write(later)
    assert card.read_text() == later and (copy / "README.old.md").read_text() == edited[0]
    fingerprint = load(copy).fingerprint
    content = json.loads((copy / "config.json").read_text())
    del content["origin"]["card_sha256"]  # as in a bundle of before
    (copy / "config.json").write_text(json.dumps(content))
    assert load(copy).fingerprint == fingerprint
    with pytest.warns(UserWarning, match="README.md may have been filled in"):
        write(first)
    assert load(copy).embed_dim == load(folder).embed_dim


def test_a_link_to_a_folder_stays_one(copy: Path, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(copy, target_is_directory=True)
    load(copy).save_pretrained(link)
    assert link.is_symlink() and link.resolve() == copy
    assert {x.name for x in tmp_path.iterdir()} == {"copy", "current"}


def test_a_bundle_that_was_replaced_is_not_mixed_with_the_one_in_memory(
    copy: Path, tmp_path: Path
) -> None:
    retriever = load(copy)
    shutil.rmtree(copy)
    make_bundle(copy, seed=1, sentences=["other words than before", *WORDS])
    with pytest.raises(InputError, match="another model than when it was loaded: load it again"):
        retriever.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer"])
def test_files_of_two_bundles_are_not_taken_for_one(copy: Path, tmp_path: Path, name: str) -> None:
    """As a copy over an older bundle leaves them that was interrupted."""
    other = make_bundle(tmp_path / "other", seed=1, sentences=[" ".join(reversed(WORDS)), *WORDS])
    place = copy / name
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    place = other / name
    (shutil.copytree if place.is_dir() else shutil.copy)(place, copy / name)
    with pytest.raises(InputError):
        load(copy)


def test_a_bundle_of_before_has_no_digests_and_loads(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    before = load(copy).fingerprint
    assert set(config["files"]) >= {"model.safetensors", "tokenizer/tokenizer.json"}
    del config["files"]
    (copy / "config.json").write_text(json.dumps(config))
    assert load(copy).fingerprint == before


def test_a_file_of_the_system_makes_no_other_model(copy: Path) -> None:
    before = load(copy).fingerprint
    (copy / "tokenizer/.DS_Store").write_text("x")
    assert load(copy).fingerprint == before


def test_a_clap_in_another_place_is_the_same_bundle(tmp_path: Path) -> None:
    fingerprints = set()
    for place in ("one", "two"):
        load(make_public_clap(tmp_path / place / "clap")).save_pretrained(tmp_path / place / "b")
        assert str(tmp_path) not in (tmp_path / place / "b/config.json").read_text()
        fingerprints.add(load(tmp_path / place / "b").fingerprint)
    assert len(fingerprints) == 1


def test_how_a_clap_pads_is_part_of_what_it_is(tmp_path: Path) -> None:
    """Newer versions of transformers write the feature extractor into ``processor_config.json``."""
    folder = make_public_clap(tmp_path / "clap")
    content = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    found = set()
    for padding in ("pad", "repeatpad"):
        changed = {"feature_extractor": {**content, "padding": padding}}
        (folder / "processor_config.json").write_text(json.dumps(changed))
        found.add(load(folder).fingerprint)
    assert len(found) == 2


def test_what_is_written_is_read(folder: Path) -> None:
    retriever = load(folder)
    assert retriever.name == str(folder)
    assert (retriever.sample_rate, retriever.embed_dim) == (16_000, 12)
    assert (retriever.window_seconds, retriever.hop_seconds) == (1.0, 1.0)
    assert retriever.temperature == 0.07
    assert retriever.can_match


@pytest.mark.parametrize("make", [make_bundle, make_clap_bundle, make_public_clap])
def test_saved_again_it_is_the_same_model(make: Callable[[Path], Path], tmp_path: Path) -> None:
    retriever = load(make(tmp_path / "first"))
    before = retriever.embed_text(WORDS)  # a tokenizer remembers its last call
    retriever.save_pretrained(tmp_path / "second")
    again = load(tmp_path / "second")
    assert torch.equal(again.embed_text(WORDS), before)
    again.save_pretrained(tmp_path / "third")
    assert load(tmp_path / "third").fingerprint == again.fingerprint
    if make is not make_public_clap:  # which becomes a bundle
        assert again.fingerprint == retriever.fingerprint


def test_the_fingerprint_is_that_of_the_model(folder: Path, copy: Path) -> None:
    fingerprint = load(folder).fingerprint
    assert load(folder, dtype="bfloat16", batch_size=3).fingerprint == fingerprint
    (copy / "README.md").write_text("another card")
    change_config(copy, origin={"run": "elsewhere"}, packages={})
    assert load(copy).fingerprint == fingerprint
    change_config(copy, window_seconds=2.0)
    assert load(copy).fingerprint != fingerprint
    assert load(make_bundle(copy.parent / "other", seed=1)).fingerprint != fingerprint


def test_loading_leaves_the_random_state_alone(folder: Path) -> None:
    state = torch.get_rng_state()
    load(folder)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_bundle_replaces_a_bundle_and_nothing_else(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", seed=0)
    first = load(tmp_path / "bundle").fingerprint
    make_bundle(tmp_path / "bundle", seed=1)
    assert load(tmp_path / "bundle").fingerprint != first
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("one copy")
    with pytest.raises(InputError, match="thesis is there already and is no bundle"):
        make_bundle(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "one copy"
    assert sorted(x.name for x in tmp_path.iterdir()) == ["bundle", "thesis"]


def test_a_bundle_is_whole_or_not_there(tmp_path: Path, folder: Path) -> None:
    bundle = read_bundle(folder)

    class FullDisk:
        def save_pretrained(self, folder: Path) -> None:
            folder.mkdir()
            (folder / "tokenizer.json").write_text("{")
            raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"):
        write_bundle(tmp_path / "new", bundle.config, torch.nn.Linear(1, 1), FullDisk())
    assert list(tmp_path.iterdir()) == []


def change_config(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def without(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        save_file({k: v for k, v in state.items() if k not in names}, folder / "model.safetensors")

    return change


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def unknown_part(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model"]["audio"]["name"] = "acme_audio"
    config["packages"] = {"audio_encoders/acme_audio": "acme-atr 1.2"}
    (folder / "config.json").write_text(json.dumps(config))


def wider(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model"]["embed_dim"] = 16
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: (x / "config.json").unlink(), "has no config.json"),
        (lambda x: (x / "config.json").write_text("{"), "config.json cannot be read as JSON"),
        (lambda x: (x / "config.json").write_text("[]"), "must hold a JSON object"),
        (lambda x: change_config(x, format=2), "reads format 1: install a newer"),
        (lambda x: change_config(x, kind="other"), "`config.kind` is 'other', but must be one of"),
        (lambda x: change_config(x, colour=1), "colour` is not known"),
        (lambda x: change_config(x, sample_rate=48_000), "48000 Hz, but its audio encoder takes"),
        (lambda x: change_config(x, hop_seconds=2.0), "`hop_seconds` is 2.0, expected"),
        (lambda x: change_config(x, max_tokens=40), "has positions for 16 tokens"),
        (lambda x: change_config(x, temperature=float("nan")), "`temperature` is nan"),
        (lambda x: (x / "model.safetensors").unlink(), "has no model.safetensors"),
        (truncate, "model.safetensors is half-written or damaged"),
        (without("audio.projection.bias"), r"audio.projection.bias is only in one of the two"),
        (wider, r"of shape \[12, 24\], but config.json asks for \[16, 24\]"),
        (unknown_part, r"'acme_audio' of acme-atr 1.2, which is not installed: pip install acme"),
        (lambda x: shutil.rmtree(x / "tokenizer"), "has no tokenizer"),
        (lambda x: (x / "tokenizer" / "tokenizer.json").write_text("{"), "could not be loaded"),
    ],
)
def test_one_sentence_for_a_bundle_that_cannot_be_used(
    copy: Path, change: Callable[[Path], object], message: str
) -> None:
    change(copy)
    with pytest.raises(InputError, match=message) as caught:
        load(copy)
    assert "copy" in str(caught.value) and "\n" not in str(caught.value)


def test_names_that_are_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no model folder .*missing: correct the path"):
        load(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="There is no model folder"):
        load(tmp_path / "file")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(InputError, match="is the folder of a training run: make a bundle of it"):
        load(tmp_path / "run")
    with pytest.raises(InputError, match="There is no folder nobody/nothing, and no model of"):
        load("nobody/nothing", local_files_only=True)
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="neither a bundle nor a ClapModel, but .* type 'bert'"):
        load(tmp_path / "bert")


def test_a_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the hub's cache, as a download leaves it."""
    cached = tmp_path / "models--acme--tiny"
    local = make_bundle(cached / "snapshots" / ("a" * 40))
    for name in ("main", "v1"):
        (cached / "refs").mkdir(exist_ok=True)
        (cached / "refs" / name).write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    retriever = load("acme/tiny", local_files_only=True)
    assert (retriever.name, retriever.fingerprint) == ("acme/tiny", load(local).fingerprint)
    pinned = load("acme/tiny", revision="v1")
    assert pinned.name == "acme/tiny@v1" == load(pinned.name).name
    with pytest.raises(InputError, match="There is no folder acme/tiny, and no model of"):
        load("acme/tiny@v2")


def test_a_score_needs_a_head(tmp_path: Path) -> None:
    folder = make_clap_bundle(tmp_path / "clap")
    config = json.loads((folder / "config.json").read_text())
    config["model"]["head"] = None
    del config["files"]
    (folder / "config.json").write_text(json.dumps(config))
    state = load_file(folder / "model.safetensors")
    towers = {k: v for k, v in state.items() if not k.startswith("head.")}
    save_file(towers, folder / "model.safetensors")
    with pytest.raises(InputError, match="has a `score`, but no matching head"):
        load(folder)


def test_a_public_clap_with_missing_files(tmp_path: Path) -> None:
    folder = make_public_clap(tmp_path / "clap")
    without("audio_projection.linear1.weight")(folder)
    with pytest.raises(InputError, match="lacks 1 weights of its ClapModel, such as audio_proj"):
        load(folder)
    (folder / "preprocessor_config.json").unlink()
    make_public_clap(folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match="has no feature extractor that can be read"):
        load(folder)


def test_windows_longer_than_the_extractor_are_refused(tmp_path: Path) -> None:
    folder = make_clap_bundle(tmp_path / "clap")
    change_config(folder, window_seconds=3.0)
    with pytest.raises(InputError, match="windows of 3 s, but its feature extractor takes at most"):
        load(folder)


def test_a_config_of_its_own() -> None:
    with pytest.raises(InputError, match="`window_seconds` is 0"):
        BundleConfig(model={}, sample_rate=16_000, window_seconds=0)
    with pytest.raises(InputError, match="`sample_rate` is 16"):
        BundleConfig(model={}, sample_rate=16)
