"""The `durabletask-aio` command: sub-commands of other distributions, and what it says when they are not there."""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import pytest

from durabletask_aio.core import cli


class Greet:
    help = "say hello"

    def configure(self, parser):
        parser.add_argument("name")
        parser.add_argument("--loud", action="store_true")

    def run(self, arguments):
        print(f"hello {arguments.name}{'!' if arguments.loud else ''}")
        return 3


def entry(name, loaded):
    def load():
        if isinstance(loaded, Exception):
            raise loaded
        return loaded

    return SimpleNamespace(name=name, load=load)


@pytest.fixture
def commands(monkeypatch):
    found = []
    monkeypatch.setattr(cli, "entry_points", lambda *, group: found)
    return found


def test_a_sub_command_runs_with_its_arguments(commands, capsys):
    commands.append(entry("greet", Greet()))
    assert cli.main(["greet", "anna", "--loud"]) == 3
    assert capsys.readouterr().out == "hello anna!\n"


@pytest.mark.parametrize(
    ("command", "extra"), [("check", "sandbox"), ("replay", "testing"), ("timeline", "testing"), ("dev", "testing")]
)
def test_a_known_sub_command_that_is_missing_says_what_to_install(commands, capsys, command, extra):
    assert cli.main([command, "something", "--option"]) == 2
    assert capsys.readouterr().err == (
        f'durabletask-aio {command} is not installed: pip install "durabletask-aio-core[{extra}]"\n'
    )


def test_an_unknown_one_is_a_wrong_call(commands, capsys):
    commands.append(entry("greet", Greet()))
    with pytest.raises(SystemExit) as caught:
        cli.main(["gret"])
    assert caught.value.code == 2
    assert re.search(r"invalid choice: 'gret' \(choose from '?greet'?\)", capsys.readouterr().err)


def test_wrong_arguments_of_a_sub_command_are_a_wrong_call(commands, capsys):
    commands.append(entry("greet", Greet()))
    with pytest.raises(SystemExit) as caught:
        cli.main(["greet"])
    assert caught.value.code == 2
    assert "the following arguments are required: name" in capsys.readouterr().err


def test_without_arguments_it_lists_what_there_is(commands, capsys):
    commands.append(entry("greet", Greet()))
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert "greet" in out
    assert "say hello" in out


def test_with_nothing_installed_it_says_how_to_get_something(commands, capsys):
    assert cli.main([]) == 0
    assert 'no commands are installed: pip install "durabletask-aio-core[all]"' in capsys.readouterr().out


def test_a_broken_sub_command_is_shown_as_such_and_the_others_work(commands, capsys):
    commands += [entry("broken", ImportError("no module named acme")), entry("greet", Greet())]
    assert cli.main([]) == 0
    assert "cannot be loaded: ImportError: no module named acme" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["greet", "anna"]) == 3


def test_running_a_broken_sub_command_fails_with_its_reason(commands, capsys):
    commands.append(entry("broken", ImportError("no module named acme")))
    assert cli.main(["broken"]) == 2
    assert capsys.readouterr().err == ("durabletask-aio broken cannot be loaded: ImportError: no module named acme\n")


def test_only_the_wanted_sub_command_is_loaded(commands):
    commands += [entry("greet", Greet()), entry("slow", AssertionError("loaded"))]
    assert cli.main(["greet", "anna"]) == 3


def test_the_versions_are_those_of_what_is_installed(commands, capsys, monkeypatch):
    installed = {"durabletask-aio-core": "1.2", "durabletask-aio-worker": "3.4", "durabletask": "5.6"}

    def installed_version(name):
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(cli, "version", installed_version)
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == "durabletask-aio-core 1.2\ndurabletask-aio-worker 3.4\ndurabletask 5.6\n"


def test_it_can_be_run_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "durabletask_aio.core.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("durabletask-aio-core ")
    assert not done.stderr
