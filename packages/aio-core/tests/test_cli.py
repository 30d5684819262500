"""The `durabletask-aio` command: sub-commands of other distributions, and what it says when they are not there."""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import click
import pytest

from durabletask_aio.core import cli
from durabletask_aio.core.plugins import COMMANDS_GROUP


@click.command("greet", help="Say hello.")
@click.argument("name")
@click.option("--loud", is_flag=True)
@click.pass_context
def greet(ctx, name, loud):
    click.echo(f"hello {name}{'!' if loud else ''}")
    ctx.exit(3)


class ArgparseCommand:
    """A sub-command as companions of the core's first version have them."""

    help = "say hello"

    def configure(self, parser):
        raise AssertionError

    def run(self, arguments):
        raise AssertionError


def entry(name, loaded, distribution="acme-commands", version="1.2"):
    def load():
        if isinstance(loaded, BaseException):
            raise loaded
        return loaded

    dist = SimpleNamespace(name=distribution, version=version)
    return SimpleNamespace(name=name, group=COMMANDS_GROUP, value="acme:command", dist=dist, load=load)


@pytest.fixture
def commands(monkeypatch):
    found = []
    monkeypatch.setattr(cli, "entry_points", lambda *, group: found)
    return found


def test_a_sub_command_runs_with_its_arguments(commands, capsys):
    commands.append(entry("greet", greet))
    assert cli.main(["greet", "anna", "--loud"]) == 3
    assert capsys.readouterr().out == "hello anna!\n"


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("check", "sandbox"),
        ("conformance", "testing"),
        ("replay", "testing"),
        ("timeline", "testing"),
        ("dev", "testing"),
    ],
)
def test_a_known_sub_command_that_is_missing_says_what_to_install(commands, capsys, command, extra):
    assert cli.main([command, "something", "--option"]) == 2
    assert capsys.readouterr().err == (
        f'error: durabletask-aio {command} is not installed: pip install "durabletask-aio-core[{extra}]"\n'
    )


@pytest.mark.parametrize(
    ("given", "hint"), [("gret", "; did you mean 'greet'?"), ("rply", "; did you mean 'replay'?"), ("xyz", "")]
)
def test_an_unknown_one_is_wrong_usage_and_the_nearest_is_named(commands, capsys, given, hint):
    commands.append(entry("greet", greet))
    assert cli.main([given]) == 2
    assert capsys.readouterr().err == f"error: there is no command {given!r}{hint}\ntry: durabletask-aio --help\n"


def test_wrong_arguments_of_a_sub_command_are_wrong_usage(commands, capsys):
    commands.append(entry("greet", greet))
    assert cli.main(["greet"]) == 2
    assert capsys.readouterr().err == "error: Missing argument 'NAME'.\ntry: durabletask-aio greet --help\n"


def test_an_option_that_is_not_there_is_wrong_usage(commands, capsys):
    commands.append(entry("greet", greet))
    assert cli.main(["--lout"]) == 2
    assert cli.main(["greet", "anna", "--lout"]) == 2
    error = capsys.readouterr().err
    assert "error: No such option" in error
    assert "--lout" in error


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_what_there_is_and_what_could_be(commands, capsys, arguments):
    commands += [entry("greet", greet), entry("check", greet)]
    assert cli.main(arguments) == 0
    _, _, listed = capsys.readouterr().out.partition("Commands:\n")
    installed, _, missing = listed.partition("Not installed:\n")
    assert [line.split() for line in installed.splitlines() if line] == [
        ["check", "Say", "hello."],
        ["greet", "Say", "hello."],
    ]
    extras = {
        "backup": "engine",
        "cancel": "engine",
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
    assert [line.split(maxsplit=1) for line in missing.splitlines()] == [
        [name, f'pip install "durabletask-aio-core[{extra}]"'] for name, extra in extras.items()
    ]


def test_the_help_of_a_sub_command_is_short_for_the_list_and_whole_for_itself(commands, capsys):
    commands.append(entry("greet", greet))
    assert cli.main(["greet", "-h"]) == 0
    assert capsys.readouterr().out.startswith("Usage: durabletask-aio greet [OPTIONS] NAME\n\n  Say hello.\n")


def test_with_nothing_installed_it_says_how_to_get_something(commands, capsys):
    assert cli.main([]) == 0
    assert 'no commands are installed: pip install "durabletask-aio-core[all]"' in capsys.readouterr().out


def test_a_broken_sub_command_is_shown_as_such_and_the_others_work(commands, capsys):
    commands += [entry("broken", ImportError("no module named acme")), entry("greet", greet)]
    assert cli.main([]) == 0
    assert "(cannot be loaded: ImportError: no module named acme)" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["greet", "anna"]) == 3


@pytest.mark.parametrize("arguments", [[], ["--help"], ["x", "--option=1", "-y"]])
def test_running_a_broken_sub_command_fails_with_its_reason(commands, capsys, arguments):
    commands.append(entry("broken", ImportError("no module named acme")))
    assert cli.main(["broken", *arguments]) == 2
    assert capsys.readouterr().err == (
        "error: durabletask-aio broken cannot be loaded: ImportError: no module named acme\n"
    )


def test_a_sub_command_of_before_click_names_both_distributions(commands, capsys, monkeypatch):
    monkeypatch.setattr(cli.installation, "version", {"durabletask-aio-core": "0.2.0"}.get)
    commands.append(entry("check", ArgparseCommand(), "durabletask-aio-sandbox", "0.1.0"))
    assert cli.main(["check", "src"]) == 2
    assert capsys.readouterr().err == (
        "error: durabletask-aio check cannot be loaded: durabletask-aio-sandbox 0.1.0 (entry point 'check' of group "
        "'durabletask.aio.commands') is not a click command, which durabletask-aio-core 0.2.0 needs\n"
        "  pip install --upgrade durabletask-aio-core durabletask-aio-sandbox\n"
    )


def test_only_the_wanted_sub_command_is_loaded(commands):
    commands += [entry("greet", greet), entry("slow", AssertionError("loaded"))]
    assert cli.main(["greet", "anna"]) == 3


def test_ctrl_c_while_a_sub_command_is_imported(commands, capsys):
    commands.append(entry("slow", KeyboardInterrupt()))
    assert cli.main(["slow"]) == 130
    assert capsys.readouterr().err == "\n"


def test_the_versions_are_those_of_what_is_installed(commands, capsys, monkeypatch):
    installed = {"durabletask-aio-core": "1.2", "durabletask-aio-worker": "3.4", "durabletask": "5.6"}

    def installed_version(name):
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(cli, "version", installed_version)
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == "durabletask-aio-core 1.2\ndurabletask-aio-worker 3.4\ndurabletask 5.6\n"


@pytest.mark.parametrize("module", ["durabletask_aio", "durabletask_aio.core.cli"])
def test_it_can_be_run_as_a_module(module):
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("durabletask-aio-core ")
    assert not done.stderr


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [("KeyboardInterrupt", 130, "\n"), ("ImportError", 2, "error: .*acme is not one that fits.*\n")],
)
def test_what_ends_the_import_of_the_core_is_no_traceback(tmp_path, error, code, expected):
    (tmp_path / "durabletask").mkdir()
    (tmp_path / "durabletask" / "__init__.py").write_text(f"raise {error}('acme is not one that fits')\n")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from durabletask_aio import __main__ as command"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; sys.exit(command.main())"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert re.fullmatch(expected, done.stderr)


def test_the_library_does_not_import_click():
    code = "import sys, durabletask.aio; from durabletask_aio.core import plugins; print('click' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_shell_can_complete_the_names_of_sub_commands(commands, capsys, monkeypatch):
    commands += [entry("greet", greet), entry("grow", greet), entry("other", greet)]
    monkeypatch.setenv("_DURABLETASK_AIO_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "durabletask-aio gr")
    monkeypatch.setenv("COMP_CWORD", "1")
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 0
    assert capsys.readouterr().out == "plain,greet\nplain,grow\n"
