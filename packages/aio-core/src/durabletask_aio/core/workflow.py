"""The type of a workflow function, for type checkers and editors."""

# ruff: noqa: A002 - `input` is upstream's name for it

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from durabletask_aio.core.context import AsyncWorkflowContext

TInput_contra = TypeVar("TInput_contra", contravariant=True)
TOutput_co = TypeVar("TOutput_co", covariant=True)


@runtime_checkable
class WorkflowFunction(Protocol[TInput_contra, TOutput_co]):
    """An async workflow: `async def workflow(ctx: AsyncWorkflowContext, input: TInput) -> TOutput`."""

    def __call__(self, ctx: AsyncWorkflowContext, input: TInput_contra, /) -> Coroutine[Any, Any, TOutput_co]:
        """Return the coroutine of one execution."""
        ...
