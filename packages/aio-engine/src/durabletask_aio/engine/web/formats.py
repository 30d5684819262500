"""Values as text: statuses, times, durations, sizes."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from markupsafe import Markup

from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.failure_texts import cancellation_text, is_cancelled


class Status(Enum):
    """The status of an instance, in the order in which the page lists them."""

    RUNNING = pb.ORCHESTRATION_STATUS_RUNNING
    PENDING = pb.ORCHESTRATION_STATUS_PENDING
    SUSPENDED = pb.ORCHESTRATION_STATUS_SUSPENDED
    FAILED = pb.ORCHESTRATION_STATUS_FAILED
    COMPLETED = pb.ORCHESTRATION_STATUS_COMPLETED
    TERMINATED = pb.ORCHESTRATION_STATUS_TERMINATED
    CANCELED = pb.ORCHESTRATION_STATUS_CANCELED
    CONTINUED_AS_NEW = pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW

    @property
    def key(self) -> str:
        """Its name in addresses and style sheets."""
        return self.name.lower().replace("_", "-")

    @property
    def label(self) -> str:
        """Its name for users."""
        return self.name.capitalize().replace("_", " ")

    @property
    def has_ended(self) -> bool:
        """Whether an instance stays as it is."""
        return self in (Status.FAILED, Status.COMPLETED, Status.TERMINATED, Status.CANCELED)


LISTED = tuple(Status)[:6]
"""Those that instances of this engine have."""

BY_KEY = {status.key: status for status in Status}

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))
_SIZES = ("bytes", "KiB", "MiB", "GiB", "TiB")


def status_of(number: int) -> Status:
    """Return the status with a number of upstream's `OrchestrationStatus`."""
    return Status(number)


def to_datetime(when: Timestamp) -> datetime:
    """Return a time as an aware datetime."""
    return when.ToDatetime(timezone.utc)


def iso(when: Timestamp | datetime) -> str:
    """Return a time for programs."""
    moment = to_datetime(when) if isinstance(when, Timestamp) else when
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def when(time: Timestamp | datetime, style: str = "") -> Markup:
    """Return a time as HTML; the page's script shows it in the time zone of the browser.

    Args:
        time: the time.
        style: `ago` for the time that has passed since, `left` for the time until then, or nothing.

    Returns:
        An element with the time in UTC.
    """
    text = iso(time)
    shown = f"{text[:10]} {text[11:19]}"
    return Markup('<time datetime="{}" data-style="{}" title="{} UTC">{}</time>').format(text, style, shown, shown)


def span(start: Timestamp, end: Timestamp) -> str:
    """Return the duration from one time to another."""
    return duration(to_datetime(end) - to_datetime(start))


def duration(length: timedelta) -> str:
    """Return a duration with about three digits, such as `12 ms`, `3.42 s` or `2 h 5 min`."""
    seconds = max(length.total_seconds(), 0.0)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    parts: list[str] = []
    rest = round(seconds)
    for name, size in _UNITS:
        number, rest = divmod(rest, size)
        if number or parts:
            parts.append(f"{number} {name}")
    parts.append(f"{rest} s")
    return " ".join(parts[:2])


def size(number: int) -> str:
    """Return a number of bytes, such as `512 bytes` or `3.1 MiB`."""
    value = float(number)
    for unit in _SIZES[:-1]:
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} {_SIZES[-1]}"


def count(number: int) -> str:
    """Return a number with a space between thousands that does not break the line."""
    return f"{number:,}".replace(",", "\u202f")


def plural(number: int, noun: str) -> str:
    """Return a number with its noun, such as `1 event` or `1 200 events`."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def short_failure(text: str) -> str:
    """Return a failure, written as type and message, with the type without its module."""
    kind, separator, message = text.partition(": ")
    return f"{kind.rpartition('.')[2]}{separator}{message}"


FILTERS: dict[str, Any] = {
    "cancellation_text": cancellation_text,
    "count": count,
    "is_cancellation": is_cancelled,
    "iso": iso,
    "plural": plural,
    "short_failure": short_failure,
    "size": size,
    "when": when,
}
FUNCTIONS: dict[str, Any] = {"duration": duration, "span": span}
"""What templates use."""
