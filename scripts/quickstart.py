"""Set everything up and run the Quick Start: `python3 scripts/quickstart.py`."""

import os
import sys

import _setup

if __name__ == "__main__":
    program = os.path.join(_setup.ROOT, "examples", "quick_start.py")
    sys.exit(_setup.run([_setup.prepare(), program] + sys.argv[1:]))
