"""Python 3.12 and later: `sys.monitoring` reports each call that workflow code makes, however the callee was bound.

Events are local: only the code objects of the user's functions that a strict workflow reaches are instrumented, so
other code, threads and tools are not slowed down. A call site whose callee cannot change (a global function, or a
method whose name does not occur in the catalogue) is disabled after its first call, which keeps the cost of strict mode
low. An exception raised in the callback surfaces at the call, before it is made.
"""

from __future__ import annotations

import dis
import functools
import sys
import types
from collections.abc import Callable, Iterable
from threading import get_ident
from typing import Any, Final

from durabletask_aio.sandbox.code import _interpreter, bytecode
from durabletask_aio.sandbox.rules.conditions import UNKNOWN_ARGUMENTS, ArgumentSummary, with_partial
from durabletask_aio.sandbox.rules.ownership import OWNERSHIP
from durabletask_aio.sandbox.runtime.callbacks import functions_held_by
from durabletask_aio.sandbox.runtime.execution import ACTIVE, warn_once
from durabletask_aio.sandbox.static import reachability
from durabletask_aio.sandbox.static.call_index import CallIndex

IS_SUPPORTED: Final = sys.version_info >= (3, 12)

TOOL_NAME: Final = "durabletask-aio"
_TOOL_IDS: Final = (4, 3, 5)
"""The first free one is taken; 0, 1 and 2 are for debuggers, coverage tools and profilers."""

_TAKE_FUNCTIONS: Final = frozenset(map(id, (map, filter, iter, functools.partial, functools.reduce)))
_PARTIAL: Final = id(functools.partial)
_FOLLOWED: Final = 64
"""Number of calls of followed methods after which a call site is taken for stable and disabled."""


class Monitor:
    """The `sys.monitoring` tool of this process; see `monitor`."""

    def __init__(self, index: CallIndex) -> None:
        self._index = index
        self._codes: dict[int, types.CodeType] = {}
        self._classes: dict[int, type[Any]] = {}
        self._sites: dict[int, dict[int, str | None]] = {}
        """By code and offset: the instruction that pushes the callee, if it always pushes the same kind of callee."""
        self._open_sites: set[tuple[int, int]] = set()
        """Call sites that call followed functions and may call a different one next time."""
        self._counts: dict[tuple[int, int], int] = {}
        self._api: Any = getattr(sys, "monitoring", None)
        self.tool: int | None = None
        self.prepare: Callable[[Iterable[types.FunctionType]], None] = no_preparation
        """Called with functions that are discovered at run time, before they run: redirects their names."""

    def start(self) -> bool:
        """Take a tool id; return `False`, with one warning, if none is free."""
        if self.tool is not None:
            return True
        for candidate in _TOOL_IDS:
            if self._api.get_tool(candidate) is None:
                self._api.use_tool_id(candidate, TOOL_NAME)
                self._api.register_callback(candidate, self._api.events.CALL, self._callback())
                self.tool = candidate
                return True
        warn_once(
            "All tool ids of sys.monitoring that durabletask-aio could use (3, 4, 5) are taken, so strict mode"
            " has static analysis and redirected names alone. Free one, or run strict workflows in another process."
        )
        return False

    def stop(self) -> None:
        """Give the tool id back and stop watching all code."""
        if self.tool is None:
            return
        for code in self._codes.values():
            self._api.set_local_events(self.tool, code, 0)
        self._api.register_callback(self.tool, self._api.events.CALL, None)
        self._api.free_tool_id(self.tool)
        self.tool = None
        for table in (self._codes, self._classes, self._sites, self._counts, self._open_sites):
            table.clear()

    def watch(self, functions: Iterable[types.FunctionType]) -> None:
        """Instrument the code of each function, and of the functions inside it."""
        for function in functions:
            self.watch_code(function.__code__)

    def watch_code(self, code: types.CodeType) -> None:
        """Instrument `code` and the code inside it."""
        for each in reachability.codes_of(code):
            self._watch_code(each)

    def forget(self, code: types.CodeType) -> None:
        """Stop watching code that will not run again; functions that it created are still watched."""
        if self._codes.pop(id(code), None) is None or self.tool is None:
            return
        self._api.set_local_events(self.tool, code, 0)
        # Another code object may get the same id.
        self._sites.pop(id(code), None)
        for key in [key for key in self._counts if key[0] == id(code)]:
            del self._counts[key]
        self._open_sites.difference_update([key for key in self._open_sites if key[0] == id(code)])

    def _watch_code(self, code: types.CodeType) -> None:
        # Keyed by id, and the object is kept: code objects of two modules may compare equal.
        if id(code) in self._codes or self.tool is None:
            return
        self._codes[id(code)] = code
        self._api.set_local_events(self.tool, code, self._api.events.CALL)

    def _callback(self) -> Callable[[types.CodeType, int, Any, Any], Any]:
        """The callback, as a closure for speed: it runs at every call of a site that cannot be disabled."""
        active, codes, open_sites, check_call = ACTIVE, self._codes, self._open_sites, self._check_call
        function_type = types.FunctionType

        def on_call(code: types.CodeType, offset: int, called: Any, first: Any) -> Any:
            # This runs on every thread that executes the code; only threads with an active workflow are checked.
            if not active:
                return None
            if type(called) is function_type and id(called.__code__) in codes and (id(code), offset) in open_sites:
                return None
            return check_call(code, offset, called, first)

        return on_call

    def _check_call(self, code: types.CodeType, offset: int, called: Any, first: Any) -> Any:
        execution = ACTIVE.get(get_ident())
        if execution is None:
            return None
        kind = _interpreter.type_of(called)
        if kind is types.FunctionType or kind is types.MethodType:
            function = called if kind is types.FunctionType else called.__func__
            if isinstance(function, types.FunctionType) and OWNERSHIP.is_followed(function.__code__.co_filename):
                return self._follow(code, offset, function)
        missing = self._api.MISSING
        call = self._index.find(called, None if first is missing else first)
        if call is None and id(called) in _TAKE_FUNCTIONS and first is not missing:
            # These built-ins call their argument from C, where there are no events, so it is checked here. The site
            # stays enabled for other functions.
            call = self._index.find(first)
            if call is None or (id(called) == _PARTIAL and call.condition is not None):
                # Whether arguments are missing from a partial is known where it is called.
                return None
        if call is None or not call.is_watched or not OWNERSHIP.applies(code.co_filename, call.rule):
            if isinstance(called, type):
                self._watch_class(called)
            return self._api.DISABLE if self._stable_callee(code, offset) is not None else None
        frame = _interpreter.frame(2)
        if execution.strict and frame is not None:
            if id(called) in _TAKE_FUNCTIONS:
                arguments = with_partial(_passed_by(called, bytecode.argument_count(code, offset)), first)
            else:
                arguments = with_partial(_arguments(code, offset, called, first, missing), called)
            execution.check(call, arguments, frame)
        return None

    def _follow(self, code: types.CodeType, offset: int, function: types.FunctionType) -> Any:
        """Watch a followed function from now on, and keep the site enabled until its callee is taken for stable."""
        if id(function.__code__) not in self._codes:
            self._watch_new([function])
        how = self._stable_callee(code, offset)
        if how == "LOAD_GLOBAL":
            return self._api.DISABLE
        if how is None:
            self._open_sites.add((id(code), offset))
            return None
        # The same line may call the method of another class next time, with code that is not watched yet.
        key = (id(code), offset)
        seen = self._counts[key] = self._counts.get(key, 0) + 1
        return self._api.DISABLE if seen >= _FOLLOWED else None

    def _watch_class(self, kind: type) -> None:
        if id(kind) not in self._classes:
            self._classes[id(kind)] = kind
            self._watch_new([*reachability.methods_of(kind), *reachability.methods_of(type(kind))])

    def _watch_new(self, functions: list[types.FunctionType]) -> None:
        """Redirect and watch functions that the analysis did not reach and that are about to run."""
        functions = [*functions, *functions_held_by(functions)]
        self.prepare(functions)
        self.watch(functions)

    def _stable_callee(self, code: types.CodeType, offset: int) -> str | None:
        """The instruction that pushed the callee, if this site always pushes the same kind of callee."""
        sites = self._sites.get(id(code))
        if sites is None:
            sites = self._sites[id(code)] = self._read_sites(code)
        return sites.get(offset)

    def _read_sites(self, code: types.CodeType) -> dict[int, str | None]:
        found = bytecode.instructions(code)
        sites: dict[int, str | None] = {}
        for index, each in enumerate(found):
            callee = bytecode.callee_index(found, index)
            if callee is not None:
                sites[each.offset] = self._stable_kind(found[callee])
        return sites

    def _stable_kind(self, callee: dis.Instruction) -> str | None:
        if callee.opname == "LOAD_GLOBAL":
            return "LOAD_GLOBAL"
        if callee.opname in {"LOAD_ATTR", "LOAD_METHOD"} and callee.argval not in self._index.leaf_names:
            return "LOAD_ATTR"
        # Locals, elements of containers and results of calls may be different callees next time.
        return None


def _arguments(code: types.CodeType, offset: int, called: Any, first: Any, missing: object) -> ArgumentSummary:
    count = bytecode.argument_count(code, offset)
    if count is None:
        return ArgumentSummary(0) if first is missing else UNKNOWN_ARGUMENTS
    # The count does not include the object that a method is called on.
    is_own = isinstance(called, (types.MethodDescriptorType, types.FunctionType)) and count == 0
    real_first = None if first is missing or is_own else first
    return ArgumentSummary(
        count,
        first_is_none=count > 0 and real_first is None,
        is_first_text=isinstance(real_first, (str, bytes)),
    )


def _passed_by(called: Any, count: int | None) -> ArgumentSummary:
    """The arguments with which `map()` and similar built-ins, given `count` arguments, call their function."""
    if called is map:
        return UNKNOWN_ARGUMENTS if count is None else ArgumentSummary(count - 1)
    return ArgumentSummary({id(filter): 1, id(functools.reduce): 2}.get(id(called), 0))


def no_preparation(_functions: Iterable[types.FunctionType]) -> None:
    """Default of `Monitor.prepare`: functions run unchanged."""


_monitor: Monitor | None = None


def monitor(index_of: Callable[[], CallIndex]) -> Monitor:
    """The tool of this process, created on first use."""
    global _monitor
    if _monitor is None:
        _monitor = Monitor(index_of())
    return _monitor
