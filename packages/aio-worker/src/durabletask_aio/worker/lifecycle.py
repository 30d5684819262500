"""Running a worker from a coroutine: stopping it without blocking the event loop, and waiting for signals."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durabletask_aio.worker.binding import Binding

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def stop_from_loop(binding: Binding, stop: Callable[[], None]) -> None:
    """Stop the worker in a thread, while this loop continues to run async activities during their grace period.

    A cancellation ends the grace period, but not the stop, which must be complete; it is raised afterwards.
    """
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[None] = loop.create_future()

    def run() -> None:
        try:
            stop()
        except BaseException as error:
            _settle(loop, stopped, error)
        else:
            _settle(loop, stopped, None)

    # A new thread, because the loop's default executor may be full of the user's work.
    thread = threading.Thread(target=run, name="durabletask-aio-stop")
    thread.start()
    cancelled: asyncio.CancelledError | None = None
    while not stopped.done():
        try:
            await asyncio.shield(stopped)
        except asyncio.CancelledError as error:  # noqa: PERF203 - the loop waits, so its speed does not matter
            if stopped.done():
                break
            cancelled = error
            binding.cancel_now()
        except Exception:
            break
    thread.join()
    stopped.result()
    if cancelled is not None:
        raise cancelled


def _settle(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None], error: BaseException | None) -> None:
    def settle() -> None:
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    loop.call_soon_threadsafe(settle)


@contextlib.contextmanager
def stop_signals(hurry: Callable[[], None], *, handle_signals: bool) -> Iterator[asyncio.Future[str]]:
    """Handle SIGINT and SIGTERM in the main thread, if `handle_signals`.

    Args:
        hurry: Called at the second signal.  Later ones are handled by the previous handlers.
        handle_signals: Whether to handle signals.

    Yields:
        A future of the name of the first signal.
    """
    loop = asyncio.get_running_loop()
    received: asyncio.Future[str] = loop.create_future()
    with contextlib.ExitStack() as handlers:

        def on_signal(number: int) -> None:
            if not received.done():
                received.set_result(signal.Signals(number).name)
                return
            handlers.close()
            hurry()

        if handle_signals:
            handlers.enter_context(_handlers(loop, on_signal))
        yield received


async def wait_for_signal(received: asyncio.Future[str], refusal: Future[None]) -> str:
    """Wait until cancelled, or for a signal.

    Args:
        received: The future of `stop_signals`.
        refusal: Gets an exception, which is raised, if the worker cannot work with its engine.

    Returns:
        The name of the signal.
    """
    loop = asyncio.get_running_loop()

    def on_refusal(refused: Future[None]) -> None:
        error = refused.exception()
        if error is not None and not received.done():
            received.set_exception(error)

    refusal.add_done_callback(lambda refused: loop.call_soon_threadsafe(on_refusal, refused))
    return await received


@contextlib.contextmanager
def _handlers(loop: asyncio.AbstractEventLoop, on_signal: Callable[[int], None]) -> Iterator[None]:
    """Handle the stop signals on `loop`, and restore the previous handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread can set signal handlers; in another thread, the worker is stopped by cancelling.
        return
    previous: dict[int, Any] = {}
    try:
        for number in STOP_SIGNALS:
            before = signal.getsignal(number)
            try:
                loop.add_signal_handler(number, on_signal, number)
            except (NotImplementedError, RuntimeError):  # Windows: Ctrl-C raises KeyboardInterrupt or cancels.
                break
            previous[number] = before
        yield
    finally:
        for handled, handler in previous.items():
            loop.remove_signal_handler(handled)
            if handler is not None:
                signal.signal(handled, handler)
