"""What becomes of each public name of asyncio inside a workflow; and the page of the documentation that says so.

``python packages/aio-core/tests/support/asyncio_names.py`` writes the page; a test compares it with what this gives.
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
    """May be used; ``note`` says what is special about it, ``since`` which Python brought it."""

    note: str = ""
    since: str = ""


class Refused(NamedTuple):
    """Raises at the call; ``instead`` is what to do."""

    instead: str
    raises: str = "`UnsupportedInWorkflowError`"


class Outside(NamedTuple):
    """Has nothing to do with running code in a loop: types, protocols, policies."""


ACTIVITY = "an activity"
EVENT = "an external event, sent with a client"
AWAIT = "`await` the coroutine"
RUNTIME = "`RuntimeError`"

NAMES: dict[str, Works | Refused | Outside] = {
    # Time
    "sleep": Works("a durable timer; `sleep(0)` gives way and sets none"),
    "wait_for": Works("[changed in 3.12](../asyncio.md#between-pythons); `ctx.with_timeout` is the same on all"),
    "timeout": Works("a durable timer, taken back when it is not needed", "3.11"),
    "timeout_at": Works("on the loop's clock, which starts at 0 with the execution", "3.11"),
    "Timeout": Works("with `reschedule`", "3.11"),
    # Tasks
    "create_task": Works("takes operations too; names are numbered per instance"),
    "ensure_future": Works(),
    "current_task": Works("a real `Task`; the first one is named after the workflow"),
    "all_tasks": Works("of this instance, in the same order on replay"),
    "Task": Works("make them with `create_task`"),
    "TaskGroup": Works("takes operations too; aborts in the same order on replay", "3.11"),
    "gather": Works("[changed in 3.12](../asyncio.md#between-pythons); `ctx.gather` is the same, and faster"),
    "wait": Works("over operations and tasks; not over `asyncio.gather(...)`: use `ctx.gather(...)`"),
    "as_completed": Works("over operations and tasks; not over bare coroutines: use `create_task(...)`"),
    "shield": Works(),
    "Future": Works("make them with `loop.create_future()`"),
    "isfuture": Works("true for operations"),
    "iscoroutine": Works(),
    "iscoroutinefunction": Works(),
    "get_running_loop": Works("the instance's own loop"),
    "get_event_loop": Works("the same"),
    "CancelledError": Works("with counts of `uncancel` as ever"),
    "InvalidStateError": Works(),
    "TimeoutError": Works(),
    "FIRST_COMPLETED": Works(),
    "FIRST_EXCEPTION": Works(),
    "ALL_COMPLETED": Works(),
    "Handle": Works("what `loop.call_soon` returns"),
    "TimerHandle": Works("what `loop.call_later` and `loop.call_at` return: a durable timer"),
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
    "Condition": Works("with [traps](../asyncio.md#queues-events-locks)"),
    "Barrier": Works("", "3.11"),
    "BrokenBarrierError": Works("", "3.11"),
    # Refused
    "to_thread": Refused(ACTIVITY),
    "wrap_future": Refused(ACTIVITY),
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
"""The methods of a loop that a workflow may call; every other public method of the abstract class is refused."""


def page() -> str:
    """The Markdown of the reference page."""
    works = [(f"`{name}`", v.since, v.note) for name, v in NAMES.items() if isinstance(v, Works)]
    refused = [(f"`{name}`", v.raises, v.instead) for name, v in NAMES.items() if isinstance(v, Refused)]
    return f"""\
# asyncio, name by name

<!-- Written by packages/aio-core/tests/support/asyncio_names.py, and compared with it by a test. -->

What becomes of the public names of `asyncio` inside a workflow. [asyncio in workflows](../asyncio.md) is the guide.

## What works

Each has a test that runs it in a workflow and replays that from its history. CPython's own tests of locks, queues,
timeouts, task groups, `wait_for`, `gather`, `wait` and `shield` pass inside a workflow as well.

{table(("`asyncio.…`", "Since Python", "In a workflow"), works)}

Asynchronous generators and context managers, `contextlib.aclosing` and `AsyncExitStack`, and `contextvars` work too.
An asynchronous generator that is abandoned half-way does not run its `finally`: close it where it is used, with
`aclosing`.

## What is refused

Each raises at the call, and says what to do instead.

{table(("`asyncio.…`", "Raises", "Use instead"), refused)}

## The loop

These methods of `asyncio.get_running_loop()` work: {", ".join(f"`{name}`" for name in LOOP_WORKS)}.

These are refused with advice of their own; all that are left concern sockets, pipes and servers, and belong in an
activity.

{table(("`loop.…`", "Do this instead"), ((f"`{name}()`", advice) for name, advice in ADVICE.items()))}

## anyio

Task groups, cancel scopes (`move_on_after`, `fail_after`, shielded ones), events, locks, limiters and memory streams of
[anyio](https://anyio.readthedocs.io/) work: they are made of the above. Its threads (`anyio.to_thread`,
`anyio.open_file`), processes and sockets are refused as those of asyncio are: use an activity.
"""


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def refused_by_loop() -> set[str]:
    """The public methods of this Python's abstract loop that a workflow's refuses, as they say themselves."""
    return {
        name
        for name in dir(asyncio.AbstractEventLoop)
        if (getattr(WorkflowLoop, name).__doc__ or "").startswith("Refused: ")
    }


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
