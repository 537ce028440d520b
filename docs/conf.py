"""How Sphinx builds the site: ``make docs``."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.ext.napoleon import Config, GoogleDocstring

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PACKAGE = "atr_moco_plugin"
sys.path.insert(0, str(ROOT))

import atr_moco_plugin.recipes  # noqa: E402, F401  # first: fairseq2 needs its libsndfile

project = "atr-moco-plugin"
author = copyright = "the authors of atr-moco-plugin"
version = release = atr_moco_plugin.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"atr-moco-plugin {version}"
html_static_path: list[str] = []
nitpicky = True

# Headings have the anchors that GitHub gives them.
myst_heading_anchors = 4
autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": True, "show-inheritance": True}
autodoc_mock_imports = [
    name
    for name in ("laion_clap", "webdataset", "torchvision", "wandb")
    if importlib.util.find_spec(name) is None
]


# Pages of the site whose text is a file outside of this folder.
OUTSIDE = {
    "benchmarks": "benchmarks/README.md",
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
}


def take_in(app: Any, page: str, source: list[str]) -> None:
    """Put the text of a file outside of this folder in the place of its stub, and have links to
    such files lead to their pages."""
    file = ROOT / OUTSIDE.get(page, f"docs/{page}.md")
    if page in OUTSIDE:
        app.env.note_dependency(str(file))
        source[0] = file.read_text()
    pages = {ROOT / outside: f"{name}.md" for name, outside in OUTSIDE.items()}

    def from_here(link: re.Match[str]) -> str:
        target = (file.parent / link[1]).resolve()
        return f"]({pages.get(target) or os.path.relpath(target, (DOCS / page).parent)}"

    source[0] = re.sub(r"\]\((?!\w+:)([\w./-]+)", from_here, source[0])


def heading(text: str, underline: str) -> str:
    return f"{text}\n{underline * len(text)}\n\n"


def write_api_pages(*_: object) -> None:
    """Write a page for each package of ours, with its modules, into ``docs/api/``.

    ``docs/api/index.md`` is written by hand: the public names.
    """
    pages: dict[str, str] = {}
    for name in [PACKAGE, *(m.name for m in walk(PACKAGE) if m.ispkg)]:
        path = importlib.import_module(name).__path__
        inside = [m for m in pkgutil.iter_modules(path, f"{name}.") if "__main__" not in m.name]
        text = heading(name, "=") + f".. automodule:: {name}\n   :no-members:\n\n"
        if packages := [m.name for m in inside if m.ispkg]:
            text += ".. toctree::\n\n" + "".join(f"   {name}\n" for name in packages) + "\n"
        for module in (m.name for m in inside if not m.ispkg):
            text += heading(module.removeprefix(f"{PACKAGE}."), "-")
            text += f".. automodule:: {module}\n\n"
        pages[f"{name}.rst"] = text
    folder = DOCS / "api"
    for file in folder.glob("*.rst"):
        if file.name not in pages:
            file.unlink()
    for file_name, text in pages.items():
        file = folder / file_name
        if not file.is_file() or file.read_text() != text:
            file.write_text(text)


def walk(package: str) -> list[pkgutil.ModuleInfo]:
    path = importlib.import_module(package).__path__
    return [m for m in pkgutil.walk_packages(path, f"{package}.") if "__main__" not in m.name]


def read_google_sections(
    app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Turn ``Args:``, ``Returns:`` and the like into fields.

    As the extension napoleon does, which takes the words before a colon in the docstring of an
    attribute for its type.
    """
    kind = "object" if what in ("attribute", "data", "property") else what
    config = Config(napoleon_use_ivar=True)
    lines[:] = GoogleDocstring(lines, config, app, kind, name, thing, options).lines()


def link_by_import(app: Any, env: Any, node: Any, text: Any) -> Any:
    """Resolve a reference that Sphinx does not find, as Python itself would: by import.

    Finds names that a package re-exports, and names that a module imports. What belongs to another
    package has no page here and stays text; what is not there at all is Sphinx's warning.
    """
    if node.get("refdomain") != "py":
        return None
    target, is_role = node["reftarget"], isinstance(text, nodes.literal)
    python = env.domaindata["py"]
    found = find(target, node.get("py:module"), node.get("py:class"))
    if found is None and is_role:
        # As with a dot before it: the one name of ours that ends so.
        same = [name for name in python["objects"] if f".{name}".endswith(f".{target}")]
        found = (PACKAGE, same[0]) if len(same) == 1 else None
    if found is None:
        # The names of an annotation are mypy's business. One with a blank in it is a sentence that
        # was taken for a type, since it has a colon.
        return None if is_role or " " in target else text
    owner, qualified = found
    if not owner.startswith(PACKAGE):
        return text
    page = python["objects"].get(qualified) or python["modules"].get(owner)
    if page is None:
        return None
    uri = app.builder.get_relative_uri(node["refdoc"], page.docname)
    return nodes.reference("", "", text, internal=True, refuri=f"{uri}#{page.node_id}")


def find(target: str, module: str | None, cls: str | None) -> tuple[str, str] | None:
    """The module that defines what ``target`` means at that place, and its full name."""
    places = [f"{module}.{cls}", module] if module and cls else [module] if module else []
    for name in [*(f"{place}.{target}" for place in places), target]:
        if (found := imported(name)) is not None:
            return found
    return None


def imported(name: str) -> tuple[str, str] | None:
    parts = name.split(".")
    for size in range(len(parts), 0, -1):
        module_name = ".".join(parts[:size])
        try:
            thing: Any = importlib.import_module(module_name)
        except ImportError:
            continue
        for part in parts[size:]:
            if not hasattr(thing, part):
                # An attribute of instances has its place in the docstring of the class.
                described = isinstance(thing, type) and f" {part}: " in (thing.__doc__ or "")
                if described:
                    return thing.__module__, f"{thing.__module__}.{thing.__qualname__}"
                return None
            thing = getattr(thing, part)
        if isinstance(thing, ModuleType):
            return thing.__name__, thing.__name__
        owner = getattr(thing, "__module__", None) or module_name
        own = getattr(thing, "__qualname__", None) or ".".join(parts[size:])
        return owner, f"{owner}.{own}"
    return None


def setup(app: Any) -> None:
    app.connect("builder-inited", write_api_pages)
    app.connect("source-read", take_in)
    app.connect("autodoc-process-docstring", read_google_sections)
    app.connect("missing-reference", link_by_import)
