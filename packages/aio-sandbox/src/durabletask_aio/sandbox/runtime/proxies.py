"""The proxies that redirected names lead to. On each call a proxy checks whether this thread runs a watched workflow.

Otherwise it calls what the name stands for at that moment, so that functions shared with activities, and names replaced
by `unittest.mock.patch`, behave as without redirection.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator, Mapping
from threading import get_ident
from typing import Any, Final

from durabletask_aio.sandbox.code import _interpreter
from durabletask_aio.sandbox.rules.catalogue import Call
from durabletask_aio.sandbox.rules.ownership import OWNERSHIP
from durabletask_aio.sandbox.runtime.eval_exec import EVAL_AND_EXEC, run
from durabletask_aio.sandbox.runtime.execution import ACTIVE
from durabletask_aio.sandbox.static.call_index import PROXY_ATTRIBUTE

_BOUND_TO_THEIR_FRAME: Final = frozenset({"builtins.compile", "builtins.breakpoint"})
"""These look at the frame of their caller, which a proxy in between would change."""


def can_be_proxied(call: Call) -> bool:
    """Whether a proxy can replace this call without changing its behaviour."""
    return call.is_watched and call.name not in _BOUND_TO_THEIR_FRAME


def make_proxy(
    call: Call, original: Any, look_up: Callable[[], Any], *, filename: str | None = None
) -> Callable[..., Any]:
    """A function in place of `original`; `look_up` evaluates the redirected expression as it stands now.

    `filename` is the file whose code was redirected, for files of packages that may stop being followed.
    """
    if call.name in EVAL_AND_EXEC:
        return _eval_exec_proxy(call, original, look_up)

    def proxy(*args: Any, **kwargs: Any) -> Any:
        target = look_up()
        if ACTIVE:
            execution = ACTIVE.get(get_ident())
            # If a test replaced the original, its replacement is called.
            if (
                execution is not None
                and target == original
                and (filename is None or OWNERSHIP.applies(filename, call.rule))
            ):
                return execution.intercept(call, target, args, kwargs)
        return target(*args, **kwargs)

    functools.update_wrapper(proxy, original, updated=())
    setattr(proxy, PROXY_ATTRIBUTE, call)
    return proxy


def make_direct_call_proxy(original: Any, look_up: Callable[[], Any]) -> Callable[..., Any]:
    """A function in place of an activity, where workflow code calls it; the call is reported before it is made."""

    def proxy(*args: Any, **kwargs: Any) -> Any:
        target = look_up()
        execution = ACTIVE.get(get_ident()) if ACTIVE else None
        if execution is not None and target is original:
            execution.check_direct_call(target)
        return target(*args, **kwargs)

    functools.update_wrapper(proxy, original, updated=())
    return proxy


def _eval_exec_proxy(call: Call, original: Any, look_up: Callable[[], Any]) -> Callable[..., Any]:
    """A proxy of `eval` or `exec`, which look at the frame of their caller; that frame is passed on."""

    def proxy(*args: Any, **kwargs: Any) -> Any:
        target = look_up()
        caller = _interpreter.frame(1)
        if caller is None or target is not original:
            return target(*args, **kwargs)
        execution = ACTIVE.get(get_ident()) if ACTIVE else None
        if execution is not None:
            return execution.run_eval_exec(call, caller, target, args, kwargs)
        return run(None, caller, target, args, kwargs)

    functools.update_wrapper(proxy, original, updated=())
    setattr(proxy, PROXY_ATTRIBUTE, call)
    return proxy


class MappingProxy:
    """In place of `os.environ`: every use is checked and then goes to the real mapping."""

    def __init__(self, call: Call, original: Any, look_up: Callable[[], Any]) -> None:
        self._call = call
        self._original = original
        self._look_up = look_up

    def _checked(self) -> Any:
        target = self._look_up()
        if ACTIVE:
            execution = ACTIVE.get(get_ident())
            if execution is not None and target is self._original:
                # After the check, the real mapping is used.
                return execution.intercept(self._call, lambda: target, (), {})
        return target

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._look_up(), name)
        if not isinstance(found, types.MethodType):
            return getattr(self._checked(), name)

        # Checked when it is called: `ctx.run(os.environ.get, key)` calls it in a step.
        @functools.wraps(found)
        def method(*args: Any, **kwargs: Any) -> Any:
            return getattr(self._checked(), name)(*args, **kwargs)

        return method

    def __getitem__(self, key: Any) -> Any:
        return self._checked()[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._checked()[key] = value

    def __delitem__(self, key: Any) -> None:
        del self._checked()[key]

    def __contains__(self, key: object) -> bool:
        return key in self._checked()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._checked())

    def __len__(self) -> int:
        return len(self._checked())

    def __or__(self, other: Any) -> Any:
        return self._checked() | other

    def __ror__(self, other: Any) -> Any:
        return other | self._checked()

    def __eq__(self, other: object) -> bool:
        return bool(self._checked() == other)

    def __repr__(self) -> str:
        return repr(self._look_up())

    __hash__ = None  # type: ignore[assignment]  # as the mapping itself


class ModuleProxy(types.ModuleType):
    """In place of a module that a function imports; all attributes but a few are those of the module."""

    def __init__(self, original: types.ModuleType, replaced: Mapping[str, Any]) -> None:
        super().__init__(original.__name__, original.__doc__)
        self._original = original
        vars(self).update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def __dir__(self) -> list[str]:
        return dir(self._original)


def make_class_proxy(original: type[Any], replaced: Mapping[str, Any]) -> type[Any]:
    """A class in place of `original` that creates objects of the original; only some of its attributes differ.

    `isinstance` and `issubclass` answer as for the original, and both compare equal; only `is` tells them apart.
    """

    class ClassProxyType(type):
        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            return original(*args, **kwargs)

        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, original)

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, original)

        def __getattribute__(cls, name: str) -> Any:
            return replaced[name] if name in replaced else getattr(original, name)

        def __eq__(cls, other: object) -> bool:
            return other is cls or other is original

        def __hash__(cls) -> int:
            return hash(original)

        def __repr__(cls) -> str:
            return repr(original)

    made: Any = ClassProxyType(original.__name__, (original,), {"__slots__": ()})
    return made  # type: ignore[no-any-return]


class NamespaceProxy:
    """In place of a module or class, with the attributes that one kind of call site takes from it."""

    def __init__(self, look_up: Callable[[], Any]) -> None:
        self._look_up = look_up

    def __getattr__(self, name: str) -> Any:
        # Reached only for attributes that were not set; redirected call sites do not ask for others.
        return getattr(self._look_up(), name)
