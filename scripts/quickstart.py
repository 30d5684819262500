"""Set everything up, run an order and kill its process in the middle: `python3 scripts/quickstart.py`."""

import os
import sys

import _setup

if __name__ == "__main__":
    program = os.path.join(_setup.ROOT, "examples", "order.py")
    sys.exit(_setup.run([_setup.prepare(), program] + (sys.argv[1:] or ["--demo"])))
