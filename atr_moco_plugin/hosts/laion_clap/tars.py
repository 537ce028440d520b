"""The tars of a training as a data set, against which teachers are checked before the first step.
Nothing of it is trained on: LAION-CLAP reads its tars itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from atr_moco_plugin.data.audio.source import FileSlice
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.sets.tar_index import Shard, json_captions, tar_members
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.laion_clap.ids import tar_clip_id
from atr_moco_plugin.ids import has_words

_MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)")  # webdataset's keys end at the first dot
_SOUND, _TEXT = "flac", "json"  # what LAION-CLAP reads of a clip


class TarClips(AudioTextDataset):
    """The clips that LAION-CLAP trains on, its split ``train``, with the ids that its batches have.
    A clip's source is its address as ``embed`` writes it, ``<tar>/<member>``.

    Args:
        urls: paths of the tars, of which headers and texts are read.

    Raises:
        InputError: for a tar that cannot be read, and a caption without a word, which no teacher
            embeds.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self._ids: dict[str, int] = {}
        # LAION-CLAP takes a data set twice whose name is given twice.
        clips = [clip for url in dict.fromkeys(urls) for clip in self._clips(url)]
        super().__init__("the tars", {"train": clips})

    def clip_id(self, clip: Clip) -> int:
        """See :func:`~atr_moco_plugin.hosts.laion_clap.ids.tar_clip_id`."""
        return self._ids[clip.key]

    def _clips(self, url: str) -> Iterator[Clip]:
        members: dict[str, dict[str, FileSlice]] = {}
        try:
            with open(url, "rb") as file:
                for member in tar_members(file, Shard(Path(url))):
                    if match := _MEMBER.fullmatch(member.name):
                        members.setdefault(match[1], {}).setdefault(match[2].lower(), member)
                for key, own in members.items():
                    captions = _captions(file, own[_TEXT]) if own.keys() >= {_SOUND, _TEXT} else ()
                    if captions:  # LAION-CLAP cannot read others
                        clip = Clip(f"{url}/{key}", captions, f"{url}/{own[_SOUND].name}")
                        self._ids[clip.key] = tar_clip_id(url, key)
                        yield clip
        except OSError as ex:
            raise InputError(
                f"{url} cannot be read ({ex.strerror or ex}), so that `teachers` cannot be checked "
                "against it: mend it, or leave `--teachers` out."
            ) from ex


def _captions(file: IO[bytes], member: FileSlice) -> tuple[str, ...]:
    """What LAION-CLAP draws a clip's caption from."""
    captions = json_captions(file, member)
    for caption in captions:
        if not has_words(caption):
            raise InputError(
                f"{member} has the caption {caption!r}, which has no word, so that no teacher "
                "knows it: take it out of the tar, or leave `--teachers` out."
            )
    return captions
