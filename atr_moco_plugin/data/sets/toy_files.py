"""``python -m atr_moco_plugin.data.sets.toy_files FOLDER``: the toy data set as WAV files."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import soundfile

from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.sets.toy import ToyConfig, open_toy
from atr_moco_plugin.data.sets.toy_sounds import SAMPLE_RATE
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.arguments import OnceParser
from atr_moco_plugin.io.stdout import say


def write_toy(dataset: AudioTextDataset, folder: str | Path) -> Path:
    """Write every clip as a 16-bit WAV file, and a manifest, to listen to or to train from.

    Args:
        dataset: any data set; the clips are written as its ``load`` gives them, at its rate.
        folder: made if it is not there; audio goes to ``<folder>/<split>/<key>.wav``.

    Returns:
        The path of ``manifest.csv`` with the columns ``file_name, caption_1, ..., split``.

    Raises:
        InputError: if the folder cannot be made or written.
    """
    folder = Path(folder)
    try:
        return _write(dataset, folder)
    except (OSError, soundfile.SoundFileError) as ex:
        reason = getattr(ex, "strerror", None) or ex
        raise InputError(f"{folder}: cannot be written ({reason}); name another folder") from ex


def _write(dataset: AudioTextDataset, folder: Path) -> Path:
    most = max(len(clip.captions) for clips in dataset.splits.values() for clip in clips)
    manifest = folder / "manifest.csv"
    folder.mkdir(parents=True, exist_ok=True)
    with manifest.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", *(f"caption_{k + 1}" for k in range(most)), "split"])
        for split, clips in dataset.splits.items():
            (folder / split).mkdir(exist_ok=True)
            for clip in clips:
                name = f"{split}/{clip.key}.wav"
                wave = dataset.load(clip)
                soundfile.write(folder / name, wave, dataset.sample_rate, subtype="PCM_16")
                padding = [""] * (most - len(clip.captions))
                writer.writerow([name, *clip.captions, *padding, split])
    return manifest


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line.

    Returns:
        The exit status; 2 after one sentence on standard error.
    """
    parser = OnceParser(
        prog="python -m atr_moco_plugin.data.sets.toy_files",
        description="Write clips of the toy data set as WAV files, with a manifest.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    for split, size in (("train", 0), ("valid", 0), ("test", 200)):
        parser.add_argument(f"--{split}", type=int, default=size, metavar="CLIPS")
    options = parser.parse_args(arguments)
    try:
        config = ToyConfig(num_train=options.train, num_valid=options.valid, num_test=options.test)
        dataset = open_toy(config).read_with(AudioReader(SAMPLE_RATE))
        say(f"Manifest: {write_toy(dataset, options.folder)}")
    except InputError as ex:
        print(f"ERROR: {' '.join(str(ex).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
