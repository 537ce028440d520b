"""What every matching head asks of the pairs it scores."""

from __future__ import annotations

from torch import Tensor

from atr_moco_plugin.tokens import AudioTokens, TextTokens


def check_pairs(
    text: TextTokens, audio: AudioTokens, audio_width: int, audio_rows: Tensor | None = None
) -> None:
    """Refuse pairs that a head cannot score row by row.

    Args:
        text: P captions.
        audio: P clips, ``[P, T, audio_width]``.
        audio_width: width of the audio tokens that the head was built for.
        audio_rows: ``[P]``, the row of ``audio`` of each caption; ``None`` for row by row.

    Raises:
        ValueError: text and audio differ in P, or the audio tokens have another width.
    """
    clips = len(audio.states) if audio_rows is None else len(audio_rows)
    if len(text.mask) != clips:
        raise ValueError(
            f"The matching head scores pairs row by row, but got {len(text.mask)} captions and "
            f"{clips} clips; give one clip for each caption, or `audio_rows`."
        )
    if audio.states.shape[-1] != audio_width:
        raise ValueError(
            f"The matching head was built for audio tokens of width {audio_width}, but "
            f"got {audio.states.shape[-1]}."
        )
