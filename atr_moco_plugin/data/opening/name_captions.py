"""Captions that are the names of files: ``dog_barking_02.wav`` says "dog barking"."""

from __future__ import annotations

import re

from atr_moco_plugin.data.opening.class_folders import words_of_name
from atr_moco_plugin.data.tables.file_names import stem_of

_FREESOUND = re.compile(r"\d+__[^_].*?__(?P<title>.+)")
_WORD = re.compile(r"[^\W\d_]{2,}")


def caption_of_name(path: str) -> str:
    """The caption in the name of a file, empty where it has no word.

    A number before or behind the words only tells the file from others and goes:
    ``dog_barking_02``, ``02 - dog barking`` and ``dog barking (2)`` are "dog barking", ``2 dogs
    bark`` stays. Of a download from Freesound, ``123__user__dog-barks``, the title is taken. Words
    are separated as :func:`~.class_folders.words_of_name` does it.

    Args:
        path: the file; its folders and its suffix are not read.
    """
    stem = stem_of(path)
    if match := _FREESOUND.fullmatch(stem):
        stem = match["title"]
    text = words_of_name(stem.replace("(", " ").replace(")", " ").replace("#", " "))
    words = text.split()
    while words and words[-1].isdigit():
        words.pop()
    # "02 dog barking" is numbered; "2 dogs bark" counts dogs.
    while words and words[0].isdigit() and (len(words[0]) > 1 or not text[2:].strip()):
        words.pop(0)
    text = " ".join(words)
    return text if _WORD.search(text) else ""
