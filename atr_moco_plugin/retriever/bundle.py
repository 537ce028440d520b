"""The bundle: a folder with all that a trained model needs to be used.

``config.json``, ``model.safetensors``, ``tokenizer/``, perhaps ``feature_extractor/``, and a model
card ``README.md``. This file knows the names in it, and checks what it reads.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from atr_moco_plugin.config import Config, in_range
from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.errors import InputError, MissingFileError, listed
from atr_moco_plugin.io.atomic import is_empty_folder, new_file, new_folder
from atr_moco_plugin.model import RetrievalModelConfig
from atr_moco_plugin.plugins import available, owner
from atr_moco_plugin.retriever.identity import digests, model_fingerprint
from atr_moco_plugin.retriever.kept_card import CARD, keep_card, old_cards
from atr_moco_plugin.sample_rate import RATES

FORMAT = 1
"""Of the folder, raised where an older version of this package could not read it."""

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer"
FEATURE_EXTRACTOR = "feature_extractor"

_OF_OTHERS = (".DS_Store", ".gitattributes", ".cache")
"""What a system and the hub leave in a folder, and nobody misses."""

PARTS = {"audio": "audio_encoders", "text": "text_encoders", "head": "heads"}
"""A part in the configuration of a model, and the group of its name."""


@dataclass(kw_only=True)
class BundleConfig(Config):
    """What ``config.json`` of a bundle says."""

    format: int = FORMAT
    """Of the folder."""

    kind: Literal["retrieval", "clap"] = "retrieval"
    """``retrieval``: parts by the names of their entry points. ``clap``: a ``ClapModel``."""

    model: dict[str, Any]
    """Of ``retrieval``, a :class:`~atr_moco_plugin.model.RetrievalModelConfig` as a mapping,
    without the places of pretrained weights. Of ``clap``, ``clap`` with a ``ClapConfig`` and
    ``head`` with a :class:`~atr_moco_plugin.heads.fusion.FusionHeadConfig` or None."""

    sample_rate: int
    """Hz of the waveforms."""

    window_seconds: float = 10.0
    """Longest waveform that is encoded at once; longer recordings are cut into windows."""

    hop_seconds: float = 10.0
    """From the start of a window to the start of the next."""

    max_tokens: int = 64
    """Longer sentences are cut to this many tokens, special ones included."""

    temperature: float = 0.07
    """The trained temperature tau."""

    score: Literal["log_odds + cosine / temperature"] | None = None
    """How the matching head's log-odds and the cosine make the score of a re-ranking; None where
    the head was not trained, or there is none."""

    distance: Literal["diagonal", "full"] | None = None
    """Of a model whose criterion has learned a distance D by weights of dimensions, or by a whole
    matrix: its towers end in a layer that makes ``-D^2``, scaled, the cosine. See
    :mod:`atr_moco_plugin.learned_distance`. None, and not in the file, where there is none."""

    packages: dict[str, str] = field(default_factory=dict)
    """``group/name`` of each part to the package and version that published it."""

    origin: dict[str, Any] = field(default_factory=dict)
    """Where it comes from: run, step, criterion, seed, data, versions, and the digest of the
    card, by which one that a user has changed is known. Nothing else is read back."""

    files: dict[str, str] | None = None
    """SHA-256 in hexadecimal of the files beside, by their paths: an interrupted copy over an older
    bundle leaves files of both. None, and not in the file, in bundles of before."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("window_seconds", "hop_seconds", "temperature"):  # 5 is 5.0 to a fingerprint
            setattr(self, name, float(getattr(self, name)))

    def problems(self) -> Iterator[str]:
        if self.format != FORMAT:
            yield f"`format` is {self.format}, expected {FORMAT}; take a newer atr-moco-plugin."
        yield from in_range(self, "sample_rate", least=RATES[0], most=RATES[1])
        yield from in_range(self, "window_seconds", "temperature", above=0)
        yield from in_range(self, "hop_seconds", above=0, most=self.window_seconds)
        yield from in_range(self, "max_tokens", least=1)


class Bundle(NamedTuple):
    """What :func:`read_bundle` has read.

    Attributes:
        folder: the folder.
        config: its ``config.json``.
        state: its ``model.safetensors``, tensors on the CPU by name.
    """

    folder: Path
    config: BundleConfig
    state: dict[str, Tensor]


def packages_of(config: RetrievalModelConfig) -> dict[str, str]:
    """``group/name`` of the parts of a model to the packages that publish them here."""
    found = {}
    for part, group in PARTS.items():
        name = getattr(config, part).name
        if (point := available(group).get(name)) is not None:
            found[f"{group}/{name}"] = owner(point)
    return found


def write_bundle(
    folder: str | Path,
    config: BundleConfig,
    model: nn.Module,
    tokenizer: Any,
    feature_extractor: Any = None,
    card: str = "",
) -> None:
    """Write a bundle; it is there whole or not at all.

    Args:
        folder: made where it does not exist; an older bundle there is replaced.
        config: what ``config.json`` will say.
        model: towers and head; its ``state_dict`` is written.
        tokenizer: of transformers, or a folder that has one.
        feature_extractor: of transformers, or a folder that has one, where the model needs it.
        card: text of ``README.md``, if any. One there that is not as the package wrote it becomes
            ``README.old.md``, with a warning.

    Raises:
        InputError: if the folder holds something else than a bundle, or cannot be written.
    """
    folder = Path(folder).expanduser().absolute()
    if folder.exists() and not is_bundle(folder) and not is_empty_folder(folder):
        raise InputError(
            f"{folder} is there already and is no bundle: give another folder or remove it."
        )
    parts = {CONFIG, WEIGHTS, TOKENIZER, FEATURE_EXTRACTOR, CARD, *_OF_OTHERS}
    parts |= {x.name for x in old_cards(folder)}
    if folder.exists() and (others := sorted({x.name for x in folder.iterdir()} - parts)):
        raise InputError(
            f"{folder} has more in it than a bundle, {listed(others)}, which would be lost: move "
            "that away, or give another folder."
        )
    with new_folder(folder, replace=True) as new:
        with new_file(new / WEIGHTS) as weights:
            save_file(_plain(model.state_dict()), weights, {"format": "pt"})
        save_part(tokenizer, new / TOKENIZER)
        if feature_extractor is not None:
            save_part(feature_extractor, new / FEATURE_EXTRACTOR)
        if card:
            (new / CARD).write_text(card, encoding="utf-8")
        keep_card(folder, new, card)
        described = _content(replace(config, files=digests(_hashed(new))))
        text = json.dumps(described, indent=2, ensure_ascii=False)
        (new / CONFIG).write_text(text + "\n", encoding="utf-8")


def read_bundle(folder: str | Path) -> Bundle:
    """Read a bundle's configuration and weights, without running code from it.

    Raises:
        InputError: for a folder that is no bundle, or a file that is missing, damaged or says
            something impossible.
    """
    folder = Path(folder)
    config = read_config(folder)
    for name in (WEIGHTS, TOKENIZER):
        if not (folder / name).exists():
            raise MissingFileError(
                f"The bundle {folder} has no {name}: export it again, or copy the whole folder."
            )
    try:
        state = load_file(folder / WEIGHTS)
    except Exception as ex:  # a damaged file raises nearly anything
        raise InputError(
            f"{folder / WEIGHTS} is half-written or damaged ({type(ex).__name__}): export the "
            "bundle again, or copy it again."
        ) from ex
    return Bundle(folder, config, state)


def read_config(folder: Path) -> BundleConfig:
    """The configuration of a bundle.

    Raises:
        InputError: for a folder that is no bundle, or a configuration that cannot be used.
    """
    file = folder / CONFIG
    content = read_json(file)
    if "format" not in content or "kind" not in content:
        raise InputError(f"{file} is not that of a bundle: it has no `format` and `kind`.")
    if content["format"] != FORMAT:
        raise InputError(
            f"{file} has format {content['format']!r}, but this version reads format {FORMAT}: "
            "install a newer atr-moco-plugin, or export the bundle again."
        )
    try:
        return build_config(BundleConfig, content, "config")
    except InputError as ex:
        raise InputError(f"{file}: {ex}") from ex


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        InputError: if it is missing or no JSON object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as ex:
        raise MissingFileError(
            f"{file} is missing: give the folder of a bundle or of a ClapModel."
        ) from ex
    except (OSError, ValueError, RecursionError) as ex:
        raise InputError(f"{file} cannot be read as JSON ({type(ex).__name__}).") from ex
    if not isinstance(content, dict):
        raise InputError(f"{file} must hold a JSON object.")
    return content


def is_bundle(folder: Path) -> bool:
    """Whether a folder has a ``config.json`` as a bundle has it."""
    try:
        return {"format", "kind"} <= read_json(folder / CONFIG).keys()
    except InputError:
        return False


def bundle_fingerprint(folder: Path, config: BundleConfig) -> str:
    """The fingerprint of a bundle: the same wherever its folder is, whatever its card says.

    Raises:
        InputError: where a file is not the one that the bundle was written with.
    """
    content = _content(config)
    relevant = {k: v for k, v in content.items() if k not in ("packages", "origin", "files")}
    found, written = digests(_hashed(folder)), config.files
    if written is not None and found != written:
        names = (x for x in {**written, **found} if written.get(x) != found.get(x))
        raise InputError(
            f"{folder} has other files than those it was written with, {listed([*names])}, "
            "as after a copy that was interrupted: copy the whole folder again, or export anew."
        )
    return model_fingerprint(relevant, found)


def _hashed(folder: Path) -> dict[str, Path]:
    """What the embeddings of a bundle depend on, beside ``config.json``."""
    places = (WEIGHTS, TOKENIZER, FEATURE_EXTRACTOR)
    return {name: folder / name for name in places if (folder / name).exists()}


def _content(config: BundleConfig) -> dict[str, Any]:
    """A configuration as earlier versions wrote it, so that their fingerprints stay, where it says
    nothing that they did not know."""
    content = asdict(config)
    for name in ("distance", "files"):
        if content[name] is None:
            del content[name]
    return content


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share no memory, which safetensors refuses."""
    return {name: x.detach().cpu().contiguous().clone() for name, x in state.items()}


def save_part(part: Any, folder: Path) -> None:
    """Write a tokenizer or a feature extractor of transformers, or copy the folder of one."""
    if isinstance(part, (str, Path)):
        shutil.copytree(part, folder)
        return
    if getattr(part, "is_fast", False):  # what its last call has set would be saved with it
        part.backend_tokenizer.no_truncation()
        part.backend_tokenizer.no_padding()
    part.save_pretrained(folder)
