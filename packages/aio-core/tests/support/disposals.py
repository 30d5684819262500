"""The runs that the core holds until they are disposed: the one look of the tests into `disposal`."""

from __future__ import annotations

from durabletask_aio.core import disposal


def held_instances() -> set[str]:
    """Return the ids of the instances whose coroutines have not been closed; nothing public shows them."""
    return {run.instance_id for run in list(disposal._live.values())}
