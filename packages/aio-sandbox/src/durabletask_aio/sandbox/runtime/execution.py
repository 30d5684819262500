"""The execution that a thread is running, and what happens when its code breaks a rule.

`ACTIVE` is keyed by thread and not a context variable: `create_task` and `to_thread` copy the context and would carry
the state into the threads that run activities.
"""

from __future__ import annotations

import logging
import random
import types
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from itertools import islice
from threading import get_ident
from typing import Any, Final

from durabletask_aio.core import NonDeterminismWarning, SandboxViolationError
from durabletask_aio.core.plugins import Execution
from durabletask_aio.sandbox.code import _interpreter
from durabletask_aio.sandbox.code.sources import position_of, source_of
from durabletask_aio.sandbox.rules import allowance
from durabletask_aio.sandbox.rules.catalogue import Call, Category, Rule, Severity, allows
from durabletask_aio.sandbox.rules.conditions import ArgumentSummary, condition_holds, summary_of_call, unwrap_partial
from durabletask_aio.sandbox.rules.default import default_catalogue
from durabletask_aio.sandbox.rules.findings import Finding
from durabletask_aio.sandbox.rules.ownership import OWNERSHIP
from durabletask_aio.sandbox.runtime import eval_exec, held_locks
from durabletask_aio.sandbox.runtime.frame_findings import finding_for_frame
from durabletask_aio.sandbox.runtime.substitutes import SUBSTITUTES

ACTIVE: Final[dict[int, WatchedExecution]] = {}
"""By thread id: the execution whose code is on the stack of that thread. Empty while no workflow code runs."""

FROZEN_CLOCK_LIMIT: Final = 100_000
"""Maximum number of clock reads in one turn; more are taken for a loop that waits for the clock to advance.
"""


class Policy:
    """The settings of a registered workflow; shared by its executions."""

    def __init__(self, *, strict: bool, workflow_name: str, context: str | None, allowed: tuple[str, ...]) -> None:
        self.strict = strict
        self.workflow_name = workflow_name
        self.context = context
        """The name of the workflow's context parameter, for corrected lines."""
        self.allowed = allowed
        self.warned: set[tuple[str, int, str]] = set()
        """Call sites, as file, line and call, that were already reported."""
        self.watcher: eval_exec.CodeWatcher | None = None
        """Watches code that is created while the workflow runs."""
        self.functions: dict[int, tuple[str, ...]] = {}
        """By id of a code object: the names that `@allow(...)` on that function allows."""
        self.has_with_blocks = False
        """Whether code of the workflow has a `with` statement, in which it might hold a lock."""


class WatchedExecution:
    """The guard of one execution, which the core enters and exits; also the source of deterministic values."""

    # Entered and exited once per turn, so attribute access is kept fast.
    __slots__ = ("_outer", "_reads", "_stream", "_thread", "_violation", "execution", "policy", "strict")

    def __init__(self, policy: Policy, execution: Execution) -> None:
        self.policy = policy
        self.execution = execution
        self.strict = policy.strict
        self._stream: random.Random | None = None
        self._reads = 0
        self._violation: BaseException | None = None
        self._outer: WatchedExecution | None = None
        self._thread = 0

    def enter(self) -> None:
        self._thread = thread = get_ident()
        self._reads = 0
        if thread in ACTIVE:
            self._outer = ACTIVE[thread]
        ACTIVE[thread] = self

    def exit(self) -> BaseException | None:
        if self._outer is None:
            del ACTIVE[self._thread]
        else:
            ACTIVE[self._thread] = self._outer
            self._outer = None
        if self._violation is None:
            return None
        violation, self._violation = self._violation, None
        return violation

    def suspend(self) -> bool:
        """Stop watching for a moment; return whether `resume` has to be called."""
        return False

    def resume(self) -> None:
        """Watch again after `suspend`."""

    def now(self) -> datetime:
        return self.execution.now()

    @property
    def random(self) -> random.Random:
        if self._stream is None:
            self._stream = self.execution.stream("sandbox")
        return self._stream

    def intercept(self, call: Call, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Check a call that a proxy received; return the result of `target`, or a deterministic value in its place."""
        target, args, kwargs = unwrap_partial(target, args, kwargs)
        if not condition_holds(call.condition, summary_of_call(args, kwargs)):
            return target(*args, **kwargs)
        inner = followed_frame(_interpreter.frame(1))
        frame = user_frame(inner)
        if inner is None or frame is None or self._is_allowed(call, frame):
            return target(*args, **kwargs)
        self.report_violation(call, frame, inner)
        substitute = SUBSTITUTES.get(call.name)
        if substitute is None:
            return target(*args, **kwargs)
        if call.category is Category.CLOCK:
            self._count_read(call, frame, inner)
        return substitute(self, target, args, kwargs)

    def run_eval_exec(
        self, call: Call, caller: types.FrameType, target: Callable[..., Any], args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        """Check a call of `eval` or `exec`, made by `caller`, and run it in the caller's frame."""
        frame = user_frame(caller)
        if frame is not None and not self._is_allowed(call, frame):
            self.report_violation(call, frame, caller)
        return eval_exec.run(self.policy.watcher, caller, target, args, kwargs)

    def check(self, call: Call, arguments: ArgumentSummary, frame: types.FrameType) -> None:
        """Check a call that `frame` is about to make, for the layers that cannot replace its result."""
        if not condition_holds(call.condition, arguments) or not OWNERSHIP.applies(frame.f_code.co_filename, call.rule):
            return
        reported = user_frame(frame)
        if reported is not None and not self._is_allowed(call, reported):
            self.report_violation(call, reported, frame)

    def report_violation(self, call: Call, frame: types.FrameType, inner: types.FrameType) -> None:
        """Warn or raise, depending on the workflow's mode and the rule's severity.

        `frame` is the user's frame, at whose line the violation is reported; `inner` makes the call and may belong to a
        followed package.
        """
        if not call.is_watched:
            return
        if self.strict and call.rule.severity is Severity.ERROR:
            raise self.fail(self._finding(call, frame, inner).text())
        site = (frame.f_code.co_filename, frame.f_lineno, call.name)
        if site in self.policy.warned or self.execution.is_replaying:
            return
        self.policy.warned.add(site)
        warn(self._finding(call, frame, inner), self.policy.workflow_name, self.execution.instance_id)

    def fail(self, message: str) -> SandboxViolationError:
        """Create a violation and remember it, so that it fails the turn even if the workflow catches it."""
        error = SandboxViolationError(
            message, instance_id=self.execution.instance_id, workflow_name=self.policy.workflow_name
        )
        if self._violation is None:
            self._violation = error
        return error

    def _finding(self, call: Call, frame: types.FrameType, inner: types.FrameType) -> Finding:
        found = finding_for_frame(frame, call, self.policy.context, stack_of(frame))
        if inner is frame:
            return found
        return replace(found, inside=f"{inner.f_code.co_filename}:{inner.f_lineno} in {inner.f_code.co_name}()")

    @property
    def check_suspended(self) -> Callable[[Iterable[Any]], None] | None:
        """What the core calls with the suspended coroutines; `None` if there is nothing to look for in them."""
        return self._check_suspended if self.policy.has_with_blocks else None

    def _check_suspended(self, coroutines: Iterable[Any]) -> None:
        """Report a lock of `threading` that suspended code of the user's holds."""
        for suspended in islice(coroutines, held_locks.MAX_CHECKED):
            code = held_locks.code_of(suspended)
            if code is None or not OWNERSHIP.is_user_file(code.co_filename) or not held_locks.has_with_block(code):
                continue
            lock, frame = held_locks.held_lock(suspended), held_locks.frame_of(suspended)
            if lock is not None and frame is not None:
                self._report_held(lock, frame)

    def _report_held(self, lock: str, frame: types.FrameType) -> None:
        call = default_catalogue().calls["threading.Lock.acquire"]
        self._report_at(
            held_locks.line_of_block(frame),
            frame,
            call.rule,
            lock,
            call_name=call.name,
            detail=f"A `{lock}` is held while the workflow waits at line {frame.f_lineno}, and blocks other instances",
            advice="`asyncio.Lock` within an instance, `ctx.lock_entities` between instances, or a lock in an activity",
        )

    def check_direct_call(self, function: Any) -> None:
        """Report an activity that the code of the workflow calls like any function."""
        frame = user_frame(_interpreter.frame(1))
        if frame is None:
            return
        name, context = function.__name__, self.policy.context or "ctx"
        violation = self._report_at(
            frame.f_lineno,
            frame,
            default_catalogue().rules["DET814"],
            function.__qualname__,
            detail=f"`{name}` is an activity and is called directly, so it runs as a part of the workflow, and again on"
            " each replay",
            advice=f"`await {context}.call_activity({name}, input=...)`",
        )
        if violation is not None:
            raise violation

    def _report_at(
        self,
        line: int,
        frame: types.FrameType,
        rule: Rule,
        what: str,
        *,
        detail: str,
        advice: str,
        call_name: str | None = None,
    ) -> SandboxViolationError | None:
        """Warn, once for each place and `what`; in strict mode, return the violation, which fails the turn."""
        code, source = frame.f_code, source_of(frame.f_code.co_filename, frame.f_globals)
        pragmas = source.allowed_at(line, line) if source is not None else ()
        if self._is_allowed_in(frame, rule, call_name) or any(allows(each.names, rule, call_name) for each in pragmas):
            return None
        site = (code.co_filename, line, what)
        if not self.strict and (site in self.policy.warned or self.execution.is_replaying):
            return None
        self.policy.warned.add(site)
        finding = Finding(
            rule=rule,
            file=code.co_filename,
            line=line,
            column=None,
            function=code.co_name,
            reached=(),
            detail=detail,
            advice=advice,
            source_line=source.line(line) if source is not None else "",
        )
        if self.strict:
            return self.fail(finding.text())
        warn(finding, self.policy.workflow_name, self.execution.instance_id)
        return None

    def _is_allowed(self, call: Call, frame: types.FrameType) -> bool:
        if self._is_allowed_in(frame, call.rule, call.name):
            return True
        source = source_of(frame.f_code.co_filename, frame.f_globals)
        if source is None or not source.pragmas:
            return False
        position = position_of(frame, call.name.rpartition(".")[2])
        return any(
            allows(pragma.names, call.rule, call.name) for pragma in source.allowed_at(position.line, position.end_line)
        )

    def _is_allowed_in(self, frame: types.FrameType, rule: Rule, call_name: str | None) -> bool:
        """Whether the workflow, the process, a block or the function of `frame` allows it, or `logging` runs it."""
        allowed = (*self.policy.allowed, *allowance.everywhere(), *allowance.in_block())
        names = (*allowed, *self.policy.functions.get(id(frame.f_code), ()))
        return allows(names, rule, call_name) or _is_called_by_logging(frame)

    def _count_read(self, call: Call, frame: types.FrameType, inner: types.FrameType) -> None:
        self._reads += 1
        if self._reads > FROZEN_CLOCK_LIMIT:
            finding = self._finding(call, frame, inner)
            raise self.fail(
                f"A loop waits for a clock that stands still: `{call.name}` was read {self._reads - 1:,} times"
                f" without the workflow waiting for anything. In a workflow the clock moves only while it waits.\n"
                f"  at {finding.location} in {finding.function}()\n"
                f"      {finding.source_line.strip()}\n"
                f"  Use `await ctx.sleep(seconds)` in the loop, or `ctx.with_timeout(awaitable, seconds)` around it."
            )


def user_frame(frame: types.FrameType | None) -> types.FrameType | None:
    """The nearest frame of the user's own code, from `frame` outwards, at whose line a finding can be reported.

    Code that `eval` or `exec` compiled has no source line to show, so the frame that runs it is preferred.
    """
    in_text: types.FrameType | None = None
    while frame is not None:
        filename = frame.f_code.co_filename
        if OWNERSHIP.is_user_file(filename):
            if filename != eval_exec.FILENAME:
                return frame
            in_text = in_text or frame
        elif in_text is not None and OWNERSHIP.is_runtime_file(filename):
            # With `python -c`, all code is text; frames outside the workflow are not considered.
            break
        frame = frame.f_back
    return in_text


def followed_frame(frame: types.FrameType | None) -> types.FrameType | None:
    """The nearest frame of followed code, from `frame` outwards: the user's, or a followed package's."""
    while frame is not None and not OWNERSHIP.is_followed(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def _is_called_by_logging(frame: types.FrameType) -> bool:
    """Whether `logging` runs this code, as it does formatters, filters and handlers: no workflow depends on them."""
    current = frame.f_back
    while current is not None and not OWNERSHIP.is_runtime_file(current.f_code.co_filename):
        if current.f_globals is _LOGGING:
            return True
        current = current.f_back
    return False


_LOGGING: Final = logging.__dict__


def stack_of(frame: types.FrameType) -> tuple[str, ...]:
    """The names of the user's functions on the stack, from the workflow to `frame`."""
    names: list[str] = []
    current: types.FrameType | None = frame
    while current is not None and OWNERSHIP.is_user_file(current.f_code.co_filename):
        names.append(current.f_code.co_name)
        current = current.f_back
    return tuple(reversed(names))


_warned: Final[set[str]] = set()


def warn_once(message: str) -> None:
    """Issue a `NonDeterminismWarning` that the process has not had yet."""
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, NonDeterminismWarning, stacklevel=3)


def warn(finding: Finding, workflow_name: str, instance_id: str | None = None) -> None:
    """Issue a finding as a `NonDeterminismWarning` that points to the user's line."""
    where = f"workflow {workflow_name!r}" + (f", instance {instance_id!r}" if instance_id is not None else "")
    # `warn_explicit` names the user's line directly; `warn` would need the depth of the stack.
    warnings.warn_explicit(
        f"{finding.text()}\n  [{where}]", NonDeterminismWarning, finding.file, finding.line, registry=None
    )
