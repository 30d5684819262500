"""`python -m durabletask_aio.sandbox`: the checker without the console script."""

from __future__ import annotations

import sys

from durabletask_aio.core.command_line import run_command
from durabletask_aio.sandbox.cli.check import check

if __name__ == "__main__":
    sys.exit(run_command(check, prog_name="python -m durabletask_aio.sandbox"))
