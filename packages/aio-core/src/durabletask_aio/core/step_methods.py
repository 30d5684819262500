"""The methods of `AsyncWorkflowContext` for steps and patches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from durabletask_aio.core import patches, steps

if TYPE_CHECKING:
    from typing_extensions import TypeVarTuple, Unpack

    from durabletask_aio.core._upstream import RetryPolicy
    from durabletask_aio.core.execution import Execution
    from durabletask_aio.core.loop import WorkflowLoop
    from durabletask_aio.core.operations import Operation

    Values = TypeVarTuple("Values")

T = TypeVar("T")


class StepMethods:
    """The base of `AsyncWorkflowContext` with `run`, `patched` and `deprecate_patch`."""

    __slots__ = ()

    if TYPE_CHECKING:
        _execution: Execution
        _loop: WorkflowLoop

    @overload
    def run(
        self,
        function: Callable[[Unpack[Values]], Awaitable[T]],
        /,
        *args: Unpack[Values],
        name: str | None = ...,
        retry_policy: RetryPolicy | None = ...,
        timeout: float | timedelta | None = ...,
        recorded: Literal["now", "lazily"] | None = ...,
    ) -> Operation[T]: ...

    @overload
    def run(
        self,
        function: Callable[[Unpack[Values]], T],
        /,
        *args: Unpack[Values],
        name: str | None = ...,
        retry_policy: RetryPolicy | None = ...,
        timeout: float | timedelta | None = ...,
        recorded: Literal["now", "lazily"] | None = ...,
    ) -> Operation[T]: ...

    def run(  # type: ignore[misc]  # mypy does not compare an unpacked type variable with `*args: Any`
        self,
        function: Any,
        /,
        *args: Any,
        name: str | None = None,
        retry_policy: RetryPolicy | None = None,
        timeout: float | timedelta | None = None,
        recorded: Literal["now", "lazily"] | None = None,
    ) -> Operation[Any]:
        """Run a function in place, as a step: its result is recorded, and a replay takes the result from the record.

        For short work that needs no worker of its own: reading a clock, a small request.  The function is the code of
        an activity, in this process: it may do what a workflow may not, and gets copies of its arguments.  The workflow
        does nothing else while a step runs, and neither events nor timers reach it; several steps run at the same time.

        Args:
            function: any function, `async` or not; it has no context.
            *args: its positional arguments; keyword arguments are given with `functools.partial`.
            name: the name in the history, by which a replay knows the step; by default that of the function.
            retry_policy: when a failed step is tried again, after a durable pause.
            timeout: seconds, or a `timedelta`, after which an attempt has failed: 30 by default, and at most 60.
            recorded: by default, the result is recorded before the function of the next step begins, and together with
                whatever else leaves the workflow: an activity, an event, a status.  `"now"`: before the next line runs.
                `"lazily"`: with the turn; no step waits for that, and after a crash all steps of the turn run again.

        Returns:
            The operation.  Awaiting it raises [`StepFailedError`][durabletask.aio.StepFailedError] if the function
            failed, with a `retry_policy` at its last attempt.

        Raises:
            WorkflowValidationError: if an argument is wrong.
            AsyncWorkflowError: on a host that cannot record steps.
        """
        return steps.run(
            self._execution,
            self._loop,
            function,
            args,
            name=name,
            retry_policy=retry_policy,
            timeout=timeout,
            recorded=recorded,
        )

    def patched(self, patch: str) -> bool:
        """Whether this instance takes new code, which is deployed while instances run.

            if ctx.patched("ship-by-air"):
                await ctx.call_activity(ship_by_air, input=order)
            else:
                await ctx.call_activity(ship, input=order)

        The first call of an execution decides for all of it, and its answer is recorded: `True` if the execution comes
        here for the first time, `False` on replay of one that was here before the code had the patch.

        Args:
            patch: the name of the patch.

        Returns:
            Whether to take the new code.

        Raises:
            WorkflowValidationError: if `patch` is not a string, or empty.
            AsyncWorkflowError: on a host that cannot record patches.
        """
        return patches.patched(self._execution, self._loop, patch, "patched")

    def deprecate_patch(self, patch: str) -> None:
        """Stand in for `patched` when no instance is left that takes the old code, until the patch can be deleted.

        It can be deleted when no instance is left that was started before this call was deployed.

        Args:
            patch: the name of the patch.

        Raises:
            WorkflowValidationError: if `patch` is not a string, or empty.
            AsyncWorkflowError: on a host that cannot record patches.
        """
        patches.patched(self._execution, self._loop, patch, "deprecate_patch")
