"""Files that are given to `durabletask-aio replay` and are no histories, or histories that have been damaged."""

from __future__ import annotations

import asyncio
import copy
import gzip
import importlib.util
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from durabletask.aio.testing import History, HistoryFormatError, ReplayError, WorkflowEnvironment, replay

from durabletask_aio.core.command_line import run_command
from durabletask_aio.testing import replay_command
from durabletask_aio.testing.timeline_html import render_html
from durabletask_aio.testing.timeline_text import render_text

hypothesis: Any = pytest.importorskip("hypothesis")
st: Any = pytest.importorskip("hypothesis.strategies")

LITERALS: list[Any] = [
    *(None, True, -1, 0, 1, 2**31, 2**63, 10**400, 1.5, float("inf"), float("nan"), "", "x", "\ud800", "\0", [], {}),
    *("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "[" * 5000, "9" * 5000, [[]], {"a": {"b": []}}),
]
"""Values that a field is given in place of its own."""


def load_workflows() -> Any:
    """Import the module next to this one, which the tests' folder is not on the path for."""
    file = Path(__file__).with_name("replayed_workflows.py")
    spec = importlib.util.spec_from_file_location("workflows_of_damaged_histories", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


workflows = load_workflows()
ORCHESTRATORS = {"order": workflows.order, "generated": workflows.generated, "deliver": workflows.generated}


async def recorded() -> list[History]:
    """Histories of workflows with every kind of operation."""

    def counter(context: Any, amount: Any) -> Any:
        return amount

    async with WorkflowEnvironment(
        orchestrators=ORCHESTRATORS,
        entities={"counter": counter},
    ) as env:
        env.stub("reserve", calls=lambda amount: amount)
        env.stub("charge", sequence=[ValueError("busy"), "receipt", "receipt", "receipt", "receipt"])
        env.stub("mail", returns="sent")
        env.stub("ship", returns=None)
        handle = await env.start("order", input=5)
        await handle.raise_event("approve", {"by": "Ada"})
        await handle.result()
        await env.execute("generated", input=7)
        return env.histories


HISTORIES = [history.to_dicts() for history in asyncio.run(recorded())]


def fields_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all fields and items below a value."""
    if isinstance(value, dict):
        return [below for key, item in value.items() for below in [(*path, key), *fields_of(item, (*path, key))]]
    return []


@st.composite
def damaged(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A recorded history, after a few changes of the kinds that happen to files."""
    events = copy.deepcopy(draw(st.sampled_from(HISTORIES)))
    for _ in range(draw(st.integers(1, 3))):
        position = draw(st.integers(0, max(0, len(events) - 1)))
        change = draw(st.sampled_from(["field", "field", "field", "remove", "repeat", "swap", "cut", "insert"]))
        if change == "insert" or not events:
            events.insert(position, draw(st.sampled_from(LITERALS)))
        elif change == "remove":
            del events[position]
        elif change == "repeat":
            events.insert(draw(st.integers(0, len(events))), copy.deepcopy(events[position]))
        elif change == "swap":
            other = draw(st.integers(0, len(events) - 1))
            events[position], events[other] = events[other], events[position]
        elif change == "cut":
            del events[position:]
        elif isinstance(events[position], dict) and events[position]:
            *path, last = draw(st.sampled_from(fields_of(events[position])))
            owner = events[position]
            for key in path:
                owner = owner[key]
            action = draw(st.sampled_from(["set", "set", "remove", "other event"]))
            if action == "remove":
                del owner[last]
            elif action == "set":
                owner[last] = copy.deepcopy(draw(st.sampled_from(LITERALS)))
            else:
                source = draw(st.sampled_from(draw(st.sampled_from(HISTORIES))))
                owner[last] = copy.deepcopy(draw(st.sampled_from(list(source.values()))))
    return events


def replay_or_refuse(events: Any) -> str:
    """What replaying does with a history: a result, or one of the errors that are documented."""
    try:
        history = History.from_dicts(events)
    except HistoryFormatError as error:
        return str(error)
    assert repr(history)
    name = history.workflow_name
    if name is not None:  # What is shown of a history must be possible for each that could be read.
        assert render_text(history)
        assert render_html(history)
    if name is not None and name not in ORCHESTRATORS:
        return f"a history of {name!r}"
    try:
        return str(replay(history, ORCHESTRATORS[name or "order"]))
    except (ReplayError, HistoryFormatError) as error:
        return str(error)
    except ValueError as error:
        assert name is None  # the documented error of a history without a start
        return str(error)


@hypothesis.settings(
    max_examples=60,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
@hypothesis.given(damaged())
def test_a_damaged_history_is_replayed_or_refused(events: list[dict[str, Any]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert replay_or_refuse(events)


@hypothesis.settings(max_examples=30, deadline=None, database=None, derandomize=True)
@hypothesis.given(st.data())
def test_a_damaged_file_is_read_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    is_compressed = data.draw(st.booleans())
    document = json.dumps({"events": data.draw(st.sampled_from(HISTORIES))}).encode()
    content = bytearray(gzip.compress(document, mtime=0) if is_compressed else document)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, max(0, len(content) - 1)))
        end = data.draw(st.sampled_from([position, position + 1, position + 20, len(content)]))
        content[position:end] = data.draw(st.binary(max_size=4))
    path = tmp_path_factory.getbasetemp() / ("damaged.jsonl.gz" if is_compressed else "damaged.json")
    path.write_bytes(content)
    try:
        assert isinstance(History.load(path), History)
    except HistoryFormatError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017 - most files are refused, and some can be read


def test_unchanged_histories_replay() -> None:
    assert [replay_or_refuse(history)[:12] for history in HISTORIES] == ["ReplayReport"] * len(HISTORIES)


class TestTheCommand:
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setitem(sys.modules, workflows.__name__, workflows)

    def run(self, *arguments: str) -> int:
        command = ["--orchestrators", workflows.__name__, *arguments]
        return run_command(replay_command.replay, command, prog_name="durabletask-aio replay")

    def test_names_the_file_and_what_is_wrong(self, capsys: pytest.CaptureFixture[str]) -> None:
        twice = copy.deepcopy(next(each for each in HISTORIES if each[1]["name"] == "order"))
        scheduled = [position for position, each in enumerate(twice) if each["event_type"] == "TaskScheduledEvent"]
        twice[scheduled[1]]["event_id"] = twice[scheduled[0]]["event_id"]
        Path("twice.json").write_text(json.dumps({"events": twice}))
        Path("bomb.jsonl.gz").write_bytes(gzip.compress(b" " * 2**21, compresslevel=1))

        assert self.run("twice.json") == 2
        number = twice[scheduled[0]]["event_id"]
        assert capsys.readouterr().err == (
            f"error: twice.json: events {scheduled[0]} and {scheduled[1]} of the history are operations with the same "
            f"event_id, {number}\n"
        )
        assert self.run("bomb.jsonl.gz", "--max-size", "1") == 2
        assert capsys.readouterr().err.startswith(
            "error: bomb.jsonl.gz: this is too large for a history: decompressed, it has more than 1,048,576 bytes"
        )

    def test_says_its_limit(self) -> None:
        assert "larger, decompressed.  [default: 256" in " ".join(
            CliRunner().invoke(replay_command.replay, ["--help"]).output.split()
        ).replace(". [", ".  [")
