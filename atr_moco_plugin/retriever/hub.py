"""A bundle on the Hugging Face Hub."""

from __future__ import annotations

import warnings
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.retriever.bundle import read_config
from atr_moco_plugin.retriever.card import model_card, with_name
from atr_moco_plugin.retriever.kept_card import CARD, OLD_CARDS, PLACE, read_card


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
) -> str:
    """Upload a bundle; the repository is made where it is not there.

    Its model card is given ``repo_id`` as the name to load it by, or made where there is none. A
    warning says where the card has still to be filled in.

    Args:
        folder: the bundle, whose card may be changed.
        repo_id: such as ``user/name``.
        private: whether a new repository is; None takes the account's default.
        token: of an account; None takes the one that ``hf auth login`` has saved.

    Returns:
        The address of the commit.

    Raises:
        InputError: for a folder that is no bundle, a name that the hub does not take, and where the
            hub cannot be reached or refuses.
    """
    name_in_card(folder, repo_id)
    api = HfApi(token=token)
    try:
        repository = api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository.repo_id,
            folder_path=folder,
            commit_message="Upload a bundle of atr-moco-plugin",
            ignore_patterns=OLD_CARDS,
        )
    except HFValidationError as ex:
        raise InputError(f"{repo_id!r} is no name for the Hugging Face Hub: {ex}") from ex
    except (OSError, ValueError) as ex:  # no network, no account, no right, a bad card
        said = " ".join(f"{type(ex).__name__}: {ex}".split())[:300]
        raise InputError(
            f"{repo_id} could not be uploaded to {api.endpoint} ({said}): log in with `hf auth "
            "login`, or give `token`, of an account that may write there."
        ) from ex
    return str(commit.commit_url)


def name_in_card(folder: Path, repo_id: str) -> None:
    """Have the card of a bundle load it by its name on the hub; made where there is none.

    Raises:
        InputError: for a folder that is no bundle.
    """
    config, card = read_config(folder), read_card(folder)
    text = with_name(card, repo_id) if card else model_card(config, title=repo_id)
    (folder / CARD).write_text(text, encoding="utf-8")
    if PLACE in text:
        warnings.warn(
            f"The model card of {repo_id} has places that say {PLACE!r} (licence, citation): fill "
            f"them in on the hub, or in {CARD} of the bundle before it is uploaded.",
            stacklevel=3,
        )
