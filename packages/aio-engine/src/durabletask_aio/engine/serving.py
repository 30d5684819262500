"""What the commands that run an engine share: the page, and running until a signal."""

from __future__ import annotations

import importlib
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from durabletask_aio.engine.embedded import Engine, page_needs

if TYPE_CHECKING:
    from durabletask_aio.engine.web.waiting import DescribeWaiting

DEFAULT_PORT = 4001
"""Where upstream's workers and clients look if they are told nothing."""

DEFAULT_UI_PORT = 4002


class Page(Protocol):
    """The server of the page, whose libraries may not be installed."""

    url: str

    def start(self) -> object:
        """Listen."""
        ...

    def stop(self) -> None:
        """Stop listening."""
        ...


def make_page(
    engine: Engine, port: int, *, address: str, describe_waiting: DescribeWaiting | None = None, **options: Any
) -> Page:
    """Make the server of an engine's page, which does not listen yet.

    Args:
        engine: an engine that runs.
        port: where to listen; 0 takes a free port.
        address: where workers and clients connect to the engine.
        describe_waiting: finds out what an instance awaits.
        **options: see `web.server.PageServer`.

    Returns:
        The server.

    Raises:
        ImportError: if the extra `ui` is not installed; the message says what to install.
    """
    try:
        module = importlib.import_module("durabletask_aio.engine.web.server")
    except ModuleNotFoundError as error:
        raise ImportError(page_needs(error)) from error
    page: Page = module.PageServer(
        engine.channel, port=port, address=address, describe_waiting=describe_waiting, **options
    )
    return page


@contextmanager
def until_signal() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C and SIGTERM set."""
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def wait_for(stopped: threading.Event) -> None:
    """Wait until the event is set."""
    # With a timeout, since on Windows a wait without one cannot be interrupted.
    while not stopped.wait(1.0):
        pass
