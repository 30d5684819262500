"""The commands for instances: they start, list and show them and send them what clients send.

They use upstream's client, so any engine of the protocol can be asked.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any, NamedTuple, cast

import click
import grpc

from durabletask_aio.core import request_cancellation
from durabletask_aio.core.command_line import CommandError, ExitCode, json_option, printable, write, write_json
from durabletask_aio.core.hosting import EventReader, RecordedEvent, cancellation_reason, is_cancellation
from durabletask_aio.engine._upstream import (
    EventRaisedEvent,
    EventSentEvent,
    HistoryEvent,
    OrchestrationQuery,
    OrchestrationState,
    OrchestrationStatus,
    TaskHubGrpcClient,
)
from durabletask_aio.engine.command_targets import ENDED, STATUSES, Target, target_options
from durabletask_aio.engine.exporting import silent_logger
from durabletask_aio.engine.failure_texts import is_cancelled
from durabletask_aio.engine.management.client import EngineClient

_STATUS_NAMES = {number: name for name, number in STATUSES.items()}
_COLORS = {"completed": "green", "failed": "red", "terminated": "red", "cancelled": "yellow", "suspended": "yellow"}
_WAIT = 30
"""Seconds for one call that waits for an instance; it is repeated until the instance has ended."""


class Json(click.ParamType):  # type: ignore[type-arg]
    """A value written in JSON."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it."""
        try:
            return json.loads(value)
        except ValueError as error:
            self.fail(f"{value!r} is not JSON ({error}); a text is written with quotes: '\"{value}\"'", param, ctx)


# -- start ------------------------------------------------------------------------------------------------------------

_START_EPILOG = """\
\b
examples:
  durabletask-aio start order --input '{"item": "tea"}'
  durabletask-aio start order --input '{"item": "tea"}' --id order-7 --wait

With --wait, the result is printed to standard output as JSON, and the exit code is 1 if the workflow did not complete.
Ctrl-C ends the command and not the workflow.
"""


@click.command("start", short_help="Start an instance, and wait for its end if asked to.", epilog=_START_EPILOG)
@click.argument("workflow")
@click.option("--input", "value", type=Json(), help="The input, in JSON.")
@click.option("--id", "instance_id", help="The id of the instance.  [default: a random one]")
@click.option("--version", help="The version of the workflow.")
@click.option("--wait", is_flag=True, help="Wait until it has ended, and print its result.")
@target_options
@json_option
def start(
    workflow: str,
    value: Any,
    instance_id: str | None,
    version: str | None,
    wait: bool,
    target: Target,
    as_json: bool,
) -> None:
    """Start an instance of the workflow that is registered as WORKFLOW, and print its id."""
    with target.client() as client:
        started = client.schedule_new_orchestration(workflow, input=value, instance_id=instance_id, version=version)
        if not wait:
            if as_json:
                write_json({"instance_id": started})
            else:
                write(f"{started}\n")
            return
        click.echo(f"Started {printable(started)}; waiting for its end.", err=True)
        state = wait_for_end(client, started)
    report_end(state, as_json=as_json)


def report_end(state: OrchestrationState, *, as_json: bool) -> None:
    """Write the result, or the reason why there is none; then the exit code is 1."""
    if as_json:
        write_json(_document(state))
    elif state.runtime_status.value == STATUSES["completed"]:
        write(f"{state.serialized_output or 'null'}\n")
    else:
        click.echo(f"{printable(state.instance_id)} is {_status_of(state)}: {printable(_failure_of(state))}", err=True)
    if state.runtime_status.value != STATUSES["completed"]:
        click.get_current_context().exit(ExitCode.FINDINGS)


def wait_for_end(client: TaskHubGrpcClient, instance_id: str) -> OrchestrationState:
    """Wait until an instance has ended, for however long."""
    while True:
        try:
            state = client.wait_for_orchestration_completion(instance_id, timeout=_WAIT)
        except TimeoutError:
            continue
        if state is None:
            raise CommandError(f"the instance {instance_id!r} was purged while the command waited for its end")
        return state


# -- list and show ----------------------------------------------------------------------------------------------------


class _Row(NamedTuple):
    instance_id: str
    workflow: str
    status: str
    created_at: datetime
    last_updated_at: datetime


@click.command("list", short_help="List instances, the newest first.")
@click.option("--name", "names", multiple=True, help="Of this workflow; may be repeated.")
@click.option("--status", "statuses", type=click.Choice(list(STATUSES)), multiple=True, help="May be repeated.")
@click.option("--prefix", default="", help="Whose ids begin so.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many.")
@target_options
@json_option
def list_instances(
    names: tuple[str, ...], statuses: tuple[str, ...], prefix: str, limit: int, target: Target, as_json: bool
) -> None:
    """List instances, the newest first: id, workflow, status, when it was created and when it last ran (UTC)."""
    wanted = [STATUSES[each] for each in statuses]
    with target.channel() as channel:
        try:
            rows = _search(EngineClient(channel), names, wanted, prefix, limit)
        except grpc.RpcError as error:
            if cast("grpc.Call", error).code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            with TaskHubGrpcClient(channel=channel, logger=silent_logger) as client:
                rows = _query(client, names, wanted, prefix, limit)
    if as_json:
        times = ("created_at", "last_updated_at")
        write_json(
            {"instances": [{**row._asdict(), **{key: getattr(row, key).isoformat() for key in times}} for row in rows]}
        )
        return
    _write_table(rows)


def _search(client: EngineClient, names: tuple[str, ...], statuses: list[int], prefix: str, limit: int) -> list[_Row]:
    """Ask an engine of this project, which sorts and stops at the limit."""
    found = client.search(
        names=names, statuses=statuses, id_prefix=prefix, page_size=min(limit, 1000), with_outcome=True
    )
    return [
        _Row(
            each.instance_id,
            each.name,
            "cancelled" if is_cancelled(each.failure) else _STATUS_NAMES.get(each.status, str(each.status)),
            each.created.ToDatetime(timezone.utc),
            each.updated.ToDatetime(timezone.utc),
        )
        for each in itertools.islice(found, limit)
    ]


def _query(
    client: TaskHubGrpcClient, names: tuple[str, ...], statuses: list[int], prefix: str, limit: int
) -> list[_Row]:
    """Ask any other engine: all that match, since the protocol promises no order."""
    query = OrchestrationQuery(
        runtime_status=[OrchestrationStatus(each) for each in statuses] or None, instance_id_prefix=prefix or None
    )
    states = [each for each in client.get_all_orchestration_states(query) if not names or each.name in names]
    states.sort(key=lambda state: state.created_at, reverse=True)
    return [
        _Row(each.instance_id, each.name, _status_of(each), _utc(each.created_at), _utc(each.last_updated_at))
        for each in states[:limit]
    ]


def _write_table(rows: list[_Row]) -> None:
    if not rows:
        click.echo("No instances.")
        return
    cells = [("INSTANCE", "WORKFLOW", "STATUS", "CREATED (UTC)", "LAST RUN (UTC)")]
    cells += [(printable(row[0]), printable(row[1]), row[2], _to_second(row[3]), _to_second(row[4])) for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    for line in cells:
        padded = [text.ljust(width) for text, width in zip(line, widths, strict=True)]
        padded[2] = click.style(padded[2], fg=_COLORS.get(line[2]))
        _echo("  ".join(padded).rstrip())


@click.command("show", short_help="Show an instance: status, input, result or failure.")
@click.argument("instance_id")
@click.option("--steps", "with_steps", is_flag=True, help="Show its steps, patches and requests too.")
@target_options
@json_option
def show(instance_id: str, with_steps: bool, target: Target, as_json: bool) -> None:
    """Show the instance INSTANCE_ID: its status, input, custom status, and its result or failure."""
    with target.client() as client:
        state = _existing(client, instance_id)
        recorded = _recorded(client.get_orchestration_history(instance_id)) if with_steps else []
    if as_json:
        steps = {"steps": [_step_document(each) for each in recorded]} if with_steps else {}
        write_json({**_document(state), **steps})
        return
    status = _status_of(state)
    lines = [
        ("instance", printable(state.instance_id)),
        ("workflow", printable(state.name)),
        ("status", click.style(status, fg=_COLORS.get(status))),
        ("created", f"{_to_second(_utc(state.created_at))} UTC"),
        ("last run", f"{_to_second(_utc(state.last_updated_at))} UTC"),
        ("input", printable(state.serialized_input or "")),
        ("custom status", printable(state.serialized_custom_status or "")),
        ("result", printable(state.serialized_output or "") if state.failure_details is None else ""),
        ("failure", printable(_failure_of(state)) if state.failure_details is not None else ""),
    ]
    for label, text in lines:
        if text:
            _echo(f"{label:<13}  {text}")
    for each in recorded:
        _echo(f"{each.kind:<13}  {printable(_step_text(each))}")
    stack_trace = "" if state.failure_details is None else state.failure_details.stack_trace
    if stack_trace and status != "cancelled":
        write(f"\n{stack_trace.rstrip()}\n")


# -- what clients send to an instance ---------------------------------------------------------------------------------


@click.command("raise", short_help="Send an event to an instance.")
@click.argument("instance_id")
@click.argument("event")
@click.option("--data", type=Json(), help="The data of the event, in JSON.")
@target_options
@json_option
def raise_event(instance_id: str, event: str, data: Any, target: Target, as_json: bool) -> None:
    """Send the event EVENT to the instance INSTANCE_ID.

    It is kept until the workflow waits for it.
    """
    with target.client() as client:
        _active(client, instance_id)
        client.raise_orchestration_event(instance_id, event, data=data)
    _report(as_json, f"Sent {event} to {instance_id}.", instance_id=instance_id, event=event)


@click.command("suspend", short_help="Let an instance rest until it is resumed.")
@click.argument("instance_id")
@target_options
@json_option
def suspend(instance_id: str, target: Target, as_json: bool) -> None:
    """Suspend the instance INSTANCE_ID: what happens is recorded, and its code does not run until it is resumed."""
    with target.client() as client:
        _active(client, instance_id)
        client.suspend_orchestration(instance_id)
    _report(as_json, f"Suspended {instance_id}.", instance_id=instance_id)


@click.command("resume", short_help="Let a suspended instance run again.")
@click.argument("instance_id")
@target_options
@json_option
def resume(instance_id: str, target: Target, as_json: bool) -> None:
    """Resume the instance INSTANCE_ID, which was suspended."""
    with target.client() as client:
        _active(client, instance_id)
        client.resume_orchestration(instance_id)
    _report(as_json, f"Resumed {instance_id}.", instance_id=instance_id)


@click.command("cancel", short_help="Ask an instance to clean up and end.")
@click.argument("instance_id")
@click.option("--reason", help="Why; the workflow sees it, and its failure has it as the message.")
@target_options
@json_option
def cancel(instance_id: str, reason: str | None, target: Target, as_json: bool) -> None:
    """Ask the instance INSTANCE_ID to cancel itself: its workflow can clean up, and then ends.

    Any engine can be asked. A generator orchestrator ignores the request.
    """
    with target.client() as client:
        _active(client, instance_id)
        request_cancellation(client, instance_id, reason)
    _report(as_json, f"Asked {instance_id} to cancel itself.", instance_id=instance_id, reason=reason)


@click.command("terminate", short_help="End an instance at once, without running its code.")
@click.argument("instance_id")
@click.option("--reason", type=str, help="Recorded as its result.")
@click.option("--recursive/--not-recursive", default=True, show_default=True, help="Its sub-orchestrations too.")
@target_options
@json_option
def terminate(instance_id: str, reason: str | None, recursive: bool, target: Target, as_json: bool) -> None:
    """End the instance INSTANCE_ID at once: none of its code runs again, not even to clean up (see `cancel`)."""
    with target.client() as client:
        _active(client, instance_id)
        client.terminate_orchestration(instance_id, output=reason, recursive=recursive)
    _report(as_json, f"Terminated {instance_id}.", instance_id=instance_id, reason=reason)


# -- shared -----------------------------------------------------------------------------------------------------------


def _existing(client: TaskHubGrpcClient, instance_id: str) -> OrchestrationState:
    state = client.get_orchestration_state(instance_id)
    if state is None:
        raise CommandError(f"there is no instance {instance_id!r}")
    return state


def _active(client: TaskHubGrpcClient, instance_id: str) -> None:
    """Refuse an instance that does not exist or has ended, which engines accept without a word."""
    state = _existing(client, instance_id)
    if state.runtime_status.value in ENDED:
        raise CommandError(f"the instance {instance_id!r} has ended already: {_status_of(state)}")


def _report(as_json: bool, sentence: str, **document: Any) -> None:
    if as_json:
        write_json(document)
    else:
        write(f"{sentence}\n")


def _status_of(state: OrchestrationState) -> str:
    return "cancelled" if is_cancellation(state.failure_details) else state.runtime_status.name.lower()


def _failure_of(state: OrchestrationState) -> str:
    details = state.failure_details
    if details is None:
        return state.serialized_output or "no reason is recorded"
    if is_cancellation(details):
        return cancellation_reason(details) or "no reason was given"
    return f"{details.error_type}: {details.message}"


def _recorded(history: Iterable[HistoryEvent]) -> list[RecordedEvent]:
    """Return the steps, patches, requests and answers of a history."""
    reader = EventReader()
    found: list[RecordedEvent] = []
    for event in history:
        recorded = None
        if isinstance(event, EventSentEvent):
            recorded = reader.sent(event.instance_id, event.name, event.input or "")
        elif isinstance(event, EventRaisedEvent):
            recorded = reader.received(event.name, event.input or "")
        if recorded is not None and recorded.kind != "wake-up":
            found.append(recorded)
    return found


def _step_text(recorded: RecordedEvent) -> str:
    failure = recorded.failure
    outcome = recorded.note or recorded.result
    if failure is not None:
        outcome = f"{failure.errorType.rpartition('.')[2]}: {failure.errorMessage}"
    parts = [recorded.name, recorded.input or "", "" if outcome is None else f"-> {outcome}"]
    return " ".join(part for part in parts if part and part != "-> ")


def _step_document(recorded: RecordedEvent) -> dict[str, Any]:
    failure = recorded.failure
    return {
        "kind": recorded.kind,
        "name": recorded.name,
        "input": recorded.input,
        "result": recorded.result,
        "failure": None if failure is None else {"type": failure.errorType, "message": failure.errorMessage},
        "note": recorded.note or None,
    }


def _document(state: OrchestrationState) -> dict[str, Any]:
    details = state.failure_details
    return {
        "instance_id": state.instance_id,
        "workflow": state.name,
        "status": _status_of(state),
        "created_at": _utc(state.created_at).isoformat(),
        "last_updated_at": _utc(state.last_updated_at).isoformat(),
        "input": state.serialized_input,
        "custom_status": state.serialized_custom_status,
        "result": state.serialized_output if details is None else None,
        "failure": None
        if details is None
        else {"type": details.error_type, "message": details.message, "stack_trace": details.stack_trace},
    }


def _echo(text: str) -> None:
    """Print a line whose texts are printable and whose colours are meant."""
    click.echo(text, color=False if os.environ.get("NO_COLOR") else None)


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)


def _to_second(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"
