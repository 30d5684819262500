"""Python 3.10 and 3.11: a profile hook sees each call of workflow code, and is removed while other code is on top.

The interpreter calls the hook for every call and return on its thread. Most of these happen inside the context's
methods and the event loop, where no user code runs. The hook is therefore suspended inside the context (by the subclass
that `make_unhooked_subclass` creates), and looks only at frames of followed code.

If a hook raises, the interpreter removes it. The next call of a context method or the next turn installs it again.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable
from threading import get_ident
from typing import Any, Final, TypeVar

from durabletask_aio.core import AsyncWorkflowContext
from durabletask_aio.sandbox.code import bytecode
from durabletask_aio.sandbox.rules.catalogue import Call
from durabletask_aio.sandbox.rules.conditions import UNKNOWN_ARGUMENTS, ArgumentSummary
from durabletask_aio.sandbox.rules.ownership import OWNERSHIP, RuleScope
from durabletask_aio.sandbox.runtime.execution import ACTIVE, Policy, WatchedExecution, warn_once
from durabletask_aio.sandbox.static.call_index import CallIndex, call_index

IS_SUPPORTED: Final = sys.version_info < (3, 12)
"""From Python 3.12 on, setting a profile hook slows down all threads of the process; see `monitoring`."""

_T = TypeVar("_T")
_EXECUTION: Final = "_sandbox_execution"


class ProfiledExecution(WatchedExecution):
    """An execution whose code runs under the profile hook."""

    def __init__(self, policy: Policy, execution: Any) -> None:
        super().__init__(policy, execution)
        self._index: CallIndex = call_index()
        self.hook = self._make_hook()
        self.is_hooked = False
        """Whether the hook is to be set while the execution's code runs; inside the context it is removed."""

    def is_on_this_thread(self) -> bool:
        return ACTIVE.get(get_ident()) is self

    def enter(self) -> None:
        super().enter()
        # Another profiler (cProfile, coverage) is left in place: it could not be restored after it is replaced.
        self.is_hooked = sys.getprofile() is None
        if self.is_hooked:
            sys.setprofile(self.hook)
        else:
            warn_once(
                "Another profiler has the profile hook of this thread, so calls of strict workflows are not watched:"
                " on Python 3.10 and 3.11 strict mode then has static analysis and redirected names alone. Profile"
                " without strict mode, or with Python 3.12 or later."
            )

    def exit(self) -> BaseException | None:
        if self.is_hooked:
            sys.setprofile(None)
            self.is_hooked = False
        return super().exit()

    def suspend(self) -> bool:
        """Remove the hook; return whether it was to be set."""
        if self.is_hooked:
            sys.setprofile(None)
        return self.is_hooked

    def resume(self) -> None:
        if self.is_hooked:
            sys.setprofile(self.hook)

    def _make_hook(self) -> Callable[[types.FrameType, str, Any], None]:
        """The hook, as a closure over plain dictionaries: it runs several times for each line of the workflow."""
        scopes, names, watched_codes = OWNERSHIP.scopes_by_code, self._index.builtin_names, self._index.watched_codes
        check_call, check_frame, scope_of = self._check_call, self._check_frame, OWNERSHIP.scope_of
        nothing = RuleScope.NOTHING

        def hook(frame: types.FrameType, event: str, argument: Any) -> None:
            if event == "c_call":
                if argument.__name__ not in names:
                    return
                code = frame.f_code
                known = scopes.get(id(code))
                if known is None:
                    known = scope_of(code)
                if known[1] is not nothing:
                    check_call(frame, argument)
            elif event == "call" and id(frame.f_code) in watched_codes:
                check_frame(frame)

        return hook

    def _check_call(self, frame: types.FrameType, called: Any) -> None:
        call = self._index.find(called)
        if call is None:
            return
        count = bytecode.argument_count(frame.f_code, frame.f_lasti)
        # Without a count, the call was made from C code (such as `map`) or has a starred argument.
        arguments = UNKNOWN_ARGUMENTS if count is None and call.condition is not None else ArgumentSummary(count or 0)
        self._report(call, arguments, frame)

    def _check_frame(self, frame: types.FrameType) -> None:
        caller = frame.f_back
        call = self._index.of_frame(frame)
        if call is None or caller is None or not OWNERSHIP.is_followed(caller.f_code.co_filename):
            return
        code = frame.f_code
        names = code.co_varnames[1 if code.co_name == "__init__" else 0 : code.co_argcount]
        given = [frame.f_locals.get(name) for name in names]
        # An argument that was left out looks the same as one that equals its default; `None` counts as left out.
        arguments = ArgumentSummary(sum(value is not None for value in given))
        self._report(call, arguments, caller)

    def _report(self, call: Call, arguments: ArgumentSummary, frame: types.FrameType) -> None:
        # Composing the message must not run under the hook.
        self.suspend()
        self.check(call, arguments, frame)
        self.resume()


@functools.cache
def profiled_context_type() -> type[AsyncWorkflowContext]:
    """The context type for workflows that run under the hook."""
    return make_unhooked_subclass(AsyncWorkflowContext)


def make_unhooked_subclass(context_type: type[_T]) -> type[_T]:
    """A subclass of the context whose methods and properties run without the hook."""
    members: dict[str, Any] = {}
    for name in dir(context_type):
        if name.startswith("_"):
            continue
        static = inspect.getattr_static(context_type, name)
        if isinstance(static, types.FunctionType):
            members[name] = _without_hook(static)
        elif isinstance(static, property) and static.fget is not None:
            members[name] = property(_without_hook(static.fget), static.fset, static.fdel, static.__doc__)
    members["__slots__"] = (_EXECUTION,)
    members["__module__"] = context_type.__module__
    members["__doc__"] = context_type.__doc__
    subclass: Any = type(context_type.__name__, (context_type,), members)
    return subclass  # type: ignore[no-any-return]


def _without_hook(function: Any) -> Any:
    """Wrap `function`, a method of the context, so that it runs without the hook.

    Each call made before the hook is removed costs nearly a microsecond. The execution is therefore looked up once and
    kept on the context; the hook then sees only this function and the call that removes the hook.
    """
    set_profile = sys.setprofile

    @functools.wraps(function)
    def unhooked(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            execution = self._sandbox_execution
        except AttributeError:
            execution = _keep_execution(self)
        # The execution knows whether it set the hook; `sys.getprofile()` might return another profiler.
        if execution is None or not execution.is_hooked:
            return function(self, *args, **kwargs)
        set_profile(None)
        try:
            return function(self, *args, **kwargs)
        finally:
            # If another thread calls a method of the context, which it should not, it must not be left with the hook.
            if execution.is_on_this_thread():
                set_profile(execution.hook)

    return unhooked


def _keep_execution(context: Any) -> ProfiledExecution | None:
    """The execution that `context` belongs to, if this thread runs it; it is then kept on the context."""
    execution = ACTIVE.get(get_ident())
    if not isinstance(execution, ProfiledExecution):
        return None
    setattr(context, _EXECUTION, execution)
    return execution
