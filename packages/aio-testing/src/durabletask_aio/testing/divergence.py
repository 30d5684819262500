"""`ReplayError` and `Divergence`: where the code and a recorded history differ, and the likely cause."""

from __future__ import annotations

import difflib
import linecache
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import CodeType, FrameType

from durabletask.task import NonDeterminismError

from durabletask_aio.core import hosting
from durabletask_aio.testing._upstream import generator_of
from durabletask_aio.testing.steps import Step, is_maximum_timer, truncate

_LIBRARIES = ("durabletask", "durabletask_aio", "asyncio", "contextlib")


@dataclass(frozen=True)
class CallSite:
    """A line of user code."""

    filename: str
    line: int
    function: str

    @property
    def source(self) -> str:
        """The text of the line, empty if the file is not available."""
        return linecache.getline(self.filename, self.line).strip()

    def __str__(self) -> str:
        return f"{self.filename}:{self.line} in {self.function}"


def site_of_caller(frame: FrameType | None) -> CallSite | None:
    """Return the innermost line on the stack that belongs neither to this library, nor to upstream or asyncio."""
    while frame is not None:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package not in _LIBRARIES and not _is_frozen(frame.f_code):
            return CallSite(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        if frame.f_code.co_name == "feed":
            return None  # `TurnExecutor.feed` was reached: upstream made the call itself, for a retry.
        frame = frame.f_back
    return None


def _is_frozen(code: CodeType) -> bool:
    return code.co_filename.startswith("<frozen")


def site_of_wait(executor: hosting.TurnExecutor, runs: Sequence[hosting.WorkflowRun]) -> CallSite | None:
    """Return the line where the workflow waits, or where its error was raised."""
    if executor.error is not None:
        return _site_of_error(executor.error)
    for run in runs:
        for task in run.loop.tasks:
            where, _, function = hosting.waiting_line(task).partition(" in ")
            filename, _, line = where.rpartition(":")
            if line.isdigit():
                return CallSite(filename, int(line), function)
    inner = generator_of(executor.context)
    frame = getattr(inner, "gi_frame", None)
    while getattr(inner, "gi_yieldfrom", None) is not None and hasattr(inner.gi_yieldfrom, "gi_frame"):
        inner = inner.gi_yieldfrom
        frame = inner.gi_frame
    if frame is None or frame.f_globals.get("__name__", "").startswith("durabletask_aio."):
        return None
    return CallSite(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)


def _site_of_error(error: BaseException) -> CallSite | None:
    site = None
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _LIBRARIES:
            site = CallSite(frame.f_code.co_filename, traceback.tb_lineno, frame.f_code.co_name)
        traceback = traceback.tb_next
    return site


@dataclass(frozen=True)
class Divergence:
    """The first step at which code and history differ."""

    instance_id: str
    workflow_name: str
    turn: int
    """The number of the turn, from 1."""

    recorded: Step | None
    """The step of the history, `None` if it has none there."""

    actual: Step | None
    """The step of the code, `None` if it made none there."""

    history_text: str | None = None
    """The recorded end, if the ends differ."""

    code_text: str | None = None
    """The end of the code, if the ends differ."""

    site: CallSite | None = None
    """The line that made the step or, if there is none, the line where the code waits or has failed."""

    error: BaseException | None = None
    """The exception that failed the replayed workflow, if there is one."""

    before: Sequence[tuple[Step, CallSite | None]] = ()
    """The last steps that agreed, with the lines that made them."""

    recorded_here: Sequence[Step] = field(default=(), repr=False)
    """The steps that the history has in this turn."""

    recorded_later: Sequence[Step] = field(default=(), repr=False)
    """All steps of the history."""

    wanted_here: Sequence[Step] = field(default=(), repr=False)
    """The steps that the code has requested and the history has not confirmed."""

    same_code: bool = False
    """Whether the history was recorded by the code that is replayed."""

    @property
    def number(self) -> int | None:
        """The sequence number of the step, `None` if the ends differ."""
        step = self.recorded or self.actual
        return None if step is None else step.number

    def describe(self) -> str:
        """Return the message of the error: the step on both sides, the line, the steps before, and the likely cause."""
        position = "its end" if self.number is None else f"step #{self.number}"
        summary = (
            f"workflow {self.workflow_name!r} is not deterministic: replayed, it does something else than it did as "
            f"instance {self.instance_id!r}"
            if self.same_code
            else f"workflow {self.workflow_name!r} no longer does what the history of instance {self.instance_id!r} "
            "records"
        )
        lines = [
            summary,
            f"  at {position}, in turn {self.turn}:",
            f"    {'then:    ' if self.same_code else 'history: '} {self.history_text or self.recorded or 'nothing'}",
            f"    {'replayed:' if self.same_code else 'code:    '} {self.code_text or self.actual or 'nothing'}",
        ]
        if self.site is not None:
            lines.append(f"              {'at' if self.actual or self.error else 'waiting at'} {self.site}")
            if self.site.source:
                lines.append(f"                {self.site.source}")
        if self.before:
            lines.append("  after:")
            lines += [f"    #{step.number} {step}{f'   {site}' if site else ''}" for step, site in self.before]
        lines.append(f"  likely cause: {self.likely_cause()}")
        return "\n".join(lines)

    def likely_cause(self) -> str:
        """Return the most likely cause, inferred from the steps of both sides around this one."""
        recorded, actual = self.recorded, self.actual
        if self.same_code:
            return self._cause_in_same_code()
        if recorded is None and actual is None:
            return self._cause_of_end()
        if recorded is not None and actual is not None:
            return self._cause_of_change(recorded, actual)
        if actual is not None:
            return f"a call of {_call(actual)} was added, or a branch is taken that was not taken then; {_BRANCH}"
        assert recorded is not None
        if self.error is not None:
            return f"the code raises {type(self.error).__name__} where it continued then: {truncate(str(self.error))}"
        if self.code_text:
            return f"{_call(recorded)} and what follows were removed, or the code returns earlier; {_BRANCH}"
        waits = ", or the code waits for something it did not wait for then" if self.site is not None else ""
        return f"the call of {_call(recorded)} was removed, or a branch that led to it is not taken{waits}; {_BRANCH}"

    def _cause_in_same_code(self) -> str:
        recorded, actual = self.recorded, self.actual
        if self.error is not None:
            return f"the code raises {type(self.error).__name__} only when replayed, so it depends on {_NOT_RECORDED}"
        if recorded is not None and actual is not None and recorded.call_key == actual.call_key:
            part = "the length of the wait" if recorded.kind == "create_timer" else f"what {_call(actual)} is given"
            return f"{part} comes from {_NOT_RECORDED}"
        if recorded is None and actual is None:
            return f"its end depends on {_NOT_RECORDED}"
        return f"which way it goes depends on {_NOT_RECORDED}"

    def _cause_of_change(self, recorded: Step, actual: Step) -> str:
        if recorded.call_key == actual.call_key and recorded.target == actual.target:
            if recorded.kind == "create_timer":
                return "the length of the wait has changed, or is computed from something that is not in the history"
            return (
                f"the input of {_call(actual)} has changed, or is computed from something that is not in the history: "
                "a clock, random, the environment, the order of a set, a global"
            )
        if (recorded.kind == "create_timer") is not (actual.kind == "create_timer") and self._is_in_long_wait():
            longer = "longer" if actual.kind == "create_timer" else "less long"
            return (
                f"a wait of many days, which is recorded as several timers, takes {longer} than it did then; {_BRANCH}"
            )
        if recorded.call_key == actual.call_key:
            return (
                f"{_call(actual)} goes to {actual.target!r} and not to {recorded.target!r}: the instance or entity "
                "it is for has changed, or is computed from something that is not in the history"
            )
        recorded_calls = [step.call_key for step in self.recorded_here if step.number >= recorded.number]
        wanted_calls = [step.call_key for step in self.wanted_here if step.number >= actual.number]
        if len(recorded_calls) > 1 and sorted(recorded_calls) == sorted(wanted_calls):
            return "the same calls are made in another order; keep the order, or iterate over a list and not a set"
        later = [step.call_key for step in self.recorded_later if step.number > recorded.number]
        if actual.call_key in later:
            return f"the call of {_call(recorded)} was removed, or comes later now; {_BRANCH}"
        if recorded.call_key in [step.call_key for step in self.wanted_here if step.number > actual.number]:
            return f"a call of {_call(actual)} was added before the one of {_call(recorded)}; {_BRANCH}"
        if recorded.kind == actual.kind and _is_similar(recorded.name, actual.name):
            return f"{recorded.name!r} was renamed to {actual.name!r}; register the new code under the old name"
        return f"{_call(recorded)} was replaced by {_call(actual)}, or another branch is taken; {_BRANCH}"

    def _is_in_long_wait(self) -> bool:
        last = [step for step, _ in self.before][-2:]
        if [step.kind for step in last] != ["create_timer", "create_timer"]:
            return False
        first, second = (datetime.fromisoformat(step.name) for step in last)
        return is_maximum_timer(second - first)

    def _cause_of_end(self) -> str:
        if self.error is not None:
            return f"the code raises {type(self.error).__name__} where it did not then"
        if self.history_text is None:
            return f"the code ends where it continued then; {_BRANCH}"
        if self.code_text is None:
            return f"the code waits for something where it had ended then; {_BRANCH}"
        return "what the workflow returns or raises has changed, or is computed from something not in the history"


_NOT_RECORDED = (
    "something that is not in the history: ctx.is_replaying, a clock, random, the environment, the order of a set, "
    "a global"
)

_BRANCH = (
    "if the code has not changed, it decides by something that is not in the history: a clock, random, the "
    "environment, the order of a set, a global"
)


def _call(step: Step) -> str:
    return "create_timer" if step.kind == "create_timer" else f"{step.name!r}"


def _is_similar(first: str, second: str) -> bool:
    return difflib.SequenceMatcher(None, first.lower(), second.lower()).ratio() > 0.5


class ReplayError(NonDeterminismError):
    """The code does not do what a recorded history says.

    Deployed, it would fail the instances that are at this point, or make them continue differently.  Either deploy it
    under another name or version and let the old instances end on the old code, or make the new code do what the old
    one did up to here.

    The message names the step, what the history has and what the code did there, the line, and the likely cause.

    Attributes:
        divergence: the same facts as an object.
    """

    def __init__(self, divergence: Divergence) -> None:
        super().__init__(divergence.describe())
        self.divergence = divergence
