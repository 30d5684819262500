"""A recorded history: fetched, saved, loaded, compared, with its payloads taken out."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import unified_diff
from inspect import isawaitable
from pathlib import Path
from typing import Any, cast

from durabletask.client import AsyncTaskHubGrpcClient, OrchestrationStatus, TaskHubGrpcClient
from durabletask.history import HistoryEvent

from durabletask_aio.testing._upstream import pb, typed_event
from durabletask_aio.testing.history_codec import PAYLOAD_FIELDS, HistoryFormatError, from_plain, from_typed, to_plain

FORMAT = "durabletask-history"
VERSION = 1

Redact = Callable[[str, Any], Any]


class History:
    """The events of one execution of one instance, in order.  Immutable.

    Iterating gives upstream's typed events (``durabletask.history``).  Two histories are equal if their events are,
    timestamps included; :meth:`diff` looks past the time.
    """

    def __init__(self, events: Iterable[pb.HistoryEvent], *, instance_id: str | None = None) -> None:
        self._messages = tuple(events)
        self._typed: tuple[HistoryEvent, ...] | None = None
        self._instance_id = instance_id

    # Where histories come from

    @classmethod
    async def fetch(cls, client: TaskHubGrpcClient | AsyncTaskHubGrpcClient, instance_id: str) -> History:
        """The history of an instance, from the engine that the client is connected to.

        Works with upstream's sync client too, which is then called in a thread.  Raises what the client raises, such
        as the ``grpc.RpcError`` for an unknown instance.
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
        """From upstream's typed events or from protobuf messages."""
        messages: list[pb.HistoryEvent] = []
        for event in events:
            messages += [event] if isinstance(event, pb.HistoryEvent) else from_typed([event])
        return cls(messages, instance_id=instance_id)

    @classmethod
    def from_dicts(cls, events: Iterable[Mapping[str, Any]], *, instance_id: str | None = None) -> History:
        """From what upstream's ``to_dict`` returns for each event, with or without ``event_type``.

        Raises :class:`HistoryFormatError`, a ``ValueError``, with the position of an event that cannot be read.
        """
        return cls(from_plain(events), instance_id=instance_id)

    @classmethod
    def from_json(cls, text: str) -> History:
        """From the text of :meth:`to_json`, of upstream's history export, or of a list of events as dicts."""
        try:
            document: Any = json.loads(text)
        except ValueError as error:
            raise HistoryFormatError(f"this is not a history: not JSON ({error})") from error
        if isinstance(document, list):
            return cls.from_dicts(cast("list[dict[str, Any]]", document))
        fields = cast("dict[str, Any]", document) if isinstance(document, dict) else {}
        if not isinstance(fields.get("events"), list):
            raise HistoryFormatError(
                'this is not a history: expected a JSON object with a list of "events", or the list itself'
            )
        version = fields.get("version", VERSION)
        if fields.get("format", FORMAT) != FORMAT or not isinstance(version, int) or version > VERSION:
            raise HistoryFormatError(
                f"this history is in the format {fields.get('format')} {fields.get('version')}; "
                f"this release reads {FORMAT} up to {VERSION}"
            )
        return cls.from_dicts(fields["events"], instance_id=fields.get("instance_id"))

    @classmethod
    def load(cls, path: str | Path) -> History:
        """From a file written by :meth:`save` or by upstream's history export (``.json`` or ``.jsonl.gz``)."""
        path = Path(path)
        try:
            if path.suffix == ".gz":
                return cls._from_lines(gzip.decompress(path.read_bytes()).decode("utf-8"))
            return cls.from_json(path.read_text(encoding="utf-8-sig"))  # editors of Windows begin files with a mark
        except UnicodeDecodeError:
            raise HistoryFormatError(f"{path}: this is not a history: not text in UTF-8") from None
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise HistoryFormatError(f"{path}: this is not a history: not compressed with gzip ({error})") from error
        except HistoryFormatError as error:
            raise HistoryFormatError(f"{path}: {error}") from error

    @classmethod
    def _from_lines(cls, text: str) -> History:
        """From upstream's history export: a line that says which instance it is, then a line for each event."""
        try:
            lines: list[Any] = [json.loads(line) for line in text.splitlines()]
        except ValueError as error:
            raise HistoryFormatError(f"this is not a history: not one JSON object a line ({error})") from error
        if not lines or not isinstance(lines[0], dict):
            raise HistoryFormatError("this is not a history: its first line does not say which instance it is of")
        header = cast("dict[str, Any]", lines[0])
        return cls.from_dicts(lines[1:], instance_id=header.get("instance_id"))

    # Where they go

    def to_dicts(self) -> list[dict[str, Any]]:
        """Upstream's ``to_dict`` of each event, with its ``event_type`` and without empty fields."""
        return [to_plain(event) for event in self._messages]

    def to_json(self) -> str:
        """A document that stays the same for the same events: one field a line, in a fixed order."""
        document = {
            "format": FORMAT,
            "version": VERSION,
            "instance_id": self.instance_id,
            "events": self.to_dicts(),
        }
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

    def save(self, path: str | Path) -> Path:
        """Write :meth:`to_json` to a file, making its directories."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json(), encoding="utf-8", newline="\n")
        return path

    def redacted(self, replace: Redact | None = None) -> History:
        """The same history without what users passed and returned.

        ``replace(path, value)`` is called for every leaf of every payload and returns what to put there; the path is
        like ``"TaskScheduledEvent.input.customer.name"``.  By default texts become ``"***"`` and numbers ``0``, and
        the shape stays, so that a redacted history can still be replayed by code that only looks at the shape.
        Messages, stack traces and properties of failures are payload too; names, ids, types of errors and times are
        not.
        """
        replace = replace or _hide
        return History.from_dicts(
            [_redact_event(plain, replace) for plain in self.to_dicts()], instance_id=self._instance_id
        )

    # What is in them

    @property
    def protobuf(self) -> list[pb.HistoryEvent]:
        """The events as protobuf messages, which are not to be changed."""
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
        """As recorded in the execution's start, or as given."""
        started = self._started
        recorded = started.orchestrationInstance.instanceId if started is not None else ""
        return recorded or self._instance_id

    @property
    def workflow_name(self) -> str | None:
        """What the orchestrator is registered under."""
        return None if self._started is None else self._started.name

    @property
    def status(self) -> OrchestrationStatus:
        """``COMPLETED``, ``FAILED`` or ``TERMINATED`` if the history has an end, otherwise ``RUNNING``."""
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
        """How the other history differs, as a unified diff of their events; empty if they tell the same story.

        Times do not count, nor do the frames around turns, which depend on how the engine batched its events.
        """
        return "\n".join(unified_diff(self._story(), other._story(), "this", "other", lineterm="", n=2))

    def _story(self) -> list[str]:
        lines: list[str] = []
        for plain in self.to_dicts():
            if plain["event_type"] not in ("OrchestratorStartedEvent", "OrchestratorCompletedEvent"):
                del plain["timestamp"]
                plain.pop("fire_at", None)
                lines.append(json.dumps(plain, ensure_ascii=False))
        return lines

    def __repr__(self) -> str:
        return f"<History of {self.workflow_name} {self.instance_id!r}: {len(self)} events, {self.status.name}>"


def _redact_event(plain: dict[str, Any], replace: Redact) -> dict[str, Any]:
    kind = plain["event_type"]
    redacted = dict(plain)
    for field, value in plain.items():
        if field in PAYLOAD_FIELDS:
            redacted[field] = _redact_payload(f"{kind}.{field}", value, replace)
        elif field == "failure_details":
            redacted[field] = _redact_failure(f"{kind}.{field}", value, replace)
    return redacted


def _redact_payload(path: str, encoded: str, replace: Redact) -> str:
    if not encoded:
        return encoded  # nothing was passed or returned, and nothing can be read back from anything else
    try:
        decoded = json.loads(encoded)
    except ValueError:
        return str(replace(path, encoded))
    return json.dumps(_redact_value(path, decoded, replace))


def _redact_value(path: str, value: Any, replace: Redact) -> Any:
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {key: _redact_value(f"{path}.{key}", item, replace) for key, item in fields.items()}
    if isinstance(value, list):
        items = cast("list[Any]", value)  # type: ignore[redundant-cast]
        return [_redact_value(f"{path}[{n}]", item, replace) for n, item in enumerate(items)]
    return replace(path, value)


def _redact_failure(path: str, failure: dict[str, Any], replace: Redact) -> dict[str, Any]:
    redacted = dict(failure)
    for field, value in failure.items():
        if field == "inner_failure":
            redacted[field] = _redact_failure(f"{path}.{field}", value, replace)
        elif field != "error_type":
            redacted[field] = _redact_value(f"{path}.{field}", value, replace)
    return redacted


def _hide(path: str, value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    return "***" if isinstance(value, str) else 0
