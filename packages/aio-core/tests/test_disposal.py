"""Ending well: nothing is left to the garbage collector, nothing complains, and nothing runs as if live."""

import asyncio
import contextlib
import contextvars
import gc
import logging
import os
import subprocess
import sys
import threading
import weakref
from collections import deque
from pathlib import Path
from typing import Any, cast

import pytest
from disposals import held_instances
from durabletask.aio import InstanceEvicted, as_orchestrator
from durabletask.internal import orchestrator_service_pb2 as pb
from turns import CONTINUED, Instance, execute
from workflows import started

from durabletask_aio.core import disposal
from durabletask_aio.core.disposal import turn_scope

MAIN = threading.get_ident()

pytestmark = pytest.mark.not_replayed("what is left behind is counted, and each replay would leave more")


@pytest.fixture(autouse=True, scope="module")
def _quick_collections():
    """Collections of what these tests make, and not each time of everything that was imported before."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def silence(capfd, recwarn, monkeypatch):
    """Assert that a test causes no output, no warning and no unraisable exception, and leaves no instance behind."""
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append(repr(args)))
    gc.collect()
    disposal.dispose_pending()
    others = held_instances()  # of tests that leave a worker's sessions open
    yield
    gc.collect()
    disposal.dispose_pending()
    gc.collect()
    assert capfd.readouterr() == ("", "")
    assert unraisable == []
    assert [str(warning.message) for warning in recwarn] == []
    assert held_instances() <= others


class Witness:
    """What `finally` blocks of a workflow could see and do when they ran."""

    def __init__(self):
        self.notes = []

    def __call__(self, ctx, name):
        try:
            ctx.call_activity("late")
        except BaseException as error:
            outcome = type(error).__name__
        else:
            outcome = "scheduled"
        self.notes.append(
            (name, outcome, ctx.is_replaying if outcome == "InstanceEvicted" else None, threading.get_ident())
        )

    @property
    def names(self):
        return [note[0] for note in self.notes]

    def all_were_muted(self, thread=MAIN):
        return all(note[1:] == ("InstanceEvicted", True, thread) for note in self.notes)


def eventful(witness, end):
    """A workflow with something to clean up in every way there is; `end` is awaited at its end."""

    @contextlib.asynccontextmanager
    async def resource(ctx, name):
        try:
            yield
        finally:
            witness(ctx, name)

    async def numbers(ctx):
        try:
            while True:
                yield 1
                await ctx.sleep(3600)
        finally:
            witness(ctx, "async generator")

    async def consumer(ctx):
        async with contextlib.aclosing(numbers(ctx)) as stream:
            async for _ in stream:
                pass

    async def child(ctx, number):
        try:
            async with resource(ctx, f"resource of child {number}"):
                await ctx.sleep(3600)
        finally:
            witness(ctx, f"child {number}")

    async def workflow(ctx):
        tasks = [asyncio.create_task(child(ctx, number)) for number in (1, 2)]
        tasks.append(asyncio.create_task(consumer(ctx)))
        shielded = asyncio.shield(tasks[0])
        queue, lock = asyncio.Queue(), asyncio.Lock()
        getter = asyncio.create_task(queue.get())
        try:
            async with lock, resource(ctx, "resource of main"):
                await asyncio.sleep(0)
                await ctx.call_activity("first")
                return await end(ctx)
        finally:
            if end is not waits:
                await end(ctx)  # a finally block that is as bold as can be
            else:
                witness(ctx, "main")
            del shielded, getter

    return workflow


async def waits(ctx):
    await ctx.wait_for_external_event("go")


async def returns(ctx):
    return "done"


async def fails(ctx):
    raise ValueError("mine")


async def continues(ctx):
    ctx.continue_as_new(1)


def test_what_never_changes_can_be_read_while_an_instance_is_closed():
    open_orders = {"order-1"}
    read = set()

    async def workflow(ctx):
        try:
            await ctx.wait_for_external_event("go")
        finally:
            read.add((ctx.workflow_name, ctx.parent_instance_id, ctx.version))
            open_orders.discard(ctx.instance_id)

    instance = Instance(as_orchestrator(workflow), instance_id="order-1")
    instance.started.executionStarted.version.value = "1.5"
    instance.started.executionStarted.parentInstance.orchestrationInstance.instanceId = "the-parent"
    instance.start()

    assert read == {("workflow", "the-parent", "1.5")}
    assert open_orders == set()


@pytest.mark.parametrize("name", ["random", "uuid4", "get_metadata", "now"])
def test_a_refused_call_is_named(name):
    messages = []

    async def workflow(ctx):
        try:
            await ctx.wait_for_external_event("go")
        finally:
            try:
                getattr(ctx, name)()
            except InstanceEvicted as error:
                messages.append(str(error))

    started(workflow)

    assert messages == [f"instance 'instance-1' is being closed; ctx.{name} no longer counts"]


CHILDREN = ["resource of child 2", "child 2", "resource of child 1", "child 1"]


@pytest.mark.parametrize("scoped", [True, False], ids=["turn scope", "any host"])
class TestEndings:
    def run(self, end, scoped):
        witness = Witness()
        instance = started(eventful(witness, end), scoped=scoped)
        instance.turn(
            instance.completed(1 if instance.steps("scheduleTask") == [1] else instance.steps("scheduleTask")[0])
        )
        if not scoped:
            gc.collect()
            disposal.dispose_pending()
        return instance, witness

    @pytest.mark.parametrize("end", [returns, fails, continues])
    def test_an_instance_that_ends_with_tasks_pending_closes_them(self, end, scoped):
        instance, witness = self.run(end, scoped)

        assert instance.outcome is not None
        closed = [note for note in witness.notes if note[1] == "InstanceEvicted"]
        assert closed, "the children were closed"
        assert all(note[2:] == (True, MAIN) for note in closed)
        assert {name for name, outcome, *_ in witness.notes if outcome == "scheduled"} <= {"resource of main"}

    def test_a_dropped_turn_closes_children_first_and_the_main_task_last(self, scoped):
        _, witness = self.run(waits, scoped)

        # Twice: both turns were dropped.  Closing a coroutine closes the async generator it waits in from 3.13 on only.
        names = [name for name in witness.names if name != "async generator"]
        assert names == 2 * [*CHILDREN, "resource of main", "main"]
        assert witness.all_were_muted()

    def test_termination_closes_everything(self, scoped):
        witness = Witness()
        instance = started(eventful(witness, waits), scoped=scoped)
        instance.turn(pb.HistoryEvent(eventId=-1, executionTerminated=pb.ExecutionTerminatedEvent()))
        gc.collect()
        disposal.dispose_pending()

        assert instance.outcome.orchestrationStatus == pb.ORCHESTRATION_STATUS_TERMINATED
        assert witness.names[-2:] == ["resource of main", "main"]
        assert witness.all_were_muted()

    def test_a_hundred_dropped_turns(self, scoped):
        witness = Witness()
        for number in range(100):
            started(eventful(witness, waits), instance_id=f"i-{number}", scoped=scoped)
        gc.collect()
        disposal.dispose_pending()

        assert witness.names.count("main") == witness.names.count("child 1") == 100
        assert witness.all_were_muted()

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup came with 3.11")
    def test_a_dropped_task_group(self, scoped):
        witness = Witness()

        async def child(ctx):
            try:
                await ctx.sleep(3600)
            finally:
                witness(ctx, "child")

        async def workflow(ctx):
            try:
                async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                    group.create_task(child(ctx))
                    group.create_task(ctx.call_activity("a"))
            finally:
                witness(ctx, "main")

        started(workflow, scoped=scoped)
        gc.collect()
        disposal.dispose_pending()
        assert witness.names == ["child", "main"]
        assert witness.all_were_muted()


def test_an_evicted_run_is_closed_when_its_host_says_so():
    witness = Witness()
    with turn_scope() as scope:
        started(eventful(witness, waits), scoped=False)
        scope.keep()
    (run,) = scope.runs
    assert (run.instance_id, run.workflow_name, run.is_finished) == ("instance-1", "workflow", False)
    assert witness.notes == []

    run.dispose()
    assert witness.names[-1] == "main"
    assert witness.all_were_muted()
    run.dispose()
    assert witness.names.count("main") == 1


def test_scopes_nest_and_each_sees_its_own_runs():
    with turn_scope() as outer:
        started(eventful(Witness(), waits), instance_id="a", scoped=False)
        with turn_scope() as inner:
            started(eventful(Witness(), waits), instance_id="b", scoped=False)
        started(eventful(Witness(), waits), instance_id="c", scoped=False)
    assert [run.instance_id for run in inner.runs] == ["b"]
    assert [run.instance_id for run in outer.runs] == ["a", "c"]


def test_a_finished_run_is_finished():
    with turn_scope() as scope:
        Instance(as_orchestrator(returns), scoped=False).start()
    assert [run.is_finished for run in scope.runs] == [True]


def test_a_scope_closes_its_runs_when_the_turn_raises():
    witness = Witness()
    with pytest.raises(KeyError), turn_scope():  # noqa: PT012
        started(eventful(witness, waits), scoped=False)
        raise KeyError
    assert witness.names[-1] == "main"


# -- code that will not be closed -----------------------------------------------------------------------------------


def test_awaiting_in_a_finally_block_does_not_stop_the_closing():
    seen = []

    async def workflow(ctx):
        try:
            await ctx.call_activity("a")
        finally:
            try:
                await asyncio.sleep(0)
            finally:
                seen.append("inner")
                try:
                    await ctx.sleep(5)
                finally:
                    seen.append("innermost")

    started(workflow)
    assert seen == ["inner", "innermost"]


def test_a_coroutine_that_refuses_to_close_is_given_up_after_a_while(caplog, monkeypatch):
    attempts, refuses = [], [True]

    class Forever:
        def __await__(self):
            while refuses:
                try:
                    yield
                except GeneratorExit:
                    attempts.append(1)

    async def workflow(ctx):
        try:
            await ctx.call_activity("a")
        finally:
            await Forever()

    leaked = []
    monkeypatch.setattr(disposal, "_leaked", leaked)
    with caplog.at_level(logging.WARNING, "durabletask.aio"):
        started(workflow)

    assert 90 <= len(attempts) <= 100
    assert len(leaked) == 1, "kept, or the collector would try again"
    assert "workflow 'workflow', instance 'instance-1': the code at" in caplog.text
    assert "test_disposal.py" in caplog.text
    assert "still awaits after 100 attempts to close it, and is left as it is" in caplog.text
    for coroutine in leaked:
        refuses.clear()
        coroutine.close()


@pytest.mark.parametrize(
    "error", [ValueError("in finally"), SystemExit(3), KeyboardInterrupt(), InstanceEvicted("again")]
)
def test_whatever_cleanup_code_raises_nobody_hears_it(error):
    others = []

    async def child(ctx):
        try:
            await ctx.sleep(5)
        finally:
            others.append("child")

    async def workflow(ctx):
        _child = asyncio.create_task(child(ctx))
        try:
            await ctx.call_activity("a")
        finally:
            raise error

    started(workflow)
    assert others == ["child"]


def test_except_exception_does_not_catch_the_eviction():
    seen = []

    async def workflow(ctx):
        try:
            await ctx.call_activity("a")
        finally:
            try:
                await ctx.call_activity("release")
            except Exception:
                seen.append("caught")
            except InstanceEvicted:
                seen.append("evicted")

    started(workflow)
    assert seen == ["evicted"]


def test_the_loop_says_no_too_while_it_is_closed():
    seen: list[Any] = []

    async def workflow(ctx):
        loop = asyncio.get_running_loop()
        try:
            await ctx.call_activity("a")
        finally:
            for call in (
                lambda: loop.create_future(),
                lambda: loop.call_soon(print),
                lambda: loop.call_later(1, print),
                lambda: loop.time(),
            ):
                try:
                    call()
                except InstanceEvicted:
                    seen.append("evicted")
            seen.append(loop.is_closed())

    started(workflow)
    assert seen == ["evicted"] * 4 + [True]


async def helper(ctx):
    await ctx.call_activity("release")


FORMS = {
    "create_task": lambda ctx: asyncio.create_task(helper(ctx)),
    "gather": lambda ctx: asyncio.gather(helper(ctx), helper(ctx)),
    "wait_for": lambda ctx: asyncio.wait_for(helper(ctx), 5),
    "shield": lambda ctx: asyncio.shield(helper(ctx)),
    "ctx.gather": lambda ctx: ctx.gather(helper(ctx), helper(ctx)),
    "ctx.when_all": lambda ctx: ctx.when_all([helper(ctx), helper(ctx)]),
    "ctx.when_any": lambda ctx: ctx.when_any([helper(ctx), helper(ctx)]),
    "ctx.with_timeout": lambda ctx: ctx.with_timeout(helper(ctx), 5),
    "Queue.get": lambda ctx: asyncio.Queue().get(),
    "sleep": lambda ctx: asyncio.sleep(5),
    "ctx.sleep": lambda ctx: ctx.sleep(5),
    "an activity": helper,
}


@pytest.mark.parametrize("form", FORMS)
def test_what_a_finally_block_would_wait_for_is_refused_and_leaves_no_coroutine_behind(form):
    seen = []

    async def workflow(ctx):
        try:
            await ctx.call_activity("a")
        finally:
            try:
                await FORMS[form](ctx)
            except InstanceEvicted:
                seen.append("evicted")

    started(workflow)
    assert seen == ["evicted"]


def test_asyncio_timeout_knows_its_task_while_it_is_closed():
    if sys.version_info < (3, 11):
        pytest.skip("asyncio.timeout came with 3.11")
    seen = []

    async def workflow(ctx):
        try:
            await ctx.call_activity("a")
        finally:
            seen.append(asyncio.current_task().get_name())
            try:
                async with asyncio.timeout(5):
                    seen.append("never")
            except InstanceEvicted:
                seen.append("evicted")

    started(workflow)
    assert seen == ["workflow", "evicted"]


@pytest.mark.parametrize("form", FORMS)
def test_code_that_catches_everything_and_tries_again_for_ever_is_given_up(form, caplog, monkeypatch):
    rounds, stopped = [], []

    async def workflow(ctx):
        while not stopped:
            rounds.append(1)
            with contextlib.suppress(BaseException):  # as `except: pass` does
                await FORMS[form](ctx)

    leaked = []
    monkeypatch.setattr(disposal, "_leaked", leaked)
    with caplog.at_level(logging.WARNING, "durabletask.aio"):
        started(workflow)

    assert 100 < len(rounds) < 3_000
    assert "Does it have an 'except:' or 'except BaseException:' that does not raise again?" in caplog.text
    stopped.append(True)
    for coroutine in leaked:
        coroutine.close()


def test_logging_from_a_finally_block_of_a_closed_instance_is_silent(caplog):
    async def workflow(ctx):
        try:
            await ctx.call_activity("a")
        finally:
            ctx.logger.error("closing")

    with caplog.at_level(logging.DEBUG, "durabletask.aio"):
        started(workflow)
    assert caplog.records == []


# -- asynchronous generators ----------------------------------------------------------------------------------------


def test_an_open_async_generator_is_closed_with_its_instance():
    """CPython's finalizer would do it at any time, on any thread; `contextlib.aclosing` is the way to do it earlier."""
    seen: list[Any] = []

    async def numbers(ctx, name):
        try:
            yield 1
            yield 2
        finally:
            seen.append((name, asyncio.current_task().get_name()))
            try:
                await ctx.sleep(1)
            except InstanceEvicted:
                seen.append("refused")

    async def workflow(ctx):
        try:
            for name in ("first", "second"):
                async for _ in numbers(ctx, name):
                    break
            gc.collect()
            seen.append("workflow")
            await ctx.call_activity("a")
        finally:
            seen.append("closed")

    started(workflow)
    assert seen == ["workflow", "closed", ("second", "workflow"), "refused", ("first", "workflow"), "refused"]


def test_async_generators_that_have_ended_are_not_kept():
    kept = []

    async def numbers():
        yield 1

    async def workflow(ctx):
        for _ in range(1_000):
            async for _ in numbers():
                pass
        kept.append(len(cast(Any, asyncio.get_running_loop()).generators._started))

    started(workflow)
    assert max(kept) <= 32


def test_an_async_generator_that_awaits_while_it_is_closed_ends():
    seen: list[Any] = []

    async def numbers(ctx):
        try:
            yield 1
        finally:
            try:
                await asyncio.Event().wait()
            except GeneratorExit:
                seen.append("waited")
                raise

    async def workflow(ctx):
        async for _ in numbers(ctx):
            break
        await ctx.call_activity("a")

    started(workflow)
    assert seen in (["waited"], []), "an event cannot be waited for while an instance is closed"


def test_an_async_generator_that_ignores_its_end_is_given_up(caplog, monkeypatch):
    stopped = []

    async def numbers():
        while not stopped:
            with contextlib.suppress(GeneratorExit):
                yield 1

    async def workflow(ctx):
        async for _ in numbers():
            break
        await ctx.call_activity("a")

    leaked = []
    monkeypatch.setattr(disposal, "_leaked", leaked)
    with caplog.at_level(logging.WARNING, "durabletask.aio"):
        started(workflow)
    assert "in numbers still awaits after 1 attempts to close it" in caplog.text
    stopped.append(True)
    assert [generator.__name__ for generator in leaked] == ["numbers"]


# -- the collector --------------------------------------------------------------------------------------------------


def test_the_collector_only_hands_a_dropped_run_over_whatever_thread_it_runs_on():
    witness = Witness()
    gc.disable()
    try:
        started(eventful(witness, waits), scoped=False)
        collector = threading.Thread(target=gc.collect)
        collector.start()
        collector.join()
        assert witness.notes == [], "nothing of the workflow ran on the collector's thread"
        disposal.dispose_pending()
    finally:
        gc.enable()
    assert witness.names[-1] == "main"
    assert witness.all_were_muted()


def test_a_collection_inside_another_workflow_does_not_disturb_it():
    witness = Witness()
    started(eventful(witness, waits), instance_id="garbage", scoped=False)

    async def workflow(ctx):
        loop = asyncio.get_running_loop()
        gc.collect()
        assert asyncio.get_running_loop() is loop
        assert asyncio.current_task().get_name() == "workflow"
        await asyncio.sleep(1)
        return "undisturbed"

    assert Instance(as_orchestrator(workflow), instance_id="live", scoped=False).run().result == "undisturbed"
    disposal.dispose_pending()
    assert witness.all_were_muted()


def test_a_turn_inside_a_running_loop_of_the_application_leaves_that_alone():
    async def application():
        task = asyncio.current_task()
        instance = started(eventful(Witness(), waits))
        assert asyncio.current_task() is task
        instance.turn()
        return await asyncio.sleep(0, "fine")

    assert asyncio.run(application()) == "fine"


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="outside")


def test_code_that_is_closed_is_in_its_own_context():
    """As OpenTelemetry needs, which detaches its span in the context in which it attached it."""
    closed = []

    async def helper(ctx, name):
        token = VARIABLE.set(name)
        try:
            await ctx.call_activity("a")
        finally:
            closed.append((VARIABLE.get(), VARIABLE.reset(token)))

    async def workflow(ctx):
        token = VARIABLE.set("main")
        try:
            await asyncio.gather(helper(ctx, "first"), helper(ctx, "second"))
        finally:
            closed.append((VARIABLE.get(), VARIABLE.reset(token)))

    Instance(as_orchestrator(workflow)).start()

    assert closed == [("second", None), ("first", None), ("main", None)]
    assert VARIABLE.get() == "outside"


def test_dropped_runs_do_not_accumulate():
    """Two thousand instances on a host that just drops them, as upstream's worker does after every turn."""
    references = []

    class Payload:
        pass

    async def workflow(ctx):
        payload = Payload()
        references.append(weakref.ref(payload))
        await ctx.call_activity("a")
        return payload

    orchestrator = as_orchestrator(workflow)
    for number in range(2_000):
        Instance(orchestrator, instance_id=f"i-{number}", scoped=False).start()
    gc.collect()
    Instance(as_orchestrator(returns), scoped=False).start()

    assert sum(reference() is not None for reference in references) == 0
    assert not {f"i-{number}" for number in range(2_000)} & held_instances()


@pytest.mark.parametrize("scoped", [True, False])
def test_finished_runs_leave_nothing_even_without_the_collector(scoped):
    references = []

    class Payload:
        pass

    async def workflow(ctx):
        payload = Payload()
        references.append(weakref.ref(payload))
        await ctx.call_activity("a")
        return 1

    gc.disable()
    try:
        for _ in range(20):
            with turn_scope() if scoped else contextlib.nullcontext():
                instance = started(workflow, scoped=False)
            instance.turn(instance.completed(1))
        alive = sum(reference() is not None for reference in references)
    finally:
        gc.enable()
    assert alive <= (0 if scoped else 20), "a dropped turn needs the collector, a finished one does not"


def test_what_a_failed_workflow_referred_to_is_freed():
    references = []

    class Payload:
        pass

    async def workflow(ctx):
        payload = Payload()
        references.append(weakref.ref(payload))
        raise ValueError(f"{payload is not None}")

    for _ in range(20):
        started(workflow)
    gc.collect()
    assert not any(reference() for reference in references)


# -- the whole process ----------------------------------------------------------------------------------------------

AT_EXIT = """
import sys; sys.path.insert(0, {support!r})
from workflows import started
from durabletask_aio.core.disposal import turn_scope

async def workflow(ctx):
    try:
        await ctx.call_activity("a")
    finally:
        try:
            ctx.call_activity("late")
        except BaseException as error:
            print("closed with", type(error).__name__, flush=True)

scope = turn_scope()
scope.__enter__()
kept = started(workflow, scoped=False)
dropped = started(workflow, scoped=False, instance_id="dropped")
{ending}
"""


@pytest.mark.parametrize("ending", ["", "sys.exit(0)", "del kept, dropped"])
def test_at_exit_what_is_left_is_closed_muted(ending):
    support = str(Path(__file__).parent / "support")
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", AT_EXIT.format(support=support, ending=ending)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["closed with InstanceEvicted"] * 2


UNCLOSABLE = """
import sys; sys.path.insert(0, {support!r})
from workflows import started

async def workflow(ctx):
    while True:
        try:
            await ctx.sleep(1)
        except:
            pass

started(workflow)
print("ended")
"""


def test_code_that_cannot_be_closed_does_not_keep_the_process_from_ending():
    support = str(Path(__file__).parent / "support")
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", UNCLOSABLE.format(support=support)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "ended\n")
    assert "is left as it is" in done.stderr


def test_replaying_a_history_from_its_beginning_leaves_nothing_behind():
    instance = Instance(as_orchestrator(eventful(Witness(), waits)), scoped=False).start()
    for _ in range(10):
        execute(instance, [], instance.history)
    assert instance.outcome is None
    assert CONTINUED


@pytest.mark.parametrize("kept_in", [list, tuple, set, lambda made: dict(enumerate(made)), deque, next])
@pytest.mark.parametrize("scoped", [True, False])
def test_coroutines_that_a_dropped_workflow_has_made_and_not_yet_awaited_do_not_complain(kept_in, scoped):
    async def work(ctx, n):
        return await ctx.call_activity("echo", input=n)

    async def helper(ctx):
        later = kept_in(work(ctx, n) for n in range(3))
        await ctx.call_activity("echo", input=0)
        return later

    async def workflow(ctx):
        await helper(ctx)

    instance = Instance(as_orchestrator(workflow), scoped=scoped).start()
    assert [action.WhichOneof("orchestratorActionType") for action in instance.turns[0]] == ["scheduleTask"]
