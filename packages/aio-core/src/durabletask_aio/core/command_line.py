"""What the sub-commands of `durabletask-aio` share: exit codes, error lines, output and `--json`.

The other distributions write their sub-commands with click and with this module, so that all of them behave alike:
results go to standard output, errors and progress to standard error; a reader of the output that goes away early does
no harm; Ctrl-C ends a command without a traceback.  `run_command` holds the rules in one place, for the installed
command and for `python -m`.

This module imports click, so nothing that `import durabletask.aio` imports may import it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from enum import IntEnum
from pathlib import Path
from typing import Any, TextIO, TypeVar, cast

import click

__all__ = [
    "CommandError",
    "ExitCode",
    "json_option",
    "print_error",
    "printable",
    "run_command",
    "select_format",
    "write",
    "write_json",
    "write_report",
]

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])

_CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_CLOSED_PIPE = {errno.EPIPE, errno.EINVAL} if sys.platform == "win32" else {errno.EPIPE}
"""How writing to a pipe without a reader fails; Windows has another number for it."""


class ExitCode(IntEnum):
    """Exit codes of every sub-command; a callback ends with `ctx.exit(code)`, and returning means `SUCCESS`."""

    SUCCESS = 0
    """The command did its work, and there is nothing to object to."""

    FINDINGS = 1
    """The command did its work, and reports findings, differences or failures."""

    FAILURE = 2
    """Wrong usage, or the command could not do its work: nothing is known about what it was to look at."""

    INTERRUPTED = 130
    """Ended by Ctrl-C; 128 + SIGINT, as shells say it."""


class CommandError(click.ClickException):
    """A command cannot do its work: the message is printed as an error, and the exit code is `ExitCode.FAILURE`."""

    exit_code = ExitCode.FAILURE

    def show(self, file: object = None) -> None:
        """Print the message in the format of all our commands, also where click itself runs the command.

        Args:
            file: Ignored; errors go to standard error.
        """
        print_error(self.format_message())


def run_command(command: click.Command, arguments: Sequence[str] | None = None, *, prog_name: str) -> int:
    """Run a command as a whole program, and turn every way in which it can end into an exit code.

    Args:
        command: The command, or the group of commands.
        arguments: The arguments without the name of the program; `None` means those of this process.
        prog_name: The name of the program for usage lines and hints.

    Returns:
        What the command passed to `ctx.exit()`, 0 if it returned, and otherwise an `ExitCode`: `FAILURE` for wrong
        usage, for `CommandError`, for an `OSError` (a file that is missing or cannot be written) and, after its
        traceback, for an unexpected exception; `INTERRUPTED` for Ctrl-C.
    """
    with _tolerate_closed_pipes():
        code = _run(command, list(sys.argv[1:] if arguments is None else arguments), prog_name)
        try:  # at its exit, the interpreter would print an error if the reader is gone
            print(end="", flush=True)
        except OSError as error:  # a full disk
            print_error(_os_error_text(error))
            return ExitCode.FAILURE
        return code


def _run(command: click.Command, arguments: list[str], prog_name: str) -> int:
    try:
        result: object = command.main(
            arguments, prog_name, standalone_mode=False, windows_expand_args=False, help_option_names=["-h", "--help"]
        )
    except click.Abort:  # click's name for KeyboardInterrupt
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        print_error(error.format_message())
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(f"try: {error.ctx.command_path} --help", err=True)
    except OSError as error:
        print_error(_os_error_text(error))
    except Exception:
        traceback.print_exc()
        print_error(f"this is a defect of {prog_name}; please report it with the lines above")
    else:
        return result if isinstance(result, int) else ExitCode.SUCCESS
    return ExitCode.FAILURE


def _os_error_text(error: OSError) -> str:
    return ": ".join(str(part) for part in (error.filename, error.strerror) if part) or str(error)


def print_error(message: str) -> None:
    """Print `error: message` on standard error.

    The prefix is red on a terminal, unless the environment variable `NO_COLOR` is set.

    Args:
        message: What is wrong and what to do about it; may have several lines.
    """
    color = False if os.environ.get("NO_COLOR") else None  # None: if it is a terminal
    click.echo(f"{click.style('error:', fg='red', bold=True)} {printable(message)}", err=True, color=color)


def write(text: str) -> None:
    r"""Write to standard output what every terminal can show.

    Payloads and messages of failures hold whatever programs put there. Characters that would move the cursor or change
    its colour are written as `\x1b`; those that the encoding of the output does not have become question marks.

    Args:
        text: The text, with its newlines.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(printable(text).encode(encoding, errors="replace").decode(encoding), end="")


def write_json(document: object, *, indent: int | None = 2) -> None:
    """Write one JSON document, in ASCII, and a newline to standard output.

    Args:
        document: Anything that the `json` module encodes.
        indent: Spaces for each level; `None` for a document on one line.
    """
    write(json.dumps(document, indent=indent) + "\n")


def write_report(text: str, output: Path | None) -> None:
    """Write a report where the user wants it.

    Args:
        text: The report, with its newlines.
        output: The file to write, in UTF-8; missing folders are made. `None` means standard output.

    Raises:
        OSError: The file cannot be written.
    """
    if output is None:
        write(text)
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")


def json_option(function: _Decorated) -> _Decorated:
    """Add `--json` to a command, as the parameter `as_json`.

    Args:
        function: The callback of the command; with the option, it writes exactly one JSON document to standard output.

    Returns:
        The callback.
    """
    text = "Print one JSON document for programs, and nothing else, on standard output."
    return click.option("--json", "as_json", is_flag=True, help=text)(function)


def select_format(given: str | None, as_json: bool) -> str:
    """Decide between `--format` and `--json`, which is short for `--format json`.

    Args:
        given: The value of `--format`, `None` if it was not given.
        as_json: Whether `--json` was given.

    Returns:
        The format; `"text"` if neither was given.

    Raises:
        click.UsageError: The two contradict each other.
    """
    if as_json and given not in (None, "json"):
        raise click.UsageError(
            f"--json and --format {given} exclude each other", click.get_current_context(silent=True)
        )
    return "json" if as_json else given or "text"


def printable(text: str) -> str:
    r"""Replace the characters that would move a terminal's cursor or change its colour.

    Args:
        text: Any text, such as an id, a payload or the message of a failure.

    Returns:
        The text, with these characters written as `\x1b`.
    """
    return _CONTROL_CHARACTERS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class _PipeTolerantStream:
    """Forwards to a text stream; once the reader of a pipe is gone, output is discarded instead of an error."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._discarding():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._discarding():
            self._stream.flush()

    @contextmanager
    def _discarding(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # What is buffered, and the flush at the exit of the interpreter, then have somewhere to go.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            if error.errno not in _CLOSED_PIPE:
                raise


@contextmanager
def _tolerate_closed_pipes() -> Iterator[None]:
    """Let the command end with its own exit code if `| head` has read enough."""
    out, err = (cast("TextIO | None", stream) for stream in (sys.stdout, sys.stderr))  # None after `>&-`
    with (
        redirect_stdout(out and cast("TextIO", _PipeTolerantStream(out))),
        redirect_stderr(err and cast("TextIO", _PipeTolerantStream(err))),
    ):
        yield
