"""`docs/command-line.md` says what the installed commands do: exit codes, sub-commands, keys of JSON documents."""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import pytest

from durabletask_aio.core.cli import main
from durabletask_aio.core.command_line import ExitCode
from durabletask_aio.core.plugins import COMMANDS_GROUP

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/command-line.md").read_text(encoding="utf-8")
HISTORY = ROOT / "tests/histories/0.1/activity_by_name_with_tags.py311.json"
FLOW = """
import time
from durabletask.aio import AsyncWorkflowContext

async def flow(ctx: AsyncWorkflowContext):
    return time.time()
"""


def rows(heading: str) -> dict[str, str]:
    """The table whose first column has this heading: its second column by its first."""
    _, _, table = PAGE.partition(f"| {heading} |")
    lines = table.partition("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first.strip("`"): second for first, second, *_ in cells}


def keys(document: Any) -> set[str]:
    """All keys of a document, at every level."""
    if isinstance(document, dict):
        return set(document).union(*map(keys, document.values()))
    return set().union(*map(keys, document)) if isinstance(document, list) else set()


def test_exit_codes() -> None:
    assert list(rows("Exit code")) == [str(int(code)) for code in ExitCode]


def test_sub_commands_and_their_json_option() -> None:
    entries = entry_points(group=COMMANDS_GROUP)
    assert set(rows("Sub-command")) == {entry.name for entry in entries}
    for entry in entries:
        command = entry.load()
        assert isinstance(command, click.Command)
        assert any("--json" in parameter.opts for parameter in command.params), entry.name


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("check --json", ["check", "flow.py", "--json"]),
        ("check --explain CODE --json", ["check", "--explain", "DET101", "--json"]),
        ("replay --json", ["replay", "--orchestrators", "workflows", "--json", str(HISTORY)]),
        ("timeline --json", ["timeline", str(HISTORY), "--json"]),
    ],
)
def test_keys_of_documents(
    command: str,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "flow.py").write_text(FLOW)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(HISTORY.parents[1]))
    # Another test may have imported a module of this name; it is put back afterwards.
    monkeypatch.setitem(sys.modules, "workflows", None)
    del sys.modules["workflows"]
    main(arguments)
    output = capsys.readouterr()
    assert output.err == ""
    named = re.findall(r"`(\w+)`", rows("Command")[command])
    assert keys(json.loads(output.out)) == set(named)


def test_the_document_of_all_rules(capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", "--rules", "--json"])
    (rules,) = json.loads(capsys.readouterr().out).values()
    assert f"`check --explain CODE --json` | {', '.join(f'`{key}`' for key in rules[0])} |" in PAGE
