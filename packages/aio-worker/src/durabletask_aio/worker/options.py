"""What a user can set on a worker, and what holds if nothing is set."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from durabletask_aio.core.settings import SandboxMode

if TYPE_CHECKING:
    from typing import TypeAlias

Seconds: TypeAlias = "float | timedelta"

SESSIONS_VARIABLE = "DT_MAX_EXTENDED_SESSIONS"
"""Environment variable: the default of ``max_extended_sessions`` in this process, upstream's own class included."""

DEFAULT_MAX_SESSIONS = 1000


def seconds(value: Seconds, *, name: str) -> float:
    """A duration in seconds; :class:`ValueError` if it is negative, :class:`TypeError` if it is not a duration."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{name} must be seconds or a timedelta, not {type(value).__name__}")
    if not value >= 0:
        raise ValueError(f"{name} must not be negative, got {value!r}")
    return float(value)


def default_max_sessions() -> int:
    """:data:`DEFAULT_MAX_SESSIONS`, or what the environment says."""
    text = os.environ.get(SESSIONS_VARIABLE, "").strip()
    if not text:
        return DEFAULT_MAX_SESSIONS
    try:
        return _count(int(text), name=SESSIONS_VARIABLE)
    except ValueError:
        raise ValueError(f"{SESSIONS_VARIABLE} must be a whole number that is not negative, got {text!r}") from None


def _count(value: int, *, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{name} must not be negative, got {value!r}")
    return value


def _share(value: float, *, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value!r}")
    return float(value)


@dataclass(frozen=True)
class WorkerOptions:
    """The settings of one worker, checked; durations are seconds."""

    sandbox_mode: SandboxMode = SandboxMode.OFF
    max_extended_sessions: int = DEFAULT_MAX_SESSIONS
    extended_session_idle_timeout: float = 300.0
    shadow_replay_rate: float = 0.0
    stop_grace_period: float = 10.0
    slow_turn_warning: float | None = 2.0
    history_size_warning: int | None = 5000
    generator_sessions: bool = False

    @classmethod
    def of(
        cls,
        *,
        sandbox_mode: SandboxMode | str | None = None,
        max_extended_sessions: int | None = None,
        extended_session_idle_timeout: Seconds = 300.0,
        shadow_replay_rate: float = 0.0,
        stop_grace_period: Seconds = 10.0,
        slow_turn_warning: Seconds | None = 2.0,
        history_size_warning: int | None = 5000,
        generator_sessions: bool = False,
    ) -> WorkerOptions:
        """Check what a constructor was given; ``TypeError`` or ``ValueError`` for a mistake, naming the option."""
        return cls(
            sandbox_mode=SandboxMode.OFF if sandbox_mode is None else SandboxMode.parse(sandbox_mode),
            max_extended_sessions=(
                default_max_sessions()
                if max_extended_sessions is None
                else _count(max_extended_sessions, name="max_extended_sessions")
            ),
            extended_session_idle_timeout=seconds(extended_session_idle_timeout, name="extended_session_idle_timeout"),
            shadow_replay_rate=_share(shadow_replay_rate, name="shadow_replay_rate"),
            stop_grace_period=seconds(stop_grace_period, name="stop_grace_period"),
            slow_turn_warning=None
            if slow_turn_warning is None
            else seconds(slow_turn_warning, name="slow_turn_warning"),
            history_size_warning=(
                None if history_size_warning is None else _count(history_size_warning, name="history_size_warning")
            ),
            generator_sessions=generator_sessions,
        )
