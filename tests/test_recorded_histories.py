"""Histories that were recorded with a released version are replayed by today's code, action by action.

Each file in a folder of `tests/histories` named after a version stands for an instance in flight.  Its history is cut
where each recorded turn ended, and what the workflow wants there now has to be what it wanted then, byte for byte:
every action in protobuf's deterministic serialisation, and the custom status.  It is replayed in two ways: from the
beginning for each turn, and by one execution that stays alive between the turns, as in a worker's session.

Not compared are the stack traces of failures, since they name files and lines of this machine and of the library.  In
messages of failures, the folder of `workflows.py` is cut off before they are compared.  The execution id of a rewind
is left out as well, since upstream draws it at random.

How to record the histories of a new version is said in `tests/histories/record.py`.
"""

from __future__ import annotations

import importlib.util
import inspect
import platform
import re
import warnings
from functools import lru_cache
from pathlib import Path

import pytest
from histories import workflows
from histories.recording import HERE, Recording, fingerprint
from histories.replaying import continued, difference, full_replays
from histories.scenarios import SCENARIOS

ROOT = Path(__file__).parents[1]
PYTHON = ".".join(platform.python_version_tuple()[:2])
FILES = sorted(HERE.glob("[0-9]*/*.json"))

load = lru_cache(maxsize=None)(Recording.load)

REWORDED: dict[str, str] = {
    "right: return sorted(value)": (
        "right: return sorted(value)   # or data_converter=CattrsDataConverter() of durabletask-aio-core[cattrs]"
    ),
    "Use `ctx.now()`": "Use `ctx.now()`, or `await ctx.run(...)` for the machine's clock",
    "loop.run_in_executor() cannot be used in a workflow: ": (
        "loop.run_in_executor() cannot be used in a workflow (workflows.py:1117): "
    ),
}
"""Parts of failure messages as they were recorded, and as they read today.

The only difference that is let through: it changes how a failed instance is described, and never what one does that is
in flight.  Each entry needs a line in the changelog of its package.
"""


def recording_of(path: Path) -> Recording:
    """A file, if this Python and what is installed here can replay it."""
    recording = load(path).reworded(REWORDED)
    facts = recording.facts
    if not facts.replays_on(PYTHON):
        pytest.skip(f"not on Python {PYTHON}: {facts.because}")
    if facts.needs is not None:
        pytest.importorskip(facts.needs)
    if facts.sandbox_mode != "off" and importlib.util.find_spec("durabletask_aio.sandbox") is None:
        pytest.skip("needs durabletask-aio-sandbox")
    return recording


def replay_in_both_ways(recording, workflow):
    """What the first turn that is different does differently; empty if none is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the sandbox's, about what it replaces
        for replays in (full_replays, continued):
            for number, (turn, answer) in enumerate(replays(recording, workflow), 1):
                found = difference(turn, answer)
                if found:
                    return f"turn {number} of {recording.history.instance_id!r} ({replays.__name__}):\n{found}"
    return ""


@pytest.mark.parametrize("path", FILES, ids=[f"{path.parent.name}/{path.stem}" for path in FILES])
def test_what_was_recorded_is_what_is_done_today(path):
    recording = recording_of(path)
    found = replay_in_both_ways(recording, getattr(workflows, recording.facts.workflow))
    if found:
        pytest.fail(
            f"{path.name}: {found}\n\nAn instance in flight would go another way. If only a message was reworded, see "
            f"REWORDED in {Path(__file__).name}",
            pytrace=False,
        )


# The test of the test ------------------------------------------------------------------------------------------------


def changed(name, old, new):
    """The workflow of that name with a part of its text replaced."""
    text = inspect.getsource(getattr(workflows, name))
    assert old in text
    names = dict(vars(workflows))
    exec(text.replace(old, new), names)
    return names[name]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        pytest.param("compensation", 'echo, input=f"book', 'double, input=f"book', id="activity renamed"),
        pytest.param("compensation", "cancel {step}", "undo {step}", id="input changed"),
        pytest.param("compensation", "reversed(done)", "done", id="another order"),
        pytest.param("compensation", "        raise\n", "        raise OutOfStock from None\n", id="another failure"),
        pytest.param("raises_its_own_error", "no tea", "no cake", id="another message"),
        pytest.param("raises_its_own_error", "OutOfStock", "LookupError", id="another type of error"),
        pytest.param("activity_by_name_with_tags", '"1"', '"2"', id="a tag changed"),
        pytest.param("custom_status", '"step": 2', '"step": 3', id="custom status changed"),
        pytest.param("timer_cancelled", "create_timer(LATE)", "create_timer(LATE + 1)", id="a longer timer"),
        pytest.param("timer_cancelled", "    two.cancel()\n", "    await ctx.sleep(0)\n", id="a step more"),
        pytest.param("sub_orchestration", '"2.1"', '"2.2"', id="version of a child"),
        pytest.param("continue_as_new", "left - 1, new", "left - 2, new", id="input of the next execution"),
        pytest.param("entity_lock", "two, one", "two", id="another lock"),
        pytest.param(
            "values_of_the_context",
            "    dice = ctx.random()\n",
            "    dice = ctx.random(); ctx.uuid4()\n",
            id="a draw more",
        ),
        pytest.param("generator_that_continues_as_new", "double", "echo", id="in a generator"),
    ],
)
def test_a_planted_change_is_found(name, old, new):
    workflow = changed(name, old, new)
    recordings = [load(path) for path in FILES]
    recordings = [each for each in recordings if each.facts.workflow == name and each.facts.replays_on(PYTHON)]
    assert recordings
    for recording in recordings[:1]:
        assert not replay_in_both_ways(recording, getattr(workflows, name))
        assert replay_in_both_ways(recording, workflow)


def test_a_reworded_message_is_let_through_and_nothing_else_is():
    (path, *_) = [path for path in FILES if path.name.startswith("raises_its_own_error.")]
    recording = load(path)
    workflow = changed("raises_its_own_error", "no tea", "no cake")
    assert replay_in_both_ways(recording, workflow)
    assert not replay_in_both_ways(recording.reworded({"no tea": "no cake"}), workflow)
    assert replay_in_both_ways(recording.reworded({"double": "no cake"}), workflow)


# The files -----------------------------------------------------------------------------------------------------------


def test_every_scenario_has_a_file():
    recorded = {load(path).facts.scenario for path in FILES}
    assert set(SCENARIOS) - recorded == set()
    assert recorded - set(SCENARIOS) == set()
    assert len(FILES) >= 100


def test_every_workflow_is_a_scenario_or_the_child_of_one():
    functions = [
        each for each in vars(workflows).values() if inspect.isfunction(each) and each.__module__ == workflows.__name__
    ]
    described = {each.__name__ for each in functions if each.__doc__}
    children = {each.__name__ for each in workflows.CHILDREN}
    assert described - children == set(SCENARIOS)


@pytest.mark.parametrize("folder", sorted({path.parent.name for path in FILES}))
def test_the_workflows_are_as_they_were_recorded(folder):
    recorded = (HERE / folder / "workflows.sha256").read_text(encoding="utf-8").strip()
    assert fingerprint(int(recorded.split()[0])) == recorded, (
        "workflows.py may be added to, at its end, and not changed"
    )


def test_files_are_small_and_name_no_machine():
    assert sum(path.stat().st_size for path in FILES) < 2_000_000
    absolute = re.compile(r"(?<![\w.:/])/(?:[\w.-]+/)+[\w.-]+|[A-Za-z]:\\\\")
    for path in FILES:
        found = absolute.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path.name} has the path {found[0]}"


def test_every_reworded_message_is_in_a_changelog_and_in_a_file():
    texts = [path.read_text(encoding="utf-8") for path in FILES]
    changelogs = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("packages/*/CHANGELOG.md"))
    for then, now in REWORDED.items():
        assert any(then in text for text in texts), f"no history has {then!r} any more"
        assert now in changelogs, f"no changelog says that {then!r} is {now!r} now"
