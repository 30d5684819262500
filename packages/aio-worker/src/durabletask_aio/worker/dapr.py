"""A Dapr sidecar in the place of an engine: recognised by one call, and refused unless it is an old one.

Dapr 1.16 and later speak a variant of the protocol of their own.  Their sidecar answers `Hello` and accepts the stream
of work items, and then the worker waits forever, without a line in the log.  Dapr 1.14 and 1.15 speak the first version
of this protocol.
"""

from __future__ import annotations

import re

METADATA_METHOD = "/dapr.proto.runtime.v1.Dapr/GetMetadata"
"""A call that every sidecar answers without arguments, and that no engine of this protocol knows."""

TIMEOUT = 5.0
OLD_VERSIONS = ((1, 14), (1, 15))
"""Those whose sidecars run workflows of this protocol."""

_RUNTIME_VERSION = 8
_LENGTH_DELIMITED = 2


def runtime_version(metadata: bytes) -> str:
    """Return the version of the sidecar from its serialised answer; empty if it does not contain one."""
    position, version = 0, ""
    try:
        while position < len(metadata):
            key, position = _varint(metadata, position)
            value, position = _varint(metadata, position)
            if key & 7 != _LENGTH_DELIMITED:
                continue
            if key >> 3 == _RUNTIME_VERSION:
                version = metadata[position : position + value].decode("utf-8", "replace")
            position += value
    except IndexError:  # Another layout than the one that is known.
        pass
    return version


def _varint(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[position]
        number |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return number, position


def speaks_this_protocol(version: str) -> bool:
    """Return whether a sidecar of this version sends work to workers of this protocol."""
    found = re.match(r"v?(\d+)\.(\d+)(\.|-|$)", version)
    return found is not None and (int(found[1]), int(found[2])) in OLD_VERSIONS


def warning(version: str) -> str:
    """Return what a worker at a sidecar that speaks this protocol says."""
    return (
        f"The engine is a Dapr sidecar ({version}): it drops the events that ctx.send_event sends, and timers lose the "
        "fractions of a second. Versions from 1.16 on are refused: they need durabletask-aio-dapr"
    )


def refusal(version: str) -> str:
    """Return the sentence with which a sidecar is refused."""
    found = f"a Dapr sidecar ({version})" if version else "a Dapr sidecar"
    return (
        f"The address of this worker is that of {found}, which does not run workflows of durabletask: it speaks a "
        "variant of the protocol of its own. Install durabletask-aio-dapr and run the workflows with the "
        "WorkflowRuntime of durabletask_aio.dapr, or connect to an engine of durabletask (durabletask-aio dev starts "
        "one)"
    )
