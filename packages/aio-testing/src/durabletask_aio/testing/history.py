"""`History`: a recorded history, which can be fetched, saved, loaded, compared and redacted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import unified_diff
from inspect import isawaitable
from pathlib import Path
from typing import Any, cast

from durabletask.client import AsyncTaskHubGrpcClient, OrchestrationStatus, TaskHubGrpcClient
from durabletask.history import HistoryEvent

from durabletask_aio.core import hosting
from durabletask_aio.testing._upstream import pb, typed_event
from durabletask_aio.testing.history_codec import (
    PAYLOAD_FIELDS,
    HistoryFormatError,
    from_plain,
    from_typed,
    shown,
    to_plain,
)
from durabletask_aio.testing.history_files import MAX_SIZE, parse, read_text

FORMAT = "durabletask-history"
VERSION = 1
"""The version of the file format that this release writes; it reads every version up to this one."""

_Replace = Callable[[str, Any], Any]
"""Returns the replacement of a value, given its path and the value."""


class History:
    """The events of one execution of one instance, in order; immutable.

    Iterating yields upstream's typed events (`durabletask.history`), `len()` is their number.  Two histories are equal
    if their events are, timestamps included; `diff` ignores times.

    Made by `fetch`, `load` and the other class methods, and by
    [`WorkflowHandle.history`][durabletask.aio.testing.WorkflowHandle.history] and
    [`LocalBackend.history`][durabletask.aio.testing.LocalBackend.history].
    """

    def __init__(self, events: Iterable[pb.HistoryEvent], *, instance_id: str | None = None) -> None:
        """Make a history of protobuf messages.

        Args:
            events: the messages, which must not be changed afterwards.
            instance_id: the instance, for a history whose start does not say it.
        """
        self._messages = tuple(events)
        self._typed: tuple[HistoryEvent, ...] | None = None
        self._instance_id = instance_id

    # -- sources --------------------------------------------------------------------------------------------------

    @classmethod
    async def fetch(cls, client: TaskHubGrpcClient | AsyncTaskHubGrpcClient, instance_id: str) -> History:
        """Fetch the history of an instance from the engine that the client is connected to.

        Args:
            client: upstream's async client, or its sync client, which is called in a thread.
            instance_id: the id of the instance.

        Returns:
            The history of its latest execution.

        Raises:
            grpc.RpcError: as raised by the client, for example for an unknown instance.
        """
        if isinstance(client, AsyncTaskHubGrpcClient):
            events = await client.get_orchestration_history(instance_id)
        else:
            events = await asyncio.to_thread(client.get_orchestration_history, instance_id)
            if isawaitable(events):
                events = cast("list[HistoryEvent]", await events)
        return cls(from_typed(events), instance_id=instance_id)

    @classmethod
    def from_events(
        cls, events: Iterable[HistoryEvent | pb.HistoryEvent], *, instance_id: str | None = None
    ) -> History:
        """Make a history of upstream's typed events, of protobuf messages, or of both.

        Args:
            events: the events, in order.
            instance_id: the instance, for a history whose start does not say it.

        Returns:
            The history.

        Raises:
            HistoryFormatError: for a typed event that has no protobuf message.
        """
        messages: list[pb.HistoryEvent] = []
        for event in events:
            messages += [event] if isinstance(event, pb.HistoryEvent) else from_typed([event])
        return cls(messages, instance_id=instance_id)

    @classmethod
    def from_dicts(cls, events: Iterable[Mapping[str, Any]], *, instance_id: str | None = None) -> History:
        """Make a history of the results of upstream's `to_dict` for each event.

        Args:
            events: the events, in order.  `event_type` may be missing; it is then inferred from the fields and from the
                events before.
            instance_id: the instance, for a history whose start does not say it.

        Returns:
            The history.

        Raises:
            HistoryFormatError: for an event that cannot be read, with its position.
        """
        return cls(from_plain(events), instance_id=instance_id)

    @classmethod
    def from_json(cls, text: str) -> History:
        """Make a history of a JSON document.

        Args:
            text: the result of `to_json`, a document of upstream's history export, or a list of events as objects.

        Returns:
            The history.

        Raises:
            HistoryFormatError: if the text is not a history, or one of a newer format.
        """
        document = parse(text, "JSON")
        if isinstance(document, list):
            return cls.from_dicts(cast("list[dict[str, Any]]", document))
        fields = cast("dict[str, Any]", document) if isinstance(document, dict) else {}
        if not isinstance(fields.get("events"), list):
            raise HistoryFormatError(
                'this is not a history: expected a JSON object with a list of "events", or the list itself'
            )
        version = fields.get("version", VERSION)
        if fields.get("format", FORMAT) != FORMAT or not isinstance(version, int) or not 1 <= version <= VERSION:
            raise HistoryFormatError(
                f"this history is in the format {shown(fields.get('format'))} {shown(fields.get('version'))}; "
                f"this release reads {FORMAT} up to {VERSION}"
            )
        return cls.from_dicts(fields["events"], instance_id=_instance_id_of(fields))

    @classmethod
    def load(cls, path: str | Path, *, max_size: int = MAX_SIZE) -> History:
        """Read a history from a file.

        Args:
            path: a file written by `save`, or by upstream's history export (`.json` or `.jsonl.gz`).
            max_size: the number of bytes that the history may have, decompressed; 256 MiB by default.  A small file can
                be made that fills the memory when it is decompressed.

        Returns:
            The history.

        Raises:
            HistoryFormatError: if the file is not a history, or a larger one; the message names the file.
            OSError: if the file cannot be read.
        """
        path = Path(path)
        try:
            text = read_text(path, max_size)
            return cls._from_lines(text) if path.suffix == ".gz" else cls.from_json(text)
        except HistoryFormatError as error:
            raise HistoryFormatError(f"{path}: {error}") from error

    @classmethod
    def _from_lines(cls, text: str) -> History:
        """Make a history of JSON lines: first a header with the instance, then one line for each event."""
        lines = [parse(line, "one JSON object a line") for line in text.splitlines()]
        if not lines or not isinstance(lines[0], dict):
            raise HistoryFormatError("this is not a history: its first line does not say which instance it is of")
        return cls.from_dicts(lines[1:], instance_id=_instance_id_of(cast("dict[str, Any]", lines[0])))

    # -- formats --------------------------------------------------------------------------------------------------

    def to_dicts(self) -> list[dict[str, Any]]:
        """Convert the events to plain data.

        Returns:
            The result of upstream's `to_dict` for each event, with `event_type` and without empty fields.
        """
        return [to_plain(event) for event in self._messages]

    def to_json(self) -> str:
        """Convert the history to a JSON document.

        Returns:
            The document: one field per line, in a fixed order, always the same for the same events.
        """
        document = {
            "format": FORMAT,
            "version": VERSION,
            "instance_id": self.instance_id,
            "events": self.to_dicts(),
        }
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

    def save(self, path: str | Path) -> Path:
        """Write the result of `to_json` to a file and make its directories.

        Args:
            path: the file; an existing one is overwritten.

        Returns:
            The path.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json(), encoding="utf-8", newline="\n")
        return path

    def redacted(self, replace: Callable[[str, Any], Any] | None = None) -> History:
        """Return this history without the data that user code passed and returned.

        Payloads are inputs, results, outputs, data of events, and the messages, stack traces and properties of
        failures. Names, ids, error types and times are kept.

        Args:
            replace: `replace(path, value)` returns the replacement of one leaf of a payload; the path is like
                `"TaskScheduledEvent.input.customer.name"`.  By default strings become `"***"` and numbers `0`.

        Returns:
            The redacted history.  Its payloads have the same shape, so it can be replayed, with `payloads=False`, by
            code that depends only on the shape.
        """
        replace = replace or _hide_value
        return History.from_dicts(
            [_redact_event(plain, replace) for plain in self.to_dicts()], instance_id=self._instance_id
        )

    # -- content --------------------------------------------------------------------------------------------------

    @property
    def protobuf(self) -> list[pb.HistoryEvent]:
        """The events as protobuf messages, which must not be changed."""
        return list(self._messages)

    @property
    def events(self) -> tuple[HistoryEvent, ...]:
        """The events in upstream's typed form."""
        if self._typed is None:
            self._typed = tuple(typed_event(event) for event in self._messages)
        return self._typed

    def __iter__(self) -> Iterator[HistoryEvent]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def instance_id(self) -> str | None:
        """The id of the instance: as recorded in the start, else as given; `None` if neither is known."""
        started = self._started
        recorded = started.orchestrationInstance.instanceId if started is not None else ""
        return recorded or self._instance_id

    @property
    def workflow_name(self) -> str | None:
        """The name under which the orchestrator is registered, `None` if the start is missing."""
        return None if self._started is None else self._started.name

    @property
    def status(self) -> OrchestrationStatus:
        """The recorded final status, `RUNNING` if the history has no end."""
        for event in reversed(self._messages):
            if event.HasField("executionCompleted"):
                return OrchestrationStatus(event.executionCompleted.orchestrationStatus)
        return OrchestrationStatus.RUNNING

    @property
    def _started(self) -> pb.ExecutionStartedEvent | None:
        return next((each.executionStarted for each in self._messages if each.HasField("executionStarted")), None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self._messages == other._messages

    __hash__ = None  # type: ignore[assignment]

    def diff(self, other: History) -> str:
        """Compare with another history.

        Times are ignored, and so are the start and end of turns, which depend on how the engine batches events.

        Args:
            other: the history to compare with.

        Returns:
            A unified diff of the events, empty if there is no difference.
        """
        return "\n".join(unified_diff(self._comparable(), other._comparable(), "this", "other", lineterm="", n=2))

    def _comparable(self) -> list[str]:
        """Return one line for each event, without times."""
        lines: list[str] = []
        for plain in self.to_dicts():
            if plain["event_type"] not in ("OrchestratorStartedEvent", "OrchestratorCompletedEvent"):
                del plain["timestamp"]
                plain.pop("fire_at", None)
                lines.append(json.dumps(plain, ensure_ascii=False))
        return lines

    def __repr__(self) -> str:
        return f"<History of {self.workflow_name} {self.instance_id!r}: {len(self)} events, {self.status.name}>"


def _instance_id_of(fields: Mapping[str, Any]) -> str | None:
    instance_id = fields.get("instance_id")
    if instance_id is not None and not isinstance(instance_id, str):
        raise HistoryFormatError(f"its instance_id is {shown(instance_id)}, and not text")
    return instance_id


def _redact_event(plain: dict[str, Any], replace: _Replace) -> dict[str, Any]:
    event_type = plain["event_type"]
    redacted = dict(plain)
    recorded = _recorded(plain)
    if recorded is not None and recorded.kind != "answer":
        redacted["input"] = _redact_recorded(f"{event_type}.input", plain.get("input") or "", recorded, replace)
        return redacted
    for field, value in plain.items():
        if field in PAYLOAD_FIELDS:
            redacted[field] = _redact_payload(f"{event_type}.{field}", value, replace)
        elif field == "failure_details":
            redacted[field] = _redact_failure(f"{event_type}.{field}", value, replace)
    return redacted


def _recorded(plain: dict[str, Any]) -> hosting.RecordedEvent | None:
    """Return what an event stands for with which a step, patch or request is recorded."""
    if plain["event_type"] == "EventSentEvent":
        return hosting.EventReader().sent(plain["instance_id"], plain["name"], plain.get("input") or "")
    if plain["event_type"] == "EventRaisedEvent":
        return hosting.EventReader().received(plain["name"], plain.get("input") or "")
    return None


def _redact_recorded(path: str, encoded: str, recorded: hosting.RecordedEvent, replace: _Replace) -> str:
    """Redact what user code has given or returned, and nothing that a replay needs, such as the order of ends."""
    if recorded.kind not in ("step", "request"):
        return encoded
    fields = cast("dict[str, Any]", json.loads(encoded))
    for name, value in fields.items():
        if recorded.kind == "step" and name in ("input", "result") and isinstance(value, str):
            fields[name] = _redact_payload(f"{path}.{name}", value, replace)
        elif recorded.kind == "step" and name == "failure":
            fields[name] = _redact_recorded_failure(f"{path}.{name}", value, replace)
        elif recorded.kind == "request" and name == "data":
            fields[name] = _redact_value(f"{path}.{name}", value, replace)
    return json.dumps(fields)


def _redact_recorded_failure(path: str, failure: dict[str, Any], replace: _Replace) -> dict[str, Any]:
    redacted = dict(failure)
    for name, value in failure.items():
        if name == "innerFailure":
            redacted[name] = _redact_recorded_failure(f"{path}.{name}", value, replace)
        elif name in ("errorMessage", "stackTrace"):
            redacted[name] = _redact_value(f"{path}.{name}", value, replace)
    return redacted


def _redact_payload(path: str, encoded: str, replace: _Replace) -> str:
    if not encoded:
        return encoded  # An empty payload means that there is no value.
    try:
        return json.dumps(_redact_value(path, json.loads(encoded), replace))
    except (ValueError, RecursionError):  # not JSON, or nested too deeply
        return str(replace(path, encoded))


def _redact_value(path: str, value: Any, replace: _Replace) -> Any:
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {key: _redact_value(f"{path}.{key}", item, replace) for key, item in fields.items()}
    if isinstance(value, list):
        items = cast("list[Any]", value)  # type: ignore[redundant-cast]
        return [_redact_value(f"{path}[{n}]", item, replace) for n, item in enumerate(items)]
    return replace(path, value)


def _redact_failure(path: str, failure: dict[str, Any], replace: _Replace) -> dict[str, Any]:
    redacted = dict(failure)
    for field, value in failure.items():
        if field == "inner_failure":
            redacted[field] = _redact_failure(f"{path}.{field}", value, replace)
        elif field != "error_type":
            redacted[field] = _redact_value(f"{path}.{field}", value, replace)
    return redacted


def _hide_value(path: str, value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    return "***" if isinstance(value, str) else 0
