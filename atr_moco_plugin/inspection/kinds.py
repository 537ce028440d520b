"""The kinds of findings: what each means for training and figures, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

CAPTION_KINDS: Mapping[str, str] = {
    "shared caption": (
        "A text of several clips can find only one of them first. Training takes clips with one "
        "caption id for right answers of each other where the criterion's positives say so, and "
        "figures marked dup do as well."
    ),
    "near caption": (
        "The same text but for articles, endings and the order of words. No id says so: in "
        "training each is a wrong answer of the other's clip, and in figures a lost place."
    ),
    "repeated caption": (
        "An evaluation asks this query more than once, and training draws it more often."
    ),
    "one word": "A single word tells few clips apart; see whether the column is the right one.",
    "long caption": "More than 40 words, and four times the median: a tokenizer may cut it.",
    "damaged text": "Read in a wrong encoding: write the captions file anew as UTF-8.",
    "markup": "Left by a web page; the model sees the marks as words.",
    "other language": (
        "Told from the text alone, which goes wrong for short ones: read before you act."
    ),
    "unknown token": (
        "The model sees the same token for all of these words. Take a tokenizer that knows their "
        "letters, or raise tokenizer.vocab_size of one that is trained."
    ),
    "cut caption": "The model does not see the end; raise tokenizer.max_tokens.",
}
"""Kinds that are about captions, in the order of the page, to what they mean."""

AUDIO_KINDS: Mapping[str, str] = {
    "unreadable": "Training meets such a file as a bad clip: fetch it again, or leave it out.",
    "leak between splits": (
        "The recording is in a later split too, so that the model is judged on what it was trained "
        "on. The list leaves it out of the earlier split."
    ),
    "leak of audio": (
        "The recording is in the other data set as well: trained on one and judged on the other, a "
        "model knows it already. The list leaves out what is trained on here and judged there."
    ),
    "leak of ids": (
        "The name says the same video or sound as that of a clip in the other data set. Another "
        "place of one video is other sound, of the same scene."
    ),
    "leak of captions": "Captions that the other data set has too, to the word.",
    "same audio": (
        "Two clips of one split are one recording: each is a wrong answer of the other's captions. "
        "Of those to train on, the list leaves out all but the first."
    ),
    "silence": "There is nothing to hear, and a caption teaches nothing.",
    "channels cancel": "The average of the channels, which a model hears, loses what each has.",
    "mostly silent": "A crop in training may hear nothing of what the caption says.",
    "quiet": "Below -40 dB of full scale: a model that takes levels as they are hears little.",
    "clipping": (
        "The tops of the waveform are cut off, which sounds harsh and adds high tones, or, where "
        "the peak is above 1 as in Ogg and MP3, will be in a file of 16 bits."
    ),
    "scale": "Integers that were written as floating point: divide them by full scale.",
    "DC offset": "A constant under the sound, from a recorder; filterbanks see it as low rumble.",
    "dead channel": "One channel is empty: the average is 6 dB quieter than the sound.",
}
"""Kinds that are about audio, in the order of the page, to what they mean."""


def ordered(kinds: Iterable[str]) -> list[str]:
    """Kinds in the order of the page, audio first; unknown ones are last."""
    places = {kind: place for place, kind in enumerate((*AUDIO_KINDS, *CAPTION_KINDS))}
    return sorted(dict.fromkeys(kinds), key=lambda kind: (places.get(kind, len(places)), kind))


def meaning(kind: str) -> str:
    """What a kind means; empty for one that is not listed here."""
    return AUDIO_KINDS.get(kind) or CAPTION_KINDS.get(kind, "")
