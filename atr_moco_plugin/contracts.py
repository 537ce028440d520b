"""What the parts of a model, a criterion and a hook offer each other: ``docs/plugins.md`` as types.

Nothing has to inherit from these protocols: a ``torch.nn.Module`` with the members fits. The
docstrings name the members that a part may leave out.

Shapes: B clips or captions, P pairs, L text tokens, T audio tokens, d embedding size. Masks are
bool, ``True`` where a token is valid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from atr_moco_plugin.queue import EmbeddingQueue
from atr_moco_plugin.tokens import AudioTokens, TextTokens

ModuleT = TypeVar("ModuleT", bound="Module")
TokensT_co = TypeVar("TokensT_co", AudioTokens, TextTokens, covariant=True)

Inputs = Mapping[str, Any]
"""Keyword arguments of a tower."""


class Module(Protocol):
    """The members of ``torch.nn.Module`` that criteria and hosts use of a part.

    A part is a ``torch.nn.Module`` with further members. Python has no type for that, hence this
    list. Where torch itself asks for its class, ``isinstance(part, torch.nn.Module)`` narrows.
    """

    training: bool

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def train(self: ModuleT, mode: bool = True) -> ModuleT: ...

    def eval(self: ModuleT) -> ModuleT: ...

    def float(self: ModuleT) -> ModuleT: ...

    def requires_grad_(self: ModuleT, requires_grad: bool = True) -> ModuleT: ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]: ...

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]: ...

    def modules(self) -> Iterator[nn.Module]: ...

    def get_parameter(self, target: str) -> nn.Parameter: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Any: ...


class AudioEncoder(Module, Protocol):
    """An audio encoder, group ``atr_moco_plugin.audio_encoders``.

    Optional members: ``layers``, ``weights_option``, ``config``, ``max_seconds``, the longest clip
    that it takes (``None`` for any), ``min_seconds``, the shortest, and ``features(waveforms,
    lengths)``, which returns what can be computed without weights, of any type. It is then computed
    once for the encoder and its momentum copy, which are called as ``encoder(features=...)``. And
    ``any_padding = False`` where the padding of a batch changes a clip's tokens: a retriever then
    batches clips of one length.

    An encoder may be frozen up to its N lowest ``layers``. That part runs once for the encoder and
    its momentum copy where it offers both ``lower(**inputs, layers=N)``, which takes ``features``,
    or ``waveforms`` and ``lengths`` where it has none, runs all before the layers and the N lowest
    of them without dropout, and returns anything; and ``upper(lower)``, which returns the tokens.

    Patch dropout needs ``bands``, the tokens of a time step, and ``draw_patches(waveforms, lengths,
    *, time, bands)``, which draws the indices ``[K]`` of the tokens that a batch keeps. They are
    put into the field ``kept`` of the features, a named tuple, and of what ``lower`` returns.
    """

    @property
    def width(self) -> int:
        """Size of a token."""

    @property
    def sample_rate(self) -> int:
        """Hz of the waveforms. Data are read at this rate."""

    def __call__(self, waveforms: Tensor, lengths: Tensor | None = None) -> AudioTokens:
        """Encode padded clips.

        Args:
            waveforms: ``[B, samples]`` float32 in [-1, 1].
            lengths: ``[B]`` int64, valid samples of each clip on the same device; ``None`` if no
                clip is padded.
        """


class TextEncoder(Module, Protocol):
    """A text encoder, group ``atr_moco_plugin.text_encoders``.

    Optional members: ``layers``, ``weights_option``, ``config``, ``tokenizer_source``, where the
    tokenizer of its weights is (``None`` for random ones), ``vocabulary_option``, the option that
    sets its vocabulary if that is not ``vocab_size``, ``causal``, whether a token sees none of
    those after it, and ``lower(input_ids, mask, layers=N)`` with ``upper(lower)``, as of
    :class:`AudioEncoder`.
    """

    @property
    def width(self) -> int:
        """Size of a token."""

    def __call__(self, input_ids: Tensor, mask: Tensor) -> TextTokens:
        """Encode captions: ``[B, L]`` int64 ids and their mask."""


class Tower(Module, Protocol[TokensT_co]):
    """An encoder, pooling and projection: half of a retrieval model.

    Optional members: ``encoder`` and ``layers``, for learning rates of their own, and
    ``prepare(**inputs)``, which returns the keyword arguments that the tower and its momentum copy
    are called with, so that what both would compute alike is computed once.
    """

    def __call__(self, *args: Any, **inputs: Any) -> tuple[Tensor, TokensT_co]:
        """Embed a batch.

        Returns:
            ``[B, d]`` unit-norm float32 embeddings, and the tokens for the matching head.
        """


class Head(Module, Protocol):
    """A matching head, group ``atr_moco_plugin.heads``.

    Optional members, on the class or the instance: ``shares_audio = True`` (takes ``audio_rows``),
    ``needs_text_states = False`` (``text.states`` is then ``None``) and ``text_layers``.
    """

    def __call__(
        self,
        text_encoder: Any,
        text: TextTokens,
        audio: AudioTokens,
        audio_rows: Tensor | None = None,
    ) -> Tensor:
        """Score P pairs.

        Args:
            text_encoder: the model's, of the kind that the head was built for.
            text: P captions.
            audio: P clips, or with ``audio_rows`` any number.
            audio_rows: ``[P]`` int64, the row of ``audio`` of each caption. Given only to a head
                with ``shares_audio``.

        Returns:
            Logits ``[P, 2]``, index 1 = the pair matches.
        """


class DualEncoder(Module, Protocol):
    """A model that contrastive criteria train: two towers into one embedding space."""

    @property
    def audio(self) -> Tower[AudioTokens]:
        """The audio tower."""

    @property
    def text(self) -> Tower[TextTokens]:
        """The text tower."""

    @property
    def embed_dim(self) -> int:
        """Size d of the embeddings."""


class MatchingModel(DualEncoder, Protocol):
    """A model that matching criteria train: two towers and a head.

    Optional members: ``shares_audio`` and ``needs_text_states``, as of :class:`Head`.
    """

    def match(
        self, text: TextTokens, audio: AudioTokens, audio_rows: Tensor | None = None
    ) -> Tensor:
        """Logits ``[P, 2]`` of P pairs; arguments as of :class:`Head`."""


class StepListener(Module, Protocol):
    """Trained parameters with something to do once an optimizer step.

    Optional member: ``on_step_skipped()``, called after a step that changed no weight, since the
    guard against NaN has dropped its gradients or a gradient scaler has skipped it.
    """

    def on_optimizer_step(self) -> None:
        """Called once after each step of the optimizer."""


class Criterion(StepListener, Protocol):
    """A criterion, group ``atr_moco_plugin.criteria``: a module around the model.

    It holds everything that is trained or kept between steps.

    Optional members: ``total_steps``, optimizer steps of the whole run or ``None``, which hosts set
    before the first step and schedules read; ``set_data(fingerprint)``, for one that keeps
    something by ids, which hosts call with a name of the data before the first step;
    ``learns_temperature = False``, where the temperature is not one of cosines and no host may set
    it to that of a pretrained model; and, of a criterion that learns a distance ``|L (a - u)|`` in
    place of the cosine, ``distance_factor(parameters)`` on the class, from its own parameters by
    their names to L, ``[d, d]``, or its diagonal, ``[d]``. Evaluation and bundles then rank by it,
    see :mod:`atr_moco_plugin.learned_distance`.
    """

    @property
    def model(self) -> Any:
        """The model, a ``torch.nn.Module``: a :class:`DualEncoder` or a :class:`MatchingModel`."""

    @property
    def measures(self) -> tuple[str, ...]:
        """Keys of what a call returns."""

    @property
    def temperature(self) -> Tensor:
        """One element; evaluation divides cosines by it."""

    @property
    def queues(self) -> dict[str, EmbeddingQueue]:
        """Modality to queue, for hooks; may be empty."""

    def __call__(
        self, audio: Inputs, text: Inputs, clip_ids: Tensor, caption_ids: Tensor
    ) -> dict[str, Tensor]:
        """Compute the loss of a batch.

        Args:
            audio: keyword arguments of the audio tower.
            text: keyword arguments of the text tower.
            clip_ids: ``[B]`` int64; ``[B, 2]`` where the data mix clips, see
                :func:`~atr_moco_plugin.criterion.positive_pairs`.
            caption_ids: of the same shape.

        Returns:
            ``loss``, a scalar with a gradient, and the other ``measures``, scalars without.
        """


class Hook(Protocol):
    """A hook, group ``atr_moco_plugin.hooks``: looks at the queues on the first process.

    Optional member: ``look(step)``, called before every step with the steps made so far. A hook
    with an argument ``probe`` gets a :class:`~atr_moco_plugin.criterion.probe.KeyProbe`.
    """

    def log(self, step: int) -> Any:
        """The record of a report, or ``None`` when there is nothing to say."""

    def scalars(self, record: Any) -> dict[str, float]:
        """The numbers of a record for TensorBoard and the metrics files."""
