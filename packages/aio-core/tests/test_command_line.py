"""What sub-commands of `durabletask-aio` share: exit codes, error lines, `--json`, closed pipes, Ctrl-C."""

import io
import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from durabletask_aio.core import command_line
from durabletask_aio.core.command_line import (
    CommandError,
    ExitCode,
    json_option,
    print_error,
    run_command,
    select_format,
    write,
    write_json,
    write_report,
)


def run(function, *arguments):
    return run_command(click.command("work")(function), arguments, prog_name="acme work")


def ending_with(error):
    def work():
        raise error

    return work


class TestExitCodes:
    def test_a_command_that_returns_succeeds(self):
        assert run(lambda: None) == int(ExitCode.SUCCESS) == 0

    def test_a_command_chooses_its_code(self):
        assert run(lambda: click.get_current_context().exit(ExitCode.FINDINGS)) == 1

    @pytest.mark.parametrize(
        ("error", "text"),
        [
            (CommandError("there is no history"), "error: there is no history\n"),
            (CommandError("two lines\n  pip install acme"), "error: two lines\n  pip install acme\n"),
            (click.ClickException("of click's own"), "error: of click's own\n"),
            (click.UsageError("wrong"), "error: wrong\ntry: acme work --help\n"),
            (FileNotFoundError(2, "No such file or directory", "x.json"), "error: x.json: No such file or directory\n"),
            (OSError("the disk is gone"), "error: the disk is gone\n"),
            (KeyboardInterrupt(), "\n"),
        ],
    )
    def test_errors_are_one_message_each(self, error, text, capsys):
        code = 130 if isinstance(error, KeyboardInterrupt) else 2
        assert run(ending_with(error)) == code
        assert capsys.readouterr().err == text

    def test_an_unexpected_exception_is_not_taken_for_a_finding(self, capsys):
        assert run(ending_with(ZeroDivisionError("oh"))) == 2
        error = capsys.readouterr().err
        assert "ZeroDivisionError: oh" in error
        assert error.endswith("error: this is a defect of acme work; please report it with the lines above\n")

    def test_click_itself_shows_our_errors_the_same_way(self):
        result = CliRunner().invoke(click.command()(ending_with(CommandError("there is no history"))))
        assert (result.exit_code, result.output) == (2, "error: there is no history\n")

    def test_the_arguments_are_those_of_the_process(self, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["work", "-h"])
        assert run_command(click.command("work")(lambda: None), prog_name="acme work") == 0
        assert capsys.readouterr().out.startswith("Usage: acme work [OPTIONS]\n")


class TestErrors:
    def test_what_would_change_the_terminal_is_shown_and_not_sent(self, capsys):
        print_error("payload \x1b[31mred")
        assert capsys.readouterr().err == "error: payload \\x1b[31mred\n"

    @pytest.mark.parametrize(
        ("no_color", "expected"), [(None, "\x1b[31m\x1b[1merror:\x1b[0m no\n"), ("1", "error: no\n")]
    )
    def test_colour_is_for_terminals_whose_user_wants_it(self, monkeypatch, no_color, expected):
        class Terminal(io.StringIO):
            def isatty(self):
                return True

        if no_color is None:
            monkeypatch.delenv("NO_COLOR", raising=False)
        else:
            monkeypatch.setenv("NO_COLOR", no_color)
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        print_error("no")
        assert terminal.getvalue() == expected


class TestOutput:
    def test_what_would_change_the_terminal_is_shown_and_not_sent(self, capsys):
        write("tab\tline\nbell\x07 \x9b31m\n")
        assert capsys.readouterr().out == "tab\tline\nbell\\x07 \\x9b31m\n"

    def test_a_console_without_the_characters_gets_question_marks(self, monkeypatch):
        console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        monkeypatch.setattr(sys, "stdout", console)
        write("✓ é\n")
        console.flush()
        assert console.buffer.getvalue().replace(b"\r", b"") == b"? ?\n"

    def test_json_is_ascii(self, capsys):
        write_json({"text": "é\x1b"})
        assert capsys.readouterr().out == '{\n  "text": "\\u00e9\\u001b"\n}\n'
        write_json({"text": "é"}, indent=None)
        assert capsys.readouterr().out == '{"text": "\\u00e9"}\n'

    def test_a_report_goes_to_a_new_folder_or_to_standard_output(self, tmp_path, capsys):
        write_report("é\n", tmp_path / "new" / "report.txt")
        assert (tmp_path / "new" / "report.txt").read_text(encoding="utf-8") == "é\n"
        write_report("é\n", None)
        assert capsys.readouterr().out == "é\n"

    def test_no_standard_output_at_all(self, monkeypatch):
        monkeypatch.setattr(sys, "stdout", None)  # as after `>&-`
        assert run(lambda: write("text\n")) == 0


class TestFormat:
    @click.command("work")
    @click.option("--format", "format_", type=click.Choice(["text", "json", "xml"]))
    @json_option
    def work(format_: Any, as_json: bool) -> None:
        click.echo(select_format(format_, as_json))

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ([], "text"),
            (["--json"], "json"),
            (["--format", "json"], "json"),
            (["--format=xml"], "xml"),
            (["--json", "--format", "json"], "json"),
        ],
    )
    def test_json_is_short_for_the_format(self, arguments, expected):
        result = CliRunner().invoke(self.work, arguments)
        assert (result.exit_code, result.output) == (0, f"{expected}\n")

    def test_two_formats_are_wrong_usage(self, capsys):
        assert run_command(self.work, ["--json", "--format", "xml"], prog_name="work") == 2
        assert capsys.readouterr().err == "error: --json and --format xml exclude each other\ntry: work --help\n"


PROGRAM = """
    import sys, time
    import click
    from durabletask_aio.core import command_line

    @click.command()
    @click.argument("duty")
    @click.pass_context
    def work(ctx, duty):
        if duty == "wait":
            print("ready", flush=True)
            time.sleep(60)
        for number in range(20_000 if duty == "much" else 1):
            command_line.write(f"line {number}\\n")
        if duty == "error":
            sys.stdin.read()  # until the readers are gone
            print("a module's own print", flush=True)
            command_line.print_error("nobody reads this")
            raise command_line.CommandError("nor this")
        ctx.exit(command_line.ExitCode.FINDINGS)

    sys.exit(command_line.run_command(work, prog_name="work"))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")
class TestProcesses:
    def start(self, folder: Path, duty: str, **streams: Any) -> "subprocess.Popen[str]":
        program = folder / "program.py"
        program.write_text(textwrap.dedent(PROGRAM))
        return subprocess.Popen(
            [sys.executable, str(program), duty],
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
        )

    @pytest.mark.parametrize("duty", ["much", "little"])
    def test_a_reader_that_goes_away_changes_neither_code_nor_errors(self, tmp_path, duty):
        with self.start(tmp_path, duty) as process:
            if duty == "much":
                assert process.stdout.readline() == "line 0\n"
            process.stdout.close()
            assert process.stderr.read() == ""
        assert process.returncode == 1

    def test_a_reader_of_errors_that_goes_away(self, tmp_path):
        with self.start(tmp_path, "error", stdin=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            process.stdout.close()
            process.stdin.close()
        assert process.returncode == 2

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
    @pytest.mark.parametrize("duty", ["much", "little"])
    def test_a_full_disk_is_one_error(self, tmp_path, duty):
        with Path("/dev/full").open("w") as full, self.start(tmp_path, duty, stdout=full) as process:
            assert process.stderr.read() == "error: No space left on device\n"
        assert process.returncode == 2

    def test_ctrl_c(self, tmp_path):
        with self.start(tmp_path, "wait") as process:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            assert process.stderr.read() == "\n"
        assert process.returncode == 130


def test_everything_that_companions_may_use_is_listed():
    assert command_line.__all__ == sorted(command_line.__all__)
    assert all(hasattr(command_line, name) for name in command_line.__all__)


def test_json_documents_are_complete(capsys):
    write_json([1, {"a": None}])
    assert json.loads(capsys.readouterr().out) == [1, {"a": None}]
