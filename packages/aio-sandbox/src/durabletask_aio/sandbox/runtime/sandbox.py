"""The sandbox as the core uses it: the object behind the entry point, and the layers of each mode and Python version.

In both modes the static analysis runs at registration, and names are redirected on every Python. In `best_effort`, the
analysis warns and redirected names return deterministic values. In `strict`, both raise, and calls are also watched:
by `sys.monitoring` on Python 3.12 and later, by a profile hook that is suspended inside the context's methods before.
"""

from __future__ import annotations

import enum
import inspect
import types
import warnings
from typing import Any, Final

from durabletask_aio.core import AsyncWorkflowContext, SandboxMode, SandboxViolationError, plugins
from durabletask_aio.core.plugins import AnyWorkflow, Execution, ExecutionGuard, detection_disabled
from durabletask_aio.sandbox.rules import allowance
from durabletask_aio.sandbox.rules.catalogue import Severity
from durabletask_aio.sandbox.rules.findings import Finding
from durabletask_aio.sandbox.rules.ownership import OWNERSHIP
from durabletask_aio.sandbox.runtime import monitoring, profiling, redirection
from durabletask_aio.sandbox.runtime.callbacks import functions_held_by
from durabletask_aio.sandbox.runtime.execution import Policy, WatchedExecution, warn
from durabletask_aio.sandbox.runtime.held_locks import has_with_block
from durabletask_aio.sandbox.static import analysis
from durabletask_aio.sandbox.static.call_index import call_index
from durabletask_aio.sandbox.static.reachability import codes_of, functions_of, reachable


class Layer(enum.Enum):
    """The ways of detecting a violation; each works without the others."""

    STATIC = "static"
    REDIRECT = "redirect"
    MONITORING = "monitoring"
    PROFILING = "profiling"


AVAILABLE: Final = frozenset(
    layer
    for layer, works in {
        Layer.STATIC: True,
        Layer.REDIRECT: redirection.IS_SUPPORTED,
        Layer.MONITORING: monitoring.IS_SUPPORTED,
        Layer.PROFILING: profiling.IS_SUPPORTED,
    }.items()
    if works
)
"""The layers that this Python supports."""


class Guard:
    """The guard of one registered workflow; implements `durabletask_aio.core.plugins.WorkflowGuard`."""

    def __init__(
        self,
        function: AnyWorkflow,
        policy: Policy,
        *,
        profiled: bool = False,
        context_type: type[AsyncWorkflowContext] | None = None,
    ) -> None:
        self.policy = policy
        self._function = function
        self._context_type = context_type
        self._execution_type = profiling.ProfiledExecution if profiled else WatchedExecution

    @property
    def function(self) -> AnyWorkflow:
        return self._function

    @property
    def context_type(self) -> type[AsyncWorkflowContext] | None:
        return self._context_type

    def begin(self, execution: Execution) -> ExecutionGuard | None:
        # Read at each start, so that detection can be switched off while a worker runs.
        return None if detection_disabled() else self._execution_type(self.policy, execution)


class WorkflowSandbox:
    """The sandbox; implements `durabletask_aio.core.plugins.Sandbox`.

    Workers use it by entry point; applications choose a mode at registration and need not call it.
    """

    protocol_version = plugins.PROTOCOL_VERSION

    def __init__(self, layers: frozenset[Layer] = frozenset(Layer)) -> None:
        self._layers = layers & AVAILABLE

    def guard(self, function: AnyWorkflow, mode: SandboxMode, *, workflow_name: str) -> Guard | None:
        """Prepare a workflow for a mode: analyse it, redirect its names, and have its calls watched.

        Args:
            function: The workflow function. Its code is changed in place.
            mode: The sandbox mode.
            workflow_name: The name under which it is registered, for messages.

        Returns:
            The guard of the workflow; `None` for mode `off`, or if detection is disabled by the environment.

        Raises:
            SandboxViolationError: In strict mode, the analysis has certain findings of severity `ERROR`.
        """
        if mode is SandboxMode.OFF or detection_disabled():
            return None
        for plain in functions_of(function):
            OWNERSHIP.add_user_package(plain.__code__.co_filename)
        strict = mode is SandboxMode.STRICT
        policy = Policy(
            strict=strict,
            workflow_name=workflow_name,
            context=_context_name(function),
            allowed=allowance.of_function(function),
        )
        result = _analysed(function, policy.allowed, workflow_name)
        if Layer.STATIC in self._layers:
            _announce(result.findings, policy)
        self._instrument([*result.functions, *reachable(function)], policy)
        profiled = strict and Layer.PROFILING in self._layers
        context_type = profiling.profiled_context_type() if profiled else None
        return Guard(function, policy, profiled=profiled, context_type=context_type)

    def advise(self, function: AnyWorkflow, *, workflow_name: str) -> None:
        """Issue the findings of the static analysis as warnings; nothing is instrumented.

        Args:
            function: The workflow function.
            workflow_name: The name under which it is registered, for messages.
        """
        if detection_disabled():
            return
        for finding in _analysed(function, allowance.of_function(function), workflow_name).findings:
            warn(finding, workflow_name)

    def _instrument(self, reached: list[types.FunctionType], policy: Policy) -> None:
        functions = list({id(function): function for function in reached}.values())
        functions += functions_held_by(functions)
        if Layer.REDIRECT in self._layers:
            _redirector.redirect(functions)
        codes = (code for function in functions for code in codes_of(function.__code__))
        policy.has_with_blocks = any(has_with_block(code) for code in codes)
        for helper in functions:
            names = allowance.of_function(helper)
            if names:
                policy.functions[id(helper.__code__)] = names
        if policy.strict and Layer.MONITORING in self._layers:
            tool = monitoring.monitor(call_index)
            if tool.start():
                tool.prepare = _redirector.redirect if Layer.REDIRECT in self._layers else monitoring.no_preparation
                tool.watch(functions)
                policy.watcher = tool


def _analysed(function: Any, allowed: tuple[str, ...], workflow_name: str) -> analysis.Result:
    """The analysis; if it fails because of a defect in this package, the workflow is registered anyway."""
    try:
        return analysis.analyse(function, allowed)
    except Exception as error:
        warnings.warn(
            f"The static analysis of workflow {workflow_name!r} failed with {type(error).__name__}: {error}. The other"
            " layers of the sandbox still work. This is a defect of durabletask-aio; please report it with the"
            " traceback that `durabletask.aio.sandbox.check(function)` gives.",
            RuntimeWarning,
            stacklevel=4,
        )
        return analysis.Result([], [])


def _announce(findings: list[Finding], policy: Policy) -> None:
    """Warn about findings, or refuse the workflow if there are certain errors in strict mode."""
    refused = [each for each in findings if policy.strict and each.certain and each.severity is Severity.ERROR]
    if refused:
        count = "a call or construct" if len(refused) == 1 else f"{len(refused)} calls or constructs"
        details = "\n\n".join(each.text() for each in refused)
        msg = f"The workflow is refused in strict mode: it has {count} that would differ on replay.\n\n{details}"
        raise SandboxViolationError(msg, workflow_name=policy.workflow_name)
    for finding in findings:
        policy.warned.add((finding.file, finding.line, finding.call or ""))
        warn(finding, policy.workflow_name)


def _context_name(function: Any) -> str | None:
    """The name of the parameter that receives the context."""
    for plain in functions_of(function):
        names = inspect.getfullargspec(plain).args
        if names[:1] == ["self"]:
            names = names[1:]
        if names:
            return names[0]
    return None


_redirector: Final = redirection.Redirector(call_index())

SANDBOX: Final = WorkflowSandbox()
"""The sandbox of this process, which the core finds by its entry point."""
