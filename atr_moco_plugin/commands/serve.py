"""``serve``: search an index in a browser."""

from __future__ import annotations

import argparse
import importlib.util
import webbrowser

from atr_moco_plugin.commands.options import add_correct, add_model, corrected, load_retriever
from atr_moco_plugin.errors import InputError, counted
from atr_moco_plugin.io.stdout import duration, say

SUMMARY = "search an index in a browser: type, listen, or search with a sound"
EXAMPLE = "atr-moco serve --index sounds.index"

PACKAGES = ("fastapi", "uvicorn", "jinja2", "PIL")
"""Of the extra ``serve``, as they are imported."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--index", required=True, metavar="DIR", help="that `index` made")
    parser.add_argument("--port", type=int, default=8765, help="0 takes a free one (default: 8765)")
    add_correct(parser)
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    group = parser.add_argument_group("for other machines")
    group.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="of this machine to listen on, such as 0.0.0.0 for all; the page then wants a token, "
        "which the printed address carries (default: 127.0.0.1, this machine alone)",
    )
    group.add_argument(
        "--token", help="16 or more letters, digits, - or _ (default: made anew at each start)"
    )
    group.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME[:PORT]",
        help="also answer to this name, which a proxy or a tunnel sends; may be repeated",
    )
    add_model(parser, required=False, more=" (default: the one that made the index)")


def run(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C, which ends with status 130."""
    absent = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        raise InputError(
            f"serve needs {', '.join(absent).replace('PIL', 'pillow')}: "
            "pip install 'atr-moco-plugin[serve]'"
        )
    from atr_moco_plugin.search.bank import refuse_no_bank
    from atr_moco_plugin.search.engines import open_index, shown_address
    from atr_moco_plugin.serving.access import listen
    from atr_moco_plugin.serving.app import create_app
    from atr_moco_plugin.serving.searcher import Searcher
    from atr_moco_plugin.serving.server import serve

    with open_index(options.index) as store:
        info, counts = store.info, store.counts()
        alpha = corrected(options)
        if alpha and store.bank() is None:
            refuse_no_bank(shown_address(options.index))
    # Before the model is loaded: a port in use is said at once.
    listener = listen(options.host, options.port, token=options.token, also=options.allow_host)
    with listener.socket:
        retriever = load_retriever(options, info.model, shown_address(options.index))
        searcher = Searcher(lambda: open_index(options.index), retriever)
        length = duration(counts.seconds)
        say(f"{counted(counts.recordings, 'recording')}, {length}. Ctrl-C ends the page at")
        say(listener.url)
        if options.open:
            webbrowser.open(listener.url)
        index = shown_address(options.index)
        serve(create_app(searcher, listener.access, index, correct=alpha), listener)
    return 0
