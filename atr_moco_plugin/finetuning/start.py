"""What a fine-tuning starts from: ``init`` becomes a model, a tokenizer, and what is known of both.

For example::

    start = find_start("models/audiocaps")          # a bundle
    start = find_start("BEATs_iter3_plus_AS2M.pt")  # an audio encoder, beside a pretrained MiniLM
    start = find_start("random", arch="small")
    started = start.with_options({"audio": {"freeze": "all"}}).build()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor, nn

from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.finetuning.parts import (
    PARTS,
    checkpoint_parts,
    is_pretrained,
    merged,
    named_parts,
    tokenizer_of,
)
from atr_moco_plugin.io.paths import expanded
from atr_moco_plugin.model import RetrievalModel, build_model, model_config
from atr_moco_plugin.retriever.bundle import (
    CONFIG,
    TOKENIZER,
    BundleConfig,
    is_bundle,
    read_bundle,
    read_config,
    read_json,
)
from atr_moco_plugin.retriever.clap import bundled_clap, public_clap_parts
from atr_moco_plugin.retriever.exported import Exported, ExportOptions
from atr_moco_plugin.retriever.loading import find_model
from atr_moco_plugin.retriever.runs import export_run, made_by
from atr_moco_plugin.text.tokenizer import load_tokenizer_for

Kind = Literal["random", "checkpoint", "bundle", "run", "clap"]

_HUB = "hf://"
_WEIGHTS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
_CLAP_OPTIONS = ("freeze", "adapter")


@dataclass(frozen=True)
class Started:
    """A model to train, with what reads its inputs.

    Attributes:
        model: towers and head, trainable but for what is frozen, in training mode.
        tokenizer: of transformers; ``None`` where one is trained on the captions.
        clap: the ``ClapModel`` whose modules the towers are, where it is one.
        feature_extractor: of that model.
    """

    model: RetrievalModel
    tokenizer: Any = None
    clap: Any = None
    feature_extractor: Any = None


@dataclass(frozen=True)
class Start:
    """Where a fine-tuning starts.

    Attributes:
        kind: what ``init`` is: ``random`` parts, the ``checkpoint`` of an audio encoder, a
            ``bundle``, a training ``run``, or a ``clap``, which is a ``ClapModel`` or a bundle of
            one.
        name: ``init``, a place of this machine as an absolute path.
        model: a :class:`~atr_moco_plugin.model.RetrievalModelConfig` as a mapping, with the user's
            options. Of a ``clap``, the options ``freeze`` and ``adapter`` of its towers alone.
        tokenizer: a folder or a name; ``None`` where one is trained on the captions, or for a
            ``run``, which brings its own.
        pretrained: ``audio`` and ``text`` to whether their weights come from an earlier training.
        together: whether the two encoders were trained together.
        head_trained: whether there is a matching head that was trained.
        matches: whether there is a matching head at all.
        window_seconds: the longest clip that it was trained for; ``None`` where it says none.
        max_tokens: the longest caption, likewise.
        temperature: the trained temperature, likewise.
    """

    kind: Kind
    name: str
    model: dict[str, Any]
    tokenizer: str | None = None
    pretrained: Mapping[str, bool] = field(default_factory=lambda: dict.fromkeys(PARTS, False))
    together: bool = False
    head_trained: bool = False
    matches: bool = True
    window_seconds: float | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    _load: Callable[[], _Weights] | None = field(default=None, repr=False, compare=False)

    def with_options(self, options: Mapping[str, Any]) -> Start:
        """The same start with further options of ``model.config_overrides``.

        Raises:
            InputError: for options that a ``ClapModel`` does not have.
        """
        if self.kind == "clap":
            _check_clap_options(self.name, options)
        return replace(self, model=merged(self.model, options))

    def part(self, name: str) -> dict[str, Any]:
        """Options of ``audio`` or ``text``: ``name``, ``config``, ``freeze`` and ``adapter``, as
        far as they are set."""
        return dict(self.model.get(name) or {})

    def build(self) -> Started:
        """Build the model with its weights, and freeze what the options freeze.

        Raises:
            InputError: if files are missing or damaged, or the options change a model whose weights
                are given.
        """
        loaded = _Weights() if self._load is None else self._load()
        if loaded.clap is not None and loaded.model is not None:
            model = loaded.model.requires_grad_(True).train()
            return Started(model, loaded.tokenizer, loaded.clap, loaded.feature_extractor)
        config = model_config(self.model)
        if self._load is None:
            model = build_model(config)
        else:
            with torch.random.fork_rng([]):  # random weights are drawn, and replaced
                model = build_model(config)
            _fill(model, loaded.state, self.name)
        encoder: Any = model.text.encoder
        name = self.tokenizer or getattr(encoder, "tokenizer_source", None)
        tokenizer = loaded.tokenizer
        if tokenizer is None and name is not None:
            tokenizer = load_tokenizer_for(encoder, name)
        return Started(model, tokenizer)


@dataclass(frozen=True)
class _Weights:
    """What was read for a start: a state, or a ``ClapModel`` with its towers."""

    state: Mapping[str, Tensor] = field(default_factory=dict)
    tokenizer: Any = None
    model: RetrievalModel | None = None
    clap: Any = None
    feature_extractor: Any = None


def find_start(
    init: str | Path,
    *,
    arch: str | None = None,
    options: Mapping[str, Any] | None = None,
    local_files_only: bool = False,
) -> Start:
    """See what ``init`` is. Weights are read when the model is built, but for those of a run.

    Args:
        init: ``random``; a bundle (folder, or name on the Hugging Face Hub); a training run of
            any host or one of its checkpoints; a BEATs or OpenBEATs checkpoint (file, folder, or
            ``hf://OWNER/REPO/FILE``); or a ``ClapModel`` (folder or name).
        arch: of ``random``: ``toy``, ``small`` or ``base``; ``None`` takes ``small``.
        options: those of ``model.config_overrides``, in front of what ``init`` says.
        local_files_only: take what the hub's cache has and ask no network.

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
    folder, name = find_model(init, local_files_only=local_files_only)
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
    if exported.config.kind == "clap":
        return _clap(name, options, exported.config, lambda: _exported_clap(exported))
    weights = _Weights(exported.model.state_dict(), exported.tokenizer)
    return _trained("run", name, exported.config, None, options, weights)


def _bundle(folder: Path, name: str, options: dict[str, Any]) -> Start:
    config = read_config(folder)
    if config.kind == "clap":
        return _clap(name, options, config, lambda: _bundled_clap(folder))
    tokenizer = str(folder / TOKENIZER)
    start = _trained("bundle", name, config, tokenizer, options, None)
    return replace(start, _load=lambda: _Weights(read_bundle(folder).state))


def _trained(
    kind: Kind,
    name: str,
    config: BundleConfig,
    tokenizer: str | None,
    options: dict[str, Any],
    weights: _Weights | None,
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
        temperature=config.temperature,
        _load=None if weights is None else lambda: weights,
    )


def _clap(
    name: str,
    options: dict[str, Any],
    config: BundleConfig | None,
    load: Callable[[], _Weights],
) -> Start:
    _check_clap_options(name, options)
    return Start(
        "clap",
        name,
        options,
        pretrained=dict.fromkeys(PARTS, True),
        together=True,
        head_trained=config is not None and config.score is not None,
        matches=True,
        window_seconds=None if config is None else config.window_seconds,
        max_tokens=None if config is None else config.max_tokens,
        temperature=None if config is None else config.temperature,
        _load=load,
    )


def _public_clap(folder: Path, name: str) -> _Weights:
    parts = public_clap_parts(folder, name)
    return _Weights({}, parts.tokenizer, parts.pair, parts.clap, parts.extractor)


def _bundled_clap(folder: Path) -> _Weights:
    parts = bundled_clap(read_bundle(folder))
    return _Weights({}, parts.tokenizer, parts.pair, parts.clap, parts.extractor)


def _exported_clap(exported: Exported) -> _Weights:
    with TemporaryDirectory(prefix="atr-moco-") as folder:
        exported.write(Path(folder) / "bundle")
        return _bundled_clap(Path(folder) / "bundle")


def _check_clap_options(name: str, options: Mapping[str, Any]) -> None:
    for key, value in options.items():
        inner = value if key in PARTS and isinstance(value, Mapping) else {"": None}
        for option in inner:
            if option not in _CLAP_OPTIONS:
                shown = f"{key}.{option}" if option else key
                raise InputError(
                    f"`model.config_overrides.{shown}` is given, but `init` is {name}, a "
                    "ClapModel, which takes audio.freeze, text.freeze and adapters alone: leave "
                    "it out."
                )


def _openbeats(path: Path) -> bool:
    """Whether a folder has weights beside a YAML configuration and is no run: ESPnet's layout."""
    if not path.is_dir() or any((path / x).exists() for x in (CONFIG, "checkpoints", "model.json")):
        return False
    names = [file.suffix.lower() for file in path.iterdir() if file.is_file()]
    return bool({".pt", ".pth"} & set(names)) and bool({".yaml", ".yml"} & set(names))


def _fill(model: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Give a model the weights of a start, as long as the options have left it what it was."""
    own = model.state_dict()
    wrong = sorted(own.keys() ^ state.keys())
    wrong += [x for x in own if x in state and own[x].shape != state[x].shape]
    if wrong:
        raise InputError(
            f"`model.config_overrides` makes another model than the one in {name} ({wrong[0]}, "
            f"{len(wrong)} weights in all): leave out what changes sizes or parts."
        )
    model.load_state_dict(dict(state))
