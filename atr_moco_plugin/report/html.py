"""Pages and other documents from templates."""

from __future__ import annotations

from pathlib import Path

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

_FOLDER = Path(__file__).parent


def render(template: Path, **context: object) -> str:
    """Fill a template.

    A page extends ``base.html.j2`` (style, head), shows figures and tables with the macros of
    ``parts.html.j2`` and is one file that needs no other. Every text in it is escaped; only the
    ``svg`` of a :class:`~atr_moco_plugin.report.figures.Panel` goes in as markup.

    Args:
        template: a Jinja2 file. Its texts are escaped for HTML where its name has ``.html`` in it.
        context: values of its variables.
    """
    environment = Environment(
        loader=ChoiceLoader([FileSystemLoader(template.parent), FileSystemLoader(_FOLDER)]),
        autoescape=lambda name: ".html" in (name or ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template.name).render(**context)
