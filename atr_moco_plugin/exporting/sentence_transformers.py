"""A retriever as a model of sentence-transformers 6, for sentences and sounds.

Importing this module tells transformers of the model type ``atr_moco_plugin``, by its public
``register``. All modules of an exported folder are then sentence-transformers' own, so that
``SentenceTransformer(FOLDER)`` loads it without ``trust_remote_code``; no code is in the folder.
sentence-transformers itself is not imported here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoProcessor, PretrainedConfig, ProcessorMixin

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.atomic import new_folder
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.retriever.backbone import Backbone
from atr_moco_plugin.retriever.loading import load_backbone
from atr_moco_plugin.tensors.float32 import StaysFloat32

BUNDLE = "bundle"
"""Folder of the bundle in an exported folder."""

MODULE = "sentence_transformers.base.modules.transformer.Transformer"

_HUB = ("revision", "token", "cache_dir", "local_files_only")
_SOUNDS = (".wav", ".flac", ".mp3", ".ogg", ".aac", ".opus", ".m4a", ".aif", ".aiff", ".w64")


class RetrieverConfig(PretrainedConfig):
    """``config.json`` of an exported folder.

    Args:
        projection_dim: size d of the embeddings.
        **kwargs: of every configuration of transformers.
    """

    model_type = "atr_moco_plugin"

    def __init__(self, projection_dim: int = 256, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.projection_dim = projection_dim


class RetrieverModel(StaysFloat32):
    """A retriever with the methods that sentence-transformers' ``Transformer`` module calls.

    Sentences and recordings reach it as they were given, because a long recording is decoded and
    embedded window by window. It has no gradients: train with the recipes, then export again. Its
    weights stay float32; ``model_kwargs={"dtype": "bfloat16"}`` computes in half precision.

    Args:
        config: of the folder.
        backbone: what to compute with.
        dtype: of the computations.
    """

    config_class = RetrieverConfig

    def __init__(self, config: RetrieverConfig, backbone: Backbone, dtype: Any = "float32") -> None:
        super().__init__()
        self.config = config
        self.towers = backbone.model
        self._backbone, self._dtype = backbone, dtype
        self._retriever: AudioTextRetriever | None = None

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, config: RetrieverConfig, **options: Any
    ) -> RetrieverModel:
        """Load an exported folder, or one on the Hugging Face Hub, on the CPU.

        Args:
            name: the folder or name.
            config: its configuration.
            **options: ``dtype``, and where and how the hub is asked; others have no meaning here.

        Raises:
            InputError: as :meth:`~atr_moco_plugin.retriever.AudioTextRetriever.from_pretrained`.
        """
        folder = Path(name)
        if not folder.is_dir():
            hub = {key: options[key] for key in _HUB if key in options}
            folder = Path(snapshot_download(str(name), allow_patterns=[f"{BUNDLE}/*"], **hub))
        dtype = str(options.get("dtype") or options.get("torch_dtype") or "float32")
        dtype = dtype.removeprefix("torch.").replace("auto", "float32")
        return cls(config, load_backbone(folder / BUNDLE), dtype)

    def save_pretrained(self, folder: str | Path, **_: Any) -> None:
        """Write ``config.json`` and the bundle."""
        self.config.save_pretrained(folder)
        self._on_device().save_pretrained(Path(folder) / BUNDLE)

    def get_text_features(self, sentences: Sequence[str]) -> Tensor:
        """Embed sentences: ``[N, d]``, see
        :meth:`~atr_moco_plugin.retriever.AudioTextRetriever.embed_text`."""
        retriever = self._on_device()
        return retriever.embed_text(sentences).to(retriever.device)

    def get_audio_features(
        self, recordings: Sequence[Any], sampling_rate: int | None = None
    ) -> Tensor:
        """Embed recordings: ``[N, d]``, see
        :meth:`~atr_moco_plugin.retriever.AudioTextRetriever.embed_audio`.

        Args:
            recordings: paths, or arrays at ``sampling_rate``.
            sampling_rate: of arrays in Hz.
        """
        retriever = self._on_device()
        embeddings = retriever.embed_audio(recordings, sample_rate=sampling_rate)
        return embeddings.to(retriever.device)

    def _on_device(self) -> AudioTextRetriever:
        """The retriever where the weights are: ``SentenceTransformer`` moves them."""
        device = next(self.towers.parameters()).device
        if self._retriever is None or self._retriever.device != device:
            self._retriever = AudioTextRetriever(self._backbone, device=device, dtype=self._dtype)
        return self._retriever


class RetrieverProcessor(ProcessorMixin):
    """Hands sentences and recordings on to :class:`RetrieverModel`, and refuses what is neither.

    Tokenizing and decoding are the retriever's, so that both give the same embeddings.
    """

    attributes: list[str] = []

    def __init__(self) -> None:
        # That of ProcessorMixin wants parts.
        self.chat_template = None

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, name: str | Path, **_: Any
    ) -> RetrieverProcessor:
        """It has no files."""
        return cls()

    def save_pretrained(  # type: ignore[override]
        self, folder: str | Path, **_: Any
    ) -> None:
        """It has no files."""

    def __call__(  # type: ignore[override]
        self,
        text: Sequence[str] | None = None,
        audio: Sequence[Any] | None = None,
        audio_kwargs: dict[str, Any] | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Arguments of one of the model's methods.

        Args:
            text: sentences.
            audio: paths and arrays.
            audio_kwargs: ``sampling_rate`` of the arrays in Hz.
            **_: options of tokenizers and of other modalities.

        Raises:
            InputError: for a sentence that is the name of a sound, or an array without a rate.
        """
        if text is not None:
            for sentence in text:
                _check_sentence(sentence)
            return {"sentences": list(text)}
        rate = (audio_kwargs or {}).get("sampling_rate")
        if rate is None and not all(isinstance(x, (str, os.PathLike)) for x in audio or ()):
            raise InputError(
                "a sound that is an array does not say its sampling rate: give "
                '{"array": waveform, "sampling_rate": rate}.'
            )
        return {"recordings": list(audio or ()), "sampling_rate": rate}


def export_sentence_transformers(retriever: AudioTextRetriever, folder: str | Path) -> None:
    """Write a folder that ``SentenceTransformer(FOLDER)`` loads where this module is imported.

    It holds the bundle, and says to sentence-transformers which methods embed what.

    Args:
        retriever: of any bundle or ``ClapModel``.
        folder: not there yet, or empty.

    Raises:
        InputError: if the folder holds something, or cannot be written.
    """
    methods = {
        name: {"method": f"get_{name}_features", "method_output_name": None}
        for name in ("text", "audio")
    }
    package = version("atr-moco-plugin")
    reason = f"Import {__name__} before you load the model."
    files: dict[str, Any] = {
        "modules.json": [{"idx": 0, "name": "0", "path": "", "type": MODULE}],
        "sentence_bert_config.json": {
            "transformer_task": "feature-extraction",
            "modality_config": methods,
            "module_output_name": "sentence_embedding",
        },
        "config_sentence_transformers.json": {
            "model_type": "SentenceTransformer",
            "similarity_fn_name": "cosine",
            "requirements": {
                "sentence-transformers": ">=6,<7",
                "atr-moco-plugin": {"specifier": f">={package}", "reason": reason},
            },
        },
    }
    with new_folder(folder) as new:
        retriever.save_pretrained(new / BUNDLE)
        RetrieverConfig(projection_dim=retriever.embed_dim).save_pretrained(new)
        for name, content in files.items():
            (new / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        distance = retriever._backbone.config.distance
        text = _README.format(module=__name__) + ("" if distance is None else _OF_DISTANCE)
        (new / "README.md").write_text(text, encoding="utf-8")


def _check_sentence(sentence: str) -> None:
    if not sentence.lower().endswith(_SOUNDS) or (" " in sentence and os.sep not in sentence):
        return
    if os.path.isfile(sentence):
        raise InputError(
            f"{sentence!r} would be taken for a sentence: sentence-transformers knows sounds by "
            f'.wav, .flac, .mp3, .ogg and .aac; give {{"audio": {sentence!r}}}.'
        )
    raise InputError(f"{sentence!r} looks like the name of a sound, but there is no such file.")


_README = """---
library_name: sentence-transformers
tags: [sentence-transformers, feature-extraction, audio-text-retrieval]
---

# Sounds and sentences in one space

```python
import {module}  # pip install 'atr-moco-plugin[sentence-transformers]'
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("FOLDER")
sounds = model.encode(["dog.wav", "rain.flac"])
sentences = model.encode(["a dog barks", "rain on a roof"])
model.similarity(sentences, sounds)
```

`bundle/` is the model itself, with its card; `AudioTextRetriever.from_pretrained("FOLDER/bundle")`
gives the same embeddings.
"""

_OF_DISTANCE = """
The model ranks by a learned distance: `similarity` of a sentence and a sound goes by it, that of
two sounds or of two sentences does not.
"""

AutoConfig.register(RetrieverConfig.model_type, RetrieverConfig, exist_ok=True)
AutoModel.register(RetrieverConfig, RetrieverModel, exist_ok=True)
AutoProcessor.register(  # type: ignore[no-untyped-call]
    RetrieverConfig, RetrieverProcessor, exist_ok=True
)
