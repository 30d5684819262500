"""Where code and history part, told so that its author knows what to do."""

from __future__ import annotations

import difflib
import linecache
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import CodeType, FrameType

from durabletask.task import NonDeterminismError

from durabletask_aio.core.call_sites import waiting_line
from durabletask_aio.core.driver import WorkflowRun
from durabletask_aio.testing._upstream import TurnExecutor
from durabletask_aio.testing.steps import Step, is_longest_timer, shortened

_LIBRARIES = ("durabletask", "durabletask_aio", "asyncio", "contextlib")


@dataclass(frozen=True)
class Site:
    """A line of user code."""

    filename: str
    line: int
    function: str

    @property
    def source(self) -> str:
        """The line itself, if its file is there."""
        return linecache.getline(self.filename, self.line).strip()

    def __str__(self) -> str:
        return f"{self.filename}:{self.line} in {self.function}"


def site_of_caller(frame: FrameType | None) -> Site | None:
    """The innermost line on the stack that is neither this library's, nor upstream's, nor asyncio's."""
    while frame is not None:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package not in _LIBRARIES and not _is_frozen(frame.f_code):
            return Site(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        if frame.f_code.co_name == "feed":
            return None  # the call did not come from a workflow: upstream retries on its own account
        frame = frame.f_back
    return None


def _is_frozen(code: CodeType) -> bool:
    return code.co_filename.startswith("<frozen")


def site_of_wait(executor: TurnExecutor, runs: Sequence[WorkflowRun]) -> Site | None:
    """Where the workflow waits now, or where its error came from."""
    if executor.error is not None:
        return _raised_at(executor.error)
    for run in runs:
        for task in run.loop.tasks:
            where, _, function = waiting_line(task).partition(" in ")
            filename, _, line = where.rpartition(":")
            if line.isdigit():
                return Site(filename, int(line), function)
    frame = getattr(executor.generator, "gi_frame", None)
    inner = executor.generator
    while getattr(inner, "gi_yieldfrom", None) is not None and hasattr(inner.gi_yieldfrom, "gi_frame"):
        inner = inner.gi_yieldfrom
        frame = inner.gi_frame
    if frame is None or frame.f_globals.get("__name__", "").startswith("durabletask_aio."):
        return None
    return Site(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)


def _raised_at(error: BaseException) -> Site | None:
    site = None
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _LIBRARIES:
            site = Site(frame.f_code.co_filename, traceback.tb_lineno, frame.f_code.co_name)
        traceback = traceback.tb_next
    return site


@dataclass(frozen=True)
class Divergence:
    """The facts of the first step where code and history differ."""

    instance_id: str
    workflow_name: str
    turn: int
    recorded: Step | None
    """What the history has there; ``None`` if it has nothing."""

    actual: Step | None
    """What the code did there; ``None`` if it did nothing."""

    history_text: str | None = None
    """The recorded end, if that is what differs."""

    code_text: str | None = None
    """The code's end, if that is what differs."""

    site: Site | None = None
    """The line that did it or, if nothing was done, where the code waits."""

    error: BaseException | None = None
    before: Sequence[tuple[Step, Site | None]] = ()
    recorded_here: Sequence[Step] = field(default=(), repr=False)
    recorded_later: Sequence[Step] = field(default=(), repr=False)
    wanted_here: Sequence[Step] = field(default=(), repr=False)
    same_code: bool = False
    """Whether it was this very code that made the history."""

    @property
    def number(self) -> int | None:
        """The number of the step."""
        step = self.recorded or self.actual
        return None if step is None else step.number

    def describe(self) -> str:
        """The whole message."""
        at = "its end" if self.number is None else f"step #{self.number}"
        what = (
            f"workflow {self.workflow_name!r} is not deterministic: replayed, it does something else than it did as "
            f"instance {self.instance_id!r}"
            if self.same_code
            else f"workflow {self.workflow_name!r} no longer does what the history of instance {self.instance_id!r} "
            "records"
        )
        lines = [
            what,
            f"  at {at}, in turn {self.turn}:",
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
        """A guess, from what the two sides have around this step."""
        recorded, actual = self.recorded, self.actual
        if self.same_code:
            return self._cause_in_same_code()
        if recorded is None and actual is None:
            return self._cause_of_end()
        if recorded is not None and actual is not None:
            return self._cause_of_change(recorded, actual)
        if actual is not None:
            return f"a call of {_what(actual)} was added, or a branch is taken that was not taken then; {_BRANCH}"
        assert recorded is not None
        if self.error is not None:
            return f"the code raises {type(self.error).__name__} where it went on then: {shortened(str(self.error))}"
        if self.code_text:
            return f"{_what(recorded)} and what follows were removed, or the code returns earlier; {_BRANCH}"
        waits = ", or the code waits for something it did not wait for then" if self.site is not None else ""
        return f"the call of {_what(recorded)} was removed, or a branch that led to it is not taken{waits}; {_BRANCH}"

    def _cause_in_same_code(self) -> str:
        recorded, actual = self.recorded, self.actual
        if self.error is not None:
            return f"the code raises {type(self.error).__name__} only when replayed, so it depends on {_NOT_RECORDED}"
        if recorded is not None and actual is not None and recorded.shape == actual.shape:
            part = "the length of the wait" if recorded.kind == "create_timer" else f"what {_what(actual)} is given"
            return f"{part} comes from {_NOT_RECORDED}"
        if recorded is None and actual is None:
            return f"its end depends on {_NOT_RECORDED}"
        return f"which way it goes depends on {_NOT_RECORDED}"

    def _cause_of_change(self, recorded: Step, actual: Step) -> str:
        if recorded.shape == actual.shape and recorded.target == actual.target:
            if recorded.kind == "create_timer":
                return "the length of the wait has changed, or is computed from something that is not in the history"
            return (
                f"the input of {_what(actual)} has changed, or is computed from something that is not in the history: "
                "a clock, random, the environment, the order of a set, a global"
            )
        if (recorded.kind == "create_timer") is not (actual.kind == "create_timer") and self._is_in_long_wait():
            longer = "longer" if actual.kind == "create_timer" else "less long"
            return (
                f"a wait of many days, which is recorded as several timers, takes {longer} than it did then; {_BRANCH}"
            )
        if recorded.shape == actual.shape:
            return (
                f"{_what(actual)} goes to {actual.target!r} and not to {recorded.target!r}: the instance or entity "
                "it is for has changed, or is computed from something that is not in the history"
            )
        recorded_shapes = [step.shape for step in self.recorded_here if step.number >= recorded.number]
        wanted_shapes = [step.shape for step in self.wanted_here if step.number >= actual.number]
        if len(recorded_shapes) > 1 and sorted(recorded_shapes) == sorted(wanted_shapes):
            return "the same calls are made in another order; keep the order, or iterate over a list and not a set"
        later = [step.shape for step in self.recorded_later if step.number > recorded.number]
        if actual.shape in later:
            return f"the call of {_what(recorded)} was removed, or comes later now; {_BRANCH}"
        if recorded.shape in [step.shape for step in self.wanted_here if step.number > actual.number]:
            return f"a call of {_what(actual)} was added before the one of {_what(recorded)}; {_BRANCH}"
        if recorded.kind == actual.kind and _alike(recorded.name, actual.name):
            return f"{recorded.name!r} was renamed to {actual.name!r}; register the new code under the old name"
        return f"{_what(recorded)} was replaced by {_what(actual)}, or another branch is taken; {_BRANCH}"

    def _is_in_long_wait(self) -> bool:
        last = [step for step, _ in self.before][-2:]
        if [step.kind for step in last] != ["create_timer", "create_timer"]:
            return False
        first, second = (datetime.fromisoformat(step.name) for step in last)
        return is_longest_timer(second - first)

    def _cause_of_end(self) -> str:
        if self.error is not None:
            return f"the code raises {type(self.error).__name__} where it did not then"
        if self.history_text is None:
            return f"the code ends where it went on then; {_BRANCH}"
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


def _what(step: Step) -> str:
    return "create_timer" if step.kind == "create_timer" else f"{step.name!r}"


def _alike(one: str, other: str) -> bool:
    return difflib.SequenceMatcher(None, one.lower(), other.lower()).ratio() > 0.5


class ReplayError(NonDeterminismError):
    """Today's code does not do what a recorded history says.

    Deploying it would fail the instances that are in flight at this point, or send them another way.  Either deploy it
    under another name or version and let the old instances end on the old code, or make the new code do what the old
    one did up to here.  ``.divergence`` has the facts, and the message tells them.
    """

    def __init__(self, divergence: Divergence) -> None:
        super().__init__(divergence.describe())
        self.divergence = divergence
