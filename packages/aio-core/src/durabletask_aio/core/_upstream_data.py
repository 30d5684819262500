"""The adapter to upstream's data converter; see `_upstream`."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from durabletask.serialization import JsonDataConverter, _encode_custom_object, _strip_legacy_marker

__all__ = ["JsonDataConverter", "encode_as_upstream", "without_legacy_marker"]

encode_as_upstream: Callable[[Any], Any] = _encode_custom_object
"""What upstream's converter makes of a value that JSON does not have; raises `TypeError` if it has nothing for it.

The public `serialize` writes a whole value, and cannot be asked for a part of one.
"""


def without_legacy_marker(data: str) -> Any:
    """Parse a payload, and leave out the marker that early versions of upstream wrote into objects."""
    return json.loads(data, object_hook=_strip_legacy_marker)
