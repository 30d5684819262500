"""Failures that are also instances of exception types of the user's, where `raises=` or `@raises` declares them.

No code of such a type runs when a failure is made: it may not survive that, since the history has nothing that its
constructor takes.  The instance is made by Python's own types, and what the language does with every exception, from
`str()` to copying, is theirs as well.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Iterable
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, NoReturn, TypeAlias, TypeVar, cast

from durabletask_aio.core import _upstream
from durabletask_aio.core._upstream import TaskFailedError
from durabletask_aio.core.errors import (
    ActivityFailedError,
    AsyncWorkflowError,
    OperationFailedError,
    WorkflowValidationError,
    shown,
)
from durabletask_aio.core.recorded_types import is_of_type

F = TypeVar("F", bound=Callable[..., Any])
Types = tuple[type[Exception], ...]

_COMBINED = "__durabletask_aio_combined__"
"""The attribute of a type made here with the types that it combines."""

_ATTRIBUTE = "__durabletask_aio_raises__"
"""The attribute of a function with the types that `@raises` declares."""


def raises(*types: type[Exception]) -> Callable[[F], F]:
    """Declare the exception types by which callers of an activity or a workflow catch its failures.

    In a workflow that calls the function, `except CardDeclined:` then catches a failure that was recorded under that
    type or, as far as the record names the bases, under a subtype.  A call by name does not know the function: it takes
    the types as `raises=`, which also replaces those of the function.

    Args:
        *types: subclasses of `Exception`.

    Returns:
        A decorator that returns the function itself.

    Raises:
        WorkflowValidationError: for what is not such a type, or cannot be the type of a failure.
    """
    try:
        declared = checked(types)
    except TypeError as error:
        raise WorkflowValidationError(
            f"@raises takes exception types: {error}\n"
            f"  wrong: @raises({', '.join(map(shown, types))})\n"
            f"  right: @raises(CardDeclined)"
        ) from None

    def declare(function: F) -> F:
        try:
            setattr(function, _ATTRIBUTE, (*declared, *declared_by(function)))
        except AttributeError:
            raise WorkflowValidationError(
                f"@raises cannot declare anything on {shown(function)}, which takes no attributes\n"
                f"  wrong: raises(CardDeclined)({shown(function)})\n"
                f"  right: ctx.call_activity(..., raises=(CardDeclined,))"
            ) from None
        return function

    return declare


def declared_by(function: object) -> Types:
    """Return the types that `@raises` has declared on a function."""
    types: Types = getattr(function, _ATTRIBUTE, ())
    return types


def checked(types: object) -> Types:
    """Return the types given as `raises=`: one type, or several.

    Raises:
        TypeError: with the reason, if one of them cannot be the type of a failure.
    """
    several = (types,) if isinstance(types, type) else types
    if not isinstance(several, Iterable) or isinstance(several, str):
        raise TypeError(f"{shown(types)} is not an exception type")
    given = tuple(cast("Iterable[object]", several))
    for kind in given:
        _check(kind)
    return cast("Types", given)


def _check(kind: Any) -> None:
    if not isinstance(kind, type) or not issubclass(kind, BaseException):
        raise TypeError(f"{shown(cast('object', kind))} is not an exception type")
    if not issubclass(kind, Exception):
        raise TypeError(
            f"{kind.__name__} is no subclass of Exception, and what is meant for the process or for a task cannot be "
            f"the failure of an activity"
        )
    if issubclass(kind, StopIteration):
        raise TypeError(f"{kind.__name__} is a StopIteration, which an asyncio future cannot hold")
    try:
        _combined(ActivityFailedError, (kind,))
    except Exception as error:
        raise TypeError(f"{kind.__name__} cannot be combined with the failure of an activity: {error}") from None


def new_failure(
    kind: type[OperationFailedError], types: Types, error: TaskFailedError, **facts: Any
) -> OperationFailedError:
    """Return the failure of an operation: of `kind`, and of those of the declared types that the record names.

    Args:
        kind: the type of a failure of that operation.
        types: what the call or the function declares.
        error: upstream's error.
        facts: the other arguments of `kind`.
    """
    matching = tuple(each for each in types if is_of_type(error.details, each))
    combined = _combined(kind, matching)
    if combined is kind:
        return kind(error, **facts)
    failure = _new_instance(combined, error)
    # Not the type itself, whose constructor is the user's.
    OperationFailedError.__init__(failure, error, **facts)
    return failure


# -- the type ---------------------------------------------------------------------------------------------------------


class _Stored:
    """An attribute that is in the instance's dictionary, whatever the user's type has under that name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: object = None) -> Any:
        if instance is None:
            return self
        stored = cast("dict[str, Any]", vars(instance))
        if self._name not in stored:
            raise AttributeError(self._name)  # `__getattr__` is called next.
        return stored[self._name]

    def __set__(self, instance: Any, value: object) -> None:
        vars(instance)[self._name] = value

    def __delete__(self, instance: Any) -> None:
        stored = cast("dict[str, Any]", vars(instance))
        if stored.pop(self._name, self) is self:
            raise AttributeError(self._name)


class _DeclaredFailure:
    """The first base of all types made here."""

    __slots__ = ()

    def __init_subclass__(cls, **_: Any) -> None:
        """Keep the `__init_subclass__` of the user's type from being called."""

    def __getattr__(self, name: str) -> NoReturn:
        kind = type(self).__name__
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(f"{kind!r} object has no attribute {name!r}")
        raise AttributeError(
            f"the attribute {name!r} of this {kind} is not recorded: a history has the type, the message and the stack "
            f"trace of a failure (error.details), and not the attributes of the exception; return what the workflow "
            f"needs from the activity, or write it into the message"
        )

    def __bool__(self) -> bool:
        return True

    def __reduce__(self) -> tuple[Any, ...]:
        error: Any = self
        kind, types = getattr(error, _COMBINED)
        made_anew = {"task_error", *vars(_new_instance(cast("Any", type(self)), error.task_error))}
        state = {name: value for name, value in vars(self).items() if name not in made_anew}
        return _rebuild, (kind, types, state, error.args, error.task_error.args, vars(error.task_error))


def _rebuild(
    kind: type[OperationFailedError],
    types: Types,
    state: dict[str, Any],
    args: tuple[Any, ...],
    task_args: tuple[Any, ...],
    task_state: dict[str, Any],
) -> OperationFailedError:
    task_error = TaskFailedError.__new__(TaskFailedError)
    task_error.args = task_args
    vars(task_error).update(task_state)
    failure = _new_instance(_combined(kind, types), task_error)
    failure.args = args
    vars(failure).update(state, task_error=task_error)
    return failure


_OF_EVERY_EXCEPTION: dict[str, Any] = {
    name: getattr(BaseException, name)
    for name in (
        "__repr__",
        "__format__",
        "__hash__",
        "__eq__",
        "__ne__",
        "__getattribute__",
        "__setattr__",
        "__delattr__",
        "__dir__",
        "__setstate__",
        "__reduce_ex__",
        "__cause__",
        "__context__",
        "__suppress_context__",
        "__traceback__",
        "args",
        "with_traceback",
        "add_note",  # from Python 3.11 on
    )
    if hasattr(BaseException, name)
}
"""What a type may override with code that needs attributes that are not recorded."""


def _combine(kind: type[OperationFailedError], types: Types) -> type[OperationFailedError]:
    """Return the type of failures of `kind` that are also of the declared types, or `kind` if that has them all.

    Types of which no instance of the others can be, because of their layouts for example, are left out from the second
    one on.
    """
    found: type[OperationFailedError] = kind
    used: list[type[Exception]] = []
    for each in types:
        if each in found.__mro__:
            continue
        several = [other for other in used if other not in each.__mro__] + [each]
        try:
            found = _make(kind, tuple(several))
        except TypeError:
            if not used:
                raise
        else:
            used = several
    return found


_Combine: TypeAlias = Callable[[type[OperationFailedError], Types], type[OperationFailedError]]
_combined = cast("_Combine", functools.lru_cache(maxsize=1024)(_combine))


def _make(kind: type[OperationFailedError], types: Types) -> type[OperationFailedError]:
    first = types[0]
    namespace: dict[str, Any] = {
        **_unrecorded_members(types),
        **_OF_EVERY_EXCEPTION,
        **{name: _Stored(name) for name in _OWN_ATTRIBUTES},
        "__str__": AsyncWorkflowError.__str__,
        "__copy__": None,
        "__deepcopy__": None,
        "__module__": first.__module__,
        "__qualname__": first.__qualname__,
        "__doc__": first.__doc__,
        _COMBINED: (kind, types),
    }
    if any(hasattr(each, "__del__") for each in types):
        namespace["__del__"] = _no_finalizer
    if issubclass(first, SyntaxError):
        namespace["msg"] = property(AsyncWorkflowError.__str__)  # which is shown in place of `str()`
    metaclass: Any = type(first)
    # Not the metaclass's own `__new__`, which is the user's code.
    new: Any = abc.ABCMeta.__new__ if issubclass(metaclass, abc.ABCMeta) else type.__new__
    made: type[OperationFailedError] = new(metaclass, first.__name__, (_DeclaredFailure, kind, *types), namespace)
    return made


def _no_finalizer(_: object) -> None:
    """Nothing: that of the user's type would run without the attributes it needs."""


_OWN_ATTRIBUTES = (
    "message",
    "instance_id",
    "workflow_name",
    "step",
    "task_error",
    *vars(TaskFailedError("", _upstream.pb.TaskFailureDetails())),
)
"""What the constructor of `OperationFailedError` sets."""


def _unrecorded_members(types: Types) -> dict[str, Any]:
    """Return attributes in place of those that Python's own types keep in C, which would be `None`: `OSError.errno`.

    Except for those that the interpreter itself reads when it shows or splits an exception.
    """
    found: dict[str, Any] = {}
    for each in types:
        for base in each.__mro__:
            if base in (BaseException, Exception, SyntaxError) or base.__name__ == "BaseExceptionGroup":
                continue
            for name, member in vars(base).items():
                if isinstance(member, MemberDescriptorType | GetSetDescriptorType) and not name.startswith("__"):
                    found[name] = _Stored(name)
    return found


def _new_instance(kind: type[OperationFailedError], error: TaskFailedError) -> OperationFailedError:
    """Make an instance without any constructor of the user's."""
    group: Any = next((base for base in kind.__mro__ if base.__name__ == "BaseExceptionGroup"), None)
    if group is not None:  # A group has to have something in it.
        made: OperationFailedError = group.__new__(kind, error.details.message, [error])
        return made
    builtin: Any = kind
    while builtin.__flags__ & _HEAP_TYPE:
        builtin = builtin.__base__
    instance: OperationFailedError = builtin.__new__(kind)
    return instance


_HEAP_TYPE = 1 << 9
"""CPython's flag of types that are written in Python."""
