"""`python -m durabletask_aio`: the command `durabletask-aio` where the folder of scripts is not on the PATH.

The only file at the root of the namespace; it belongs to the distribution of the core.
"""

from __future__ import annotations

import sys

from durabletask_aio.core.cli import main

if __name__ == "__main__":
    sys.exit(main())
