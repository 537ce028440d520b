"""The ``README.md`` of a folder of ONNX files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TEXT = """# Two towers in ONNX

`audio.onnx` and `text.onnx` embed sounds and sentences in one space of {embed_dim} dimensions: unit
vectors, whose product says how well a sentence describes a sound. `config.json` has the names and
shapes of the inputs. onnxruntime's embeddings were compared with the model's and differ by
{difference:.0e} at most.

```python
{example}
```

* Audio is mono float32 within [-1, 1] at {sample_rate} Hz. Of another rate, resample it first.
* Embed at most {window_seconds:g} s at once. Of a longer recording take windows, every
  {hop_seconds:g} s one and the last one at the end; {mean}
* Sentences are cut to {max_tokens} tokens.
{more}"""

_TOKENS = """\
tokenizer = Tokenizer.from_file("tokenizer/tokenizer.json")
tokenizer.enable_truncation({max_tokens})
tokenizer.enable_padding(pad_id={pad_id})
found = tokenizer.encode_batch(["a dog barks", "rain falls on a tin roof"])
ids, mask = np.array([x.ids for x in found]), np.array([x.attention_mask for x in found])
sentences = text.run(None, {{"input_ids": ids, "attention_mask": mask}})[0]
print(sentences @ sound.T)"""

_WAVEFORMS = """\
import numpy as np, onnxruntime, soundfile
from tokenizers import Tokenizer
audio, text = (onnxruntime.InferenceSession(f"{{x}}.onnx") for x in ("audio", "text"))
waveform, rate = soundfile.read("sound.wav", dtype="float32")  # mono, {sample_rate} Hz
lengths = np.array([len(waveform)])
sound = audio.run(None, {{"waveforms": waveform[None], "lengths": lengths}})[0]
"""

_CLAP = """\
import numpy as np, onnxruntime, soundfile
from tokenizers import Tokenizer
from transformers import ClapFeatureExtractor
audio, text = (onnxruntime.InferenceSession(f"{{x}}.onnx") for x in ("audio", "text"))
extractor = ClapFeatureExtractor.from_pretrained("feature_extractor")
waveform, rate = soundfile.read("sound.wav", dtype="float32")  # mono, {sample_rate} Hz
features = extractor(waveform, sampling_rate=rate, return_tensors="np")["input_features"]
sound = audio.run(None, {{"input_features": features}})[0]
"""

_FEATURES = """\
import numpy as np, onnxruntime, soundfile
from tokenizers import Tokenizer
from atr_moco_plugin.retriever.loading import load_backbone  # its features, for they have no file
audio, text = (onnxruntime.InferenceSession(f"{{x}}.onnx") for x in ("audio", "text"))
backbone = load_backbone("BUNDLE")
waveform, rate = soundfile.read("sound.wav", dtype="float32")  # mono, {sample_rate} Hz
features = backbone.model.audio.prepare(**backbone.audio_inputs([waveform]))["features"]
inputs = {{x.name: getattr(features, x.name).numpy() for x in audio.get_inputs()}}
sound = audio.run(None, inputs)[0]
"""

_WAVEFORMS_MORE = """\
* In a batch, clips are padded with zeros at the end to the longest; `lengths` has each one's
  samples. A clip that is too short for one token of BEATs has NaN in its embedding.
"""

_FEATURES_MORE = """\
* The encoder's front-end is no network and could not be traced: `audio.onnx` takes {names}, which
  the encoder's `features` makes of waveforms.
"""

_MEAN = """the recording's embedding is their mean, scaled
  to length 1."""

_MEAN_OF_DISTANCES = """the recording's product with a
  sentence is the mean of theirs, so do not scale the mean of their embeddings.
* The model ranks by a learned distance D, and the product is -D^2 over its largest. That of two
  sounds, or of two sentences, is not."""

_ONE_LENGTH = """\
* This model's embedding of a clip depends on how its batch is padded: embed clips of one length at
  once.
"""


def readme(config: Mapping[str, Any]) -> str:
    """The text, with an example that runs in the folder beside a ``sound.wav``.

    Args:
        config: content of ``config.json``.
    """
    names = list(config["audio"]["inputs"])
    begin, more = _FEATURES, _FEATURES_MORE
    if names == ["waveforms", "lengths"]:
        begin, more = _WAVEFORMS, _WAVEFORMS_MORE
    elif names == ["input_features"]:
        begin, more = _CLAP, ""
    if not config["pads_clips"]:
        more += _ONE_LENGTH
    return _TEXT.format(
        **config,
        example=(begin + _TOKENS).format(**config),
        difference=max(config[x]["greatest_difference"] for x in ("audio", "text")),
        mean=_MEAN if config.get("distance") is None else _MEAN_OF_DISTANCES,
        more=more.format(names=", ".join(f"`{x}`" for x in names)),
    )
