"""Which code made a row: a digest of what the criterion is written in, and the commit."""

from __future__ import annotations

import ast
import hashlib
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_PACKAGE = "atr_moco_plugin"
_FOLLOWED = tuple(
    f"{_PACKAGE}.{part}" for part in ("criterion", "queue", "momentum", "rank.age", "rank.growth")
)


def digest(kind: Any) -> str:
    """Eight hexadecimal digits of the modules that make a criterion, without their comments and
    docstrings.

    These are its own module and what it imports, directly or not, of the package's ``criterion``,
    ``queue`` and ``momentum``, and of ``rank`` the rules of the queue. Two rows with equal digests
    are of one criterion; with other digests they may still be.

    Args:
        kind: the criterion's class.
    """
    waiting, seen = [kind.__module__], set()
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += _imports(module)
    text = "".join(f"{module}\n{text_of(module)}" for module in sorted(seen))
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


@cache
def _tree(module: str) -> ast.Module:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return ast.Module([], [])
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


@cache
def _imports(module: str) -> tuple[str, ...]:
    found = []
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(_FOLLOWED):
            found.append(node.module)
    return tuple(found)


@cache
def text_of(module: str) -> str:
    """What of a module counts: all but comments and docstrings, and nothing of a package's list."""
    spec, tree = find_spec(module), _tree(module)
    if spec is not None and spec.submodule_search_locations is not None:
        return ""  # the list of what a folder offers
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [x for x in body if not _is_text(x)] or [ast.Pass()]
    return ast.unparse(tree)


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def commit() -> str:
    """The commit of this checkout, with ``+`` where files differ from it; empty without git."""
    here = Path(__file__).parent
    try:
        head = _git(here, "rev-parse", "--short=12", "HEAD")
        changed = _git(here, "status", "--porcelain", "--untracked-files=no", "--", ":/*.py")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{head}+" if changed else head


def _git(folder: Path, *arguments: str) -> str:
    run = subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    )
    return run.stdout.strip()
