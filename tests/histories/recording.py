"""The file of a recorded history: what it holds, how it is written and read, and what is kept out of it.

A file is a history as `durabletask.aio.testing.History.load` reads it, with two more fields.  `recording` says what
was recorded and with which versions.  `turns` lists the answers of the worker: for each turn how many events were old
and how many were new, the actions, and the custom status.  The actions are protobuf's own JSON.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from durabletask.aio.testing import History
from durabletask.internal import orchestrator_service_pb2 as pb
from google.protobuf import json_format

HERE = Path(__file__).parent
ORDER = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15", "3.16")


@dataclass(frozen=True)
class Turn:
    """One answer of the worker: the first `past` events of the history were old, the `new` ones after them were new."""

    past: int
    new: int
    actions: Sequence[pb.OrchestratorAction]
    custom_status: str | None


@dataclass(frozen=True)
class Facts:
    """How a history was recorded, and where it can be replayed."""

    scenario: str
    workflow: str
    """The name of the function in `workflows.py`."""

    python: str
    packages: dict[str, str]
    engine: str
    sandbox_mode: str = "off"
    timer_interval: float | None = None
    """The worker's `maximum_timer_interval` in seconds; `None` for the default."""

    needs: str | None = None
    """An optional package that the workflow imports."""

    first_python: str | None = None
    """The oldest Python that replays it; `None` for every one."""

    last_python: str | None = None
    """The newest Python that replays it; `None` for every one."""

    because: str | None = None
    """Why not on the others."""

    def replays_on(self, python: str) -> bool:
        """Whether that minor version of Python is documented to replay this history."""
        number = ORDER.index(python)
        first = ORDER.index(self.first_python) if self.first_python else 0
        last = ORDER.index(self.last_python) if self.last_python else len(ORDER)
        return first <= number <= last


@dataclass(frozen=True)
class Recording:
    """A history, and what the worker answered to each of its turns."""

    facts: Facts
    history: History
    turns: list[Turn] = field(repr=False)

    def save(self, path: Path) -> None:
        """Write the file: one event and one action a line."""
        recording = {key: value for key, value in asdict(self.facts).items() if value is not None}
        head = {
            "format": "durabletask-history",
            "version": 1,
            "instance_id": self.history.instance_id,
            "recording": recording,
        }
        lines = ["{"]
        lines += [f'"{key}": {_compact(value)},' for key, value in head.items()]
        lines.append('"turns": [')
        turns: list[str] = []
        for turn in self.turns:
            start = {"past": turn.past, "new": turn.new, "custom_status": turn.custom_status}
            actions = ",\n   ".join(_compact(json_format.MessageToDict(without_machine(a))) for a in turn.actions)
            turns.append(
                f" {_compact(start)[:-1]}, " + (f'"actions": [\n   {actions}]}}' if actions else '"actions": []}')
            )
        lines += [",\n".join(turns) + "],", '"events": [']
        lines.append(",\n".join(f" {_compact(_neutral_in(event))}" for event in self.history.to_dicts()) + "]")
        lines.append("}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")

    def reworded(self, words: Mapping[str, str]) -> Recording:
        """The same recording with the messages of failures reworded, from the keys to the values."""
        turns = [replace(turn, actions=[_reworded(action, words) for action in turn.actions]) for turn in self.turns]
        return replace(self, turns=turns)

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Read a file that `save` has written."""
        text = path.read_text(encoding="utf-8")
        document = json.loads(text)
        turns = [
            Turn(
                turn["past"],
                turn["new"],
                [json_format.ParseDict(action, pb.OrchestratorAction()) for action in turn["actions"]],
                turn["custom_status"],
            )
            for turn in document["turns"]
        ]
        return cls(Facts(**document["recording"]), History.from_json(text), turns)


def fingerprint(lines: int | None = None) -> str:
    """How many lines `workflows.py` has, and their digest; or those of its first lines."""
    text = (HERE / "workflows.py").read_text(encoding="utf-8").splitlines(keepends=True)[:lines]
    return f"{len(text)} {sha256(''.join(text).encode()).hexdigest()}"


def canonical(actions: Iterable[pb.OrchestratorAction]) -> list[bytes]:
    """The actions as bytes, without what names the machine; see `without_machine`."""
    return [without_machine(action).SerializeToString(deterministic=True) for action in actions]


def without_machine(action: pb.OrchestratorAction) -> pb.OrchestratorAction:
    """The action without stack traces, and with the folder of the workflows cut from the messages of failures.

    The id of an execution that is rewound goes too: upstream's worker draws it at random.
    """
    copy = pb.OrchestratorAction()
    copy.CopyFrom(action)
    for event in copy.rewindOrchestration.newHistory if copy.HasField("rewindOrchestration") else ():
        if event.HasField("executionStarted"):
            event.executionStarted.orchestrationInstance.ClearField("executionId")
    if copy.HasField("completeOrchestration") and copy.completeOrchestration.HasField("failureDetails"):
        for details in failures_in(copy.completeOrchestration.failureDetails):
            details.ClearField("stackTrace")
            details.errorMessage = neutral(details.errorMessage)
    return copy


def _reworded(action: pb.OrchestratorAction, words: Mapping[str, str]) -> pb.OrchestratorAction:
    copy = without_machine(action)
    if copy.HasField("completeOrchestration") and copy.completeOrchestration.HasField("failureDetails"):
        for details in failures_in(copy.completeOrchestration.failureDetails):
            for then, now in words.items():
                details.errorMessage = details.errorMessage.replace(then, now)
    return copy


def failures_in(details: pb.TaskFailureDetails) -> Iterable[pb.TaskFailureDetails]:
    """The failure and those that caused it."""
    yield details
    while details.HasField("innerFailure"):
        details = details.innerFailure
        yield details


def neutral(text: str) -> str:
    """The text with file names in place of paths, where a stack trace or a message names a file."""
    text = re.sub(r'File "[^"\n]*[/\\]([^"/\\\n]+)"', r'File "\1"', text)
    return text.replace(str(HERE) + os.sep, "")


def _neutral_in(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _neutral_in(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_neutral_in(item) for item in value]
    return neutral(value) if isinstance(value, str) else value


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
