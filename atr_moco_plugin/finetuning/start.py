"""What a fine-tuning starts from: ``init`` becomes a model, a tokenizer, and what is known of both.

For example::

    start = find_start("models/audiocaps")          # a bundle
    start = find_start("BEATs_iter3_plus_AS2M.pt")  # an audio encoder, beside a pretrained MiniLM
    start = find_start("random", arch="small")
    started = start.with_options({"audio": {"freeze": "all"}}).build()
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.finetuning.parts import (
    PARTS,
    checkpoint_parts,
    is_pretrained,
    merged,
    named_parts,
    tokenizer_of,
)
from atr_moco_plugin.finetuning.starting_point import (
    Kind,
    Start,
    Started,
    Weights,
    check_clap_options,
)
from atr_moco_plugin.io.paths import expanded
from atr_moco_plugin.learned_distance import distance_kind
from atr_moco_plugin.retriever.bundle import (
    CONFIG,
    TOKENIZER,
    BundleConfig,
    is_bundle,
    read_bundle,
    read_config,
    read_json,
)
from atr_moco_plugin.retriever.clap import bundled_clap, clap_pair, public_clap_parts
from atr_moco_plugin.retriever.exported import Exported, ExportOptions
from atr_moco_plugin.retriever.loading import find_model
from atr_moco_plugin.retriever.runs import export_run, made_by

_HUB = "hf://"
_WEIGHTS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")


def find_start(
    init: str | Path,
    *,
    arch: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Start:
    """See what ``init`` is. Weights are read when the model is built, but for those of a run.

    Args:
        init: ``random``; a bundle (folder, or name on the Hugging Face Hub); a training run of
            any host or one of its checkpoints; a BEATs or OpenBEATs checkpoint (file, folder, or
            ``hf://OWNER/REPO/FILE``); or a ``ClapModel`` (folder or name).
        arch: of ``random``: ``toy``, ``small`` or ``base``; ``None`` takes ``small``.
        options: those of ``model.config_overrides``, in front of what ``init`` says.

    Raises:
        InputError: if ``init`` is nothing of that kind, or options do not go with it.
    """
    options = dict(options or {})
    text = str(init)
    if text == "random":
        return _random(arch or "small", options)
    if arch is not None:
        raise InputError(
            f"`model.arch` is {arch}, but `init` is {text}, which brings its own architecture: "
            "leave `model.arch` out, or set `init` to random."
        )
    path = Path(text) if text.startswith(_HUB) else expanded(text, "init")
    if text.startswith(_HUB) or (path.is_file() and path.suffix in _WEIGHTS) or _openbeats(path):
        return _checkpoint(text if text.startswith(_HUB) else str(path.resolve()), options)
    if path.is_file():
        raise InputError(
            f"`init` is the file {text}, but a checkpoint of BEATs ends in {', '.join(_WEIGHTS)}: "
            "give one, or the folder of a bundle, of a run or of a ClapModel."
        )
    if not path.exists() and (path.is_absolute() or text.startswith((".", "~")) or "/" not in text):
        raise MissingFileError(
            f"`init` is {text!r}, but there is no such file or folder: give a bundle, a run, a "
            "BEATs checkpoint, a ClapModel (OWNER/NAME on the Hugging Face Hub), or random."
        )
    maker = made_by(path) if path.is_dir() else None
    if maker is not None:
        return _run(path, export_run(path, maker, ExportOptions()), options)
    folder, name = find_model(init)
    if is_bundle(folder):
        return _bundle(folder, name, options)
    if read_json(folder / CONFIG).get("model_type") == "clap":
        return _clap(name, options, None, lambda: _public_clap(folder, name))
    raise InputError(
        f"`init` is {text}, which is neither a bundle nor a ClapModel: an encoder of transformers "
        "goes with `init=random` and `model.config_overrides.audio.name=hf_audio` or "
        "`.text.name=hf_text`."
    )


def _random(arch: str, options: dict[str, Any]) -> Start:
    model = named_parts(arch, options)
    return Start(
        "random",
        "random",
        model,
        tokenizer_of(model),
        pretrained={part: is_pretrained(part, model) for part in PARTS},
    )


def _checkpoint(place: str, options: dict[str, Any]) -> Start:
    model = checkpoint_parts(place, options)
    return Start(
        "checkpoint",
        place,
        model,
        tokenizer_of(model),
        pretrained={part: is_pretrained(part, model) for part in PARTS},
    )


def _run(path: Path, exported: Exported, options: dict[str, Any]) -> Start:
    name = str(path.resolve())
    config = exported.config
    if exported.factor is not None:  # the bundle of the run would say so
        config = replace(config, distance=distance_kind(exported.factor))
    if config.kind == "clap":
        return _clap(name, options, config, lambda: _exported_clap(exported))
    weights = Weights(exported.model.state_dict(), exported.tokenizer)
    return _trained("run", name, config, None, options, weights)


def _bundle(folder: Path, name: str, options: dict[str, Any]) -> Start:
    config = read_config(folder)
    if config.kind == "clap":
        return _clap(name, options, config, lambda: _bundled_clap(folder))
    tokenizer = str(folder / TOKENIZER)
    start = _trained("bundle", name, config, tokenizer, options, None)
    return replace(start, _load=lambda: Weights(_without_distance(read_bundle(folder).state)))


def _trained(
    kind: Kind,
    name: str,
    config: BundleConfig,
    tokenizer: str | None,
    options: dict[str, Any],
    weights: Weights | None,
) -> Start:
    """A start of a retrieval model that was trained."""
    for part in (*PARTS, "head"):
        own = config.model[part]["name"]
        if (options.get(part) or {}).get("name", own) != own:
            raise InputError(
                f"`model.config_overrides.{part}.name` is {options[part]['name']!r}, but `init` is "
                f"{name}, whose weights are of {own!r}: leave it out, or start from other weights."
            )
    return Start(
        kind,
        name,
        merged(config.model, options),
        tokenizer,
        pretrained=dict.fromkeys(PARTS, True),
        together=True,
        head_trained=config.score is not None,
        window_seconds=config.window_seconds,
        max_tokens=config.max_tokens,
        temperature=_temperature(name, config),
        _load=None if weights is None else lambda: weights,
    )


def _clap(
    name: str,
    options: dict[str, Any],
    config: BundleConfig | None,
    load: Callable[[], Weights],
) -> Start:
    check_clap_options(name, options)
    return Start(
        "clap",
        name,
        options,
        pretrained=dict.fromkeys(PARTS, True),
        together=True,
        head_trained=config is not None and config.score is not None and not _of_laion_clap(config),
        matches=True,
        window_seconds=None if config is None else config.window_seconds,
        max_tokens=None if config is None else config.max_tokens,
        temperature=None if config is None else _temperature(name, config),
        _load=load,
    )


def _public_clap(folder: Path, name: str) -> Weights:
    parts = public_clap_parts(folder, name)
    return Weights({}, parts.tokenizer, parts.pair, parts.clap, parts.extractor)


def _bundled_clap(folder: Path) -> Weights:
    bundle = read_bundle(folder)
    parts = bundled_clap(bundle)
    pair = parts.pair
    if bundle.config.distance is not None:
        pair.rank_by_cosine()
    if _of_laion_clap(bundle.config):
        pair = clap_pair(parts.clap, None)
        if parts.pair.head is not None:
            warnings.warn(
                f"{folder}: the matching head of this bundle of LAION-CLAP sees one token a "
                "moment, and that of a fine-tuning one a place of the map, so that it is left "
                "behind; a criterion that matches starts with a new one",
                stacklevel=2,
            )
    return Weights({}, parts.tokenizer, pair, parts.clap, parts.extractor)


def _temperature(name: str, config: BundleConfig) -> float | None:
    """The trained temperature of cosines, which a model of a learned distance does not have."""
    if config.distance is None:
        return config.temperature
    warnings.warn(
        f"{name} ranks by a learned distance, which is left behind: the fine-tuning starts with "
        "its embeddings and their cosine, or with equal weights where it learns a distance again.",
        stacklevel=5,
    )
    return None


def _without_distance(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    layers = tuple(f"{part}.distance." for part in PARTS)
    return {name: x for name, x in state.items() if not name.startswith(layers)}


def _of_laion_clap(config: BundleConfig) -> bool:
    return config.model.get("mean_frequencies") is True


def _exported_clap(exported: Exported) -> Weights:
    with TemporaryDirectory(prefix="atr-moco-") as folder:
        exported.write(Path(folder) / "bundle")
        return _bundled_clap(Path(folder) / "bundle")


def _openbeats(path: Path) -> bool:
    """Whether a folder is ESPnet's, which has weights beside a ``config.yaml``, perhaps deep in it,
    and no run or model of another kind."""
    others = (CONFIG, "checkpoints", "model.json", "trainer_state.json")
    if not path.is_dir() or any((path / x).exists() for x in others):
        return False
    if any(path.glob("checkpoint-*")) or (path / "model").is_dir():
        return False
    weights = any(True for suffix in _WEIGHTS for _ in path.rglob(f"*{suffix}"))
    return weights and any(True for _ in path.rglob("config.yaml"))


__all__ = ["Start", "Started", "find_start"]
