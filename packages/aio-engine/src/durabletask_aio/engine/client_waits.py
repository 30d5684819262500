"""Clients that wait until an instance has started or ended."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import cast

import grpc

from durabletask_aio.engine import transitions
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.calls import AbortError
from durabletask_aio.engine.descriptions import instance_state
from durabletask_aio.engine.kernel import EngineStoppedError, Kernel
from durabletask_aio.engine.state import Instance
from durabletask_aio.engine.transitions import TERMINAL

Condition = Callable[[Instance], bool]


def has_started(instance: Instance) -> bool:
    """Return whether a worker has taken an instance."""
    return instance.status != transitions.PENDING


def has_ended(instance: Instance) -> bool:
    """Return whether an instance has ended."""
    return instance.status in TERMINAL


class ClientWaits:
    """Waits of clients; one for an instance that is not there, or is purged, ends at once.  Thread-safe."""

    def __init__(self, kernel: Kernel) -> None:
        """Watch the instances of a kernel.

        Args:
            kernel: the engine.
        """
        self._kernel = kernel

    def wait(
        self, reached: Condition, request: pb.GetInstanceRequest, context: grpc.ServicerContext
    ) -> pb.GetInstanceResponse:
        """Wait in the thread of a call.

        Args:
            reached: what the client waits for.
            request: names the instance.
            context: of the call, which ends with an error at its deadline.

        Returns:
            The instance, or that there is none any more.
        """
        answer = self.future(reached, request)
        woken = threading.Event()
        answer.add_done_callback(lambda _: woken.set())
        if not context.add_callback(woken.set):
            woken.set()  # the client has gone already
        remaining = cast("float | None", context.time_remaining())  # for the stubs it is always a number
        # Clients of other languages state a deadline in the far future if they mean none.
        woken.wait(None if remaining is None else min(remaining, threading.TIMEOUT_MAX))
        if answer.done():
            return answer.result()
        answer.cancel()
        context.abort(
            grpc.StatusCode.DEADLINE_EXCEEDED if context.is_active() else grpc.StatusCode.CANCELLED,
            f"Orchestration instance '{request.instanceId}' has not got there in time",
        )
        raise AssertionError("abort() raises")

    def future(self, reached: Condition, request: pb.GetInstanceRequest) -> Future[pb.GetInstanceResponse]:
        """Wait without a thread.

        Args:
            reached: what the client waits for.
            request: names the instance.

        Returns:
            The same as `wait`; cancelling it ends the wait.
        """
        answer: Future[pb.GetInstanceResponse] = Future()

        def watch(instance: Instance | None) -> bool:
            # Called under the kernel's lock, with what has just been committed.
            if instance is not None and not reached(instance):
                return answer.cancelled()
            if answer.set_running_or_notify_cancel():
                if self._kernel.is_stopped:
                    answer.set_exception(AbortError(grpc.StatusCode.UNAVAILABLE, "the engine has been stopped"))
                elif instance is None:
                    answer.set_result(pb.GetInstanceResponse(exists=False))
                else:
                    state = instance_state(self._kernel.store, instance, request.getInputsAndOutputs)
                    answer.set_result(pb.GetInstanceResponse(exists=True, orchestrationState=state))
            return True

        try:
            forget = self._kernel.watch(request.instanceId, watch)
        except EngineStoppedError as error:
            raise AbortError(grpc.StatusCode.UNAVAILABLE, str(error)) from error
        answer.add_done_callback(lambda future: forget() if future.cancelled() else None)
        return answer
