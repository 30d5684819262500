"""The sandbox as the core knows it: which layer serves which mode on which Python.

============  ==========================================  ==========================================
mode          every Python                                in addition
============  ==========================================  ==========================================
best_effort   static analysis warns; redirected names     --
              give deterministic values
strict        static analysis and redirected names raise  3.12+: ``sys.monitoring``;
                                                          3.10, 3.11: a profile hook, suspended
                                                          while the context's methods run
============  ==========================================  ==========================================
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from durabletask_aio.core import plugins
from durabletask_aio.core.plugins import AnyWorkflow, Execution, ExecutionGuard
from durabletask_aio.core.settings import SandboxMode, detection_disabled
from durabletask_aio.sandbox import allowance, redirect
from durabletask_aio.sandbox.reach import functions_of, reachable
from durabletask_aio.sandbox.recognise import recogniser
from durabletask_aio.sandbox.state import Policy, WatchedExecution
from durabletask_aio.sandbox.territory import TERRITORY

if TYPE_CHECKING:
    from durabletask_aio.core.context import AsyncWorkflowContext


class Guard:
    """What was learned about one registered workflow; see :class:`durabletask_aio.core.plugins.WorkflowGuard`."""

    def __init__(self, function: AnyWorkflow, policy: Policy, context_type: type[AsyncWorkflowContext] | None) -> None:
        self.policy = policy
        self._function = function
        self._context_type = context_type

    @property
    def function(self) -> AnyWorkflow:
        return self._function

    @property
    def context_type(self) -> type[AsyncWorkflowContext] | None:
        return self._context_type

    def begin(self, execution: Execution) -> ExecutionGuard | None:
        # Read at each start, so that a running worker can be told to stop watching.
        return None if detection_disabled() else WatchedExecution(self.policy, execution)


class WorkflowSandbox:
    """The object behind the entry point; see :class:`durabletask_aio.core.plugins.Sandbox`."""

    protocol_version = plugins.PROTOCOL_VERSION

    def guard(self, function: AnyWorkflow, mode: SandboxMode, *, workflow_name: str) -> Guard | None:
        """Prepare ``function`` for ``mode``: find what it reaches, and lead its names to stand-ins."""
        if mode is SandboxMode.OFF or detection_disabled():
            return None
        for plain in functions_of(function):
            TERRITORY.adopt(plain.__code__.co_filename)
        policy = Policy(
            strict=mode is SandboxMode.STRICT,
            workflow_name=workflow_name,
            context=_context_name(function),
            allowed=allowance.of_function(function),
        )
        functions = reachable(function)
        if redirect.IS_SUPPORTED:
            _redirector.redirect(functions)
        for helper in functions:
            names = allowance.of_function(helper)
            if names:
                policy.functions[id(helper.__code__)] = names
        return Guard(function, policy, None)

    def advise(self, function: AnyWorkflow, *, workflow_name: str) -> None:
        """Static analysis alone, as warnings."""


def _context_name(function: Any) -> str | None:
    """The name of the first parameter that is not ``self``."""
    for plain in functions_of(function):
        names = inspect.getfullargspec(plain).args
        if inspect.ismethod(function):
            names = names[1:]
        if names:
            return names[0]
    return None


_redirector: Final = redirect.Redirector(recogniser())

SANDBOX: Final = WorkflowSandbox()
