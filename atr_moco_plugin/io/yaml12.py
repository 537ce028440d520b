"""YAML 1.2, as fairseq2 reads and writes it: ``off`` is a word, and ``1e-4`` a number."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from typing import TYPE_CHECKING, Any

from atr_moco_plugin.errors import InputError

if TYPE_CHECKING:
    from ruamel.yaml import YAML


class NoYamlError(InputError):
    """The reason why a text is no YAML. Whoever knows where it is from makes it a sentence."""


def load_yaml(text: str | bytes) -> Any:
    """What a text in YAML says, in lists, mappings with names, texts and numbers.

    Raises:
        NoYamlError: for a text that is none.
        InputError: where ruamel.yaml is not installed.
    """
    reader = _safe()
    try:
        return reader.load(text)
    # Values that are tagged or look like dates or numbers raise nearly anything.
    except Exception as ex:
        raise NoYamlError(" ".join(str(ex).split()) or type(ex).__name__) from ex


def dump_yaml(tree: Mapping[str, Any]) -> str:
    """A mapping in YAML that :func:`load_yaml` reads as it was, in its order, and in ASCII, which
    every terminal takes."""
    writer, text = _safe(), StringIO()
    writer.allow_unicode = False
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # declared as None
    writer.dump(dict(tree), text)
    return text.getvalue()


def _safe() -> YAML:
    try:
        from ruamel.yaml import YAML
    except ModuleNotFoundError:
        raise InputError(
            "YAML needs ruamel.yaml; install it with `pip install atr-moco-plugin[report]`."
        ) from None
    return YAML(typ="safe", pure=True)
