"""The checks of arguments whose errors would otherwise appear far from the call, or not at all."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from durabletask_aio import portable
from durabletask_aio.core import _upstream, retries
from durabletask_aio.core._upstream import EntityInstanceId, RetryPolicy, task
from durabletask_aio.core.cancellation import CANCEL_EVENT
from durabletask_aio.core.declared_failures import Types, checked, declared_by
from durabletask_aio.core.descriptions import AWAITABLES, call_of, close_if_coroutine, describe_awaitable
from durabletask_aio.core.errors import AsyncWorkflowError, shown
from durabletask_aio.core.functions import function_name
from durabletask_aio.core.replies import REQUEST_PREFIX, is_request
from durabletask_aio.core.serialization import SERIALIZABLE, SERIALIZABLE_VALUES, find_unserializable

if TYPE_CHECKING:
    from durabletask_aio.core.execution import Execution


def check_text(execution: Execution, value: object, what: str, call: str) -> None:
    """Refuse anything but a string that is not empty; `call` is the call, up to this argument."""
    if isinstance(value, str) and value:
        return
    raise execution.usage_error(
        f"{what} is a string{' that is not empty' if value == '' else ''}, and not {shown(value)}",
        f"{call}{shown(value)})",
        f"{call}{'str(value)' if value else repr('name')})",
    )


def check_event_name(execution: Execution, name: object, call: str) -> None:
    """Refuse what is not the name of an event that workflow code can wait for; `call` is the call up to it."""
    check_text(execution, name, "the name of an event", call)
    if is_request(cast(str, name)):
        raise execution.usage_error(
            f"the event {name!r} is reserved: it is a request, and answered as one",
            f"await {call}{name!r})",
            f"async for request in ctx.requests({cast(str, name)[len(REQUEST_PREFIX) :]!r}): request.answer(...)",
        )
    if name == CANCEL_EVENT:
        raise execution.usage_error(
            f"the event {CANCEL_EVENT!r} is reserved: it cancels the workflow, which need not wait for it",
            f"await {call}{CANCEL_EVENT!r})",
            "try: ... except asyncio.CancelledError: ...; raise",
        )


def check_retry_policy(execution: Execution, policy: object, method: str) -> RetryPolicy:
    """Return the policy of this SDK; refuses what is not a retry policy."""
    if isinstance(policy, RetryPolicy):
        return policy
    if isinstance(policy, portable.RetryPolicy):
        try:
            return retries.RetryPolicy(**policy.arguments)
        except (TypeError, ValueError) as error:
            raise execution.usage_error(f"the retry_policy of ctx.{method} is wrong: {error}") from None
    raise execution.usage_error(
        f"the retry_policy of ctx.{method} is a RetryPolicy, and not {shown(policy)}",
        f"ctx.{method}(work, retry_policy={shown(policy)})",
        f"ctx.{method}(work, retry_policy=RetryPolicy(first_retry_interval=timedelta(seconds=1), "
        f"max_number_of_attempts=3))",
    )


def raised_types(execution: Execution, raises: object, function: object, method: str) -> Types:
    """Return the exception types of a call: those given as `raises=`, or else those that the function declares."""
    if raises is None:
        return declared_by(function)
    try:
        return checked(raises)
    except TypeError as error:
        raise execution.usage_error(
            f"raises= of ctx.{method} takes exception types: {error}",
            f"ctx.{method}(work, raises={shown(raises)})",
            f"ctx.{method}(work, raises=(CardDeclined,))",
        ) from None


def check_tags(execution: Execution, tags: Any) -> None:
    """Refuse tags that are not a mapping of strings to strings."""
    entries = cast("Mapping[object, object]", tags) if isinstance(tags, Mapping) else {None: None}
    if all(isinstance(text, str) for entry in entries.items() for text in entry):
        return
    given = shown(cast(object, tags))
    raise execution.usage_error(
        f"tags are a dict of strings, and not {given}",
        f"ctx.call_activity(work, tags={given})",
        "ctx.call_activity(work, tags={'priority': '1'})",
    )


def check_entity(execution: Execution, entity: object, operation: object, method: str) -> None:
    """Refuse what is not an entity id, for which upstream would wait without end, and what is not an operation."""
    if not isinstance(entity, EntityInstanceId):
        raise execution.usage_error(
            f"ctx.{method} takes an EntityInstanceId, and not {shown(entity)}",
            f"ctx.{method}({shown(entity)}, {shown(operation)})",
            f"ctx.{method}(EntityInstanceId('counter', 'key'), {shown(operation)})",
        )
    check_text(execution, operation, "the operation of an entity", f"ctx.{method}(entity, ")


def entities_to_lock(execution: Execution, entities: Any) -> list[EntityInstanceId]:
    """Return the entities given to `lock_entities`; refuses an empty list and what is not an entity id."""
    given = list(cast("Iterable[object]", entities)) if isinstance(entities, Iterable) else []
    locked = [entity for entity in given if isinstance(entity, EntityInstanceId)]
    if locked and len(locked) == len(given):
        return locked
    wrong = shown(cast(object, entities))
    raise execution.usage_error(
        f"ctx.lock_entities takes a list of one or more EntityInstanceId, and not {wrong}",
        f"async with ctx.lock_entities({wrong}): ...",
        "async with ctx.lock_entities([EntityInstanceId('account', 'a')]): ...",
    )


def task_to_wait_for(execution: Execution, value: object) -> task.Task[Any]:
    """Return the task of upstream's that `wait_for_task` was given; refuses anything else."""
    if _upstream.is_task(value):
        return value
    if isinstance(value, AWAITABLES):
        given, right = describe_awaitable(value), f"await {call_of(value)}"
        close_if_coroutine(value)
    else:
        given, right = shown(value), "await ctx.wait_for_task(ctx.upstream_context.call_activity('work'))"
    raise execution.usage_error(
        f"ctx.wait_for_task takes a task of upstream's, and was given {given}",
        "await ctx.wait_for_task(work)",
        right,
    )


def name_of(execution: Execution, function: Any, method: str) -> str:
    """Return the name under which a worker knows a function that is called; refuses what has none."""
    if isinstance(function, str):
        return function
    name = getattr(function, "__name__", "work")
    if inspect.iscoroutine(function):
        function.close()
        raise execution.usage_error(
            f"ctx.{method} was given a coroutine: {name}(...) was called, and not passed",
            f"await ctx.{method}({name}(ctx, value))",
            f"await ctx.{method}({name}, input=value)",
        )
    if name == "<lambda>":
        raise execution.usage_error(
            f"ctx.{method} was given a lambda, which has no name to find it by",
            f"await ctx.{method}(lambda ctx, value: ...)",
            f"await ctx.{method}('name', input=value)",
        )
    if callable(function):
        return function_name(function)
    raise execution.usage_error(
        f"ctx.{method} takes a function or its name, and not {shown(function)}",
        f"await ctx.{method}({shown(function)})",
        f"await ctx.{method}(work, input=value)",
    )


def serializable(execution: Execution, value: Any, call: str, name: str = "input") -> Any:
    """Return `value` if it can be serialised; `call` is the call up to this argument, and `name` the argument."""
    try:
        _upstream.serializer(execution.upstream)(value)
    except (TypeError, ValueError) as error:
        raise unserializable(execution, error, value, call.partition("(")[0], call, name) from error
    return value


def unserializable(
    execution: Execution, error: Exception, value: Any, what: str, call: str, name: str = "input"
) -> AsyncWorkflowError:
    """Return the error for a `value` that cannot be serialised; `call` is the call up to this argument."""
    if isinstance(error, AsyncWorkflowError):
        return error
    found = find_unserializable(value, name, _upstream.serializer(execution.upstream))
    if isinstance(found.value, AWAITABLES):
        described = describe_awaitable(found.value)
        close_if_coroutine(found.value)
        awaited = call_of(found.value)
        return execution.usage_error(
            f"{found.path} of {what} is {described} that was never awaited",
            f"{call}{awaited})",
            f"{call}await {awaited})",
        )
    if found.value is SERIALIZABLE:
        return execution.usage_error(f"{what} cannot be scheduled: {error}")
    right = f"{call}{found.replacement})" if found.replacement else f"{call}...) with {SERIALIZABLE_VALUES}"
    return execution.usage_error(
        f"{found.path} of {what} cannot be serialised: {found.reason}",
        f"{call}{found.wrong})",
        right + found.converter_hint,
    )
