"""Deterministic values for the clock, random and uuid calls of a workflow in best_effort mode.

They depend only on the execution: on its clock, and on one random stream seeded from the instance id. The stream is not
the one behind `ctx.random()`, so that correcting a call in one place does not change the numbers drawn in another. All
wall-clock values are in UTC, whatever the worker's time zone.
"""

from __future__ import annotations

import datetime as dt
import random
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias


class Values(Protocol):
    """What a substitute may use."""

    def now(self) -> dt.datetime: ...

    @property
    def random(self) -> random.Random: ...


Substitute: TypeAlias = "Callable[[Values, Any, tuple[Any, ...], dict[str, Any]], Any]"
"""Called with the values, the callable that is replaced, and the arguments."""

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)


def _nanoseconds(values: Values) -> int:
    # Whole microseconds times 1000: `timestamp()` is a float and would lose the last digits.
    return (values.now() - _EPOCH) // dt.timedelta(microseconds=1) * 1000


def _seconds_call(values: Values, _target: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> float:
    return values.now().timestamp()


def _nanoseconds_call(values: Values, _target: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> int:
    return _nanoseconds(values)


def _struct(values: Values, _target: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> time.struct_time:
    return time.gmtime(values.now().timestamp())


def _text(values: Values, _target: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> str:
    return time.asctime(time.gmtime(values.now().timestamp()))


def _formatted(values: Values, _target: Any, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> str:
    return time.strftime(args[0], time.gmtime(values.now().timestamp()))


def _owner(target: Any, fallback: type[Any]) -> Any:
    # For `Subclass.now`, which must return an object of the subclass.
    owner = getattr(target, "__self__", fallback)
    return owner if isinstance(owner, type) else fallback


def _of_type(kind: Any, moment: dt.datetime) -> dt.datetime:
    parts = moment.timetuple()[:6]
    made: dt.datetime = kind(*parts, moment.microsecond, tzinfo=moment.tzinfo)
    return made


def _now(values: Values, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dt.datetime:
    zone = args[0] if args else kwargs.get("tz")
    moment = values.now()
    moment = moment.replace(tzinfo=None) if zone is None else moment.astimezone(zone)
    return _of_type(_owner(target, dt.datetime), moment)


def _naive(values: Values, target: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> dt.datetime:
    return _of_type(_owner(target, dt.datetime), values.now().replace(tzinfo=None))


def _today(values: Values, target: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> dt.date:
    today = values.now().date()
    made: dt.date = _owner(target, dt.date)(today.year, today.month, today.day)
    return made


def _drawn(method: str) -> Substitute:
    def draw(values: Values, _target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return getattr(values.random, method)(*args, **kwargs)

    return draw


def _generator(values: Values, _target: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> random.Random:
    return random.Random(values.random.getrandbits(64))


def _seed(values: Values, _target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    # `random.seed()` without a seed asks for entropy and is ignored; with a seed it is deterministic.
    if any(value is not None for value in (*args[:1], kwargs.get("a"))):
        values.random.seed(*args, **kwargs)


def _uuid(version: int) -> Substitute:
    def make(values: Values, _target: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> uuid.UUID:
        number = values.random.getrandbits(128)
        # Set by hand: `uuid.UUID` accepts versions above 5 only from Python 3.14 on.
        number = number & ~(0xC000 << 48) | 0x8000 << 48
        return uuid.UUID(int=number & ~(0xF000 << 64) | version << 76)

    return make


def _node(values: Values, _target: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> int:
    return values.random.getrandbits(48)


_CLOCKS: Final = ("time", "monotonic", "perf_counter", "process_time", "thread_time", "clock_gettime")
_DRAWS: Final = (
    "random randint randrange choice choices shuffle sample uniform triangular betavariate expovariate gammavariate"
    " gauss lognormvariate normalvariate vonmisesvariate paretovariate weibullvariate binomialvariate getrandbits"
    " randbytes getstate setstate"
)

SUBSTITUTES: Final[Mapping[str, Substitute]] = {
    **{f"time.{name}": _seconds_call for name in _CLOCKS},
    **{f"time.{name}_ns": _nanoseconds_call for name in _CLOCKS},
    "time.localtime": _struct,
    "time.gmtime": _struct,
    "time.ctime": _text,
    "time.asctime": _text,
    "time.strftime": _formatted,
    "datetime.datetime.now": _now,
    "datetime.datetime.utcnow": _naive,
    "datetime.datetime.today": _naive,
    "datetime.date.today": _today,
    **{f"random.{name}": _drawn(name) for name in _DRAWS.split()},
    "random.Random": _generator,
    "random.seed": _seed,
    "uuid.uuid1": _uuid(1),
    "uuid.uuid4": _uuid(4),
    "uuid.uuid6": _uuid(6),
    "uuid.uuid7": _uuid(7),
    "uuid.getnode": _node,
}
"""By the name of the call in the catalogue. Secrets and `os.urandom` are not replaced on purpose."""
