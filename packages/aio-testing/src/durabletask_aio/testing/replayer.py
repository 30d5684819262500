"""`replay`: runs today's code over a recorded history and compares the steps.

The events of the history are processed one by one, as after a restart of a worker.  At the end of each recorded turn
the actions that the code has requested are compared with the recorded steps: kind, name and target, which upstream
checks too, and also payloads and the times of timers, which it does not.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from durabletask.client import OrchestrationStatus
from durabletask.serialization import DataConverter, JsonDataConverter

from durabletask_aio.core import SandboxMode, WorkflowValidationError, hosting
from durabletask_aio.testing._upstream import pb, suppress_spans
from durabletask_aio.testing.divergence import CallSite, Divergence, ReplayError, site_of_caller, site_of_wait
from durabletask_aio.testing.executor import VirtualTimeExecutor
from durabletask_aio.testing.functions import to_orchestrator
from durabletask_aio.testing.history import History
from durabletask_aio.testing.history_codec import HistoryFormatError
from durabletask_aio.testing.registry import Registry
from durabletask_aio.testing.steps import Step, step_of_action, step_of_event

_REFUSAL = f"{WorkflowValidationError.__module__}.{WorkflowValidationError.__qualname__}"

_ENDS_WITHOUT_RESULT = ("TERMINATED", "CONTINUED_AS_NEW")


@dataclass(frozen=True)
class ReplayReport:
    """The result of a replay without a difference.

    Attributes:
        instance_id: the id of the instance.
        workflow_name: the name under which the orchestrator is registered.
        turns: the number of turns in the history.
        steps: the number of durable operations that were compared.
    """

    instance_id: str
    workflow_name: str
    turns: int
    steps: int


def replay(
    history: History,
    orchestrator: Callable[..., Any],
    *,
    payloads: bool = True,
    sandbox_mode: SandboxMode | str | None = None,
    data_converter: DataConverter | None = None,
    maximum_timer_interval: timedelta | None = timedelta(days=3),
    live_from: int | None = None,
) -> ReplayReport:
    """Run an orchestrator over a recorded history and compare each step.

    Activities are not called; their recorded results are used.

    Args:
        history: the history, which need not have ended.
        orchestrator: the async workflow or generator orchestrator.
        payloads: whether to compare payloads and the times of timers too; `False`, for redacted histories, compares
            only
            kinds, names and targets, as upstream does.
        sandbox_mode: the sandbox mode of a workflow that has none of its own.
        data_converter: the converter of the worker; upstream's JSON converter by default.
        maximum_timer_interval: the interval of the worker: a longer timer is recorded as several.
        live_from: the position of the event from which on `ctx.is_replaying` is false; by default it is always true.

    Returns:
        A report, if the code does exactly what the history says.

    Raises:
        ReplayError: at the first step where it does not.
        HistoryFormatError: for a history with two operations of one number.
        ValueError: for a history without a start.
    """
    __tracebackhide__ = True
    return _replay(
        history,
        orchestrator,
        payloads=payloads,
        sandbox_mode=sandbox_mode,
        data_converter=data_converter,
        maximum_timer_interval=maximum_timer_interval,
        live_from=live_from,
        same_code=False,
    )


def replay_own_history(
    history: History,
    orchestrator: Callable[..., Any],
    *,
    data_converter: DataConverter,
    maximum_timer_interval: timedelta | None,
) -> ReplayReport:
    """Replay a history that the same code has just recorded; an error then says that the code is not deterministic."""
    __tracebackhide__ = True
    return _replay(
        history,
        orchestrator,
        data_converter=data_converter,
        maximum_timer_interval=maximum_timer_interval,
        same_code=True,
    )


def waits_at_end(
    history: History,
    orchestrator: Callable[..., Any],
    *,
    data_converter: DataConverter | None = None,
    maximum_timer_interval: timedelta | None = timedelta(days=3),
) -> list[hosting.Wait]:
    """Replay the history of an instance that has not ended, and describe what its code waits for.

    Only kinds, names and targets are compared, as upstream does.

    Args:
        history: the history.
        orchestrator: see `replay`, as for the others.
        data_converter: the converter.
        maximum_timer_interval: the interval.

    Returns:
        See `hosting.waits`; empty if the code has ended.

    Raises:
        ReplayError: if the code does something else than the history says.
        ValueError: for a history without a start.
    """
    found: list[hosting.Wait] = []
    _replay(
        history,
        orchestrator,
        data_converter=data_converter,
        maximum_timer_interval=maximum_timer_interval,
        same_code=False,
        payloads=False,
        waits=found,
    )
    return found


def _replay(
    history: History,
    orchestrator: Callable[..., Any],
    *,
    data_converter: DataConverter | None,
    maximum_timer_interval: timedelta | None,
    same_code: bool,
    payloads: bool = True,
    sandbox_mode: SandboxMode | str | None = None,
    live_from: int | None = None,
    waits: list[hosting.Wait] | None = None,
) -> ReplayReport:
    """Replay a history; what the code waits for in the end is added to `waits`."""
    __tracebackhide__ = True
    _check_numbers(history.protobuf)
    name = history.workflow_name
    if name is None:
        raise ValueError(f"{history!r} does not say which workflow was started; is it the whole history?")
    registry = Registry()
    registry.add_named_orchestrator(name, to_orchestrator(orchestrator, name=name, sandbox_mode=sandbox_mode))
    executor = VirtualTimeExecutor(registry, data_converter or JsonDataConverter(), maximum_timer_interval)
    try:
        replayer = _Replayer(history, executor, payloads=payloads, live_from=live_from, same_code=same_code)
        return replayer.run(waits)
    except ReplayError as error:
        # The message has the line of the workflow; the traceback would only show this library.
        raise error.with_traceback(None) from None


def _check_numbers(events: Sequence[pb.HistoryEvent]) -> None:
    """Check that no two operations have the same number, by which their outcomes refer to them."""
    positions: dict[int, int] = {}
    for position, event in enumerate(events):
        if event.HasField("taskFailed"):  # It is tried again under its number.
            positions.pop(event.taskFailed.taskScheduledId, None)
        elif event.HasField("subOrchestrationInstanceFailed"):
            positions.pop(event.subOrchestrationInstanceFailed.taskScheduledId, None)
        elif step_of_event(event) is not None:
            first = positions.setdefault(event.eventId, position)
            if first != position:
                raise HistoryFormatError(
                    f"events {first} and {position} of the history are operations with the same event_id, "
                    f"{event.eventId}"
                )


@dataclass
class _Turn:
    """The events from one start of a turn to the next."""

    number: int
    first_event: int
    events: list[pb.HistoryEvent]

    @property
    def steps(self) -> list[tuple[pb.HistoryEvent, Step]]:
        pairs = ((event, step_of_event(event)) for event in self.events)
        return [(event, step) for event, step in pairs if step is not None]

    @property
    def is_finished(self) -> bool:
        return any(event.HasField("orchestratorCompleted") for event in self.events)


def _split_into_turns(events: Sequence[pb.HistoryEvent]) -> Iterator[_Turn]:
    turn: _Turn | None = None
    for position, event in enumerate(events):
        if turn is None or event.HasField("orchestratorStarted"):
            if turn is not None:
                yield turn
            turn = _Turn(1 if turn is None else turn.number + 1, position, [])
        turn.events.append(event)
    if turn is not None:
        yield turn


class _ActionsWithSites(dict[int, pb.OrchestratorAction]):
    """Upstream's pending actions, with the line of user code that requested each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: dict[int, CallSite | None] = {}

    def __setitem__(self, number: int, action: pb.OrchestratorAction) -> None:
        self.sites[number] = site_of_caller(inspect.currentframe())
        super().__setitem__(number, action)


class _Replayer:
    """One replay of one history."""

    def __init__(
        self,
        history: History,
        executor: VirtualTimeExecutor,
        *,
        payloads: bool,
        live_from: int | None,
        same_code: bool,
    ) -> None:
        self._history = history
        self._executor = executor
        self._payloads = payloads
        self._live_from = live_from
        self._same_code = same_code
        self._actions = _ActionsWithSites()
        self._confirmed: list[tuple[Step, CallSite | None]] = []

    def run(self, waits: list[hosting.Wait] | None) -> ReplayReport:
        history, executor = self._history, self._executor
        events = history.protobuf
        instance_id = history.instance_id or "replayed"
        executor.open(instance_id)
        executor.keep_actions_in(self._actions)
        executor.recorded = events
        executor.remember(events, ())
        tags = next(event.executionStarted.tags for event in events if event.HasField("executionStarted"))
        turns = 0
        with suppress_spans(), hosting.turn_scope(metadata=hosting.metadata_from_tags(tags)) as scope:
            self._runs = scope.runs
            try:
                for turn in _split_into_turns(events):
                    turns = turn.number
                    self._replay_turn(turn)
                if waits is not None and not executor.is_complete:
                    waits += hosting.waits(executor.context, scope.runs)
            finally:
                for run in scope.runs:
                    run.dispose()
                executor.close()
        return ReplayReport(instance_id, history.workflow_name or "", turns, len(self._confirmed))

    def _replay_turn(self, turn: _Turn) -> None:
        confirmations = {id(event) for event, _ in turn.steps}
        is_live = _ends_with_refusal(turn)
        for offset, event in enumerate(turn.events):
            if (
                id(event) in confirmations
                or event.HasField("executionCompleted")
                or event.HasField("orchestratorCompleted")
            ):
                continue
            is_past = self._live_from is None or turn.first_event + offset < self._live_from
            self._executor.set_replaying(is_past and not is_live)
            self._executor.feed(event)
        self._compare_steps(turn)
        for event, step in turn.steps:
            self._confirmed.append((step, self._actions.sites.get(step.number)))
            if self._executor.is_complete:
                # The instance accepts no more events; `_compare_end` compares that it ended in this turn.
                self._actions.pop(event.eventId, None)
            else:
                self._executor.set_replaying(True)
                self._executor.feed(event)
        self._compare_end(turn)

    def _compare_steps(self, turn: _Turn) -> None:
        requested = {number: step for number, action in self._actions.items() if (step := step_of_action(action))}
        for event, recorded in turn.steps:
            actual = requested.pop(recorded.number, None)
            if actual is None and hosting.is_deprecated_patch(event.eventSent):
                continue
            if actual is None or not self._is_same(recorded, actual):
                raise self._error(turn, recorded, actual)
        # A turn without an end event is still running, or its engine writes none: the steps may follow.
        if requested and turn.is_finished:
            raise self._error(turn, None, requested[min(requested)])

    def _is_same(self, recorded: Step, actual: Step) -> bool:
        if recorded.kind != actual.kind:
            return False
        if recorded.kind == "create_timer":
            return not self._payloads or recorded.name == actual.name
        # Upstream compares the names of events without regard to upper and lower case.
        fold = str.casefold if recorded.kind == "send_event" else str
        if fold(recorded.name) != fold(actual.name) or recorded.target != actual.target:
            return False
        return not self._payloads or recorded.same_payload(actual)

    def _compare_end(self, turn: _Turn) -> None:
        recorded = next(
            (event.executionCompleted for event in turn.events if event.HasField("executionCompleted")), None
        )
        actual = self._completion()
        if recorded is None:
            if actual is not None and turn.is_finished and not self._continues_as_new():
                raise self._error(turn, None, None, code=_describe_end(actual))
            return
        if actual is None:
            continued = "continue_as_new" if self._continues_as_new() else None
            raise self._error(turn, None, None, history=_describe_end(recorded), code=continued)
        same = recorded.orchestrationStatus == actual.orchestrationStatus
        if same and recorded.orchestrationStatus == pb.ORCHESTRATION_STATUS_FAILED:
            same = recorded.failureDetails.errorType == actual.failureDetails.errorType
        elif same and self._payloads:
            same = _result(recorded).same_payload(_result(actual))
        if not same:
            raise self._error(turn, None, None, history=_describe_end(recorded), code=_describe_end(actual))

    def _completion(self) -> Any:
        """Return the requested completion of the orchestration, `None` if there is none."""
        actions = self._actions.values()
        return next((each.completeOrchestration for each in actions if each.HasField("completeOrchestration")), None)

    def _continues_as_new(self) -> bool:
        """Return whether the code has called `continue_as_new`: it is complete without a completion action."""
        return self._executor.is_complete and self._completion() is None

    def _error(
        self,
        turn: _Turn,
        recorded: Step | None,
        actual: Step | None,
        *,
        history: str | None = None,
        code: str | None = None,
    ) -> ReplayError:
        completion = self._completion()
        if actual is None and code is None and completion is not None:
            code = _describe_end(completion)
        site = self._actions.sites.get(actual.number) if actual is not None else None
        requested = [step for action in self._actions.values() if (step := step_of_action(action))]
        return ReplayError(
            Divergence(
                instance_id=self._history.instance_id or "",
                workflow_name=self._history.workflow_name or "",
                turn=turn.number,
                recorded=recorded,
                actual=actual,
                history_text=history,
                code_text=code,
                site=site or site_of_wait(self._executor, self._runs),
                error=self._executor.error,
                before=self._confirmed[-5:],
                recorded_here=[step for _, step in turn.steps],
                recorded_later=[step for event in self._history.protobuf if (step := step_of_event(event))],
                wanted_here=requested,
                same_code=self._same_code,
            )
        )


def _ends_with_refusal(turn: _Turn) -> bool:
    """Whether a mistake was refused in this turn; code that replays may continue after one."""
    return any(
        event.executionCompleted.failureDetails.errorType == _REFUSAL
        for event in turn.events
        if event.HasField("executionCompleted")
    )


def _describe_end(completion: Any) -> str:
    status = OrchestrationStatus(completion.orchestrationStatus)
    if status is OrchestrationStatus.FAILED:
        details = completion.failureDetails
        return f"failed with {details.errorType}: {details.errorMessage}"
    if status.name in _ENDS_WITHOUT_RESULT:
        return status.name.lower().replace("_", " ")
    return f"returned {completion.result.value if completion.HasField('result') else 'None'}"


def _result(completion: Any) -> Step:
    """Return the result as the payload of a step, to compare it as one."""
    return Step(0, "", "", payload=completion.result.value if completion.HasField("result") else None)
