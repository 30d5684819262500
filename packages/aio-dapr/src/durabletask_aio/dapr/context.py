"""`WorkflowContext`: the context of async workflows on Dapr."""

# ruff: noqa: A002 - `input` is the SDK's name for it

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NoReturn

import dapr.ext.workflow as dapr_workflow
from durabletask_aio.core import AsyncWorkflowContext, Operation
from durabletask_aio.dapr import _upstream_runtime
from durabletask_aio.dapr._upstream_dapr import InputTooLargeError

_REFUSED = {
    "run": "steps in place: call an activity instead",
    "deprecate_patch": "patches without an answer: leave the call of ctx.patched where it is",
    "call_entity": "entities",
    "signal_entity": "entities",
    "lock_entities": "locks on entities",
    "send_event": "events between workflows",
    "requests": "requests with answers",
    "get_metadata": "metadata",
    "set_metadata": "metadata",
    "get_headers": "metadata",
    "set_headers": "metadata",
}
"""The methods of the core's context that Dapr has nothing for, and what they are about."""


class WorkflowContext(AsyncWorkflowContext):
    """The durable operations of an async workflow on Dapr: those of the core's context, and those of Dapr's.

    What Dapr lacks raises `WorkflowValidationError` at the line of the call.
    """

    __slots__ = ()

    # -- operations -----------------------------------------------------------------------------------------------

    def call_activity(
        self,
        activity: Any,
        *,
        input: Any = None,
        retry_policy: Any = None,
        app_id: str | None = None,
        propagation: Any = None,
        tags: dict[str, str] | None = None,
        return_type: type | None = None,
        raises: Any = None,
    ) -> Operation[Any]:
        """Schedule an activity.

        Args:
            activity: the activity function, or the name it is registered under.
            input: what Dapr's SDK can write as JSON.
            retry_policy: a `RetryPolicy` of this package or of Dapr's SDK.
            app_id: the application that runs it; by default this one.
            propagation: which part of the history the activity gets; a `PropagationScope` of Dapr's SDK.
            tags: refused, since Dapr's activities carry none.
            return_type: refused, since Dapr's SDK does not reconstruct results by type.
            raises: exception types, as after `except`.

        Returns:
            The operation.

        Raises:
            WorkflowValidationError: if an argument is wrong, or Dapr cannot take the input.
        """
        self._refuse_keyword("call_activity", "tags", tags)
        self._refuse_keyword("call_activity", "return_type", return_type)
        name = _upstream_runtime.name_of(activity)
        try:
            with _upstream_runtime.routed(self._execution.upstream, app_id, propagation):
                return super().call_activity(
                    name, input=input, retry_policy=_upstream_runtime.policy_of(retry_policy), raises=raises
                )
        except InputTooLargeError as error:
            raise self._execution.usage_error(
                f"the input of activity {getattr(name, '__name__', name)!r} {error}: it would never run",
                "await ctx.call_activity(work, input=data)",
                "await ctx.call_activity(work, input=key)   # of data in a store",
            ) from None

    def call_child_workflow(
        self,
        workflow: Any,
        *,
        input: Any = None,
        instance_id: str | None = None,
        retry_policy: Any = None,
        app_id: str | None = None,
        propagation: Any = None,
        raises: Any = None,
    ) -> Operation[Any]:
        """Start another workflow, async or generator, as a child of this one.

        Args:
            workflow: the workflow function, or the name it is registered under.
            input: what Dapr's SDK can write as JSON.
            instance_id: the child's id; by default it is derived from this instance's.
            retry_policy: a `RetryPolicy` of this package or of Dapr's SDK.
            app_id: the application that runs it; by default this one.
            propagation: which part of the history the child gets; a `PropagationScope` of Dapr's SDK.
            raises: exception types, as for an activity.

        Returns:
            The operation.

        Raises:
            WorkflowValidationError: if an argument is wrong, or the input cannot be written.
        """
        with _upstream_runtime.routed(self._execution.upstream, app_id, propagation):
            return super().call_sub_orchestrator(
                _upstream_runtime.name_of(workflow),
                input=input,
                instance_id=instance_id,
                retry_policy=_upstream_runtime.policy_of(retry_policy),
                raises=raises,
            )

    def call_sub_orchestrator(
        self,
        orchestrator: Any,
        *,
        input: Any = None,
        instance_id: str | None = None,
        retry_policy: Any = None,
        version: str | None = None,
        cancel_children: bool = False,
        return_type: type | None = None,
        raises: Any = None,
    ) -> Operation[Any]:
        """Start a child; `call_child_workflow` under the name that Microsoft's SDK has for it.

        Args:
            orchestrator: the workflow function, or the name it is registered under.
            input: what Dapr's SDK can write as JSON.
            instance_id: the child's id.
            retry_policy: when a failed child is started again.
            version: refused: Dapr chooses the version of a child by what its worker has registered.
            cancel_children: refused: a Dapr workflow cannot send an event to its child.
            return_type: refused, since Dapr's SDK does not reconstruct results by type.
            raises: exception types, as for an activity.

        Returns:
            The operation.

        Raises:
            WorkflowValidationError: if an argument is wrong, or the input cannot be written.
        """
        self._refuse_keyword("call_sub_orchestrator", "version", version)
        self._refuse_keyword("call_sub_orchestrator", "cancel_children", cancel_children or None)
        self._refuse_keyword("call_sub_orchestrator", "return_type", return_type)
        return self.call_child_workflow(
            orchestrator, input=input, instance_id=instance_id, retry_policy=retry_policy, raises=raises
        )

    def wait_for_external_event(
        self, name: str, *, timeout: datetime | timedelta | None = None, data_type: type | None = None
    ) -> Operation[Any]:
        """Wait for an external event.

        Args:
            name: the name; upper and lower case are the same.
            timeout: how long, or until when, as Dapr's SDK has it; `None` for no limit.
            data_type: refused, since Dapr's SDK does not reconstruct payloads by type.

        Returns:
            The operation; awaiting it raises `TimeoutError` if the time is over first.

        Raises:
            WorkflowValidationError: if the name is not a string, or empty.
        """
        self._refuse_keyword("wait_for_external_event", "data_type", data_type)
        if timeout is None:
            return super().wait_for_external_event(name)
        upstream: Any = self._execution.scheduler("wait_for_external_event")
        return self.wait_for_task(upstream.wait_for_external_event(name, timeout=timeout))

    def wait_for_task(self, upstream_task: Any) -> Operation[Any]:
        """Wait for a task that `upstream_context`, or a library that was given it, has made.

        Args:
            upstream_task: a task of Dapr's SDK of any class, a combination included.

        Returns:
            The operation, with the result of the task.

        Raises:
            WorkflowValidationError: for anything else than such a task.
        """
        return super().wait_for_task(_upstream_runtime.with_listeners(upstream_task))

    # -- the execution --------------------------------------------------------------------------------------------

    def continue_as_new(self, new_input: Any, *, save_events: bool = False, new_version: str | None = None) -> None:
        """Start over with a new input and an empty history when this function returns, which it should do at once.

        Args:
            new_input: the input of the next execution.
            save_events: whether the next execution gets the external events that were not consumed.
            new_version: refused: Dapr has no version to continue with.

        Raises:
            WorkflowValidationError: if the input cannot be written.
        """
        self._refuse_keyword("continue_as_new", "new_version", new_version)
        super().continue_as_new(new_input, save_events=save_events)

    def is_patched(self, patch_name: str) -> bool:
        """Whether a change of the workflow applies to this instance.

        Args:
            patch_name: the name of the change.

        Returns:
            `True` for an instance that had not passed this line when the change was deployed; the same on replay.

        Raises:
            WorkflowValidationError: if `patch_name` is not a string, or empty.
        """
        self._check_patch_name(patch_name)
        upstream: Any = self._execution.scheduler("is_patched")
        patched: bool = upstream.is_patched(patch_name)
        return patched

    def patched(self, patch: str) -> bool:
        """Whether a change of the workflow applies to this instance: Dapr's `is_patched` under the core's name.

        Args:
            patch: the name of the change.

        Returns:
            What `is_patched` returns.

        Raises:
            WorkflowValidationError: if `patch` is not a string, or empty.
        """
        return self.is_patched(patch)

    def get_propagated_history(self) -> dapr_workflow.PropagatedHistory | None:
        """Return the history that the caller of this workflow has passed on to it, or `None`."""
        self._execution.check_live("get_propagated_history")
        upstream: Any = self._execution.upstream
        history: dapr_workflow.PropagatedHistory | None = upstream.get_propagated_history()
        return history

    def _check_patch_name(self, name: object) -> None:
        if not isinstance(name, str) or not name:
            raise self._execution.usage_error(f"the name of a patch is a string that is not empty, not {name!r}")

    # -- what Dapr lacks ------------------------------------------------------------------------------------------

    def _refuse_keyword(self, method: str, keyword: str, value: Any) -> None:
        if value is not None:
            raise self._execution.usage_error(f"ctx.{method} has no {keyword}= on Dapr, which has nothing for it")

    def _refuse_method(self, method: str) -> NoReturn:
        raise self._execution.usage_error(
            f"ctx.{method} cannot work on Dapr, whose workflows have no {_REFUSED[method]}"
        )


def _refusal(method: str) -> Any:
    def refuse(self: WorkflowContext, *_: Any, **__: Any) -> NoReturn:
        self._refuse_method(method)  # pyright: ignore[reportPrivateUsage] - it becomes a method of the class

    refuse.__name__ = method
    refuse.__qualname__ = f"WorkflowContext.{method}"
    refuse.__doc__ = f"Raise `WorkflowValidationError`: Dapr's workflows have no {_REFUSED[method]}."
    return refuse


for _method in _REFUSED:
    setattr(WorkflowContext, _method, _refusal(_method))
