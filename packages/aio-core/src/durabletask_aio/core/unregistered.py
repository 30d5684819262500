"""Names that are called, and that no function is registered under: the message."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping

from durabletask_aio.core.replies import REPLY_WORKFLOW

_MAX_LISTED = 20

_UNREGISTERED = (
    "durabletask.worker.ActivityNotRegisteredError",
    "durabletask.worker.OrchestratorNotRegisteredError",
    "durabletask.worker.EntityNotRegisteredError",
)

_CALLS = {
    "activity": "await ctx.call_activity({name!r}, input=...)",
    "orchestrator": "await ctx.call_sub_orchestrator({name!r}, input=...)",
    "entity": "await ctx.call_entity(EntityInstanceId({name!r}, key), operation)",
}


def describe_unregistered(
    kind: str, name: str, names: Collection[str], others: Mapping[str, Collection[str]] | None = None
) -> str:
    """Return the message for a name that is not registered, with those that are.

    Args:
        kind: `"orchestrator"`, `"activity"` or `"entity"`.
        name: The name.
        names: The registered names of that kind.
        others: Those of the other kinds, by kind.
    """
    for other, known in (others or {}).items():
        if name in known:
            call = _CALLS[other].format(name=name)
            return f"no {kind} {name!r} is registered here; there is an {other} of that name: {call}"
    names = [each for each in names if each != REPLY_WORKFLOW]  # which no program registers, or calls, by itself
    if not names:
        return f"no {kind} {name!r} is registered here, nor any other {kind}"
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    listed = sorted(names)
    more = f", and {len(listed) - _MAX_LISTED:,} more" if len(listed) > _MAX_LISTED else ""
    return f"no {kind} {name!r} is registered here; there are: {', '.join(listed[:_MAX_LISTED])}{more}{hint}"


def is_unregistered(error_type: str, message: str) -> bool:
    """Whether a recorded failure is that of a name that is not registered, with the message of this module."""
    return error_type in _UNREGISTERED and message.startswith("no ") and " is registered here" in message
