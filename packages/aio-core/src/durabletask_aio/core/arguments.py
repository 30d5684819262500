"""Arguments that upstream would stumble over far from the call, or wait for in vain, refused where they are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from durabletask import task
from durabletask.entities import EntityInstanceId

from durabletask_aio.core.errors import shown

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
