"""The scripts in `.ci` and the workflows of GitHub: pinned actions, and the same steps in both."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RUN = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
LONG = (ROOT / ".ci" / "long").read_text(encoding="utf-8")


def workflow(name: str) -> str:
    return (ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8")


def hatch_commands(text: str) -> set[str]:
    """The commands `environment:script` that a script or a workflow gives to hatch."""
    return set(re.findall(r"(?:hatch run (?:\+\S+ )?|^ *- )\"?([a-z]+:[a-z-]+)\b", text, re.MULTILINE))


def scripts_of_hatch() -> set[str]:
    """All `environment:script` of hatch.toml; Python 3.10 has no TOML parser."""
    found: set[str] = set()
    templates: dict[str, str] = {}
    environment, in_scripts = "", False
    for line in (ROOT / "hatch.toml").read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"\[+envs\.([a-z]+)(\.scripts)?", line):
            environment, in_scripts = heading[1], heading[2] is not None
        elif template := re.match(r'template = "(\w+)"', line):
            templates[environment] = template[1]
        elif in_scripts and (script := re.match(r"([a-z-]+) = ", line)):
            found.add(f"{environment}:{script[1]}")
    for inheriting, template_name in templates.items():
        found |= {f"{inheriting}:{name.partition(':')[2]}" for name in found if name.startswith(f"{template_name}:")}
    return found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_and_name_their_version(path: Path) -> None:
    """A tag can be moved to other code; dependabot updates both the commit and the comment."""
    uses = re.findall(r"uses: (.+)", path.read_text(encoding="utf-8"))
    assert [use for use in uses if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use)] == []


def test_one_version_of_each_action() -> None:
    pins = {use for path in WORKFLOWS for use in re.findall(r"uses: (\S+@\S+)", path.read_text(encoding="utf-8"))}
    assert len(pins) == len({pin.partition("@")[0] for pin in pins})


def test_the_nightly_workflow_runs_the_steps_of_the_long_script() -> None:
    available = re.search(r"^available=\((.+)\)$", LONG, re.MULTILINE)
    nightly = re.search(r"step: \[(.+)\]", workflow("nightly.yml"))
    assert available is not None
    assert nightly is not None
    assert nightly[1].split(", ") == available[1].split()
    assert re.findall(r"^#   (\w+)  ", LONG, re.MULTILINE) == available[1].split()


def test_the_checks_of_a_pull_request_are_those_of_the_script() -> None:
    checks = hatch_commands(workflow("tests.yml").partition("  checks:")[2].partition("steps:")[0])
    assert len(checks) >= 9
    assert "pythons:all" in hatch_commands(RUN)
    assert "--coverage" in RUN
    assert checks - {"test:measure"} <= hatch_commands(RUN)  # that one is run by `pythons:all --coverage`


def test_scripts_and_workflows_give_hatch_commands_that_exist() -> None:
    texts = [RUN, LONG, *(path.read_text(encoding="utf-8") for path in WORKFLOWS)]
    commands = {command for text in texts for command in hatch_commands(text)}
    commands -= {"upstream:python", "test:python"}  # of every environment
    assert len(commands) >= 15
    assert commands - scripts_of_hatch() == set()


def test_an_unknown_long_step_is_refused_with_those_that_exist() -> None:
    result = subprocess.run(["bash", ROOT / ".ci" / "long", "slowly"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == "error: no step 'slowly'; there are: slow seeds upstream javascript dapr\n"
