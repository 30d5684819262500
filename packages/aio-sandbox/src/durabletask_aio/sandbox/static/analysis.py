"""Static analysis of loaded functions, as used by registration and by `check(...)` in tests."""

from __future__ import annotations

import contextlib
import os
import types
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from durabletask_aio.core import WorkflowValidationError
from durabletask_aio.core.hosting import orchestrator_info, require_version
from durabletask_aio.sandbox.rules import allowance
from durabletask_aio.sandbox.rules.findings import Finding
from durabletask_aio.sandbox.rules.ownership import OWNERSHIP
from durabletask_aio.sandbox.static import reachability
from durabletask_aio.sandbox.static.call_index import call_index
from durabletask_aio.sandbox.static.checker import Settings, check_sources
from durabletask_aio.sandbox.static.loaded_resolver import LoadedResolver
from durabletask_aio.sandbox.static.scanner import Analysis

require_version(1, "durabletask-aio-sandbox")


class Result:
    """The findings about a workflow, and the user's functions that it reaches."""

    def __init__(self, findings: list[Finding], functions: list[types.FunctionType]) -> None:
        self.findings = findings
        self.functions = functions


def check(target: Callable[..., Any] | str | Path, *, allow: Iterable[str] = (), notes: bool = False) -> list[Finding]:
    """Find what gives another result on replay, in a workflow and in the functions of yours that it calls.

    Nothing of `target` is run. A function whose source is not available contributes no findings.

    Args:
        target: A workflow function (a coroutine function, a generator function, a method, a partial, or the result of
            [`as_orchestrator`][durabletask.aio.as_orchestrator]); or, as a string or path, a file, a folder or the
            dotted name of a module. In files, the orchestrators are found and checked without importing anything, as
            `durabletask-aio check` does.
        allow: Names not to report, as for [`allow`][durabletask.aio.sandbox.allow].
        notes: Whether to include findings of severity [`Severity.NOTE`][durabletask.aio.sandbox.Severity], about code
            that is correct as it stands.

    Returns:
        The findings, each place once, in the order of files and lines.

    Raises:
        WorkflowValidationError: `target` is neither a Python function, a path nor a module on the search path, or
            `allow` contains an unknown name.
    """
    names = allowance.checked(allow)
    if isinstance(target, (str, Path)):
        return check_sources([target], Settings(allow=(*names, *allowance.everywhere()), notes=notes)).findings
    info = orchestrator_info(target)
    plain = info.function if info is not None else target
    if next(reachability.functions_of(plain), None) is None:
        msg = f"check() needs a workflow function, and {target!r} is not one."
        raise WorkflowValidationError(msg)
    return analyse(plain, names, notes=notes).findings


def analyse(target: Any, allowed: tuple[str, ...] = (), *, notes: bool = False) -> Result:
    """Analyse a function that is already unwrapped; the result also has the functions reached.

    What only the files show is found too, but is not certain, since a program may have replaced what its files define:
    strict mode warns about it at registration, and refuses the call when it is made.
    """
    for function in reachability.functions_of(target):
        OWNERSHIP.add_user_package(function.__code__.co_filename)
    index = call_index()
    index.refresh()
    names = (*allowed, *allowance.everywhere())
    findings: dict[tuple[str, int, str], list[Finding]] = {}
    functions: list[types.FunctionType] = []
    for is_certain in (True, False):
        resolver = LoadedResolver(index, is_certain=is_certain)
        found: list[Finding] = []
        # A file with expressions nested a thousand levels deep must not keep a workflow from being registered.
        with contextlib.suppress(RecursionError):
            for definition in resolver.definitions_of(target):
                for body in resolver.bodies(definition):
                    found += Analysis(resolver, index.catalogue, names, notes=notes).run(body)
        known = set(findings)
        for each in found:
            place = (os.path.realpath(each.file), each.line, each.rule.code)
            if place not in known:
                findings.setdefault(place, []).append(each if is_certain else replace(each, certain=False))
        functions += resolver.scanned.values()
        functions += [method for kind in resolver.classes.values() for method in reachability.methods_of(kind)]
    unique = {each.key: each for group in findings.values() for each in reversed(group)}
    return Result(list(unique.values()), functions)
