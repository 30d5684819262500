"""What a workflow's loop refuses, each at the call and with what to do instead."""

from __future__ import annotations

import asyncio
import inspect
import operator
import signal
import subprocess
import sys
import sysconfig
from typing import Any, cast

import pytest
from durabletask.aio import NonDeterministicUseError, UnsupportedInWorkflowError
from surface import complete, failure_of, records_of, result_of

from durabletask_aio.core.loop import WorkflowLoop
from durabletask_aio.core.refusals import ADVICE, refused_methods

SURFACE = [name for name in dir(asyncio.AbstractEventLoop) if not name.startswith("_")]
REFUSED = [name for name in SURFACE if name in refused_methods(asyncio.BaseEventLoop.__mro__[1]) or name in ADVICE]
WORKS = {
    "call_at",
    "call_exception_handler",
    "call_later",
    "call_soon",
    "create_future",
    "create_task",
    "default_exception_handler",
    "get_debug",
    "get_exception_handler",
    "get_task_factory",
    "is_closed",
    "is_running",
    "set_debug",
    "set_exception_handler",
    "time",
}
"""What a workflow may call; everything else of the abstract class is refused."""


async def work():
    """A coroutine to be handed to something."""


def caught(call):
    """Return a workflow that returns the type and the message of the exception that `call` raises in it."""

    async def workflow(ctx):
        try:
            result = call(asyncio.get_running_loop())
            if inspect.isawaitable(result):
                await result
        except Exception as error:
            return [type(error).__name__, error.message if hasattr(error, "message") else str(error)]
        return ["no exception", ""]

    return workflow


class TestTheSurfaceOfTheLoop:
    def test_every_method_is_defined_by_the_workflow_loop_itself(self):
        inherited = [name for name in SURFACE if name not in vars(WorkflowLoop) and name != "slow_callback_duration"]
        assert not inherited, f"WorkflowLoop does not define these methods of asyncio's loop: {inherited}"

    def test_what_does_not_work_raises_at_the_call_and_says_what_to_do(self):
        refused = sorted(set(SURFACE) - WORKS - {"slow_callback_duration"})
        assert refused
        wrong = []
        for name in refused:
            kind, message = result_of(caught(operator.methodcaller(name)))
            beginning = f"loop.{name}() cannot be used in a workflow ({__file__}:"
            has_advice = message.endswith(ADVICE[name]) if name in ADVICE else "ctx.call_activity" in message
            if kind != "UnsupportedInWorkflowError" or not message.startswith(beginning) or not has_advice:
                wrong.append(f"loop.{name}() raised {kind}: {message}")
        assert not wrong, "no refusal with its advice:\n" + "\n".join(wrong)

    def test_what_works_is_not_refused(self):
        names = sorted(set(SURFACE) & WORKS)
        assert names
        refused = [name for name in names if (vars(WorkflowLoop)[name].__doc__ or "").startswith("Refused")]
        assert not refused, f"documented as refused: {refused}"

    def test_a_refusal_is_a_not_implemented_error_and_names_the_instance(self):
        assert issubclass(UnsupportedInWorkflowError, NotImplementedError)

        async def workflow(ctx):
            asyncio.get_running_loop().run_in_executor(None, print)

        failure = failure_of(workflow)
        assert failure.errorType == "durabletask.aio.UnsupportedInWorkflowError"
        assert "[workflow 'workflow', instance 'instance-1']" in failure.errorMessage

    def test_a_refusal_in_a_task_of_a_library_names_the_line_that_waits_for_the_library(self):
        library: dict[str, Any] = {"asyncio": asyncio, "__name__": "library"}
        source = """
async def fetch():
    await asyncio.create_task(connect())

async def connect():
    asyncio.get_running_loop().create_connection(None)
"""
        exec(compile(source, f"{sysconfig.get_path('purelib')}/library.py", "exec"), library)

        async def workflow(ctx):
            await library["fetch"]()

        line = workflow.__code__.co_firstlineno + 1
        assert f"cannot be used in a workflow ({__file__}:{line}): " in failure_of(workflow).errorMessage

    def test_a_refused_coroutine_is_closed_and_never_warned_about(self):
        # Warnings are errors in these tests.
        kind, _ = result_of(caught(lambda loop: loop.run_until_complete(work())))
        assert kind == "UnsupportedInWorkflowError"


THREADED = "threads finish in an order of their own"
NETWORK = "sockets and pipes are not replayed"
PROCESSES = "processes are not replayed"


class TestFunctionsOfAsyncio:
    def test_that_need_the_world_outside_are_refused(self):
        calls = [
            ("to_thread", lambda loop: asyncio.to_thread(print), THREADED),
            ("run_in_executor", lambda loop: loop.run_in_executor(None, print), THREADED),
            ("open_connection", lambda loop: asyncio.open_connection("127.0.0.1", 9), NETWORK),
            ("start_server", lambda loop: asyncio.start_server(print, "127.0.0.1", 0), NETWORK),
            ("open_unix_connection", lambda loop: asyncio.open_unix_connection("/nowhere"), NETWORK),
            ("start_unix_server", lambda loop: asyncio.start_unix_server(print, "/nowhere"), NETWORK),
            ("create_subprocess_exec", lambda loop: asyncio.create_subprocess_exec("true"), PROCESSES),
            (
                "create_subprocess_shell",
                lambda loop: asyncio.create_subprocess_shell("true", stdout=subprocess.PIPE),
                PROCESSES,
            ),
            ("getaddrinfo", lambda loop: loop.getaddrinfo("localhost", 80), NETWORK),
            ("sock_recv", lambda loop: loop.sock_recv(None, 1), NETWORK),
            ("add_reader", lambda loop: loop.add_reader(0, print), NETWORK),
            ("add_signal_handler", lambda loop: loop.add_signal_handler(signal.SIGTERM, print), "signals are not"),
            ("call_soon_threadsafe", lambda loop: loop.call_soon_threadsafe(print), "other threads must not"),
            ("run_until_complete", lambda loop: loop.run_until_complete(work()), "is run by its worker"),
            ("run_forever", lambda loop: loop.run_forever(), "is run by its worker"),
            ("stop", lambda loop: loop.stop(), "ends with the workflow"),
            ("close", lambda loop: loop.close(), "ends with the workflow"),
            ("set_task_factory", lambda loop: loop.set_task_factory(None), "made by its loop"),
            ("shutdown_asyncgens", lambda loop: loop.shutdown_asyncgens(), "aclosing"),
        ]
        wrong = []
        for name, call, advice in calls:
            kind, message = result_of(caught(call))
            if kind != "UnsupportedInWorkflowError" or advice not in message:
                wrong.append(f"{name} raised {kind}: {message}; expected {advice!r} in a refusal")
        assert not wrong, "\n".join(wrong)

    def test_run_coroutine_threadsafe_is_refused(self):
        async def workflow(ctx):
            coroutine = work()
            try:
                asyncio.run_coroutine_threadsafe(coroutine, asyncio.get_running_loop())
            except UnsupportedInWorkflowError as error:
                return error.message
            finally:
                coroutine.close()

        assert "other threads must not touch a workflow" in result_of(workflow)

    def test_run_is_refused_by_asyncio_itself(self):
        async def workflow(ctx):
            coroutine = work()
            try:
                asyncio.run(coroutine)
            except RuntimeError as error:
                return str(error)
            finally:
                coroutine.close()

        assert result_of(workflow) == "asyncio.run() cannot be called from a running event loop"

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="runners came with Python 3.11")
    def test_a_runner_is_refused_by_asyncio_itself(self):
        async def workflow(ctx):
            coroutine = work()
            try:
                asyncio.Runner().run(coroutine)
            except RuntimeError as error:
                return str(error)
            finally:
                coroutine.close()

        assert result_of(workflow) == "Runner.run() cannot be called from a running event loop"


class TestOrdersThatDependOnAddresses:
    def test_bare_coroutines_in_as_completed(self):
        async def workflow(ctx):
            for each in asyncio.as_completed([work(), work()]):
                await each

        message = failure_of(workflow).errorMessage
        assert "asyncio.as_completed starts bare coroutines in the order of their memory addresses" in message
        assert "wrong: asyncio.as_completed([work(...), ...])" in message
        assert "right: asyncio.as_completed([asyncio.create_task(work(...)), ...])" in message

    @pytest.mark.skipif(sys.version_info < (3, 13), reason="the asynchronous form came with Python 3.13")
    def test_bare_coroutines_in_as_completed_asynchronously(self):
        async def workflow(ctx):
            async for each in asyncio.as_completed([work(), work()]):
                await each

        assert "right: asyncio.as_completed([asyncio.create_task(" in failure_of(workflow).errorMessage

    @pytest.mark.skipif(sys.version_info >= (3, 11), reason="refused by asyncio itself since Python 3.11")
    @pytest.mark.filterwarnings("ignore:The explicit passing of coroutine:DeprecationWarning")
    def test_bare_coroutines_in_wait(self):
        async def workflow(ctx):
            await cast(Any, asyncio).wait([work(), work()])

        message = failure_of(workflow).errorMessage
        assert "right: asyncio.wait([asyncio.create_task(work(...)), ...])" in message

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="deprecated only, before")
    def test_bare_coroutines_in_wait_are_refused_by_asyncio_itself(self):
        async def workflow(ctx):
            coroutine: Any = work()
            try:
                await asyncio.wait([coroutine])
            except TypeError as error:
                return str(error)
            finally:
                coroutine.close()

        assert "coroutines is forbidden" in result_of(workflow)

    @pytest.mark.parametrize("timeout", [None, 5])
    def test_wait_over_a_gather_of_asyncio(self, timeout):
        async def workflow(ctx):
            gathering = asyncio.gather(ctx.create_timer(1), ctx.create_timer(2))
            await asyncio.wait([gathering, ctx.create_timer(3)], timeout=timeout)

        failure = failure_of(workflow)
        assert failure.errorType == "durabletask.aio.NonDeterministicUseError"
        assert "right: asyncio.wait([ctx.gather(a, b), ...])" in failure.errorMessage

    @pytest.mark.parametrize(
        ("make", "right"),
        [
            (lambda: asyncio.gather(work(), work()), "ctx.gather(a, b)"),
            (lambda: asyncio.ensure_future(asyncio.Future()), "asyncio.get_running_loop().create_future()"),
            (lambda: asyncio.Task(work()), "asyncio.create_task(work())"),
        ],
        ids=["gather", "Future", "Task"],
    )
    @pytest.mark.parametrize("function", ["wait", "as_completed"])
    def test_futures_that_hash_by_address(self, function, make, right):
        async def workflow(ctx):
            futures = [make() for _ in range(3)]
            for future in futures:
                if type(future) is asyncio.Future:
                    future.set_result(None)
            await asyncio.wait({asyncio.create_task(asyncio.sleep(0.1))})
            if function == "wait":
                await asyncio.wait(futures)
            else:
                for each in asyncio.as_completed(futures):
                    await each

        failure = failure_of(workflow)
        assert failure.errorType == "durabletask.aio.NonDeterministicUseError"
        assert f"right: asyncio.{function}([{right}, ...])" in failure.errorMessage

    def test_gathers_that_get_done_one_after_the_other_come_in_that_order(self):
        async def workflow(ctx):
            gathers = [asyncio.gather(asyncio.sleep(3 - number, number)) for number in range(3)]
            return [await each for each in asyncio.as_completed(gathers)]

        assert result_of(workflow) == [[2], [1], [0]]

    @pytest.mark.parametrize("function", ["when_all", "when_any", "when_any_with_result"])
    def test_a_set_of_coroutines_given_to_a_combination(self, function):
        async def workflow(ctx):
            await getattr(ctx, function)({work() for _ in range(3)})

        failure = failure_of(workflow)
        assert failure.errorType == "durabletask.aio.NonDeterministicUseError"
        assert f"right: await ctx.{function}([work(x) for x in values])" in failure.errorMessage

    def test_the_right_forms_that_the_messages_show_work(self):
        async def workflow(ctx):
            await asyncio.wait([ctx.gather(ctx.create_timer(1), ctx.create_timer(2)), ctx.create_timer(3)])
            return [await each for each in asyncio.as_completed([asyncio.create_task(work()) for _ in range(2)])]

        assert result_of(workflow) == [None, None]

    def test_the_refusal_is_an_error_of_the_workflow_that_it_can_catch(self):
        async def workflow(ctx):
            try:
                list(asyncio.as_completed([work()]))
            except NonDeterministicUseError as error:
                return error.workflow_name

        assert result_of(workflow) == "workflow"


class TestTheLoopItself:
    def test_answers_harmless_questions(self):
        async def workflow(ctx):
            loop = asyncio.get_running_loop()
            before = loop.get_debug()
            loop.set_debug(True)
            return [loop.is_running(), loop.is_closed(), before, loop.get_debug(), loop.get_task_factory()]

        assert result_of(workflow) == [True, False, False, True, None]

    def test_hands_exceptions_of_callbacks_to_its_handler_on_replay_too_for_the_workflow_may_go_by_them(self):
        async def workflow(ctx):
            handled: list[str] = []
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda loop, context: handled.append(repr(context["exception"])))
            loop.call_soon(lambda: 1 / 0)
            await asyncio.sleep(1)
            await ctx.call_activity("double", input=len(handled))
            assert loop.get_exception_handler() is not None
            return handled

        assert result_of(workflow) == ["ZeroDivisionError('division by zero')"]

    def test_does_not_hand_to_it_what_finalizers_report_at_a_time_of_their_own(self):
        async def workflow(ctx):
            handled: list[str] = []
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda loop, context: handled.append(context["message"]))
            loop.create_future().set_exception(ValueError("nobody looks at me"))
            await asyncio.sleep(1)
            return handled

        with records_of("durabletask.aio") as messages:
            assert result_of(workflow) == []
        assert "WorkflowFuture exception was never retrieved" in messages[0]

    def test_logs_the_failure_of_the_handler_itself_and_goes_on(self):
        async def workflow(ctx):
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda loop, context: context["no such key"])
            loop.call_soon(lambda: 1 / 0)
            await asyncio.sleep(1)
            return "went on"

        with records_of("durabletask.aio") as messages:
            assert result_of(workflow) == "went on"
        assert "Unhandled error in exception handler" in messages[0]

    def test_ends_the_instance_when_the_handler_means_to_end_the_process(self):
        def leave(loop, context):
            raise SystemExit(3)

        async def workflow(ctx):
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(leave)
            loop.call_soon(lambda: 1 / 0)
            await asyncio.sleep(1)

        assert "SystemExit(3)" in failure_of(workflow).errorMessage

    def test_refuses_a_handler_that_is_none(self):
        async def workflow(ctx):
            try:
                cast(Any, asyncio.get_running_loop()).set_exception_handler("print")
            except TypeError as error:
                return str(error)

        assert "a callable or None is expected" in result_of(workflow)

    def test_is_not_the_loop_of_anything_once_the_turn_is_over(self):
        loops = []

        async def workflow(ctx):
            loops.append(asyncio.get_running_loop())
            await asyncio.sleep(1)

        complete(workflow)
        assert all(not loop.is_running() and loop.is_closed() for loop in loops)
