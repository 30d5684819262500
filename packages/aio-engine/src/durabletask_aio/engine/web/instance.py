"""The page of one instance."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.exporting import file_name
from durabletask_aio.engine.management import management_pb2 as messages
from durabletask_aio.engine.web import history
from durabletask_aio.engine.web.errors import PageError
from durabletask_aio.engine.web.formats import Status, status_of, to_datetime
from durabletask_aio.engine.web.history import Event
from durabletask_aio.engine.web.lists import require_id
from durabletask_aio.engine.web.payloads import Payload, payload
from durabletask_aio.engine.web.site import Site, url_for
from durabletask_aio.engine.web.timeline import timeline
from durabletask_aio.engine.web.waiting import Awaited, WaitingUnknownError

_logger = logging.getLogger("durabletask.aio.engine")

_EVENTS = 200
"""Events on a page."""

_MAX_EVENT_PAYLOAD = 4_000
"""Characters of a payload within the list of events."""


@dataclass(frozen=True)
class Wait:
    """Something that an instance waits for.

    Attributes:
        kind: activity, timer, child, lock or entity.
        name: of it.
        task_id: the number of the action.
        target: the child, or the entity.
        worker: who works on an activity, empty if it waits for a worker.
        due: when a timer is due.
        since: since when it waits.
        event: the number of the event that began it, `None` if it is not in the history.
    """

    kind: str
    name: str
    task_id: int
    target: str
    worker: str
    due: datetime | None
    since: datetime | None
    event: int | None


@dataclass(frozen=True)
class Window:
    """The events that are shown, of all.

    Attributes:
        events: those.
        first: the number of the first one.
        total: how many there are.
    """

    events: Sequence[Event]
    first: int
    total: int

    @property
    def previous(self) -> int | None:
        """The first of the events before, `None` if there are none."""
        return max(self.first - _EVENTS, 0) if self.first else None

    @property
    def next(self) -> int | None:
        """The first of the events after, `None` if there are none."""
        end = self.first + len(self.events)
        return end if end < self.total else None


class InstancePage:
    """Answers requests for instances and their payloads."""

    def __init__(self, site: Site) -> None:
        """Use a site.

        Args:
            site: what all pages share.
        """
        self._site = site

    def show(self, request: Request) -> Response:
        """Answer a request for the page."""
        instance_id = require_id(request)
        backend = self._site.backend
        details = backend.management.details(instance_id)
        version = details.SerializeToString(deterministic=True)
        if self._site.has_seen(request, "instance.html", version):
            return self._site.page(request, "instance.html", version=version)
        state = backend.state(instance_id)
        if state is None:
            raise PageError(404, "Not found", f"There is no instance '{instance_id}' any more.")
        past = backend.history(instance_id)
        events = history.read(past)
        status = status_of(details.instance.status)
        return self._site.page(
            request,
            "instance.html",
            version=version,
            details=details,
            instance=details.instance,
            status=status,
            failure=history.failure_of(state.failureDetails) if state.HasField("failureDetails") else None,
            failed=history.failed_operations(events)[-20:] if status is Status.FAILED else [],
            payloads=_payloads(request, state),
            waits=_waits(details, events),
            awaited=() if status.has_ended else self._awaited(instance_id, past),
            has_describe=self._site.describe_waiting is not None,
            timeline=timeline(events, to_datetime(details.instance.created), has_ended=status.has_ended),
            window=window(events, request.query_params.get("events", "")),
            children=[(child, status_of(child.status)) for child in details.children],
            turns=max((event.turn for event in events), default=0),
            event_payloads=partial(_event_payloads, request, instance_id),
        )

    def _awaited(self, instance_id: str, past: Sequence[pb.HistoryEvent]) -> Sequence[Awaited] | str:
        """Return what an instance awaits, or why that is not known."""
        describe = self._site.describe_waiting
        if describe is None or not past:
            return ()
        try:
            return list(describe(instance_id, past))
        except WaitingUnknownError as error:
            return str(error)
        except Exception as error:
            _logger.warning("Finding out what '%s' awaits has failed", instance_id, exc_info=True)
            return f"{type(error).__name__}: {error}"

    def payload(self, request: Request) -> Response:
        """Answer a request for a whole payload, as text."""
        instance_id = require_id(request)
        name = request.query_params.get("field", "")
        number = request.query_params.get("event", "")
        if number:
            text = self._event_payload(instance_id, number, name)
        else:
            state = self._site.backend.state(instance_id)
            text = None if state is None else dict(_fields(state)).get(name)
        if text is None:
            raise PageError(404, "Not found", "There is no such payload.")
        return PlainTextResponse(text)

    def exported(self, request: Request) -> Response:
        """Answer a request for the history as a JSON document."""
        instance_id = require_id(request)
        # An id may hold half of a surrogate pair, which UTF-8 has no place for.
        text = self._site.backend.exported_history(instance_id).encode("utf-8", "replace")
        name = file_name(instance_id).encode("ascii", "replace").decode()
        headers = {"Content-Disposition": f'inline; filename="{name}"'}
        return Response(text, headers=headers, media_type="application/json")

    def _event_payload(self, instance_id: str, number: str, name: str) -> str | None:
        past = self._site.backend.history(instance_id)
        if not number.isdecimal() or len(number) > 9 or int(number) >= len(past):
            return None
        return dict(history.read(past)[int(number)].payloads).get(name)


def _fields(state: pb.OrchestrationState) -> list[tuple[str, str]]:
    fields = (("input", state.input), ("output", state.output), ("custom status", state.customStatus))
    return [(name, value.value) for name, value in fields if value.value]


def _payloads(request: Request, state: pb.OrchestrationState) -> list[Payload]:
    return [
        payload(name.capitalize(), text, url_for(request, "/payload", id=state.instanceId, field=name))
        for name, text in _fields(state)
        # The output of a failed instance repeats its failure.
        if not (name == "output" and state.HasField("failureDetails"))
    ]


def _event_payloads(request: Request, instance_id: str, event: Event) -> list[Payload]:
    return [
        payload(
            name,
            text,
            url_for(request, "/payload", id=instance_id, event=event.number, field=name),
            _MAX_EVENT_PAYLOAD,
        )
        for name, text in event.payloads
    ]


def _waits(details: messages.InstanceDetails, events: Sequence[Event]) -> list[Wait]:
    begun = {event.id: event for event in events if event.id >= 0 and not event.kind.endswith(("Completed", "Failed"))}
    waits: list[Wait] = []
    for pending in details.pending:
        event = begun.get(pending.task_id)
        since = to_datetime(pending.since) if pending.HasField("since") else None
        waits.append(
            Wait(
                messages.Pending.Kind.Name(pending.kind).lower(),
                pending.name,
                pending.task_id,
                pending.target,
                pending.worker,
                to_datetime(pending.due) if pending.HasField("due") else None,
                since or (None if event is None else event.time),
                None if event is None else event.number,
            )
        )
    return waits


def window(events: Sequence[Event], asked: str) -> Window:
    """Return the events from the one that is asked for on; the last ones if none is.

    Args:
        events: all of a history.
        asked: the number of the first one to show, as the address has it; empty or no number for the last ones.
    """
    # The page has no line for the end of a turn: at the end of a history it must not have a page to itself.
    shown = next((event.number + 1 for event in reversed(events) if event.kind != "orchestratorCompleted"), 0)
    last_page = (max(shown - 1, 0) // _EVENTS) * _EVENTS
    first = min(int(asked), last_page) if asked.isdecimal() and len(asked) < 10 else last_page
    return Window(events[first : min(first + _EVENTS, shown)], first, shown)
