"""Look-up of loaded objects in the catalogue.

The look-up is by identity and never by name alone: a function called `time` is reported only if it is the one of the
`time` module, whatever name it is bound to. Two kinds of objects need more than a dictionary by identity. A built-in
method is a new object at every access (`datetime.now is not datetime.now`), so these are compared by equality. The
functions of `random` are methods of one hidden instance, so the instance is compared too; otherwise seeded generators
would be reported.
"""

from __future__ import annotations

import datetime as dt
import functools
import inspect
import sys
import types
from collections.abc import Mapping
from typing import Any, Final

from durabletask_aio.sandbox.code import _interpreter
from durabletask_aio.sandbox.rules.catalogue import Call, Catalogue
from durabletask_aio.sandbox.rules.default import default_catalogue

_DATE_METHODS: Final = frozenset({"now", "utcnow", "today", "fromtimestamp"})
_IGNORED_METHODS: Final = frozenset({"__repr__", "__init__", "__class_getitem__", "__subclasshook__", "__reversed__"})
_LOCK_METHODS: Final = {"lock": "threading.Lock.acquire", "RLock": "threading.RLock.acquire"}
"""By the name of the type of a lock: the entry for its method."""
_TIMEZONE_METHODS: Final = frozenset({"astimezone"})
_MISSING: Final = object()

PROXY_ATTRIBUTE: Final = "__durabletask_aio_proxy__"
"""Attribute of a proxy function (see `runtime.proxies`) that holds the entry of the call it replaces."""


class CallIndex:
    """An index of a catalogue over the modules that are imported.

    Modules imported later are added when an unknown callable is looked up and `sys.modules` has grown. The index itself
    imports nothing.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._by_id: dict[int, Call] = {}
        self._by_equality: dict[Any, Call] = {}
        self._bound: dict[tuple[int, int], Call] = {}
        """By the ids of a function and of the object that it is bound to."""
        self._by_code: dict[int, Call] = {}
        self._bound_codes: dict[tuple[int, int], Call] = {}
        self._codes_of_methods: set[int] = set()
        self._closures: dict[int, list[tuple[types.FunctionType, Call]]] = {}
        """By id of a code object: the functions with closures that share it. See `of_frame`."""
        self._references: list[object] = []
        self._pending: set[str] = set()
        self._modules_seen = -1
        self._version = -1
        self.watched_codes: set[int] = set()
        """Ids of the code objects for which `of_frame` may find an entry."""
        self.leaf_names: frozenset[str] = frozenset()
        self.owner_names: dict[int, str] = {}
        """By id of a module or class to which calls belong: its name in the catalogue."""
        self.builtin_names: set[str] = set()
        """The `__name__` of each built-in function for which `find` may find an entry."""
        self.refresh()

    def refresh(self) -> None:
        """Add what was imported, and what was added to the catalogue, since the last refresh."""
        if self._version != self.catalogue.version:
            self._version = self.catalogue.version
            self._pending = {*self.catalogue.calls, *self.catalogue.methods}
            for index in (self._by_id, self._by_equality, self._by_code, self._bound, self._bound_codes):
                index.clear()
            self._closures.clear()
            self.leaf_names = frozenset(name.rpartition(".")[2] for name in self.catalogue.calls)
            # For functions that are not imported yet, the name in the catalogue is the best guess.
            self.builtin_names.update(self.leaf_names, _DATE_METHODS, _TIMEZONE_METHODS)
        elif self._modules_seen == len(sys.modules):
            return
        self._modules_seen = len(sys.modules)
        # An object may have two names (`open` and `io.open`); messages use the one that is entered first.
        for name in sorted(self._pending, key=lambda name: (name.startswith("_"), name)):
            found = imported_object(name)
            if found is not None:
                self._pending.discard(name)
                if isinstance(found, type):
                    self.owner_names.setdefault(id(found), name)
                self._enter_methods(found, name)
                call = self.catalogue.calls.get(name)
                if call is None:
                    continue
                self._enter(found, call)
                owner = imported_object(name.rpartition(".")[0])
                self._references.append(owner)
                if owner is not None:
                    self.owner_names.setdefault(id(owner), name.rpartition(".")[0])
        self.watched_codes.update(self._by_code, self._closures, self._codes_of_methods)

    def _enter(self, found: object, call: Call) -> None:
        self._references.append(found)
        if isinstance(found, types.MethodType):
            self._enter_method(found, call)
            return
        if isinstance(found, types.BuiltinFunctionType):
            self._by_equality.setdefault(found, call)
            self.builtin_names.add(found.__name__)
            return
        self._by_id.setdefault(id(found), call)
        if isinstance(found, Mapping):
            self._enter_mapping(_interpreter.type_of(found), found, call)  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(found, types.FunctionType):
            self._enter_code(found, call)
        elif isinstance(found, type):
            initialiser = vars(found).get("__init__")
            if isinstance(initialiser, types.FunctionType):
                self._enter_code(initialiser, call)

    def _enter_methods(self, kind: object, name: str) -> None:
        """Enter the public methods of a class that the catalogue lists as a whole."""
        if name not in self.catalogue.methods or not isinstance(kind, type):
            return
        for attribute in dir(kind):
            call = self.catalogue.find(f"{name}.{attribute}")
            function = inspect.getattr_static(kind, attribute, None)
            if call is not None and isinstance(function, (types.FunctionType, types.MethodDescriptorType)):
                self._enter(function, call)

    def _enter_code(self, function: types.FunctionType, call: Call) -> None:
        if function.__closure__:
            self._closures.setdefault(id(function.__code__), []).append((function, call))
        else:
            self._by_code.setdefault(id(function.__code__), call)

    def _enter_method(self, found: types.MethodType, call: Call) -> None:
        function, owner = _interpreter.wrapped_function(found), found.__self__
        if isinstance(owner, type):
            # A class method; subclasses share it.
            self._by_id.setdefault(id(function), call)
            self._enter_code(function, call)
            return
        # A method of one hidden object, such as `random.choice` or `secrets.choice`; other objects of its class are not
        # in the catalogue.
        self._bound.setdefault((id(function), id(owner)), call)
        self._bound_codes.setdefault((id(function.__code__), id(owner)), call)
        self._codes_of_methods.add(id(function.__code__))

    def _enter_mapping(self, kind: type[Any], mapping: object, call: Call) -> None:
        """Enter the methods of `os.environ`, which other code may hold under another name."""
        for name in dir(kind):
            function = inspect.getattr_static(kind, name)
            if isinstance(function, types.FunctionType) and name not in _IGNORED_METHODS:
                self._bound.setdefault((id(function), id(mapping)), call)
                self._bound_codes.setdefault((id(function.__code__), id(mapping)), call)
                self._codes_of_methods.add(id(function.__code__))

    def find(self, candidate: Any, first: object = None) -> Call | None:
        """The entry for `candidate`, or `None`; `first` is the first argument of the call, if it is known.

        `first` is usually `self`. This never runs user code: objects of unknown type are neither hashed nor compared.
        """
        call = self._look_up(candidate, first)
        if call is None and self._modules_seen != len(sys.modules):
            self.refresh()
            call = self._look_up(candidate, first)
        return call

    def _look_up(self, candidate: Any, first: object) -> Call | None:
        kind = _interpreter.type_of(candidate)
        if kind is types.BuiltinFunctionType:
            call = self._by_equality.get(candidate)
            return call if call is not None else self._of_subclass(candidate)
        if kind is types.FunctionType:
            call = self._by_id.get(id(candidate))
            return call if call is not None else self._bound.get((id(candidate), id(first)))
        if kind is types.MethodType:
            function = id(candidate.__func__)
            call = self._bound.get((function, id(candidate.__self__)))
            return call if call is not None else self._by_id.get(function)
        if kind is functools.partial:
            return self._look_up(candidate.func, first)
        if kind is types.MethodDescriptorType or isinstance(candidate, type):
            return self._by_id.get(id(candidate))
        return self._by_id.get(id(candidate))

    def _of_subclass(self, candidate: Any) -> Call | None:
        """The entry for `Sub.now` of a subclass of `datetime`, which equals no other object."""
        owner = candidate.__self__
        name = candidate.__name__
        if isinstance(owner, type) and name in _DATE_METHODS and issubclass(owner, dt.date):
            kind = "datetime" if issubclass(owner, dt.datetime) else "date"
            return self.catalogue.calls.get(f"datetime.{kind}.{name}")
        if name == "acquire":
            # A method of a lock, which is of a type without a public name; that of a `Condition` is its lock's.
            return self.catalogue.calls.get(_LOCK_METHODS.get(type(owner).__name__, ""))
        if name in _TIMEZONE_METHODS and isinstance(owner, dt.datetime):
            return self.catalogue.calls.get(f"datetime.datetime.{name}")
        return None

    def of_frame(self, frame: types.FrameType) -> Call | None:
        """The entry for the Python function that runs in `frame`; a profile hook sees nothing else of a call."""
        code = id(frame.f_code)
        if code in self._codes_of_methods:
            owner = frame.f_locals.get(frame.f_code.co_varnames[0])
            return self._bound_codes.get((code, id(owner)))
        # All functions that one decorator returns share their code (`contextlib.contextmanager`, for example), so they
        # are told apart by the contents of their closures.
        for function, call in self._closures.get(code, ()):
            if _has_closure_of(frame, function):
                return call
        return self._by_code.get(code)


def _has_closure_of(frame: types.FrameType, function: types.FunctionType) -> bool:
    names = frame.f_locals
    return all(
        names.get(name, _MISSING) is _interpreter.cell_content(cell, _MISSING)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    )


def imported_object(name: str) -> Any | None:
    """The object with the full name `name`, if its module is imported."""
    parts = name.split(".")
    for split in range(len(parts), 0, -1):
        module = sys.modules.get(".".join(parts[:split]))
        if module is None:
            continue
        found: Any = module
        for part in parts[split:]:
            # A module with a lazy `__getattr__` would import something; its own dictionary does not.
            found = vars(found).get(part) if isinstance(found, types.ModuleType) else getattr(found, part, None)
        return found
    return None


_shared: dict[int, CallIndex] = {}


def call_index(catalogue: Catalogue | None = None) -> CallIndex:
    """The index of a catalogue, created once for each."""
    catalogue = catalogue if catalogue is not None else default_catalogue()
    index = _shared.get(id(catalogue))
    if index is None:
        index = _shared[id(catalogue)] = CallIndex(catalogue)
    return index
