"""``python -m atr_moco_plugin.recipes.compare RUN RUN ...``: are two models really different?
It needs no fairseq2."""

from __future__ import annotations

import sys

from atr_moco_plugin.comparison.command import main

if __name__ == "__main__":
    sys.exit(main())
