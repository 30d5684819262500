"""The protocols between the core and its companions, and how the core finds them.

The core imports none of the other distributions.  They are announced by entry points, and the core looks a group up
once, when it first needs it.  Every object behind an entry point states the version of these protocols that it was
written for; a mismatch is an error that names both distributions, because pip resolves each distribution on its own,
and two that do not fit can be installed in one environment.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Coroutine, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast, runtime_checkable

from durabletask_aio.core import distributions, installation
from durabletask_aio.core.distributions import EntryPoint
from durabletask_aio.core.errors import AsyncWorkflowError, WorkflowValidationError
from durabletask_aio.core.settings import SandboxMode, debug_enabled
from durabletask_aio.core.settings import detection_disabled as detection_disabled  # a sandbox asks for it too

if TYPE_CHECKING:
    import random

    from durabletask_aio.core.context import AsyncWorkflowContext

PROTOCOL_VERSION = 1
"""Increased by one whenever a protocol below changes in a way that an older companion would not survive."""

INTEGRATIONS_GROUP = "durabletask.aio.integrations"
"""Callables without arguments, called once when upstream's worker is first given async code.

The worker package's is `install`.
"""

SANDBOX_GROUP = "durabletask.aio.sandbox"
"""One `Sandbox`, looked up when a workflow is registered with a mode other than `"off"`."""

COMMANDS_GROUP = "durabletask.aio.commands"
"""Sub-commands of `durabletask-aio`: a `click.Command` each, by the name of the sub-command.

A callback ends with `ctx.exit(code)`, where the code is one of `ExitCode` in `command_line`, or returns for success; it
raises `CommandError` of the same module if it cannot do its work.

`PROTOCOL_VERSION` does not cover sub-commands, since click's own type is the protocol.  An older companion, whose
sub-commands were written for argparse, offers an object that is not a `click.Command`: that is an error of these
sub-commands alone, which names both distributions.
"""

AnyWorkflow: TypeAlias = Callable[..., Coroutine[Any, Any, Any]]


class Execution(Protocol):
    """What a sandbox may know of one execution of one workflow: facts that are the same on every replay."""

    @property
    def instance_id(self) -> str:
        """The id of the instance."""
        ...

    @property
    def workflow_name(self) -> str:
        """The name under which the workflow is registered."""
        ...

    @property
    def is_replaying(self) -> bool:
        """Whether the code has run before, and only rebuilds its state."""
        ...

    def now(self) -> datetime:
        """Return the workflow's clock: aware, UTC, and unchanged until the next turn."""
        ...

    def stream(self, purpose: str) -> random.Random:
        """Return a random stream of this execution; streams of different purposes are independent."""
        ...


class ExecutionGuard(Protocol):
    """Watches one execution: `enter` and `exit` are called around every stretch in which its code is on the stack."""

    def enter(self) -> None:
        """Begin to watch: workflow code is about to run on this thread."""
        ...

    def exit(self) -> BaseException | None:
        """Stop watching: workflow code has left the stack.

        Returns:
            A violation that fails the turn even if the workflow caught it, or `None`.
        """
        ...


class SuspensionGuard(ExecutionGuard, Protocol):
    """A guard that also looks at the code of its execution while that waits; it need not be of this kind."""

    @property
    def check_suspended(self) -> Callable[[Iterable[Any]], None] | None:
        """Checks code that waits, or `None` if this execution needs no such check; it is read once, at the start.

        Called before `exit`, unless workflow code has raised, with the coroutines and generators that tasks of the
        workflow are suspended in.
        """
        ...


class WorkflowGuard(Protocol):
    """What a sandbox has learned about one registered workflow function."""

    @property
    def function(self) -> AnyWorkflow:
        """The coroutine function to run: the one registered, or an instrumented copy of it."""
        ...

    @property
    def context_type(self) -> type[AsyncWorkflowContext] | None:
        """A subclass of the context to pass to the workflow, or `None` for the ordinary one."""
        ...

    def begin(self, execution: Execution) -> ExecutionGuard | None:
        """Return the guard of an execution that starts; `None` if detection is switched off by the environment."""
        ...


@runtime_checkable
class Sandbox(Protocol):
    """The object behind `SANDBOX_GROUP`."""

    protocol_version: int

    def guard(self, function: AnyWorkflow, mode: SandboxMode, *, workflow_name: str) -> WorkflowGuard | None:
        """Prepare a workflow for a mode; called once per registration.

        Issues a `NonDeterminismWarning` for each finding in `best_effort` mode.

        Args:
            function: the workflow function.
            mode: any mode but `off`.
            workflow_name: the name it is registered under.

        Returns:
            The guard; `None` if there is nothing to do at run time.

        Raises:
            SandboxViolationError: in `strict` mode, for what static analysis finds with certainty.
        """
        ...

    def advise(self, function: AnyWorkflow, *, workflow_name: str) -> None:
        """Issue warnings by static analysis alone: for a workflow in mode `off` while debugging is switched on."""
        ...


class Registrar(Protocol):
    """Registers async code that is given to a worker of upstream's: the worker package, or a refusal."""

    protocol_version: int

    def add_orchestrator(self, worker: Any, function: AnyWorkflow, *, name: str | None, sandbox_mode: Any) -> str:
        """Register an async workflow, and return the name it is registered under."""
        ...

    def add_activity(self, worker: Any, function: Callable[..., Any], *, name: str | None) -> str:
        """Register an async activity, and return the name it is registered under."""
        ...


def load_integrations() -> list[str]:
    """Call every installed integration.

    A broken one is skipped with a warning at the line that registers async code, so that it does not break the others.

    Returns:
        For each broken one, a sentence with its origin and its error.
    """
    broken: list[str] = []
    for entry in distributions.entry_points(group=INTEGRATIONS_GROUP):
        try:
            entry.load()()
        except Exception as error:  # noqa: PERF203 - each on its own
            broken.append(f"{origin(entry)} could not be loaded: {type(error).__name__}: {error}")
            warnings.warn(broken[-1], stacklevel=5)
    return broken


_loaded: Sandbox | None = None


def load_sandbox() -> Sandbox | None:
    """Return the sandbox, or `None` if none is installed.

    Raises:
        AsyncWorkflowError: if there is one that does not fit this core.
    """
    global _loaded
    if _loaded is None:  # Once, because the search looks at all distributions.
        for entry in distributions.entry_points(group=SANDBOX_GROUP):
            sandbox = entry.load()
            check_protocol(sandbox, entry)
            _loaded = cast("Sandbox", sandbox)
            break
    return _loaded


def check_protocol(plugin: Any, entry: EntryPoint) -> None:
    """Check that a plugin was written for these protocols.

    Raises:
        AsyncWorkflowError: if not; the message names both distributions.
    """
    version = getattr(plugin, "protocol_version", None)
    if version != PROTOCOL_VERSION:
        msg = (
            f"{origin(entry)} speaks version {version} of the plugin protocol, and {installation.CORE} "
            f"{installation.version(installation.CORE)} speaks {PROTOCOL_VERSION}\n"
            f"  pip install --upgrade {installation.CORE} {distribution_name(entry)}"
        )
        raise AsyncWorkflowError(msg)


def guard_for(function: AnyWorkflow, name: str, mode: SandboxMode) -> WorkflowGuard | None:
    """Return the sandbox's guard of a workflow that is registered; `None` if it is not watched.

    Raises:
        WorkflowValidationError: if the mode needs the sandbox, and it is not installed; with the line to install it.
        SandboxViolationError: in `strict` mode, for what static analysis finds with certainty.
    """
    if mode is SandboxMode.OFF:
        if debug_enabled() and not detection_disabled():
            _advise(function, name)
        return None
    sandbox = load_sandbox()
    if sandbox is None:
        msg = (
            f"sandbox_mode={mode.value!r} for workflow {name!r} needs the sandbox, which is not installed\n"
            f'  pip install "durabletask-aio-core[sandbox]"'
        )
        raise WorkflowValidationError(msg, workflow_name=name)
    if detection_disabled():
        return None
    return sandbox.guard(function, mode, workflow_name=name)


_advised = False


def _advise(function: AnyWorkflow, name: str) -> None:
    global _advised
    sandbox = load_sandbox()
    if sandbox is not None:
        sandbox.advise(function, workflow_name=name)
    elif not _advised:
        _advised = True
        logging.getLogger("durabletask.aio").warning(
            "debug mode warns of non-deterministic calls once the sandbox is installed: "
            'pip install "durabletask-aio-core[sandbox]"'
        )


def distribution_name(entry: EntryPoint) -> str:
    """Name the distribution that an entry point belongs to, or else its module."""
    return entry.dist.name if entry.dist is not None else entry.value


def origin(entry: EntryPoint) -> str:
    """Describe an entry point for an error: distribution, version, name and group."""
    version = f" {entry.dist.version}" if entry.dist is not None else ""
    return f"{distribution_name(entry)}{version} (entry point {entry.name!r} of group {entry.group!r})"
