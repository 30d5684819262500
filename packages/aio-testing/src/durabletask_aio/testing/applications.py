"""Loading an application by reference, such as `shop.workflows` or `shop.main:worker`, to replay its workflows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from durabletask.serialization import DataConverter

from durabletask_aio.core import hosting
from durabletask_aio.testing import replayer
from durabletask_aio.testing._upstream import Registration, registration_of
from durabletask_aio.testing.history import History
from durabletask_aio.testing.orchestrators import import_module, load_orchestrators


class UnknownWorkflowError(LookupError):
    """The application has no workflow of that name."""


@dataclass(frozen=True)
class Application:
    """The orchestrators of an application, with what their worker says about payloads and timers."""

    orchestrators: Mapping[str, Callable[..., Any]]
    data_converter: DataConverter | None = None
    maximum_timer_interval: timedelta | None = field(default=timedelta(days=3))

    def waits(self, history: History) -> list[hosting.Wait]:
        """Describe what an instance of this application waits for.

        Args:
            history: the history of the instance so far.

        Returns:
            See `hosting.waits`.

        Raises:
            UnknownWorkflowError: if the workflow is not in this application.
            ReplayError: if its code does something else than the history says.
        """
        name = history.workflow_name or ""
        if name not in self.orchestrators:
            raise UnknownWorkflowError(hosting.describe_unregistered("orchestrator", name, list(self.orchestrators)))
        return replayer.waits_at_end(
            history,
            self.orchestrators[name],
            data_converter=self.data_converter,
            maximum_timer_interval=self.maximum_timer_interval,
        )


def load_application(references: Iterable[str]) -> Application:
    """Load an application.

    The current directory is put on the import path.

    Args:
        references: each is one of
            `package.module:worker` for a worker, which has everything registered that it runs;
            `package.module` for the workers in it and, if there are none, for every orchestrator in it;
            `package.module:function` and `package.module:function=name`, as for `load_orchestrators`.

    Returns:
        The application.

    Raises:
        OrchestratorLookupError: for a module that cannot be imported, or has no worker and no orchestrator.
    """
    orchestrators: dict[str, Callable[..., Any]] = {}
    registrations: list[Registration] = []
    for reference in references:
        found = _registrations(reference)
        registrations += found
        for registration in found:
            orchestrators.update(registration.orchestrators)
        if not found:
            orchestrators.update(load_orchestrators([reference]))
    if not registrations:
        return Application(orchestrators)
    return Application(orchestrators, registrations[0].data_converter, registrations[0].maximum_timer_interval)


def _registrations(reference: str) -> list[Registration]:
    """Return what is registered with the worker of a reference, or the workers of its module."""
    module_name, _, attribute = reference.partition(":")
    module = import_module(module_name)
    candidates = [getattr(module, attribute, None)] if attribute else list(vars(module).values())
    return [found for each in candidates if (found := registration_of(each)) is not None]
