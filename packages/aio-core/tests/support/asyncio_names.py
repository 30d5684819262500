"""The status of each public name of asyncio inside a workflow, and the reference page that documents it.

`python packages/aio-core/tests/support/asyncio_names.py` writes the page; a test compares it with the output.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from durabletask_aio.core.loop import WorkflowLoop
from durabletask_aio.core.refusals import ADVICE

PAGE = Path(__file__).resolve().parents[4] / "docs" / "reference" / "asyncio.md"


class Works(NamedTuple):
    """Supported; `note` describes special behaviour, `since` is the Python version that added it."""

    note: str = ""
    since: str = ""


class Refused(NamedTuple):
    """Raises when it is called; `instead` names the alternative."""

    instead: str
    raises: str = "`UnsupportedInWorkflowError`"


class Outside(NamedTuple):
    """Not related to running code in a loop: types, protocols, policies."""


ACTIVITY = "an activity"
EVENT = "an external event, sent with a client"
AWAIT = "`await` the coroutine"
RUNTIME = "`RuntimeError`"

NAMES: dict[str, Works | Refused | Outside] = {
    # Time
    "sleep": Works("a durable timer; `sleep(0)` only yields and creates no timer"),
    "wait_for": Works(
        "[changed in 3.12](../asyncio.md#between-python-versions); `ctx.with_timeout` is the same on all versions"
    ),
    "timeout": Works("a durable timer, cancelled when it is not needed", "3.11"),
    "timeout_at": Works("uses the loop's clock, which starts at 0 with the execution", "3.11"),
    "Timeout": Works("including `reschedule`", "3.11"),
    # Tasks
    "create_task": Works("also accepts operations; default names are numbered per instance"),
    "ensure_future": Works(),
    "current_task": Works("a real `Task`; the first task is named after the workflow"),
    "all_tasks": Works(
        "the tasks of this instance, as a set: iterate over `sorted(asyncio.all_tasks(), key=asyncio.Task.get_name)`"
    ),
    "Task": Works("create tasks with `create_task`"),
    "TaskGroup": Works("also accepts operations; cancels its tasks in the same order on replay", "3.11"),
    "gather": Works("[changed in 3.12](../asyncio.md#between-python-versions); `ctx.gather` is the same, and faster"),
    "wait": Works("accepts operations and tasks; not the result of `asyncio.gather(...)`: use `ctx.gather(...)`"),
    "as_completed": Works("accepts operations and tasks; not bare coroutines: use `create_task(...)`"),
    "shield": Works(),
    "Future": Works("create futures with `loop.create_future()`"),
    "isfuture": Works("true for operations"),
    "iscoroutine": Works(),
    "iscoroutinefunction": Works(),
    "get_running_loop": Works("the instance's own loop"),
    "get_event_loop": Works("the same"),
    "CancelledError": Works("including the counts of `uncancel`"),
    "InvalidStateError": Works(),
    "TimeoutError": Works(),
    "FIRST_COMPLETED": Works(),
    "FIRST_EXCEPTION": Works(),
    "ALL_COMPLETED": Works(),
    "Handle": Works("returned by `loop.call_soon`"),
    "TimerHandle": Works("returned by `loop.call_later` and `loop.call_at`: a durable timer"),
    # Synchronisation
    "Queue": Works(),
    "LifoQueue": Works(),
    "PriorityQueue": Works(),
    "QueueEmpty": Works(),
    "QueueFull": Works(),
    "QueueShutDown": Works("", "3.13"),
    "Event": Works(),
    "Lock": Works(),
    "Semaphore": Works(),
    "BoundedSemaphore": Works(),
    "Condition": Works("with [caveats](../asyncio.md#queues-events-locks)"),
    "Barrier": Works("", "3.11"),
    "BrokenBarrierError": Works("", "3.11"),
    # Refused
    "to_thread": Refused(ACTIVITY),
    "wrap_future": Refused(ACTIVITY, "`DeadlockError`, at its `await`"),
    "run_coroutine_threadsafe": Refused(EVENT),
    "run": Refused(AWAIT, RUNTIME),
    "Runner": Refused(AWAIT, RUNTIME),
    "open_connection": Refused(ACTIVITY),
    "open_unix_connection": Refused(ACTIVITY),
    "start_server": Refused(ACTIVITY),
    "start_unix_server": Refused(ACTIVITY),
    "create_subprocess_exec": Refused(ACTIVITY),
    "create_subprocess_shell": Refused(ACTIVITY),
    "eager_task_factory": Refused("`loop.create_task(..., eager_start=True)`"),
    "create_eager_task_factory": Refused("`loop.create_task(..., eager_start=True)`"),
}

_OUTSIDE = """
AbstractChildWatcher AbstractEventLoop AbstractEventLoopPolicy AbstractServer BaseEventLoop BaseProtocol BaseTransport
BufferedProtocol DatagramProtocol DatagramTransport DefaultEventLoopPolicy EventLoop FastChildWatcher
FrameCallGraphEntry FutureCallGraph IncompleteReadError LimitOverrunError MultiLoopChildWatcher PidfdChildWatcher
Protocol ReadTransport SafeChildWatcher SelectorEventLoop SendfileNotAvailableError Server StreamReader
StreamReaderProtocol StreamWriter SubprocessProtocol SubprocessTransport ThreadedChildWatcher Transport WriteTransport
capture_call_graph coroutine format_call_graph future_add_to_awaited_by future_discard_from_awaited_by
get_child_watcher get_event_loop_policy new_event_loop print_call_graph set_child_watcher set_event_loop
set_event_loop_policy
"""
NAMES |= {name: Outside() for name in _OUTSIDE.split()}

LOOP_WORKS = (
    "call_soon",
    "call_later",
    "call_at",
    "time",
    "create_future",
    "create_task",
    "get_debug",
    "set_debug",
    "is_running",
    "is_closed",
    "get_task_factory",
    "set_exception_handler",
    "get_exception_handler",
    "call_exception_handler",
    "default_exception_handler",
)
"""The loop methods that a workflow may call. All other public methods of the abstract class are refused."""


def page() -> str:
    """The Markdown of the reference page."""
    works = [(f"`{name}`", v.since, v.note) for name, v in NAMES.items() if isinstance(v, Works)]
    refused = [(f"`{name}`", v.raises, v.instead) for name, v in NAMES.items() if isinstance(v, Refused)]
    return f"""\
# asyncio API status

<!-- Written by packages/aio-core/tests/support/asyncio_names.py, and compared with it by a test. -->

The status of each public name of `asyncio` inside a workflow: supported, or refused with an alternative. For an
introduction, see [asyncio in workflows](../asyncio.md).

## Supported

Each name has a test that runs it in a workflow and replays the workflow from its history. CPython's own tests of locks,
queues, timeouts, task groups, `wait_for`, `gather`, `wait` and `shield` also pass inside a workflow.

{table(("`asyncio.…`", "Since Python", "In a workflow"), works)}

Asynchronous generators and context managers, `contextlib.aclosing`, `AsyncExitStack` and `contextvars` also work. An
asynchronous generator that is abandoned before its end does not run its `finally` blocks: close it explicitly with
`aclosing`.

## Refused

Each of these raises when it is called, and the message names the alternative.

{table(("`asyncio.…`", "Raises", "Use instead"), refused)}

## The event loop

These methods of `asyncio.get_running_loop()` are supported: {", ".join(f"`{name}`" for name in LOOP_WORKS)}.

These methods are refused with specific advice. All remaining methods concern sockets, pipes and servers; use an
activity instead.

{table(("`loop.…`", "Alternative"), ((f"`{name}()`", advice) for name, advice in ADVICE.items()))}

## anyio

Task groups, cancel scopes (`move_on_after`, `fail_after`, shielded scopes), events, locks, limiters and memory streams
of [anyio](https://anyio.readthedocs.io/) are supported, because they are built on the APIs above. Its threads
(`anyio.to_thread`, `anyio.open_file`), processes and sockets are refused like those of asyncio: use an activity.
"""


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def refused_by_loop() -> set[str]:
    """The public methods of this Python's abstract loop that a workflow's loop refuses."""
    return {
        name
        for name in dir(asyncio.AbstractEventLoop)
        if (getattr(WorkflowLoop, name).__doc__ or "").startswith("Refused: ")
    }


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
