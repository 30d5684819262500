"""Static analysis of live functions: what registration does, and ``check(...)`` for tests."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from durabletask_aio.core import WorkflowValidationError
from durabletask_aio.sandbox.code.values import ObjectValue
from durabletask_aio.sandbox.rules import allowance
from durabletask_aio.sandbox.rules.default import default_catalogue
from durabletask_aio.sandbox.rules.findings import Finding
from durabletask_aio.sandbox.rules.ownership import OWNERSHIP
from durabletask_aio.sandbox.static import reachability
from durabletask_aio.sandbox.static.call_index import call_index
from durabletask_aio.sandbox.static.checker import Settings, check_sources
from durabletask_aio.sandbox.static.live_resolver import LiveResolver
from durabletask_aio.sandbox.static.scanner import Analysis


class Result:
    """Findings about a workflow, and the user's functions that it was found to reach."""

    def __init__(self, findings: list[Finding], functions: list[types.FunctionType]) -> None:
        self.findings = findings
        self.functions = functions


def check(target: Callable[..., Any] | str | Path, *, allow: Iterable[str] = (), notes: bool = False) -> list[Finding]:
    """Everything in ``target``, and in the user's functions it calls, that gives another result on replay.

    ``target`` is a workflow: a coroutine function or generator function, a method, a partial, or what
    ``as_orchestrator`` returns.  Nothing of it is run, and a function whose source is not available contributes none.
    A string or path is a file, a folder or the dotted name of a module: its orchestrators are found and checked
    without importing it, as ``durabletask-aio check`` does.

    Findings come in the order of files and lines.  ``allow`` takes what :class:`.allowance.allow` takes.  ``notes``
    adds those of severity ``NOTE``, about code that is right as it stands.

    Raises :class:`WorkflowValidationError` if ``target`` is not a Python function or ``allow`` has an unknown name.
    """
    names = allowance.checked(allow)
    if isinstance(target, (str, Path)):
        return check_sources([target], Settings(allow=(*names, *allowance.everywhere()), notes=notes)).findings
    info = getattr(target, "__durabletask_aio__", None)
    plain = getattr(info, "function", target)
    if next(reachability.functions_of(plain), None) is None:
        msg = f"check() needs a workflow function, and {target!r} is none."
        raise WorkflowValidationError(msg)
    return analyse(plain, names, notes=notes).findings


def analyse(target: Any, allowed: tuple[str, ...] = (), *, notes: bool = False) -> Result:
    """The same, with the functions reached; ``target`` has been unwrapped already."""
    for function in reachability.functions_of(target):
        OWNERSHIP.add_user_package(function.__code__.co_filename)
    index = call_index()
    index.refresh()
    resolver = LiveResolver(index)
    findings: dict[tuple[object, ...], Finding] = {}
    for body in resolver.bodies(ObjectValue.of(target)):
        run = Analysis(resolver, default_catalogue(), (*allowed, *allowance.everywhere()), notes=notes)
        for finding in run.run(body):
            findings.setdefault(finding.key, finding)
    methods = [method for kind in resolver.classes.values() for method in reachability.methods_of(kind)]
    return Result(list(findings.values()), [*resolver.nodes.values(), *methods])
