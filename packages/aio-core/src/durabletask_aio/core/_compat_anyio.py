"""What anyio does inside a workflow that the event loop has to recognise by its caller.

anyio works in workflows except for two places: it delivers a cancellation to scopes in the order of memory addresses,
and it starts threads without a method of the loop that could refuse.  Both are recognised by names inside of anyio;
`self_check` compares them with the anyio that is installed, and `tests/asyncio_surface/test_anyio.py` calls it.
"""

from __future__ import annotations

import importlib
from types import FrameType
from typing import Any

_DELIVERY = "_deliver_cancellation"
_CLOCK = "current_time"
_THREAD = "WorkerThread"


def delivers_in_address_order(frame: FrameType) -> bool:
    """Whether `frame` cancels tasks in the order of the addresses of some objects.

    anyio keeps the scopes that are nested in a scope in a set, and delivers a cancellation to each of them; each task
    of its groups has a scope of its own.
    """
    return frame.f_code.co_name == _DELIVERY and _is_anyio(frame.f_globals.get("__name__", ""))


def is_delivery(callback: Any) -> bool:
    """Whether `callback` delivers a cancellation, and will schedule itself again."""
    return getattr(callback, "__name__", None) == _DELIVERY and _is_anyio(getattr(callback, "__module__", None) or "")


def starts_thread(frame: FrameType | None) -> bool:
    """Whether `frame` asks for the time because anyio is making a thread to run something in."""
    if frame is None or frame.f_code.co_name != _CLOCK or frame.f_back is None:
        return False
    maker = frame.f_back.f_locals.get("self")
    return type(maker).__name__ == _THREAD and _is_anyio(type(maker).__module__)


def is_scope_message(message: object) -> bool:
    """Whether a cancellation with this message comes from a scope; the message has memory addresses in it."""
    return isinstance(message, str) and message.startswith(_SCOPE_MESSAGES)


_SCOPE_MESSAGES = ("Cancelled by cancel scope ", "Cancelled via cancel scope ")


def _is_anyio(module: str) -> bool:
    return module.startswith("anyio.")


def self_check() -> str | None:
    """Compare the anyio that is installed with the names above.

    Returns:
        `None` if it fits or there is none, or the sentence that says what has changed.
    """
    try:
        found: dict[str, Any] = vars(importlib.import_module("anyio._backends._asyncio"))
    except ImportError:
        return None
    present = {
        f"CancelScope.{_DELIVERY}": _DELIVERY in vars(found.get("CancelScope", object)),
        _THREAD: _THREAD in found,
        # In its own namespace: the abstract class that it implements has a method of this name too.
        f"AsyncIOBackend.{_CLOCK}": _CLOCK in vars(found.get("AsyncIOBackend", object)),
    }
    gone = [name for name, is_present in present.items() if not is_present]
    if not gone:
        return None
    return (
        f"anyio has changed under durabletask-aio-core: {', '.join(gone)} of anyio._backends._asyncio is gone, so that "
        "cancel scopes and anyio.to_thread in workflows are not recognised; see durabletask_aio/core/_compat_anyio.py"
    )
