"""Through the test environment: locks held while a workflow waits, and activities that are called directly."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from durabletask.aio import AsyncWorkflowContext, NonDeterminismWarning, SandboxViolationError
from durabletask.aio.sandbox import allow
from durabletask.aio.testing import WorkflowEnvironment
from durabletask.client import OrchestrationFailedError
from durabletask.task import ActivityContext

LOCK, RLOCK = threading.Lock(), threading.RLock()
CONDITION, SEMAPHORE = threading.Condition(), threading.Semaphore()


class Guarded:
    def __init__(self) -> None:
        self.lock = threading.Lock()


GUARDED = Guarded()


@contextlib.contextmanager
def locked() -> Iterator[None]:
    with LOCK:
        yield


def reported(function: Any, mode: str) -> tuple[str, list[str]]:
    """Why the workflow is refused or fails (empty if it completes), and the warnings."""

    async def run() -> str:
        async with WorkflowEnvironment(
            orchestrators=[function], activities=[charge, charge_async], sandbox_mode=mode
        ) as env:
            handle = await env.start(function)
            try:
                await handle.result()
            except OrchestrationFailedError as error:
                return str(error)
        return ""

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            failure = asyncio.run(run())
        except SandboxViolationError as error:
            failure = str(error)
    return failure, [str(each.message) for each in caught if each.category is NonDeterminismWarning]


def line_of(function: Any, text: str) -> str:
    """`file:line` of the line of `function` that contains `text`."""
    lines, first = inspect.getsourcelines(function)
    (offset,) = [number for number, line in enumerate(lines) if text in line]
    return f"{inspect.getsourcefile(function)}:{first + offset}"


# -- locks ------------------------------------------------------------------------------------------------------------


async def holds_lock(ctx: AsyncWorkflowContext) -> None:
    with LOCK:
        await ctx.sleep(1)


async def holds_rlock(ctx: AsyncWorkflowContext) -> None:
    with contextlib.suppress(KeyError), RLOCK:
        await ctx.sleep(1)


async def holds_condition(ctx: AsyncWorkflowContext) -> None:
    with CONDITION:
        await asyncio.gather(ctx.sleep(1), ctx.sleep(2))


async def holds_semaphore(ctx: AsyncWorkflowContext) -> None:
    with SEMAPHORE:
        await ctx.sleep(1)


async def holds_attribute(ctx: AsyncWorkflowContext) -> None:
    async def inner() -> None:
        with GUARDED.lock:
            await ctx.sleep(1)

    await asyncio.gather(inner(), ctx.sleep(2))


async def holds_through_context_manager(ctx: AsyncWorkflowContext) -> None:
    with locked():
        await ctx.sleep(1)


async def holds_on_exit_stack(ctx: AsyncWorkflowContext) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(LOCK)
        await ctx.sleep(1)


HOLDING = [
    (holds_lock, "threading.Lock", "with LOCK"),
    (holds_rlock, "threading.RLock", "RLOCK:"),
    (holds_condition, "threading.Condition", "with CONDITION"),
    (holds_attribute, "threading.Lock", "with GUARDED"),
    (holds_through_context_manager, "threading.Lock", "with locked"),
    (holds_on_exit_stack, "threading.Lock", "with contextlib"),
]


@pytest.mark.parametrize(("function", "kind", "text"), HOLDING)
def test_a_lock_held_over_an_await_warns_in_best_effort_and_fails_in_strict(
    function: Any, kind: str, text: str
) -> None:
    place = line_of(function, text)

    completed, (warning,) = reported(function, "best_effort")
    failure, _ = reported(function, "strict")

    assert completed == ""
    for message in (warning, failure):
        assert f"A `{kind}` is held while the workflow waits at line " in message
        assert f"\n  at {place} in " in message
        assert "Use `asyncio.Lock` within an instance, `ctx.lock_entities` between instances" in message
    assert reported(function, "off") == ("", [])
    # The instance that failed has left its blocks.
    assert not LOCK.locked()
    assert not GUARDED.lock.locked()


def test_a_semaphore_held_over_an_await_is_found_too() -> None:
    assert "A `threading.Semaphore` is held while" in reported(holds_semaphore, "best_effort")[1][-1]
    # Before Python 3.12, at the call of its `acquire` method by the block.
    assert "`threading.Semaphore" in reported(holds_semaphore, "strict")[0]


async def acquires(ctx: AsyncWorkflowContext) -> None:
    CONDITION.acquire()
    try:
        await ctx.sleep(1)
    finally:
        CONDITION.release()


async def acquires_indirectly(ctx: AsyncWorkflowContext) -> None:
    take = getattr(GUARDED, "lock").acquire  # noqa: B009 - which no analysis follows
    take()
    try:
        await ctx.sleep(1)
    finally:
        GUARDED.lock.release()


def test_a_call_of_acquire_is_found_whatever_the_lock_is() -> None:
    failure, _ = reported(acquires_indirectly, "strict")
    assert "`threading.Lock.acquire()` is not deterministic" in failure
    _, (warning, *_) = reported(acquires, "best_effort")
    assert "`threading.RLock.acquire()` is not deterministic" in warning


async def releases_before_it_waits(ctx: AsyncWorkflowContext) -> None:
    with LOCK:
        len("the lock protects this")
    with contextlib.suppress(KeyError):
        await ctx.sleep(1)


@allow("DET804", reason="the lock is this instance's own")
async def allowed(ctx: AsyncWorkflowContext) -> None:
    lock = threading.Lock()
    with lock:
        await ctx.sleep(1)


async def allowed_on_its_line(ctx: AsyncWorkflowContext) -> None:
    with LOCK:  # determinism: allow[DET804] there is one instance
        await ctx.sleep(1)


@pytest.mark.parametrize("function", [releases_before_it_waits, allowed, allowed_on_its_line])
def test_other_blocks_and_what_is_allowed_are_no_findings(function: Any) -> None:
    assert reported(function, "strict")[0] == ""
    assert not [each for each in reported(function, "best_effort")[1] if "is held" in each]


# -- activities that are called ---------------------------------------------------------------------------------------


def charge(ctx: ActivityContext, amount: int) -> str:
    return "receipt"


async def charge_async(ctx: ActivityContext, amount: int) -> str:
    return "receipt"


class Shop:
    charge = staticmethod(charge)


async def calls(ctx: AsyncWorkflowContext) -> str:
    return charge(ctx, 1)  # type: ignore[arg-type]


async def awaits(ctx: AsyncWorkflowContext) -> str:
    return await charge_async(ctx, 1)  # type: ignore[arg-type]


async def calls_attribute(ctx: AsyncWorkflowContext) -> str:
    return Shop.charge(ctx, 1)  # type: ignore[arg-type]


async def calls_in_call(ctx: AsyncWorkflowContext) -> object:
    with contextlib.suppress(Exception):
        return await ctx.call_activity(charge(ctx, 1))  # type: ignore[arg-type]
    return None


@pytest.mark.parametrize("function", [calls, awaits, calls_attribute, calls_in_call])
def test_an_activity_called_directly_warns_in_best_effort_and_fails_in_strict(function: Any) -> None:
    name = "charge_async" if function is awaits else "charge"

    completed, warned = reported(function, "best_effort")
    failure, _ = reported(function, "strict")

    assert completed == ""
    for message in (warned[-1], failure):
        assert f"`{name}` is an activity and is called directly, so it runs as a part of the workflow" in message
        assert f"\n  at {line_of(function, '(ctx, 1)')} in {function.__name__}()\n" in message
        assert f"\n  Use `await ctx.call_activity({name}, input=...)`." in message
    assert reported(function, "off") == ("", [])


async def calls_on_purpose(ctx: AsyncWorkflowContext) -> str:
    first = charge(ctx, 1)  # type: ignore[arg-type]  # determinism: allow[DET814] it is pure
    with allow("direct-activity"):
        return first + charge(ctx, 1)  # type: ignore[arg-type]


def test_a_direct_call_can_be_allowed() -> None:
    assert reported(calls_on_purpose, "strict") == ("", [])
    assert reported(calls_on_purpose, "best_effort") == ("", [])


async def calls_as_it_should(ctx: AsyncWorkflowContext) -> str:
    first = await ctx.call_activity(charge, input=1)
    return first + await ctx.call_activity(charge_async, input=1)


def test_an_activity_that_is_passed_is_itself() -> None:
    assert reported(calls_as_it_should, "strict") == ("", [])
    assert reported(calls_as_it_should, "best_effort") == ("", [])
    assert charge(None, 1) == "receipt"  # outside of workflows
