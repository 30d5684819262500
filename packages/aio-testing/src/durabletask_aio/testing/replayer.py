"""Recorded histories against today's code: is it safe to deploy?

The history is fed to upstream's executor event by event, as after a restart of a worker.  At the end of each recorded
turn, what the code wants is compared with what the history says it wanted: kind, name and target of each step, which
is what upstream checks too, and also times of timers and payloads, which it does not.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from durabletask.client import OrchestrationStatus
from durabletask.serialization import DataConverter, JsonDataConverter

from durabletask_aio.core.disposal import turn_scope
from durabletask_aio.core.settings import SandboxMode
from durabletask_aio.testing._upstream import Registry, TurnExecutor, pb, suppress_spans
from durabletask_aio.testing.divergence import Divergence, ReplayError, Site, site_of_caller, site_of_wait
from durabletask_aio.testing.functions import orchestrator_of
from durabletask_aio.testing.history import History
from durabletask_aio.testing.steps import Step, step_of_action, step_of_event
from durabletask_aio.worker.metadata import from_tags

_FRAMES = ("orchestratorCompleted", "executionCompleted")
_NAMES = ("TERMINATED", "CONTINUED_AS_NEW")


@dataclass(frozen=True)
class ReplayReport:
    """A replay that found nothing."""

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
    """Run ``orchestrator``, async or generator, over a recorded history.

    Returns a report if it does exactly what the history says, and raises :class:`ReplayError` at the first step where
    it does not.  Activities are not called; their recorded results are used.

    ``payloads=False`` compares only what upstream's own replay compares, kinds, names and targets: for redacted
    histories.  The converter and the timer interval are those of the worker.  ``live_from`` is the number of the event
    from which on the code is told that it is not replaying.

    Raises ``ValueError`` for a history without a start.
    """
    __tracebackhide__ = True
    return _replayed(
        history,
        orchestrator,
        payloads=payloads,
        sandbox_mode=sandbox_mode,
        data_converter=data_converter,
        maximum_timer_interval=maximum_timer_interval,
        live_from=live_from,
        same_code=False,
    )


def repeat(
    history: History,
    orchestrator: Callable[..., Any],
    *,
    data_converter: DataConverter,
    maximum_timer_interval: timedelta | None,
) -> ReplayReport:
    """Replay what the same code has just recorded; the error then says that it is not deterministic."""
    __tracebackhide__ = True
    return _replayed(
        history,
        orchestrator,
        data_converter=data_converter,
        maximum_timer_interval=maximum_timer_interval,
        same_code=True,
    )


def _replayed(
    history: History,
    orchestrator: Callable[..., Any],
    *,
    data_converter: DataConverter | None,
    maximum_timer_interval: timedelta | None,
    same_code: bool,
    payloads: bool = True,
    sandbox_mode: SandboxMode | str | None = None,
    live_from: int | None = None,
) -> ReplayReport:
    __tracebackhide__ = True
    name = history.workflow_name
    if name is None:
        raise ValueError(f"{history!r} does not say which workflow was started; is it the whole history?")
    registry = Registry()
    registry.add_named_orchestrator(name, orchestrator_of(orchestrator, name=name, sandbox_mode=sandbox_mode))
    executor = TurnExecutor(registry, data_converter or JsonDataConverter(), maximum_timer_interval)
    try:
        return _Replay(history, executor, payloads=payloads, live_from=live_from, same_code=same_code).run()
    except ReplayError as error:
        # Where this library found it says nothing; the message has the line of the workflow.
        raise error.with_traceback(None) from None


@dataclass
class _Turn:
    """The events between two starts of the orchestrator."""

    number: int
    first_event: int
    events: list[pb.HistoryEvent]

    @property
    def steps(self) -> list[tuple[pb.HistoryEvent, Step]]:
        found = ((event, step_of_event(event)) for event in self.events)
        return [(event, step) for event, step in found if step is not None]

    @property
    def is_finished(self) -> bool:
        return any(event.HasField("orchestratorCompleted") for event in self.events)


def _turns(events: Sequence[pb.HistoryEvent]) -> Iterator[_Turn]:
    turn: _Turn | None = None
    for position, event in enumerate(events):
        if turn is None or event.HasField("orchestratorStarted"):
            if turn is not None:
                yield turn
            turn = _Turn(1 if turn is None else turn.number + 1, position, [])
        turn.events.append(event)
    if turn is not None:
        yield turn


class _Actions(dict[int, pb.OrchestratorAction]):
    """Upstream's pending actions, which remember the line of user code that asked for each."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: dict[int, Site | None] = {}

    def __setitem__(self, number: int, action: pb.OrchestratorAction) -> None:
        self.sites[number] = site_of_caller(inspect.currentframe())
        super().__setitem__(number, action)


class _Replay:
    def __init__(
        self,
        history: History,
        executor: TurnExecutor,
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
        self._actions = _Actions()
        self._done: list[tuple[Step, Site | None]] = []

    def run(self) -> ReplayReport:
        history, executor = self._history, self._executor
        events = history.protobuf
        instance_id = history.instance_id or "replayed"
        executor.open(instance_id)
        executor.watch_actions(self._actions)
        tags = next(each.executionStarted.tags for each in events if each.HasField("executionStarted"))
        turns = 0
        with suppress_spans(), turn_scope(metadata=from_tags(tags)) as scope:
            self._runs = scope.runs
            try:
                for turn in _turns(events):
                    turns = turn.number
                    self._replay_turn(turn)
            finally:
                for run in scope.runs:
                    run.dispose()
                executor.close()
        return ReplayReport(instance_id, history.workflow_name or "", turns, len(self._done))

    def _replay_turn(self, turn: _Turn) -> None:
        confirmed = {id(event) for event, _ in turn.steps}
        for offset, event in enumerate(turn.events):
            if (
                id(event) in confirmed
                or event.HasField("executionCompleted")
                or event.HasField("orchestratorCompleted")
            ):
                continue
            self._executor.set_replaying(self._live_from is None or turn.first_event + offset < self._live_from)
            self._executor.feed(event)
        self._compare_steps(turn)
        for event, step in turn.steps:
            self._done.append((step, self._actions.sites.get(step.number)))
            if self._executor.is_complete:
                # Nothing is left to tell it; that it went on to its end in this turn has been compared.
                self._actions.pop(event.eventId, None)
            else:
                self._executor.set_replaying(True)
                self._executor.feed(event)
        self._compare_end(turn)

    def _compare_steps(self, turn: _Turn) -> None:
        wanted = {number: step for number, action in self._actions.items() if (step := step_of_action(action))}
        for _, recorded in turn.steps:
            actual = wanted.pop(recorded.number, None)
            if actual is None or not self._agrees(recorded, actual):
                raise self._error(turn, recorded, actual)
        # A turn without its end is still running, or its engine writes none: what is wanted may follow.
        if wanted and turn.is_finished:
            extra = wanted[min(wanted)]
            raise self._error(turn, None, extra)

    def _agrees(self, recorded: Step, actual: Step) -> bool:
        if recorded.kind != actual.kind:
            return False
        if recorded.kind == "create_timer":
            return not self._payloads or recorded.name == actual.name
        # Upstream's rule for events: their names are the same in any case of their letters.
        fold = str.casefold if recorded.kind == "send_event" else str
        if fold(recorded.name) != fold(actual.name) or recorded.target != actual.target:
            return False
        return not self._payloads or recorded.same_payload(actual)

    def _compare_end(self, turn: _Turn) -> None:
        recorded = next((e.executionCompleted for e in turn.events if e.HasField("executionCompleted")), None)
        actual = next(
            (a.completeOrchestration for a in self._actions.values() if a.HasField("completeOrchestration")), None
        )
        if recorded is None:
            if actual is not None and turn.is_finished and not self._executor.has_continued:
                raise self._error(turn, None, None, code=_end(actual))
            return
        if actual is None:
            continued = "continue_as_new" if self._executor.has_continued else None
            raise self._error(turn, None, None, history=_end(recorded), code=continued)
        same = recorded.orchestrationStatus == actual.orchestrationStatus
        if same and recorded.orchestrationStatus == pb.ORCHESTRATION_STATUS_FAILED:
            same = recorded.failureDetails.errorType == actual.failureDetails.errorType
        elif same and self._payloads:
            one = Step(0, "", "", payload=recorded.result.value if recorded.HasField("result") else None)
            same = one.same_payload(Step(0, "", "", payload=actual.result.value if actual.HasField("result") else None))
        if not same:
            raise self._error(turn, None, None, history=_end(recorded), code=_end(actual))

    def _error(
        self,
        turn: _Turn,
        recorded: Step | None,
        actual: Step | None,
        *,
        history: str | None = None,
        code: str | None = None,
    ) -> ReplayError:
        failure = next(
            (a.completeOrchestration for a in self._actions.values() if a.HasField("completeOrchestration")), None
        )
        if actual is None and code is None and failure is not None:
            code = _end(failure)
        site = self._actions.sites.get(actual.number) if actual is not None else None
        wanted = [step for action in self._actions.values() if (step := step_of_action(action))]
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
                before=self._done[-5:],
                recorded_here=[step for _, step in turn.steps],
                recorded_later=[step for event in self._history.protobuf if (step := step_of_event(event))],
                wanted_here=wanted,
                same_code=self._same_code,
            )
        )


def _end(completion: Any) -> str:
    status = OrchestrationStatus(completion.orchestrationStatus)
    if status is OrchestrationStatus.FAILED:
        details = completion.failureDetails
        return f"failed with {details.errorType}: {details.errorMessage}"
    if status.name in _NAMES:
        return status.name.lower().replace("_", " ")
    return f"returned {completion.result.value if completion.HasField('result') else 'None'}"
