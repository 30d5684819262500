"""What `continue_as_new` was called with, kept until the workflow function has returned."""

from __future__ import annotations

from typing import Any, NamedTuple


class Continuation(NamedTuple):
    """The arguments of `continue_as_new`, and where it was called.

    Upstream ends the execution at the call.  Applying it after the return makes it possible to fail an instance that
    schedules, awaits or raises afterwards, and changes no action of one that does not.
    """

    new_input: Any
    save_events: bool
    new_version: str | None
    site: str
    """`file:line` of the call."""


def after_continue_as_new(what: str, continuation: Continuation) -> str:
    """Return the message for `what` was done after `continue_as_new`."""
    return (
        f"{what} after ctx.continue_as_new(), which was called at {continuation.site} and ends this execution\n"
        f"  wrong: ctx.continue_as_new(state); await ctx.sleep(60)\n"
        f"  right: await ctx.sleep(60); ctx.continue_as_new(state); return"
    )
