"""The options of a worker: each is listed once, in `WorkerOptions`, with its type, its default, its check and its text.

`WorkerOptions` types the keywords of the constructors (`**options: Unpack[WorkerOptions]`).  The signature that Python
shows, the validation and the table in the documentation are made from it.  `Settings` holds the checked values.
"""

# Without `from __future__ import annotations`: those of `WorkerOptions` are read when this module is imported.

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal, TypeAlias, TypedDict

from durabletask_aio.core import SandboxMode

Seconds: TypeAlias = float | timedelta
"""A duration: a number of seconds, or a `timedelta`."""

OnDivergence: TypeAlias = Literal["retry", "fail"]
"""What happens to an instance whose history does not fit the code."""

SESSIONS_VARIABLE = "DT_MAX_EXTENDED_SESSIONS"
"""Environment variable: the default of `max_extended_sessions` in this process, also for upstream's own class."""

DEFAULT_MAX_SESSIONS = 1000


# -- checks: each returns the value to use, or raises an error that names the option ----------------------------------


def _sandbox_mode(value: SandboxMode | str | None, name: str) -> SandboxMode:
    return SandboxMode.OFF if value is None else SandboxMode.parse(value)


def _max_sessions(value: int | None, name: str) -> int:
    return default_max_sessions() if value is None else _count(value, name)


def _count(value: int, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{name} must not be negative, got {value!r}")
    return value


def _seconds(value: Seconds, name: str) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{name} must be seconds or a timedelta, not {type(value).__name__}")
    if not value >= 0:
        raise ValueError(f"{name} must not be negative, got {value!r}")
    return float(value)


def _positive_seconds(value: Seconds, name: str) -> float:
    seconds = _seconds(value, name)
    if not seconds:
        raise ValueError(f"{name} must be positive, got {value!r}")
    return seconds


def _share(value: float, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value!r}")
    return float(value)


def _bool(value: bool, name: str) -> bool:
    if not isinstance(value, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{name} must be a bool, not {type(value).__name__}")
    return value


def _on_divergence(value: OnDivergence, name: str) -> OnDivergence:
    if value not in ("retry", "fail"):
        raise ValueError(f"{name} must be 'retry' or 'fail', not {value!r}")
    return value


def _or_none(check: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    return lambda value, name: None if value is None else check(value, name)


def default_max_sessions() -> int:
    """Return `DEFAULT_MAX_SESSIONS`, or the number that the environment variable sets."""
    text = os.environ.get(SESSIONS_VARIABLE, "").strip()
    if not text:
        return DEFAULT_MAX_SESSIONS
    try:
        return _count(int(text), SESSIONS_VARIABLE)
    except ValueError:
        raise ValueError(f"{SESSIONS_VARIABLE} must be a whole number that is not negative, got {text!r}") from None


# -- the list ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Option:
    """The default of an option, and the check that turns what the user gave into the value to use."""

    default: Any
    check: Callable[[Any, str], Any]


class WorkerOptions(TypedDict, total=False):
    """The keyword options of a worker, in addition to those of upstream.

    For a function or a subclass that passes them on, with types: `def start(**options: Unpack[WorkerOptions])`.  A
    constructor raises `TypeError` or `ValueError`, naming the option, for a value that is not allowed.
    """

    sandbox_mode: Annotated[SandboxMode | str | None, Option(None, _sandbox_mode)]
    """Sandbox mode of workflows that are registered without one; `None` means `"off"`."""

    max_extended_sessions: Annotated[int | None, Option(None, _max_sessions)]
    """How many suspended instances stay alive between their turns; the least recently used are evicted. `0` switches
    extended sessions off. `None` means the environment variable `DT_MAX_EXTENDED_SESSIONS`, or else 1,000."""

    extended_session_idle_timeout: Annotated[Seconds, Option(300.0, _seconds)]
    """Seconds, or a `timedelta`, after which an idle instance is evicted."""

    shadow_replay_rate: Annotated[float, Option(0.0, _share)]
    """Share, from 0 to 1, of the turns served by a session that are also replayed from history and compared, to find
    non-deterministic code before a restart does."""

    on_divergence: Annotated[OnDivergence, Option("retry", _on_divergence)]
    """What happens to an async workflow whose history does not fit the code: `"retry"` gives the turn back to the
    engine after a pause, until code that fits is deployed; `"fail"` fails the instance, as upstream's class does."""

    stop_grace_period: Annotated[Seconds, Option(10.0, _seconds)]
    """Seconds, or a `timedelta`, that running async activities have to finish when the worker stops. Then they are
    cancelled, and the engine delivers them again."""

    slow_turn_warning: Annotated[Seconds | None, Option(2.0, _or_none(_seconds))]
    """Seconds, or a `timedelta`, after which a turn that is still running is logged as a warning; `None` for never."""

    turn_timeout: Annotated[Seconds | None, Option(None, _or_none(_positive_seconds))]
    """Seconds, or a `timedelta`, after which a turn that is still running is interrupted, and its instance fails;
    `None` for never. A turn takes milliseconds, so 30 is a good value."""

    history_size_warning: Annotated[int | None, Option(5000, _or_none(_count))]
    """Number of events at which the size of a history is logged as a warning, and again at each doubling; `None` for
    never."""

    reword_upstream_log: Annotated[bool, Option(True, _bool)]
    """Whether misleading or repeated lines of upstream's log are reworded, lowered to `DEBUG`, or left out."""


# Not in the class body, where a `TypedDict` takes it for an item.
WorkerOptions.__module__ = "durabletask.aio.worker"

OPTIONS: dict[str, Option] = {name: hint.__metadata__[0] for name, hint in WorkerOptions.__annotations__.items()}


# -- what is made from it ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """The checked values of a worker's options; durations are in seconds."""

    sandbox_mode: SandboxMode
    max_extended_sessions: int
    extended_session_idle_timeout: float
    shadow_replay_rate: float
    on_divergence: OnDivergence
    stop_grace_period: float
    slow_turn_warning: float | None
    turn_timeout: float | None
    history_size_warning: int | None
    reword_upstream_log: bool
    generator_sessions: bool
    """Whether generator orchestrators have sessions too; set by the worker class and not by the user."""

    @classmethod
    def checked(cls, options: WorkerOptions, *, generator_sessions: bool) -> "Settings":
        """Check `options` and fill in the defaults.

        Raises:
            TypeError: For a value of a wrong type.
            ValueError: For a value that is out of range.
        """
        values = {name: option.check(options.get(name, option.default), name) for name, option in OPTIONS.items()}
        return cls(**values, generator_sessions=generator_sessions)


def take_options(keywords: dict[str, Any]) -> WorkerOptions:
    """Remove our options from a constructor's keywords, and return them."""
    taken: Any = {name: keywords.pop(name) for name in OPTIONS if name in keywords}
    options: WorkerOptions = taken
    return options


def show_options(constructor: Any, upstreams: Callable[..., None] | None = None) -> None:
    """Have `inspect.signature` and `help` show our options among the keywords of a constructor.

    Args:
        constructor: The constructor, whose `**keywords` take the options.
        upstreams: The constructor whose other parameters are shown; by default `constructor` itself.
    """
    signature = inspect.signature(constructor if upstreams is None else upstreams)
    ours = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=option.default,
            annotation=WorkerOptions.__annotations__[name].__origin__,
        )
        for name, option in OPTIONS.items()
    ]
    parameters = sorted([*signature.parameters.values(), *ours], key=lambda parameter: parameter.kind)
    constructor.__signature__ = signature.replace(parameters=parameters)
