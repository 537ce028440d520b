"""What every use of a loaded model needs: loading and saving it, and what it says of itself."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.learned_distance import mean_vectors, query_vectors
from atr_moco_plugin.retriever.backbone import Backbone, min_seconds
from atr_moco_plugin.retriever.bundle import FEATURE_EXTRACTOR, TOKENIZER, write_bundle
from atr_moco_plugin.retriever.hub import push_folder
from atr_moco_plugin.retriever.kept_card import read_card
from atr_moco_plugin.retriever.loading import fingerprint_of, load_backbone
from atr_moco_plugin.retriever.runner import Runner, usable_device
from atr_moco_plugin.tensors.float32 import unit_norm

DType = Literal["float32", "bfloat16", "float16"]
ModelT = TypeVar("ModelT", bound="LoadedModel")

_ANOTHER = "{} is another model than when it was loaded: load it again, or put the first one back."


class LoadedModel:
    """A model on a device.

    Pickled, as for another process, or copied, it is its name: the copy loads the model again, and
    refuses another one that has taken its place.

    Args:
        backbone: what :meth:`from_pretrained` loads.
        device: where to compute; None takes a GPU where there is one.
        dtype: of the computations; weights and embeddings stay float32.
        batch_size: most windows, sentences or pairs at once.

    Attributes:
        name: an absolute folder or a name on the hub (with ``@revision`` where one was given);
            ``from_pretrained(name)`` loads it again.
        fingerprint: SHA-256 in hexadecimal of weights, configuration and tokenizer: the same for
            the same model on any device, in any dtype and batch size.
        sample_rate: Hz of the waveforms that the model takes.
        embed_dim: size d of the embeddings.
        window_seconds: length of a window.
        hop_seconds: from the start of a window to the start of the next.
        temperature: the trained temperature tau.
        can_match: whether there is a trained matching head.
        device: where it computes.
        batch_size: most windows, sentences or pairs at once.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        device: str | torch.device | None = None,
        dtype: DType = "float32",
        batch_size: int = 16,
    ) -> None:
        if dtype not in get_args(DType):
            raise InputError(f"`dtype` is {dtype!r}, expected one of {', '.join(get_args(DType))}")
        if batch_size < 1:
            raise InputError(f"`batch_size` is {batch_size}, expected 1 or more")
        config = backbone.config
        self.name = backbone.name
        self.fingerprint = backbone.fingerprint
        self.sample_rate = config.sample_rate
        self.window_seconds = config.window_seconds
        self.hop_seconds = config.hop_seconds
        self.temperature = config.temperature
        self.can_match = config.score is not None
        self.embed_dim = backbone.model.embed_dim
        self.device = usable_device(device)
        self.batch_size = batch_size
        self._backbone = backbone
        self._dtype = dtype
        self._runner = Runner(backbone, self.device, getattr(torch, dtype))
        self._size = max(1, round(config.window_seconds * config.sample_rate))
        self._least = round(min_seconds(backbone.model) * config.sample_rate)
        self._hop = max(1, round(config.hop_seconds * config.sample_rate))

    def __reduce__(self) -> tuple[Any, ...]:
        place = (self.name, self.fingerprint, str(self.device), self._dtype, self.batch_size)
        return _loaded_again, (type(self), *place)

    @classmethod
    def from_pretrained(
        cls: type[ModelT],
        name: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: DType = "float32",
        batch_size: int = 16,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> ModelT:
        """Load a bundle or a public ``ClapModel``.

        Args:
            name: a folder, or a name on the Hugging Face Hub, perhaps with ``@revision``.
            device: such as ``cpu`` or ``cuda:0``; None takes a GPU where there is one.
            dtype: of the computations.
            batch_size: most windows, sentences or pairs at once.
            revision: branch, tag or commit on the hub.
            local_files_only: take what the hub's cache has and ask no network.

        Raises:
            InputError: if it is not there, damaged, of another kind or needs a package that is not
                installed.
        """
        backbone = load_backbone(name, revision=revision, local_files_only=local_files_only)
        return cls(backbone, device=device, dtype=dtype, batch_size=batch_size)

    def mean_embeddings(self, sums: Tensor) -> Tensor:
        """The embeddings of what has several, such as the windows of a recording.

        Args:
            sums: ``[N, d]``, each of one or more embeddings of one side.

        Returns:
            ``[N, d]`` float32, unit-norm: the direction of the sums; with a learned distance see
            :func:`~atr_moco_plugin.learned_distance.mean_vectors`.
        """
        return unit_norm(sums) if self._backbone.config.distance is None else mean_vectors(sums)

    def query_embeddings(self, embeddings: Tensor) -> Tensor:
        """``[N, d]``, what an index of sounds is searched with, by sentences or by sounds: the
        embeddings, or with a learned distance what
        :func:`~atr_moco_plugin.learned_distance.query_vectors` makes of them."""
        plain = self._backbone.config.distance is None
        return embeddings if plain else query_vectors(embeddings)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a bundle, see :func:`~atr_moco_plugin.retriever.write_bundle`.

        Args:
            folder: made where it does not exist.

        Raises:
            InputError: if it holds something else, or cannot be written.
        """
        backbone = self._backbone
        here = backbone.folder  # from where tokenizer and card are copied
        if fingerprint_of(here) != self.fingerprint:
            raise InputError(_ANOTHER.format(self.name))
        tokenizer = here / TOKENIZER
        extractor = here / FEATURE_EXTRACTOR
        write_bundle(
            folder,
            backbone.config,
            backbone.model,
            tokenizer if tokenizer.is_dir() else backbone.tokenizer,
            extractor if extractor.is_dir() else backbone.feature_extractor,
            read_card(here),
        )

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, token: str | None = None
    ) -> str:
        """Upload a bundle to the Hugging Face Hub; the repository is made where it is not there.

        Args:
            repo_id: such as ``user/name``.
            private: whether a new repository is; None takes the account's default.
            token: of an account; None takes the one that ``hf auth login`` has saved.

        Returns:
            The address of the commit.

        Raises:
            InputError: if the hub cannot be reached or refuses.
        """
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder) / "bundle"
            self.save_pretrained(bundle)
            return push_folder(bundle, repo_id, private=private, token=token)


def same_again(model: LoadedModel) -> Backbone:
    """Load a model once more from its folder, as what changes its parts needs.

    Raises:
        InputError: if another model has taken its place meanwhile.
    """
    backbone = load_backbone(model._backbone.folder)
    if backbone.fingerprint != model.fingerprint:
        raise InputError(_ANOTHER.format(model.name))
    return backbone


def _loaded_again(
    kind: type[ModelT], name: str, fingerprint: str, device: str, dtype: DType, batch_size: int
) -> ModelT:
    model = kind.from_pretrained(name, device=device, dtype=dtype, batch_size=batch_size)
    if model.fingerprint != fingerprint:
        raise InputError(f"{name} is another model than the one that was pickled or copied.")
    return model
