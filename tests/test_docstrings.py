"""What the facades export is documented in full: each parameter, the result, and that something is raised.

The form of all docstrings is checked by ruff (rules `D`), and that they are Markdown by `test_words.py`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import pytest

FACADES = (
    "durabletask.aio",
    "durabletask.aio.client",
    "durabletask.aio.worker",
    "durabletask.aio.testing",
    "durabletask.aio.sandbox",
    "durabletask.aio.engine",
)
CONSTRUCTED = {
    "AsyncWorkflowError",
    "AsyncOrchestratorMixin",
    "AsyncWorkflowClient",
    "History",
    "LocalBackend",
    "TaskHubGrpcWorker",
    "WorkflowClient",
    "WorkflowEnvironment",
    "WorkflowTracerProvider",
    "allow",
}
"""The classes whose parameters are documented; users are given instances of the others."""

SECTION = re.compile(r"^(Args|Returns|Yields|Raises):\n((?: +.*\n|\n)+)", re.MULTILINE)
ENTRY = re.compile(r"^    (\*{0,2}\w+): ", re.MULTILINE)
NO_RESULT = ("None", inspect.Signature.empty)


def sections(documented: object) -> dict[str, str]:
    return {match[1]: match[2] for match in SECTION.finditer(f"{inspect.getdoc(documented)}\n")}


def parameters(callable_: Callable[..., Any]) -> list[str]:
    """The names as a docstring has them."""
    stars: dict[int, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [
        stars.get(parameter.kind, "") + parameter.name
        for parameter in inspect.signature(callable_).parameters.values()
        if parameter.name not in ("self", "cls")
    ]


def raises(function: FunctionType) -> bool:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return any(isinstance(node, ast.Raise) and node.exc is not None for node in ast.walk(tree))


def wrong_parameters(name: str, callable_: Callable[..., Any], text: str) -> Iterator[str]:
    documented = ENTRY.findall(text)
    actual = parameters(callable_)
    is_open = any(entry.startswith("**") for entry in documented)  # the others are documented elsewhere
    yield from (f"{name}: {entry} is not documented" for entry in actual if entry not in documented and not is_open)
    if not is_open:
        yield from (f"{name}: has no parameter {entry}" for entry in documented if entry not in actual)


def incomplete_function(name: str, function: FunctionType) -> Iterator[str]:
    if not inspect.getdoc(function):
        yield f"{name}: has no docstring"
        return
    found = sections(function)
    yield from wrong_parameters(name, function, found.get("Args", ""))
    has_result = inspect.signature(function).return_annotation not in NO_RESULT
    if has_result and not {"Returns", "Yields"} & found.keys():
        yield f"{name}: the result is not documented"
    if raises(function) and "Raises" not in found:
        yield f"{name}: what it raises is not documented"


def incomplete_class(name: str, cls: type) -> Iterator[str]:
    if not cls.__doc__:
        yield f"{name}: has no docstring"
    if cls.__name__ in CONSTRUCTED:
        text = sections(cls).get("Args") or sections(vars(cls).get("__init__")).get("Args", "")
        yield from wrong_parameters(name, cls, text)
    for attribute, value in vars(cls).items():
        member = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if attribute.startswith("_"):
            continue
        if isinstance(member, FunctionType):
            yield from incomplete_function(f"{name}.{attribute}", member)
        elif isinstance(member, property) and not inspect.getdoc(member):
            yield f"{name}.{attribute}: has no docstring"


def incomplete(name: str, public: object) -> Iterator[str]:
    """Yield a sentence for each part of an object that is not documented."""
    if isinstance(public, type):
        yield from incomplete_class(name, public)
    elif isinstance(public, FunctionType):
        yield from incomplete_function(name, public)


@pytest.mark.parametrize("facade", FACADES)
def test_public_names_are_documented_in_full(facade: str) -> None:
    module = importlib.import_module(facade)
    names = [name for name in module.__all__ if name != "RetryPolicy"]  # upstream's own
    assert [problem for name in names for problem in incomplete(name, getattr(module, name))] == []


def test_the_tracer_provider_is_documented_in_full() -> None:
    pytest.importorskip("opentelemetry.sdk")
    from durabletask.aio.worker import WorkflowTracerProvider

    assert list(incomplete("WorkflowTracerProvider", WorkflowTracerProvider)) == []


def test_all_classes_that_users_construct_are_exported() -> None:
    exported = {name for facade in FACADES for name in importlib.import_module(facade).__all__}
    assert exported | {"WorkflowTracerProvider"} >= CONSTRUCTED


class allow:  # a name of CONSTRUCTED
    """Documented in part.

    Args:
        known: A parameter.
        gone: No parameter.
    """

    def __init__(self, known: str, added: str) -> None: ...

    def method(self, *values: int, **options: int) -> int:
        """Return a number.

        Args:
            *values: Numbers.
        """
        raise ValueError(values, options)

    def bare(self) -> None: ...

    @property
    def attribute(self) -> int:
        return 0

    @classmethod
    def complete(cls, value: int) -> int:
        """Return the value.

        Args:
            value: A number.

        Returns:
            The same number.

        Raises:
            ValueError: It is 0.
        """
        if not value:
            raise ValueError(value)
        return value


def test_each_part_that_is_missing_is_found() -> None:
    assert list(incomplete("C", allow)) == [
        "C: added is not documented",
        "C: has no parameter gone",
        "C.method: **options is not documented",
        "C.method: the result is not documented",
        "C.method: what it raises is not documented",
        "C.bare: has no docstring",
        "C.attribute: has no docstring",
    ]
