"""``python -m atr_moco_plugin COMMAND``, also installed as ``atr-moco COMMAND``."""

import sys

from atr_moco_plugin.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
