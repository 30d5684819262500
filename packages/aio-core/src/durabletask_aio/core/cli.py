"""``durabletask-aio``: one command, whose sub-commands come with the other distributions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import Any

from durabletask_aio.core import plugins

_KNOWN = {
    "check": "durabletask-aio-core[sandbox]",
    "dev": "durabletask-aio-core[testing]",
    "replay": "durabletask-aio-core[testing]",
    "timeline": "durabletask-aio-core[testing]",
}
"""What to install for a sub-command that is not there."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, what the sub-command says, or 2 for a wrong call."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    entries = {entry.name: entry for entry in entry_points(group=plugins.COMMANDS_GROUP)}
    wanted = next((argument for argument in given if not argument.startswith("-")), None)
    if wanted in _KNOWN and wanted not in entries:
        print(f'durabletask-aio {wanted} is not installed: pip install "{_KNOWN[wanted]}"', file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(
        prog="durabletask-aio",
        description="async/await for durable workflows",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # a line for each version
    )
    parser.add_argument("--version", action="version", version="\n".join(_versions()))
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, entry in sorted(entries.items()):
        if wanted == name or wanted not in entries:  # one that is not there: the complaint lists all that are
            _add(commands, name, entry)
    parsed = parser.parse_args(given)
    if parsed.command is None:
        parser.print_help()
        if not entries:
            print('\nno commands are installed: pip install "durabletask-aio-core[all]"')
        return 0
    command: plugins.Command = parsed.run_command
    return command.run(parsed)


def _versions() -> Iterator[str]:
    """What a report of a defect should say is installed: each of our distributions, and upstream's."""
    for name in (*(f"durabletask-aio-{part}" for part in ("core", "worker", "sandbox", "testing")), "durabletask"):
        with suppress(PackageNotFoundError):
            yield f"{name} {version(name)}"


def _add(commands: Any, name: str, entry: EntryPoint) -> None:
    try:
        command: plugins.Command = entry.load()
    except Exception as error:
        problem = f"cannot be loaded: {type(error).__name__}: {error}"
        parser = commands.add_parser(name, help=f"({problem})")
        parser.set_defaults(run_command=_Broken(f"durabletask-aio {name} {problem}"))
        return
    parser = commands.add_parser(name, help=command.help, description=command.help)
    command.configure(parser)
    parser.set_defaults(run_command=command)


class _Broken:
    """Stands in for a command that cannot be loaded: the others are to work, and help is to list them all."""

    def __init__(self, problem: str) -> None:
        self.help = problem

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """There is nothing to configure."""

    def run(self, arguments: object) -> int:
        print(self.help, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
