"""What LAION-CLAP needs before it can be imported, asked for early and in one sentence.

Its data module loads three tokenizers from the Hugging Face Hub when it is imported. Without a
network that waits for minutes and then fails in the middle of another library.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache

from atr_moco_plugin.errors import InputError

# Names of the Hub, and for each the sets of files of which one must be there.
_TOKENIZERS = {
    "bert-base-uncased": (("vocab.txt",), ("tokenizer.json",)),
    "roberta-base": (("vocab.json", "merges.txt"), ("tokenizer.json",)),
    "facebook/bart-base": (("vocab.json", "merges.txt"), ("tokenizer.json",)),
}
_TEXT_MODELS = {"bert": "bert-base-uncased", "roberta": "roberta-base"}
_WEIGHTS = (("config.json", "model.safetensors"), ("config.json", "pytorch_model.bin"))
_REACH_SECONDS = 10.0


def find_laion_clap() -> Path:
    """Folder of the installed ``laion_clap``, without importing it.

    Raises:
        InputError: when it, or torchvision, which it needs and does not declare, is missing.
    """
    spec = find_spec("laion_clap")
    if spec is None or spec.origin is None:
        raise InputError(
            "laion_clap is not installed; run `pip install laion-clap torchvision` (it needs "
            "numpy below 2)."
        )
    if find_spec("torchvision") is None:
        raise InputError(
            "torchvision is missing, which laion_clap imports and does not declare; install the "
            "release that belongs to your torch, such as torchvision 0.24 for torch 2.9."
        )
    return Path(spec.origin).parent


def check_hub_files(text_model: str | None = None) -> None:
    """Make sure that what LAION-CLAP loads from the Hub is there or can be fetched.

    Args:
        text_model: ``bert`` or ``roberta`` to ask for that tower's weights too.

    Raises:
        InputError: when files are neither in the local cache nor reachable.
    """
    wanted = dict.fromkeys(_TOKENIZERS, "tokenizer")
    missing = [name for name, sets in _TOKENIZERS.items() if not _cached(name, sets)]
    tower = _TEXT_MODELS.get(text_model or "")
    if tower is not None and not _cached(tower, _WEIGHTS):
        wanted[tower] = "tokenizer and weights"
        missing = list(dict.fromkeys([*missing, tower]))
    if not missing or (not constants.HF_HUB_OFFLINE and _hub_answers()):
        return
    files = ", ".join(f"{name} ({wanted[name]})" for name in missing)
    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the Hub does not answer"
    raise InputError(
        f"laion_clap loads {files} from the Hugging Face Hub, but {why} and the cache "
        f"{constants.HF_HUB_CACHE} has not got them; download them once on a machine with a "
        f"network (`hf download {missing[0]}` and so on), copy that cache here, point HF_HOME to "
        "it and set HF_HUB_OFFLINE=1."
    )


def put_on_path(folder: Path) -> None:
    """Make ``clap_module`` and ``training`` importable, under which names LAION-CLAP's code runs.

    Args:
        folder: what :func:`find_laion_clap` found.
    """
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    # Its tokenizers run in the loader's worker processes, which are forked.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _cached(name: str, sets: tuple[tuple[str, ...], ...]) -> bool:
    return any(all(isinstance(try_to_load_from_cache(name, f), str) for f in s) for s in sets)


def _hub_answers() -> bool:
    from huggingface_hub import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_REACH_SECONDS)
    except Exception:  # a proxy, a name server, a firewall: each fails in its own way
        return False
    return True
