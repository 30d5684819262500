"""`durabletask-aio`: one command, whose sub-commands come with the other distributions.

Sub-commands are entry points of the group `durabletask.aio.commands`.  One is imported when it is run, and all of them
when a list with their short help is shown, since each imports a good part of its distribution.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version

import click

from durabletask_aio.core import installation, plugins
from durabletask_aio.core.command_line import CommandError, run_command

_PROGRAM = "durabletask-aio"

_PARTS = ("core", "worker", "sandbox", "testing", "engine")
"""The last part of the name of each of our distributions."""

_EXTRAS = {
    "backup": "engine",
    "cancel": "engine",
    "check": "sandbox",
    "conformance": "testing",
    "dev": "testing",
    "export": "engine",
    "fork": "engine",
    "list": "engine",
    "new": "testing",
    "purge": "engine",
    "raise": "engine",
    "replay": "testing",
    "resume": "engine",
    "retention": "engine",
    "run": "engine",
    "serve": "engine",
    "show": "engine",
    "start": "engine",
    "suspend": "engine",
    "terminate": "engine",
    "timeline": "testing",
}
"""The extra of the core's distribution that brings a sub-command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The arguments without the name of the program; `None` means those of this process.

    Returns:
        The exit code, one of `command_line.ExitCode`, or what the sub-command chose.
    """
    return run_command(_EntryPointGroup(), arguments, prog_name=_PROGRAM)


class _EntryPointGroup(click.Group):
    """The group of all sub-commands that are installed."""

    def __init__(self) -> None:
        super().__init__(
            _PROGRAM,
            help="async/await for durable workflows",
            callback=_show_help,
            invoke_without_command=True,
            params=[
                click.Option(
                    ["--version"],
                    is_flag=True,
                    is_eager=True,
                    expose_value=False,
                    callback=_show_versions,
                    help="Show the versions of our distributions and of durabletask, and exit.",
                )
            ],
        )

    @cached_property
    def entries(self) -> dict[str, EntryPoint]:
        """The entry points of the sub-commands by name."""
        return {entry.name: entry for entry in entry_points(group=plugins.COMMANDS_GROUP)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self.entries.get(cmd_name)
        return None if entry is None else _load(entry)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.entries and not ctx.resilient_parsing:
            self._fail(args[0], ctx)
        return super().resolve_command(ctx, args)

    def _fail(self, name: str, ctx: click.Context) -> None:
        if name in _EXTRAS:
            raise CommandError(f"{_PROGRAM} {name} is not installed: {_pip_line(_EXTRAS[name])}")
        nearest = difflib.get_close_matches(name, {*self.entries, *_EXTRAS}, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise click.UsageError(f"there is no command {name!r}{hint}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_commands(ctx, formatter)
        missing = [(name, _pip_line(extra)) for name, extra in _EXTRAS.items() if name not in self.entries]
        if not self.entries:
            formatter.write_paragraph()
            formatter.write_text(f"no commands are installed: {_pip_line('all')}")
        elif missing:
            with formatter.section("Not installed"):
                formatter.write_dl(missing)


@click.pass_context
def _show_help(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _show_versions(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo("\n".join(_versions()))
        ctx.exit()


def _versions() -> Iterator[str]:
    """What a report of a defect should say is installed: each of our distributions, and upstream's."""
    for name in (*(f"durabletask-aio-{part}" for part in _PARTS), "durabletask"):
        with suppress(PackageNotFoundError):
            yield f"{name} {version(name)}"


def _pip_line(extra: str) -> str:
    return f'pip install "{installation.CORE}[{extra}]"'


def _load(entry: EntryPoint) -> click.Command:
    """Import a sub-command; one that cannot be imported is replaced, so that the others work and help lists all."""
    try:
        command: object = entry.load()
    except Exception as error:
        return _BrokenCommand(entry.name, f"{type(error).__name__}: {error}")
    if not isinstance(command, click.Command):
        # As of a companion for the core of 0.1.0, whose sub-commands were written for argparse.
        reason = (
            f"{plugins.origin(entry)} is not a click command, which {installation.CORE} "
            f"{installation.version(installation.CORE)} needs\n"
            f"  pip install --upgrade {installation.CORE} {plugins.distribution_name(entry)}"
        )
        return _BrokenCommand(entry.name, reason)
    return command


class _BrokenCommand(click.Command):
    """Stands in for a sub-command that cannot be loaded, and says why, with whatever arguments it is called."""

    def __init__(self, name: str, reason: str) -> None:
        self._reason = f"cannot be loaded: {reason}"
        super().__init__(
            name,
            short_help=f"({' '.join(self._reason.split())})",
            add_help_option=False,
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        )

    def invoke(self, ctx: click.Context) -> None:
        raise CommandError(f"{_PROGRAM} {self.name} {self._reason}")


if __name__ == "__main__":
    sys.exit(main())
