"""``python -m omnitraining`` is the ``omni`` program, for launchers that start Python modules."""

import sys

from omnitraining.cli import main

if __name__ == "__main__":
    sys.exit(main())
