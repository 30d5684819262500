"""Workflow metadata: small strings that travel with a workflow, as tags under a prefix of our own.

The core keeps the mapping and writes it into the tags of what the workflow schedules; reading it from the tags of an
execution or of an activity's request is up to the host (the worker package).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from durabletask_aio.core.errors import WorkflowValidationError, shown

TAG_PREFIX = "durabletask-aio.md."
"""Under this prefix metadata travels, so that users' own tags neither leak in nor are overwritten."""

KEYS_TAG = "durabletask-aio.md"
"""Holds the keys as a JSON array.

Engines merge the tags of a new execution into those of the old one, and never take any away: without this list, a key
that the workflow dropped would come back after ``continue_as_new``.  It also tells empty metadata from none.
"""

MAX_BYTES = 8 * 1024
"""What keys and values may take together, in UTF-8: what gRPC servers accept as headers by default."""


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _items(metadata: Any) -> Any:
    return metadata.items()


def validated(metadata: Any) -> dict[str, str]:
    """A copy of ``metadata``; raises :class:`WorkflowValidationError` unless it is a small mapping of strings."""
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
    """The tags that carry ``metadata``."""
    tags = {TAG_PREFIX + key: value for key, value in metadata.items()}
    tags[KEYS_TAG] = json.dumps(list(metadata))
    return tags


def decode(tags: Mapping[str, str]) -> dict[str, str] | None:
    """The metadata that ``tags`` carry; ``None`` if they carry none.

    A client that sets tags under :data:`TAG_PREFIX` need not list the keys: then all of them count.
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
