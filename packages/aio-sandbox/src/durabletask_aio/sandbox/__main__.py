"""``python -m durabletask_aio.sandbox``: the checker without the console script."""

from __future__ import annotations

import argparse
import sys

from durabletask_aio.sandbox.cli.lint import COMMAND

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m durabletask_aio.sandbox", description=COMMAND.help)
    COMMAND.configure(parser)
    sys.exit(COMMAND.run(parser.parse_args()))
