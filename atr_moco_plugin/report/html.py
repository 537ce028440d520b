"""Pages from templates: one file that needs nothing else, with every text escaped."""

from __future__ import annotations

from pathlib import Path

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

_FOLDER = Path(__file__).parent


def render(template: Path, **context: object) -> str:
    """Fill a template.

    A template extends ``base.html.j2`` (style, head) and shows figures and tables with the macros
    of ``parts.html.j2``. Texts are escaped wherever they stand; only the ``svg`` of a
    :class:`~atr_moco_plugin.report.figures.Panel` goes in as markup.

    Args:
        template: a Jinja2 file.
        context: what it is filled with.
    """
    environment = Environment(
        loader=ChoiceLoader([FileSystemLoader(template.parent), FileSystemLoader(_FOLDER)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template.name).render(**context)
