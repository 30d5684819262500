"""The command `durabletask-aio`, and `python -m durabletask_aio`: imports the command line, and runs it.

Importing takes some tenths of a second, in which Ctrl-C or an installation that does not fit should not be a traceback
either.  This is the only file at the root of the namespace; it belongs to the distribution of the core.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line with the arguments of this process.

    Returns:
        The exit code; see `durabletask_aio.core.command_line.ExitCode`.
    """
    try:
        from durabletask_aio.core import cli
    except KeyboardInterrupt:
        sys.stderr.write("\n")  # after the ^C of the terminal
        return 130
    except ImportError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
