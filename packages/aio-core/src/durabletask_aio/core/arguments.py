"""Arguments that upstream would stumble over far from the call, or wait for in vain, refused where they are given."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from durabletask import task
from durabletask.entities import EntityInstanceId

from durabletask_aio.core import _upstream, debug, validation
from durabletask_aio.core.errors import AsyncWorkflowError, shown

if TYPE_CHECKING:
    from durabletask_aio.core.host import Host


def check_text(host: Host, value: object, what: str, call: str) -> None:
    """Refuse anything but a string with something in it; ``call`` is the call, up to this argument."""
    if isinstance(value, str) and value:
        return
    raise host.slip(
        f"{what} is a string{' that is not empty' if value == '' else ''}, and not {shown(value)}",
        f"{call}{shown(value)})",
        f"{call}{'str(value)' if value else repr('name')})",
    )


def check_retry_policy(host: Host, policy: object, method: str) -> None:
    """Refuse what is no retry policy."""
    if isinstance(policy, task.RetryPolicy):
        return
    raise host.slip(
        f"the retry_policy of ctx.{method} is a RetryPolicy, and not {shown(policy)}",
        f"ctx.{method}(work, retry_policy={shown(policy)})",
        f"ctx.{method}(work, retry_policy=RetryPolicy(first_retry_interval=timedelta(seconds=1), "
        f"max_number_of_attempts=3))",
    )


def check_tags(host: Host, tags: Any) -> None:
    """Refuse tags that are no mapping of strings to strings."""
    entries = cast("Mapping[object, object]", tags) if isinstance(tags, Mapping) else {None: None}
    if all(isinstance(text, str) for entry in entries.items() for text in entry):
        return
    given = shown(cast(object, tags))
    raise host.slip(
        f"tags are a dict of strings, and not {given}",
        f"ctx.call_activity(work, tags={given})",
        "ctx.call_activity(work, tags={'priority': '1'})",
    )


def check_entity(host: Host, entity: object, operation: object, method: str) -> None:
    """Refuse what names no entity, which upstream would send to nobody and wait for, and no operation."""
    if not isinstance(entity, EntityInstanceId):
        raise host.slip(
            f"ctx.{method} takes an EntityInstanceId, and not {shown(entity)}",
            f"ctx.{method}({shown(entity)}, {shown(operation)})",
            f"ctx.{method}(EntityInstanceId('counter', 'key'), {shown(operation)})",
        )
    check_text(host, operation, "the operation of an entity", f"ctx.{method}(entity, ")


def entities_to_lock(host: Host, entities: Any) -> list[EntityInstanceId]:
    """The entities given to ``lock_entities``; refuses none at all, and what is none."""
    given = list(cast("Iterable[object]", entities)) if isinstance(entities, Iterable) else []
    locked = [entity for entity in given if isinstance(entity, EntityInstanceId)]
    if locked and len(locked) == len(given):
        return locked
    wrong = shown(cast(object, entities))
    raise host.slip(
        f"ctx.lock_entities takes a list of one or more EntityInstanceId, and not {wrong}",
        f"async with ctx.lock_entities({wrong}): ...",
        "async with ctx.lock_entities([EntityInstanceId('account', 'a')]): ...",
    )


def name_of(host: Host, function: Any, method: str) -> str:
    """The name of a function to call, by which a worker knows it; refuses what has none."""
    if isinstance(function, str):
        return function
    name = getattr(function, "__name__", "work")
    if inspect.iscoroutine(function):
        function.close()
        raise host.slip(
            f"ctx.{method} was given a coroutine: {name}(...) was called, and not passed",
            f"await ctx.{method}({name}(ctx, value))",
            f"await ctx.{method}({name}, input=value)",
        )
    if name == "<lambda>":
        raise host.slip(
            f"ctx.{method} was given a lambda, which has no name to find it by",
            f"await ctx.{method}(lambda ctx, value: ...)",
            f"await ctx.{method}('name', input=value)",
        )
    if callable(function):
        return validation.callable_name(function)
    raise host.slip(
        f"ctx.{method} takes a function or its name, and not {shown(function)}",
        f"await ctx.{method}({shown(function)})",
        f"await ctx.{method}(work, input=value)",
    )


def serializable(host: Host, value: Any, call: str, name: str = "input") -> Any:
    """``value``, if it can be serialised; ``call`` is the call it was given to, up to it, and ``name`` what it is."""
    try:
        _upstream.serializer(host.upstream)(value)
    except (TypeError, ValueError) as error:
        raise unserializable(host, error, value, call.partition("(")[0], call, name) from error
    return value


def unserializable(
    host: Host, error: Exception, value: Any, what: str, call: str, name: str = "input"
) -> AsyncWorkflowError:
    """The error for a ``value`` that cannot be serialised; ``call`` is the call it was given to, up to it."""
    if isinstance(error, AsyncWorkflowError):
        return error
    found = debug.culprit(value, name, _upstream.serializer(host.upstream))
    if isinstance(found.value, debug.AWAITABLES):
        described = debug.describe_awaitable(found.value)
        debug.discard(found.value)
        awaited = debug.call_of(found.value)
        return host.slip(
            f"{found.path} of {what} is {described} that was never awaited",
            f"{call}{awaited})",
            f"{call}await {awaited})",
        )
    if found.value is debug.INNOCENT:
        return host.slip(f"{what} cannot be scheduled: {error}")
    return host.slip(
        f"{found.path} of {what} cannot be serialised: {found.reason}",
        f"{call}{found.wrong})",
        f"{call}{found.right})" if found.right else f"{call}...) with {debug.SERIALIZABLE}",
    )
