"""Workflow metadata: small strings that travel with a workflow, as tags under a prefix of our own.

The core keeps the mapping and writes it into the tags of what the workflow schedules.  Reading it from the tags of an
execution or of an activity's request is the task of the host (the worker package).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from durabletask_aio.core import _upstream
from durabletask_aio.core.errors import WorkflowValidationError, shown

TAG_PREFIX = "durabletask-aio.md."
"""The prefix of the tags that carry metadata, so that users' own tags neither leak in nor are overwritten."""

KEYS_TAG = "durabletask-aio.md"
"""The tag that holds the keys as a JSON array.

Engines merge the tags of a new execution into those of the old one, and never remove any: without this list, a key that
the workflow dropped would come back after `continue_as_new`.  It also tells empty metadata from none.
"""

MAX_BYTES = 8 * 1024
"""The limit of keys and values together, in bytes of UTF-8: what gRPC servers accept as headers by default."""


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _items(metadata: Any) -> Any:
    return metadata.items()


def validated(metadata: Any) -> dict[str, str]:
    """Return a copy of `metadata`.

    Raises:
        WorkflowValidationError: unless it is a mapping of strings to strings of at most `MAX_BYTES`.
    """
    if not isinstance(metadata, Mapping):
        given = shown(metadata)
        msg = f"metadata is a mapping of strings to strings, as in set_metadata({{'tenant': 'acme'}}), not {given}"
        raise WorkflowValidationError(msg)
    copy: dict[str, str] = {}
    for key, value in _items(metadata):
        if not isinstance(key, str) or not isinstance(value, str):
            wrong, right = f"{shown(key)}: {shown(value)}", f"{shown(str(key))}: {shown(str(value))}"
            msg = f"metadata keys and values are strings, not {{{wrong}}}: write {{{right}}}"
            raise WorkflowValidationError(msg)
        if not key:
            msg = "metadata keys must not be empty"
            raise WorkflowValidationError(msg)
        copy[key] = value
    try:
        sizes = {key: len(key.encode()) + len(value.encode()) for key, value in copy.items()}
    except UnicodeEncodeError as error:
        msg = f"metadata travels as UTF-8, which cannot have {shown(error.object)}: {error.reason}"
        raise WorkflowValidationError(msg) from None
    size = sum(sizes.values())
    if size > MAX_BYTES:
        largest = max(sizes, key=sizes.__getitem__)
        msg = (
            f"metadata takes {size:,} bytes, of which {shown(largest)} takes {sizes[largest]:,}, and at most "
            f"{MAX_BYTES:,} travel with a workflow; pass large values as input"
        )
        raise WorkflowValidationError(msg)
    return copy


def encode(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that carry `metadata`."""
    tags = {TAG_PREFIX + key: value for key, value in metadata.items()}
    tags[KEYS_TAG] = json.dumps(list(metadata))
    return tags


def decode(tags: Mapping[str, str]) -> dict[str, str] | None:
    """Return the metadata that `tags` carry, `None` if they carry none.

    A client that sets tags under `TAG_PREFIX` need not list the keys: then all of them count.
    """
    found = {key[len(TAG_PREFIX) :]: value for key, value in tags.items() if key.startswith(TAG_PREFIX)}
    listed = tags.get(KEYS_TAG)
    if listed is None:
        return found or None
    try:
        keys = json.loads(listed)
    except ValueError:
        return found
    return {key: found[key] for key in keys if key in found} if _is_list(keys) else found


def from_tags(tags: Mapping[str, str] | None) -> dict[str, str] | None:
    """Return the metadata that these tags carry, or `None` if they carry none or there are none."""
    return decode(dict(tags)) if tags else None


def to_tags(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the tags with which a client starts an instance that has this metadata.

    Raises:
        WorkflowValidationError: unless it is a mapping of strings to strings of at most 8 KiB.
    """
    return encode(validated(metadata))


class WorkflowMetadata:
    """The metadata of one execution, and how it gets into the tags of what the execution schedules."""

    __slots__ = ("_current", "_tags_of", "tags")

    def __init__(self, initial: Mapping[str, str] | None) -> None:
        self._current: dict[str, str] | None = None if initial is None else dict(initial)
        self.tags: dict[str, str] | None = None if initial is None else encode(initial)
        """The tags that carry it; `None` if none was set.  Not to be changed."""
        self._tags_of: dict[int | None, dict[str, str]] | None = None

    def get(self) -> dict[str, str] | None:
        """Return a copy; `None` if none was set, neither by the workflow nor by the client or parent of it."""
        return None if self._current is None else dict(self._current)

    def replace(self, metadata: Any) -> None:
        """Replace all of it; raises as `validated` does."""
        self._current = validated(metadata)
        self.tags = encode(self._current)

    def carry(self, upstream: Any, step: int | None) -> None:
        """Have the sub-orchestration of that step, or with `None` the next execution, carry the present metadata."""
        if self.tags is None:
            return
        if self._tags_of is None:
            self._tags_of = {}
            _upstream.tag_actions(upstream, self._tags_of)
        self._tags_of[step] = self.tags
