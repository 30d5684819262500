"""The thread pool of the server."""

from __future__ import annotations

import threading
import time

import pytest

from durabletask_aio.engine.threads import DaemonThreads


def test_results_and_errors_come_back():
    threads = DaemonThreads("test")
    assert threads.submit(pow, 2, 5).result(30) == 32
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 / 0).result(30)
    threads.shutdown()


def test_there_is_always_a_thread_for_another_task():
    threads, gate = DaemonThreads("test"), threading.Event()
    blocked = [threads.submit(gate.wait) for _ in range(50)]
    assert threads.submit(lambda: "served").result(30) == "served"
    gate.set()
    assert all(each.result(30) for each in blocked)
    threads.shutdown()


def test_idle_threads_are_reused():
    threads = DaemonThreads("test-reuse")
    end = time.monotonic() + 30
    for _ in range(50):
        threads.submit(lambda: None).result(30)
        while not threads._idle:  # A thread is idle a moment after its task has its result.
            assert time.monotonic() < end
            time.sleep(0.001)
    assert sum(each.name == "test-reuse" for each in threading.enumerate()) == 1
    threads.shutdown()


def test_after_shutdown_no_thread_is_left_and_none_is_started():
    threads = DaemonThreads("test-end")
    threads.submit(lambda: None).result(30)
    threads.shutdown()
    assert not [each for each in threading.enumerate() if each.name == "test-end"]
    with pytest.raises(RuntimeError, match="the engine has been stopped"):
        threads.submit(print)
