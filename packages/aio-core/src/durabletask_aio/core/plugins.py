"""How the core finds its companions, and what it expects of them.

The core imports none of the other distributions.  They announce themselves by entry point, and the core looks
a group up once, late, and only when it needs what is behind it.  Every object that crosses the border states the
version of these protocols it was written for; a mismatch is an error that names both distributions, because pip
resolves each distribution on its own and two that do not fit can meet in one environment.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast, runtime_checkable

from durabletask_aio.core import installation
from durabletask_aio.core.errors import AsyncWorkflowError, WorkflowValidationError
from durabletask_aio.core.settings import SandboxMode, debug_enabled, detection_disabled

if TYPE_CHECKING:
    import random
    from importlib.metadata import EntryPoint

    from durabletask_aio.core.context import AsyncWorkflowContext

PROTOCOL_VERSION = 1
"""Raised by one whenever a protocol below changes in a way that an older companion would not survive."""

INTEGRATIONS_GROUP = "durabletask.aio.integrations"
"""Callables without arguments, called once when upstream's worker is first given async code (ours: ``install``)."""

SANDBOX_GROUP = "durabletask.aio.sandbox"
"""One :class:`Sandbox`, looked up when a workflow is registered with a mode other than ``"off"``."""

COMMANDS_GROUP = "durabletask.aio.commands"
"""Sub-commands of ``durabletask-aio``: :class:`Command` objects by the name of the sub-command."""

AnyWorkflow: TypeAlias = Callable[..., Coroutine[Any, Any, Any]]


class Execution(Protocol):
    """What a sandbox may know of one execution of one workflow: facts that are the same on every replay."""

    @property
    def instance_id(self) -> str: ...

    @property
    def workflow_name(self) -> str: ...

    @property
    def is_replaying(self) -> bool: ...

    def now(self) -> datetime:
        """The workflow's clock: aware, UTC, and unchanged until the next turn."""
        ...

    def stream(self, purpose: str) -> random.Random:
        """A random stream of this execution; streams of different purposes are independent of one another."""
        ...


class ExecutionGuard(Protocol):
    """Watches one execution.  ``enter`` and ``exit`` bracket every stretch in which its code is on the stack."""

    def enter(self) -> None:
        """Workflow code is about to run on this thread."""
        ...

    def exit(self) -> BaseException | None:
        """Workflow code has left the stack; a violation returned here fails the turn even if user code caught it."""
        ...


class WorkflowGuard(Protocol):
    """What a sandbox has learned about one registered workflow function."""

    @property
    def function(self) -> AnyWorkflow:
        """The coroutine function to run: the one registered, or an instrumented twin of it."""
        ...

    @property
    def context_type(self) -> type[AsyncWorkflowContext] | None:
        """A subclass of the context to hand to the workflow, or ``None`` for the ordinary one."""
        ...

    def begin(self, execution: Execution) -> ExecutionGuard | None:
        """An execution starts; ``None`` if it need not be watched (detection switched off by the environment)."""
        ...


@runtime_checkable
class Sandbox(Protocol):
    """The object behind :data:`SANDBOX_GROUP`."""

    protocol_version: int

    def guard(self, function: AnyWorkflow, mode: SandboxMode, *, workflow_name: str) -> WorkflowGuard | None:
        """Prepare ``function`` for ``mode``; called once per registration.

        Raises :class:`SandboxViolationError` for what static analysis is sure of in strict mode, issues
        :class:`NonDeterminismWarning` in best_effort mode, and returns ``None`` if there is nothing to do at run time.
        """
        ...

    def advise(self, function: AnyWorkflow, *, workflow_name: str) -> None:
        """Issue warnings by static analysis alone: a workflow in mode ``"off"`` while debugging is switched on."""
        ...


class Registrar(Protocol):
    """Who takes over when async code is given to a worker of upstream's: the worker package, or our refusal."""

    protocol_version: int

    def add_orchestrator(self, worker: Any, function: AnyWorkflow, *, name: str | None, sandbox_mode: Any) -> str: ...

    def add_activity(self, worker: Any, function: Callable[..., Any], *, name: str | None) -> str: ...


class Command(Protocol):
    """A sub-command of ``durabletask-aio``, loaded only when it is asked for or help is shown."""

    help: str

    def configure(self, parser: Any) -> None:
        """Add arguments to this sub-command's :class:`argparse.ArgumentParser`."""
        ...

    def run(self, arguments: Any) -> int:
        """Do the work; the return value is the exit status."""
        ...


def load_integrations() -> bool:
    """Call every integration there is, once; ``False`` if there is none.

    A broken one warns, at the line that registers async code, and is left out: it must not break the others.
    """
    from importlib.metadata import entry_points

    found = False
    for entry in entry_points(group=INTEGRATIONS_GROUP):
        try:
            entry.load()()
        except Exception as error:  # noqa: PERF203 - each on its own
            warnings.warn(f"{_origin(entry)} could not be loaded: {type(error).__name__}: {error}", stacklevel=5)
        else:
            found = True
    return found


_loaded: Sandbox | None = None


def load_sandbox() -> Sandbox | None:
    """The sandbox, or ``None`` if none is installed.

    Raises :class:`AsyncWorkflowError` if there is one that does not fit this core.
    """
    global _loaded
    if _loaded is None:  # once: the search reads the metadata of everything that is installed
        from importlib.metadata import entry_points

        for entry in entry_points(group=SANDBOX_GROUP):
            sandbox = entry.load()
            check_protocol(sandbox, entry)
            _loaded = cast("Sandbox", sandbox)
            break
    return _loaded


def check_protocol(plugin: Any, entry: EntryPoint) -> None:
    """Raise :class:`AsyncWorkflowError`, naming both distributions, if ``plugin`` was written for other protocols."""
    version = getattr(plugin, "protocol_version", None)
    if version != PROTOCOL_VERSION:
        msg = (
            f"{_origin(entry)} speaks version {version} of the plugin protocol, and {installation.CORE} "
            f"{installation.version(installation.CORE)} speaks {PROTOCOL_VERSION}\n"
            f"  pip install --upgrade {installation.CORE} {_distribution(entry)}"
        )
        raise AsyncWorkflowError(msg)


def guard_for(function: AnyWorkflow, name: str, mode: SandboxMode) -> WorkflowGuard | None:
    """What the sandbox has to say about a workflow at registration; ``None`` if it is not to be watched.

    Raises :class:`WorkflowValidationError` with the line to install if a mode needs the sandbox and there is none.
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


_told = False


def _advise(function: AnyWorkflow, name: str) -> None:
    global _told
    sandbox = load_sandbox()
    if sandbox is not None:
        sandbox.advise(function, workflow_name=name)
    elif not _told:
        _told = True
        logging.getLogger("durabletask.aio").warning(
            "debug mode warns of non-deterministic calls once the sandbox is installed: "
            'pip install "durabletask-aio-core[sandbox]"'
        )


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value


def _origin(entry: EntryPoint) -> str:
    version = f" {entry.dist.version}" if entry.dist is not None else ""
    return f"{_distribution(entry)}{version} (entry point {entry.name!r} of group {entry.group!r})"
