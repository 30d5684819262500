"""How soon a worker is back after an outage: within two seconds of the engine's return, however long it was away.

Two pauses grow during an outage, each on its own: those of gRPC's channel between two attempts to connect, up to two
minutes, and those of upstream's worker between two calls, up to 30 seconds.  Here they end at half a second and at one
second, unless the user has set them.  Both are random within their bounds, so that the workers of an engine that
returns do not call at the same moment.  An attempt that gets no answer, as from a machine that is switched off, ends
after two seconds, and the next one begins.
"""

from __future__ import annotations

import random
from typing import Any

BASE_PAUSE = 0.25
MAX_PAUSE = 1.0
"""Seconds between two calls while the engine is away: upper bounds of the first and of the last pause."""

CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # In spite of its name, how long an attempt to connect may take at least.
    ("grpc.min_reconnect_backoff_ms", 2000),
)


def with_channel_options(given: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return gRPC options with `CHANNEL_OPTIONS`, except for those that are given."""
    names = {name for name, _ in given}
    return [*given, *(option for option in CHANNEL_OPTIONS if option[0] not in names)]


def jittered(pause: float) -> float:
    """Return a random part of `pause`: between a half and all of it."""
    # Not the generator of a workflow: no workflow code can observe it.
    return pause * random.uniform(0.5, 1.0)
