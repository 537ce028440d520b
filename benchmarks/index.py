"""Filling an index: throughput beside a bare loop, memory, a second run, a recording of ten hours.

    python -m benchmarks.index [--files 10000] [--known 100000] [--hours 10] [--model esc50]

Generated sounds of 5 s, and a model with random weights that has the sizes of a recipe's. Needs
Linux.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import soundfile
import torch

from atr_moco_plugin.evaluation import Table
from atr_moco_plugin.model import RetrievalModelConfig, build_model, built_config, model_config
from atr_moco_plugin.retriever import AudioTextRetriever, BundleConfig, write_bundle
from atr_moco_plugin.search.build import build, index_info
from atr_moco_plugin.search.local import create_local
from atr_moco_plugin.search.sources import list_sounds
from atr_moco_plugin.search.store import Embedded, Recording
from atr_moco_plugin.text.tokenizer import train_wordpiece
from benchmarks.memory import resident

RATE = 16_000
SECONDS = 5.0
FOLDERS = 10
MIB = 2**20


SIZES = {"toy": (128, 3), "esc50": (192, 4)}
"""Recipe to the width and the layers of its audio encoder."""


def sized(width: int, layers: int) -> RetrievalModelConfig:
    """An audio encoder of that size beside a small text encoder."""
    audio = {
        "input_patch_size": 32, "embed_dim": width, "encoder_layers": layers,
        "encoder_embed_dim": width, "encoder_ffn_embed_dim": 2 * width,
        "encoder_attention_heads": 4, "conv_pos": 32, "conv_pos_groups": 8,
    }  # fmt: skip
    text = {
        "vocab_size": 64, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 256,
    }  # fmt: skip
    return model_config(
        {
            "audio": {"name": "beats", "config": audio},
            "text": {"name": "bert", "config": text},
            "embed_dim": 128,
        }
    )


def make_bundle(folder: Path, recipe: str) -> Path:
    """A bundle with random weights; windows of ten seconds."""
    torch.manual_seed(0)
    config = sized(*SIZES[recipe])
    model = build_model(config)
    values = asdict(built_config(config, model))
    bundle = BundleConfig(model=values, sample_rate=RATE, window_seconds=10.0, hop_seconds=10.0)
    write_bundle(folder, bundle, model, train_wordpiece(["a dog barks", "rain falls"], 64))
    return folder


def write_sounds(folder: Path, count: int) -> None:
    """Noise, a folder for each tenth."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, int(RATE * (SECONDS + 10)))
    for number in range(count):
        path = folder / str(number * FOLDERS // count) / f"{number:06}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        start = int(rng.integers(RATE * 10))
        soundfile.write(path, noise[start : start + int(RATE * SECONDS)], RATE, subtype="PCM_16")


def bare_loop(paths: Sequence[Path], retriever: AudioTextRetriever) -> None:
    """Decode and encode, a batch after the other, and keep nothing."""
    for start in range(0, len(paths), retriever.batch_size):
        part = paths[start : start + retriever.batch_size]
        retriever.embed_windows([soundfile.read(path, dtype="float32")[0] for path in part])


def throughput(folder: Path, bundle: Path, count: int) -> Iterator[tuple[str, str, str]]:
    """``index`` and the loop take turns over the folders."""
    write_sounds(folder / "sounds", count)
    retriever = AudioTextRetriever.from_pretrained(bundle, device="cpu")
    bare_loop(sorted((folder / "sounds/0").iterdir())[:64], retriever)  # warm
    wall, cpu, memory = {True: 0.0, False: 0.0}, {True: 0.0, False: 0.0}, []
    for turn in range(FOLDERS):
        sounds = folder / "sounds" / str(turn)
        for ours in (True, False) if turn % 2 else (False, True):
            begin, begin_cpu = time.perf_counter(), time.process_time()
            if ours:
                with create_local(folder / "index", index_info(retriever)) as store:
                    report = build(store, retriever, list_sounds(sounds))
                assert report.new == count // FOLDERS and not report.broken
            else:
                bare_loop(sorted(sounds.iterdir()), retriever)
            wall[ours] += time.perf_counter() - begin
            cpu[ours] += time.process_time() - begin_cpu
        memory.append(resident("VmRSS") / MIB)
    ours, loop = count / wall[True], count / wall[False]
    what = f"{count:,} sounds of {SECONDS:g} s"
    yield f"{what}: a second", f"{ours:,.0f}, bare loop {loop:,.0f}", f"{ours / loop:.2f} of it"
    yield (
        f"{what}: processor's time a sound",
        f"{1e3 * cpu[True] / count:.2f} ms, bare loop {1e3 * cpu[False] / count:.2f} ms",
        f"{cpu[False] / cpu[True]:.2f} of it",
    )
    yield (
        f"memory after {count // FOLDERS:,} and after {count:,} sounds",
        f"{memory[0]:,.0f} and {memory[-1]:,.0f} MiB",
        f"{memory[-1] - memory[0]:+,.0f} MiB",
    )


def second_run(folder: Path, bundle: Path, known: int) -> Iterator[tuple[str, str, str]]:
    """Nothing has changed: the command as a whole. The files hold no sound, so that it would
    notice if it read one."""
    retriever = AudioTextRetriever.from_pretrained(bundle, device="cpu")
    rng = np.random.default_rng(0)
    root = (folder / "known").resolve()
    with create_local(folder / "index-known", index_info(retriever)) as store:
        for start in range(0, known, 1000):
            (root / f"{start:07}").mkdir(parents=True)
            rows = rng.standard_normal((1000, retriever.embed_dim)).astype(np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            items = []
            for number in range(1000):
                path = root / f"{start:07}" / f"{number:04}.wav"
                path.write_bytes(b"?")
                state = path.stat()
                recording = Recording(
                    path=str(path), size=state.st_size, mtime_ns=state.st_mtime_ns,
                    digest=f"{start + number:064x}", seconds=1.0,
                )  # fmt: skip
                items.append(Embedded(recording, np.array([[0.0, 1.0]]), rows[number, None]))
            store.put(items)
    command = [
        sys.executable, "-m", "atr_moco_plugin", "index", str(root), "--model", str(bundle),
        "--index", str(folder / "index-known"), "--device", "cpu",
    ]  # fmt: skip
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, used = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    assert f"{known:,} unchanged; 0 windows" in out, out
    yield (
        f"the command again, {known:,} known files",
        f"{seconds:.1f} s, processor {cpu:.1f} s",
        out.split(": ")[1].strip(),
    )


def long_recording(folder: Path, bundle: Path, hours: float) -> Iterator[tuple[str, str, str]]:
    """A recording of an hour, then one of many."""
    retriever = AudioTextRetriever.from_pretrained(bundle, device="cpu")
    noise = np.random.default_rng(0).normal(0, 0.001, RATE * 60).astype(np.float32)
    memory = []
    for length in (hours / 10, hours):
        path = folder / f"{length:g}" / "long.flac"
        path.parent.mkdir()
        with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
            minutes = round(length * 60)
            for _ in range(minutes):
                file.write(noise)
        begin = time.perf_counter()
        with create_local(folder / "index-long", index_info(retriever)) as store:
            report = build(store, retriever, list_sounds(path.parent))
        memory.append(resident("VmRSS") / MIB)
        assert round(report.seconds) == minutes * 60
        yield (
            f"a recording of {length:g} h",
            f"{time.perf_counter() - begin:.0f} s, {report.windows:,} windows",
            f"{memory[-1]:,.0f} MiB",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--known", type=int, default=100_000)
    parser.add_argument("--hours", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=1, help="of the model")
    parser.add_argument("--model", choices=SIZES, default="esc50", help="of which recipe's size")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = make_bundle(folder / "bundle", options.model)
        for part, size in (
            (throughput, options.files), (second_run, options.known),
            (long_recording, options.hours),
        ):  # fmt: skip
            for row in part(folder, bundle, size) if size else ():
                rows.append(list(row))
                print(*row, sep=" | ", file=sys.stderr, flush=True)
    print(
        f"PyTorch {torch.__version__}, {options.model}, {options.threads} thread(s) of the model\n"
    )
    print(Table(["what", "figure", "beside"], rows).markdown())


if __name__ == "__main__":
    main()
