"""Where a fine-tuning starts, as far as it was looked at, and the model that is built of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.finetuning.parts import PARTS, merged
from atr_moco_plugin.model import RetrievalModel, build_model, model_config
from atr_moco_plugin.model.adapters import merged_state
from atr_moco_plugin.text.tokenizer import load_tokenizer_for

Kind = Literal["random", "checkpoint", "bundle", "run", "clap"]

_CLAP_OPTIONS = ("freeze", "adapter")
"""Options that the towers of a ``ClapModel`` have."""


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
    _load: Callable[[], Weights] | None = field(default=None, repr=False, compare=False)

    @property
    def place(self) -> Path | None:
        """Where it lies on this machine, if it does."""
        path = Path(self.name)
        return path if path.is_absolute() else None

    def with_options(self, options: Mapping[str, Any]) -> Start:
        """The same start with further options of ``model.config_overrides``.

        Raises:
            InputError: for options that a ``ClapModel`` does not have.
        """
        if self.kind == "clap":
            check_clap_options(self.name, options)
        return replace(self, model=merged(self.model, options))

    def unfrozen(self) -> Start:
        """The same start with nothing frozen or adapted, to be measured."""
        options = {part: {"freeze": "none", "adapter": None} for part in PARTS}
        return replace(self, model=merged(self.model, options))

    def part(self, name: str) -> dict[str, Any]:
        """Options of ``audio`` or ``text``: ``name``, ``config``, ``freeze`` and ``adapter``, as
        far as they are set."""
        return dict(self.model.get(name) or {})

    def build(self) -> Started:
        """Build the model with its weights, and freeze and adapt what the options say. Of a
        ``clap`` that is left to the host.

        Raises:
            InputError: if files are missing or damaged, or the options change a model whose weights
                are given.
        """
        loaded = Weights() if self._load is None else self._load()
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
class Weights:
    """What was read for a start: a state, or a ``ClapModel`` with its towers."""

    state: Mapping[str, Tensor] = field(default_factory=dict)
    tokenizer: Any = None
    model: RetrievalModel | None = None
    clap: Any = None
    feature_extractor: Any = None


def check_clap_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a ``ClapModel`` does not have.

    Raises:
        InputError: naming the first one.
    """
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


def _fill(model: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Give a model the weights of a start, as long as the options have left it what it was."""
    own = merged_state(model.state_dict())  # new adapters take the plain weights beside them
    wrong = sorted(own.keys() ^ state.keys())
    wrong += [x for x in own if x in state and own[x].shape != state[x].shape]
    if wrong:
        raise InputError(
            f"`model.config_overrides` makes another model than the one in {name} ({wrong[0]}, "
            f"{len(wrong)} weights in all): leave out what changes sizes or parts."
        )
    model.load_state_dict(dict(state))
