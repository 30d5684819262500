"""Async activities: their responses, their loop, their limits, and what can go wrong in them."""

from __future__ import annotations

import asyncio
import functools
import logging
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import durabletask.internal.orchestrator_service_pb2 as pb
import pytest
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.exception_properties import ExceptionPropertiesProvider
from durabletask.payload.store import LargePayloadStorageOptions, PayloadStore
from durabletask.worker import ConcurrencyOptions
from durabletask.worker import TaskHubGrpcWorker as UpstreamWorker
from google.protobuf import wrappers_pb2
from worker_support import QUIET, arrived, call_one, finished, recorded, run, started, wait_until

from durabletask_aio.core.errors import WorkflowValidationError
from durabletask_aio.testing.local import LocalBackend
from durabletask_aio.worker import binding
from durabletask_aio.worker.binding import binding_of
from durabletask_aio.worker.worker import TaskHubGrpcWorker


class TestResponses:
    """What the engine is told about an async activity is what it would be told about its sync equivalent."""

    @dataclass
    class Order:
        number: int

    class Failure(Exception):
        pass

    @staticmethod
    def activities() -> dict[str, tuple[Any, Any]]:
        def value(ctx: Any, order: TestResponses.Order) -> Any:
            return {
                "number": order.number,
                "type": type(order).__name__,
                "task": ctx.task_id,
                "of": ctx.orchestration_id,
            }

        async def async_value(ctx: Any, order: TestResponses.Order) -> Any:
            await asyncio.sleep(0)
            return value(ctx, order)

        def nothing(ctx: Any, _: Any) -> None:
            return None

        async def async_nothing(ctx: Any, _: Any) -> None:
            return None

        def failing(ctx: Any, _: Any) -> None:
            try:
                raise KeyError("inner")
            except KeyError as error:
                raise TestResponses.Failure("outer") from error

        async def async_failing(ctx: Any, _: Any) -> None:
            await asyncio.sleep(0)
            failing(ctx, _)

        def unserialisable(ctx: Any, _: Any) -> Any:
            return object()

        async def async_unserialisable(ctx: Any, _: Any) -> Any:
            return object()

        # The message names the function and its line.
        line = unserialisable.__code__.co_firstlineno
        async_unserialisable.__code__ = async_unserialisable.__code__.replace(co_firstlineno=line)
        async_unserialisable.__qualname__ = unserialisable.__qualname__

        def large(ctx: Any, _: Any) -> str:
            return "x" * 2000

        async def async_large(ctx: Any, _: Any) -> str:
            return "x" * 2000

        def exiting(ctx: Any, _: Any) -> None:
            raise SystemExit

        async def async_exiting(ctx: Any, _: Any) -> None:
            raise SystemExit

        return {
            "value": (value, async_value),
            "nothing": (nothing, async_nothing),
            "failing": (failing, async_failing),
            "unserialisable": (unserialisable, async_unserialisable),
            "large": (large, async_large),
            "exiting": (exiting, async_exiting),
        }

    class Store(PayloadStore):
        def __init__(self) -> None:
            self.blobs: dict[str, bytes] = {}
            self._options = LargePayloadStorageOptions(threshold_bytes=1000)

        @property
        def options(self) -> LargePayloadStorageOptions:
            return self._options

        def upload(self, data: bytes, *, instance_id: str | None = None) -> str:
            token = f"token:{len(data)}:{instance_id}"
            self.blobs[token] = data
            return token

        async def upload_async(self, data: bytes, *, instance_id: str | None = None) -> str:
            return self.upload(data, instance_id=instance_id)

        def download(self, token: str) -> bytes:
            return self.blobs[token]

        async def download_async(self, token: str) -> bytes:
            return self.download(token)

        def is_known_token(self, value: str) -> bool:
            return value in self.blobs

    class Properties(ExceptionPropertiesProvider):
        def get_exception_properties(self, exception: Exception) -> dict[str, Any]:
            return {"kind": type(exception).__name__}

    class Stub:
        def __init__(self) -> None:
            self.responses: list[pb.ActivityResponse] = []

        def CompleteActivityTask(self, response: pb.ActivityResponse) -> None:
            self.responses.append(response)

    def respond(self, function: Any, encoded_input: str) -> tuple[bytes, bytes]:
        store = self.Store()
        token = store.upload(encoded_input.encode(), instance_id="i")
        worker = TaskHubGrpcWorker(logger=QUIET, payload_store=store, exception_properties_provider=self.Properties())
        worker.add_activity(function, name="activity")
        binding = binding_of(worker)
        assert binding is not None
        request = pb.ActivityRequest(
            name="activity",
            taskId=7,
            input=wrappers_pb2.StringValue(value=token),
            orchestrationInstance=pb.OrchestrationInstance(instanceId="abc"),
        )
        stub = self.Stub()
        activities = binding.activities
        if activities.is_async("activity"):
            ended: Future[tuple[bool, BaseException | None]] = Future()
            activities.begin(request, stub, "completion", lambda *outcome: ended.set_result(outcome))
            assert ended.result(30) == (True, None)
        else:
            activities.execute(request, stub, "completion")
        activities.close()
        binding.loop.close()
        (response,) = stub.responses
        self.forget_stacks(response.failureDetails)
        return response.SerializeToString(deterministic=True), response.result.value.encode()

    def forget_stacks(self, details: pb.TaskFailureDetails) -> None:
        details.ClearField("stackTrace")
        if details.HasField("innerFailure"):
            self.forget_stacks(details.innerFailure)

    @pytest.mark.parametrize("case", ["value", "nothing", "failing", "unserialisable", "large", "exiting"])
    def test_equal_those_of_the_sync_twin(self, case: str) -> None:
        sync, asynchronous = self.activities()[case]
        encoded_input = '{"number": 3}' if case == "value" else '"x"'

        assert self.respond(asynchronous, encoded_input) == self.respond(sync, encoded_input)

    def test_carry_the_type_that_the_annotation_promises(self) -> None:
        _, asynchronous = self.activities()["value"]

        assert b'"type": "Order"' in self.respond(asynchronous, '{"number": 3}')[1]


class TestRecognition:
    async def plain(self, ctx: Any, number: int) -> int:
        await asyncio.sleep(0)
        return number + 1

    def test_async_callables_of_every_kind_are_awaited(self, engine: LocalBackend, client: TaskHubGrpcClient) -> None:
        async def function(ctx: Any, number: int) -> int:
            await asyncio.sleep(0)
            return number + 1

        async def shifted(by: int, ctx: Any, number: int) -> int:
            return number + by

        @functools.wraps(function)
        def wrapped(ctx: Any, number: int) -> Any:
            return function(ctx, number)

        class Adder:
            async def __call__(self, ctx: Any, number: int) -> int:
                return number + 1

        worker = TaskHubGrpcWorker(host_address=engine.address, logger=QUIET)
        names = [
            worker.add_activity(function),
            worker.add_activity(functools.partial(shifted, 1)),
            worker.add_activity(wrapped, name="wrapped"),
            worker.add_activity(Adder()),
            worker.add_activity(self.plain),
        ]
        worker.add_orchestrator(call_one)
        worker.start()
        try:
            results = {name: run(client, "call_one", [name, 1]).serialized_output for name in names}
        finally:
            worker.stop()

        assert results == {"function": "2", "shifted": "2", "wrapped": "2", "Adder": "2", "plain": "2"}

    def test_a_partial_keeps_the_input_type_of_its_function(
        self, engine: LocalBackend, client: TaskHubGrpcClient
    ) -> None:
        worker = started(engine, functools.partial(describe, "order"), orchestrators=[call_one])
        try:
            state = run(client, "call_one", ["describe", {"number": 5}])
        finally:
            worker.stop()

        assert state.serialized_output == '"order Order 5"'

    def test_a_lambda_needs_a_name(self) -> None:
        worker = TaskHubGrpcWorker(logger=QUIET)

        with pytest.raises(ValueError, match="lambda"):
            worker.add_activity(lambda ctx, value: value)

        assert worker.add_activity(lambda ctx, value: value, name="identity") == "identity"

    @pytest.mark.parametrize("kind", [UpstreamWorker, TaskHubGrpcWorker], ids=["upstream's class", "our class"])
    def test_a_partial_of_a_lambda_may_have_one(self, kind: Any) -> None:
        add = functools.partial(lambda ctx, value, by: value + by, by=1)

        assert kind(logger=QUIET).add_activity(add, name="add") == "add"

    @pytest.mark.parametrize("kind", [UpstreamWorker, TaskHubGrpcWorker], ids=["upstream's class", "our class"])
    @pytest.mark.parametrize("name", [None, "named"])
    def test_coroutines_and_async_generators_are_refused(self, kind: Any, name: str | None) -> None:
        async def function(ctx: Any, _: Any) -> None: ...

        async def items(ctx: Any, _: Any) -> Any:
            yield 1

        worker = kind(logger=QUIET)
        with pytest.raises(WorkflowValidationError, match=r"wrong: add_activity\(function\(\.\.\.\)\)"):
            worker.add_activity(function(None, None), name=name)
        with pytest.raises(WorkflowValidationError, match=r"items.* is an async generator.*an activity has one result"):
            worker.add_activity(items, name=name)


class TestAPlainFunctionAroundAnAsyncOne:
    """Only a call tells whether it hands the coroutine on, or runs it as those must whose host knows no async code."""

    @staticmethod
    async def double(ctx: Any, number: int) -> list[Any]:
        await asyncio.sleep(0)
        return [number * 2, threading.current_thread().name.partition("_")[0]]

    @functools.wraps(double)
    def running(ctx: Any, number: int) -> Any:
        return asyncio.run(TestAPlainFunctionAroundAnAsyncOne.double(ctx, number))

    @functools.wraps(double)
    def handing_on(ctx: Any, number: int) -> Any:
        return TestAPlainFunctionAroundAnAsyncOne.double(ctx, number)

    @pytest.mark.parametrize("kind", [UpstreamWorker, TaskHubGrpcWorker], ids=["upstream's class", "our class"])
    @pytest.mark.parametrize("shape", [lambda function: function, functools.partial], ids=["itself", "partial"])
    def test_may_do_either(self, engine: LocalBackend, client: TaskHubGrpcClient, kind: Any, shape: Any) -> None:
        worker = kind(host_address=engine.address, logger=QUIET)
        worker.add_activity(shape(type(self).running), name="running")
        worker.add_activity(shape(type(self).handing_on), name="handing_on")
        worker.add_orchestrator(call_one)
        worker.start()
        try:
            outputs = [run(client, "call_one", [name, 3]).serialized_output for name in ("running", "handing_on")]
        finally:
            worker.stop()

        assert outputs == ['[6, "DurableTask"]', '[6, "durabletask-aio-activities"]']

    def test_fails_with_whatever_it_raises(self, engine: LocalBackend, client: TaskHubGrpcClient) -> None:
        """An asyncio future takes no `StopIteration`: the activity, and with it the worker's stop, would not end."""

        @functools.wraps(type(self).double)
        def wrapper(ctx: Any, numbers: list[int]) -> Any:
            return next(number for number in numbers if number > 2)

        worker = TaskHubGrpcWorker(host_address=engine.address, logger=QUIET)
        worker.add_activity(wrapper, name="wrapper")
        worker.add_orchestrator(call_one)
        worker.start()
        try:
            failed = run(client, "call_one", ["wrapper", [1, 2]]).failure_details
        finally:
            worker.stop()

        assert failed.message.endswith("coroutine raised StopIteration")

    @pytest.mark.parametrize("runs", [True, False], ids=["runs it", "hands it on"])
    def test_is_waited_for_like_any_sync_activity_when_the_worker_stops(
        self, engine: LocalBackend, client: TaskHubGrpcClient, runs: bool, no_leaks: None
    ) -> None:
        begun = threading.Event()
        release = threading.Event()

        async def slow(ctx: Any, _: Any) -> str:
            return "done"

        @functools.wraps(slow)
        def wrapper(ctx: Any, _: Any) -> Any:
            begun.set()
            release.wait(30)
            return asyncio.run(slow(ctx, _)) if runs else slow(ctx, _)

        worker = started(engine, wrapper, orchestrators=[call_one], stop_grace_period=0)
        instance_id = client.schedule_new_orchestration("call_one", input=["slow", None])
        assert begun.wait(30)
        threading.Timer(0.3, release.set).start()
        worker.stop()

        assert has_pending_result(engine, instance_id) == runs


@dataclass
class Order:
    number: int


async def describe(prefix: str, ctx: Any, order: Order) -> str:
    return f"{prefix} {type(order).__name__} {order.number}"


class TestTheLoop:
    def test_after_start_all_activities_share_one_loop_that_no_sync_activity_blocks(
        self, engine: LocalBackend, client: TaskHubGrpcClient, no_leaks: None
    ) -> None:
        loops: list[tuple[Any, str]] = []
        release = threading.Event()

        async def note(ctx: Any, _: Any) -> None:
            await asyncio.sleep(0.01)
            loops.append((asyncio.get_running_loop(), threading.current_thread().name))

        def block(ctx: Any, _: Any) -> None:
            release.wait(60)

        def both(ctx: Any, _: Any) -> Any:
            blocked = [ctx.call_activity("block") for _ in range(3)]
            for _ in range(3):
                yield ctx.call_activity("note")
            release.set()
            yield from blocked

        pool_of_three = ConcurrencyOptions(maximum_thread_pool_workers=4)
        worker = started(engine, note, block, orchestrators=[both], concurrency_options=pool_of_three)
        try:
            state = run(client, "both")
        finally:
            release.set()
            worker.stop()

        assert state.runtime_status is OrchestrationStatus.COMPLETED
        assert len({id(loop) for loop, _ in loops}) == 1
        assert {name for _, name in loops} == {"durabletask-aio-activities"}

    def test_async_results_are_delivered_while_the_pool_is_full_of_sync_activities(
        self, engine: LocalBackend, client: TaskHubGrpcClient
    ) -> None:
        full, release = threading.Event(), threading.Event()

        async def quick(ctx: Any, _: Any) -> None:
            while not full.is_set():
                await asyncio.sleep(0.005)

        def block(ctx: Any, _: Any) -> None:
            full.set()
            release.wait(60)

        options = ConcurrencyOptions(maximum_thread_pool_workers=1)
        worker = started(engine, quick, block, orchestrators=[call_one], concurrency_options=options)
        try:
            waiting = client.schedule_new_orchestration(call_one, input=["quick", None])
            blocking = client.schedule_new_orchestration(call_one, input=["block", None])
            assert full.wait(30)
            # The only pool thread is taken, so the next turn cannot run; the engine must have the result all the same.
            assert wait_until(lambda: has_pending_result(engine, waiting))
        finally:
            release.set()
            finished(client, blocking)
            worker.stop()

    async def test_inside_async_with_it_is_the_callers_loop(
        self, engine: LocalBackend, client: TaskHubGrpcClient, no_leaks: None
    ) -> None:
        mine = asyncio.get_running_loop()
        lock = asyncio.Lock()
        seen: list[bool] = []

        async def uses_lock(ctx: Any, _: Any) -> None:
            async with lock:
                seen.append(asyncio.get_running_loop() is mine)

        async with TaskHubGrpcWorker(host_address=engine.address, logger=QUIET) as worker:
            worker.add_activity(uses_lock)
            worker.add_orchestrator(call_one)
            worker.start()
            state = await asyncio.to_thread(run, client, "call_one", ["uses_lock", None])

        assert state.runtime_status is OrchestrationStatus.COMPLETED
        assert seen == [True]

    def test_a_loop_that_was_used_by_async_with_is_not_used_after_it(
        self, engine: LocalBackend, client: TaskHubGrpcClient, no_leaks: None
    ) -> None:
        async def where(ctx: Any, _: Any) -> str:
            return threading.current_thread().name

        worker = TaskHubGrpcWorker(host_address=engine.address, logger=QUIET)
        worker.add_activity(where)
        worker.add_orchestrator(call_one)

        async def main() -> Any:
            async with worker:
                worker.start()
                return await asyncio.to_thread(run, client, "call_one", ["where", None])

        first = asyncio.run(main())
        worker.start()
        second = run(client, "call_one", ["where", None])
        worker.stop()

        assert (first.serialized_output, second.serialized_output) == ('"MainThread"', '"durabletask-aio-activities"')

    def test_context_variables_do_not_leak_from_one_activity_to_another(
        self, engine: LocalBackend, client: TaskHubGrpcClient
    ) -> None:
        import contextvars

        variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

        async def increment(ctx: Any, _: Any) -> int:
            variable.set(variable.get() + 1)
            await asyncio.sleep(0)
            return variable.get()

        def twice(ctx: Any, _: Any) -> Any:
            return [(yield ctx.call_activity("increment")), (yield ctx.call_activity("increment"))]

        worker = started(engine, increment, orchestrators=[twice])
        try:
            assert run(client, "twice").serialized_output == "[1, 1]"
        finally:
            worker.stop()


def has_pending_result(engine: LocalBackend, instance_id: str) -> bool:
    events = [*recorded(engine, instance_id), *arrived(engine, instance_id)]
    return any(event.HasField("taskCompleted") for event in events)


class TestLimits:
    def test_upstreams_activity_limit_holds_for_async_activities(
        self, engine: LocalBackend, client: TaskHubGrpcClient
    ) -> None:
        running = 0
        most = 0

        async def counted(ctx: Any, _: Any) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1

        def fan_out(ctx: Any, _: Any) -> Any:
            yield from [ctx.call_activity("counted") for _ in range(20)]

        options = ConcurrencyOptions(maximum_concurrent_activity_work_items=3)
        worker = started(engine, counted, orchestrators=[fan_out], concurrency_options=options)
        try:
            run(client, "fan_out")
        finally:
            worker.stop()

        assert most == 3

    @pytest.mark.slow
    def test_a_thousand_activities_that_wait_a_second_take_little_more_than_one(self) -> None:
        from durabletask_aio.testing.local import local_backend

        async def wait(ctx: Any, _: Any) -> None:
            await asyncio.sleep(1)

        def fan_out(ctx: Any, _: Any) -> Any:
            yield from [ctx.call_activity("wait") for _ in range(1000)]

        with local_backend() as backend:
            client = TaskHubGrpcClient(host_address=backend.address, logger=QUIET)
            options = ConcurrencyOptions(maximum_concurrent_activity_work_items=1000)
            worker = started(backend, wait, orchestrators=[fan_out], concurrency_options=options)
            try:
                begin = time.monotonic()
                state = run(client, "fan_out")
                duration = time.monotonic() - begin
            finally:
                worker.stop()
                client.close()

        assert state.runtime_status is OrchestrationStatus.COMPLETED
        assert duration < 20  # one by one they would take a thousand; the exact figure is for benchmarks


class TestFailures:
    ERRORS: list[BaseException] = [
        SystemExit(3),
        KeyboardInterrupt(),
        asyncio.CancelledError(),
        GeneratorExit(),
        RecursionError("deep"),
    ]
    if sys.version_info >= (3, 11):
        ERRORS.append(BaseExceptionGroup("group", [SystemExit(1)]))  # noqa: F821

    @pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
    @pytest.mark.parametrize("kind", ["sync", "async"])
    def test_what_is_no_exception_fails_that_activity_and_nothing_else(
        self, engine: LocalBackend, client: TaskHubGrpcClient, error: BaseException, kind: str
    ) -> None:
        def raising(ctx: Any, _: Any) -> None:
            raise error

        async def async_raising(ctx: Any, _: Any) -> None:
            raise error

        async def fine(ctx: Any, _: Any) -> str:
            return "fine"

        worker = started(engine, raising, async_raising, fine, orchestrators=[call_one])
        try:
            failed = run(client, "call_one", ["raising" if kind == "sync" else "async_raising", None])
            alive = run(client, "call_one", ["fine", None])
        finally:
            worker.stop()

        assert failed.runtime_status is OrchestrationStatus.FAILED
        assert type(error).__name__ in str(failed.failure_details.message) or str(error) in str(
            failed.failure_details.message
        )
        assert alive.serialized_output == '"fine"'

    class Speechless(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

    SPEECHLESS = "the message cannot be shown, since its __str__ raised ValueError"

    @pytest.mark.parametrize(
        ("error", "recorded_as", "message"),
        [
            (Speechless(), f"{__name__}.TestFailures.Speechless", SPEECHLESS),
            (OSError("no such file: \udcff"), "builtins.OSError", r"no such file: \udcff"),
        ],
    )
    @pytest.mark.parametrize("kind", ["sync", "async"])
    @pytest.mark.parametrize("spans", ["recording", "not recording"])
    def test_an_exception_whose_message_cannot_be_recorded_fails_the_activity_at_once_under_its_own_type(
        self,
        engine: LocalBackend,
        client: TaskHubGrpcClient,
        request: pytest.FixtureRequest,
        error: Exception,
        recorded_as: str,
        message: str,
        kind: str,
        spans: str,
    ) -> None:
        """Upstream gives no answer, and the engine delivers the activity again and again."""
        exporter = request.getfixturevalue("tracer_provider").exporter if spans == "recording" else None
        calls = []

        def raising(ctx: Any, _: Any) -> None:
            calls.append(1)
            raise error

        async def async_raising(ctx: Any, _: Any) -> None:
            calls.append(1)
            raise error

        name = "raising" if kind == "sync" else "async_raising"
        worker = started(engine, raising, async_raising, orchestrators=[call_one])
        try:
            instance_id = client.schedule_new_orchestration("call_one", input=[name, None])
            failed = finished(client, instance_id)
        finally:
            worker.stop()

        [recorded] = [event for event in engine.history(instance_id) if hasattr(event, "failure_details")][:1]
        assert (recorded.failure_details.error_type, recorded.failure_details.message) == (recorded_as, message)
        assert failed.failure_details.message.endswith(message)
        assert calls == [1]
        if exporter is not None:
            spans_of = (each for each in exporter.get_finished_spans() if each.name == f"activity:{name}")
            [span] = [each for each in spans_of if each.kind.name == "SERVER"]
            assert span.status.description.endswith(message)
            assert span.events[0].attributes["exception.type"] == recorded_as.removeprefix("builtins.")

    @pytest.mark.parametrize("opentelemetry", ["importable", "not importable"])
    def test_an_exception_is_recorded_under_its_own_type_with_opentelemetry_and_without(
        self, opentelemetry: str
    ) -> None:
        if opentelemetry == "importable":
            pytest.importorskip("opentelemetry.sdk")
        program = textwrap.dedent(
            f"""
            import logging, sys
            if {opentelemetry == "not importable"}:
                sys.modules["opentelemetry"] = None
            from durabletask.aio.testing import local_backend
            from durabletask.aio.worker import TaskHubGrpcWorker
            from durabletask.client import TaskHubGrpcClient
            from durabletask.internal import tracing

            class Speechless(Exception):
                def __str__(self):
                    raise ValueError("no words")

            def work(ctx, _):
                raise Speechless

            async def async_work(ctx, _):
                raise Speechless

            async def flow(ctx, _):
                for activity in (work, async_work):
                    try:
                        await ctx.call_activity(activity)
                    except Exception:
                        pass

            logging.disable(logging.CRITICAL)
            with local_backend() as engine, TaskHubGrpcWorker(host_address=engine.address) as worker:
                worker.add_orchestrator(flow)
                worker.add_activity(work)
                worker.add_activity(async_work)
                worker.start()
                with TaskHubGrpcClient(host_address=engine.address) as client:
                    instance_id = client.schedule_new_orchestration(flow)
                    client.wait_for_orchestration_completion(instance_id, timeout=60)
                for event in engine.history(instance_id):
                    details = getattr(event, "failure_details", None)
                    if details is not None:
                        print(details.error_type, "|", details.message)
            print(tracing._OTEL_AVAILABLE)
            """
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)

        assert done.stdout.splitlines() == [
            *[f"__main__.Speechless | {self.SPEECHLESS}"] * 2,
            str(opentelemetry == "importable"),
        ], done.stderr

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup came with 3.11")
    def test_an_exception_group_says_what_is_in_it(self, engine: LocalBackend, client: TaskHubGrpcClient) -> None:
        async def failing(number: int) -> None:
            raise ValueError(f"number {number}")

        async def grouped(ctx: Any, _: Any) -> None:
            async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined,unused-ignore]
                group.create_task(failing(1))
                group.create_task(failing(2))

        def raised(ctx: Any, _: Any) -> None:
            raise ExceptionGroup("several", [KeyError("a")])  # noqa: F821

        worker = started(engine, grouped, raised, orchestrators=[call_one])
        try:
            several = run(client, "call_one", ["grouped", None]).failure_details
            one = run(client, "call_one", ["raised", None]).failure_details
        finally:
            worker.stop()

        assert several.message.endswith(
            "unhandled errors in a TaskGroup: ValueError: number 1; ValueError: number 2 (2 sub-exceptions)"
        )
        assert one.message.endswith("several: KeyError: 'a' (1 sub-exception)")

    def test_a_task_left_behind_that_raises_system_exit_does_not_end_the_loop(
        self, engine: LocalBackend, client: TaskHubGrpcClient
    ) -> None:
        async def careless(ctx: Any, _: Any) -> None:
            async def exit_later() -> None:
                await asyncio.sleep(0.01)
                raise SystemExit

            self.task = asyncio.get_running_loop().create_task(exit_later())

        async def fine(ctx: Any, _: Any) -> str:
            await asyncio.sleep(0.05)
            return "fine"

        worker = started(engine, careless, fine, orchestrators=[call_one])
        try:
            run(client, "call_one", ["careless", None])
            assert run(client, "call_one", ["fine", None]).serialized_output == '"fine"'
        finally:
            worker.stop()
        assert isinstance(self.task.exception(), SystemExit)

    def test_an_activity_that_cancels_itself_has_failed(self, engine: LocalBackend, client: TaskHubGrpcClient) -> None:
        async def suicidal(ctx: Any, _: Any) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(10)

        worker = started(engine, suicidal, orchestrators=[call_one])
        try:
            state = run(client, "call_one", ["suicidal", None])
        finally:
            worker.stop()

        assert state.runtime_status is OrchestrationStatus.FAILED
        assert "CancelledError" in state.failure_details.message


class TestStopping:
    def test_a_result_within_the_grace_period_is_delivered(
        self, engine: LocalBackend, client: TaskHubGrpcClient, no_leaks: None
    ) -> None:
        begun = threading.Event()

        async def brief(ctx: Any, _: Any) -> str:
            begun.set()
            while not ctx.is_cancellation_requested:
                await asyncio.sleep(0.005)
            return "in time"

        worker = started(engine, brief, orchestrators=[call_one], stop_grace_period=60)
        instance_id = client.schedule_new_orchestration("call_one", input=["brief", None])
        assert begun.wait(30)
        worker.stop()

        assert has_pending_result(engine, instance_id)

    def test_what_is_not_done_after_the_grace_period_is_handed_out_again(
        self, engine: LocalBackend, client: TaskHubGrpcClient, no_leaks: None
    ) -> None:
        begun = threading.Event()
        attempts: list[str] = []

        async def stubborn(ctx: Any, _: Any) -> str:
            attempts.append("attempt")
            begun.set()
            if len(attempts) == 1:
                await asyncio.sleep(3600)
            return f"attempt {len(attempts)}"

        worker = started(engine, stubborn, orchestrators=[call_one], stop_grace_period=0.05)
        instance_id = client.schedule_new_orchestration("call_one", input=["stubborn", None])
        assert begun.wait(30)
        worker.stop()
        worker.start()
        state = client.wait_for_orchestration_completion(instance_id, timeout=30)
        worker.stop()

        assert state is not None
        assert state.serialized_output == '"attempt 2"'

    def test_a_result_returned_in_spite_of_the_cancellation_is_delivered(
        self, engine: LocalBackend, client: TaskHubGrpcClient
    ) -> None:
        begun = threading.Event()

        async def finishing(ctx: Any, _: Any) -> str:
            begun.set()
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                return "saved"
            return "never"

        worker = started(engine, finishing, orchestrators=[call_one], stop_grace_period=0.01)
        instance_id = client.schedule_new_orchestration("call_one", input=["finishing", None])
        assert begun.wait(30)
        worker.stop()

        assert has_pending_result(engine, instance_id)

    def test_tasks_that_activities_left_behind_are_cancelled(
        self, engine: LocalBackend, client: TaskHubGrpcClient, no_leaks: None
    ) -> None:
        ended: list[str] = []

        async def forever() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append("cancelled")

        async def leaving(ctx: Any, _: Any) -> None:
            self.left = asyncio.get_running_loop().create_task(forever())
            await asyncio.sleep(0)

        worker = started(engine, leaving, orchestrators=[call_one])
        run(client, "call_one", ["leaving", None])
        worker.stop()

        assert ended == ["cancelled"]

    def test_a_loop_that_is_torn_down_does_not_fail_its_activities(
        self, engine: LocalBackend, client: TaskHubGrpcClient
    ) -> None:
        attempts: list[str] = []

        async def slow(ctx: Any, _: Any) -> str:
            attempts.append("attempt")
            if len(attempts) == 1:
                await asyncio.sleep(3600)
            return "second attempt"

        worker = TaskHubGrpcWorker(host_address=engine.address, logger=QUIET)
        worker.add_activity(slow)
        worker.add_orchestrator(call_one)

        async def main() -> str:
            self.running = asyncio.ensure_future(worker.run())
            await asyncio.sleep(0)
            instance_id = client.schedule_new_orchestration("call_one", input=["slow", None])
            while not attempts:
                await asyncio.sleep(0.01)
            return instance_id

        instance_id = asyncio.run(main())  # cancels both the worker's task and the activity's, in any order
        worker.start()
        state = client.wait_for_orchestration_completion(instance_id, timeout=30)
        worker.stop()

        assert state is not None
        assert state.serialized_output == '"second attempt"'

    def test_those_that_have_not_begun_are_given_back_at_once(
        self, engine: LocalBackend, client: TaskHubGrpcClient, no_leaks: None
    ) -> None:
        begun: list[int] = []

        async def brief(ctx: Any, number: int) -> int:
            begun.append(number)
            while not ctx.is_cancellation_requested and len(begun) <= 2:
                await asyncio.sleep(0.005)
            return number

        async def fan_out(ctx: Any, _: Any) -> int:
            return len(await ctx.when_all([ctx.call_activity("brief", input=number) for number in range(8)]))

        worker = started(
            engine,
            brief,
            orchestrators=[fan_out],
            stop_grace_period=60,
            concurrency_options=ConcurrencyOptions(maximum_concurrent_activity_work_items=2),
        )
        instance_id = client.schedule_new_orchestration("fan_out")
        assert wait_until(lambda: len(begun) == 2)
        worker.stop()
        assert len(begun) == 2
        worker.start()
        state = client.wait_for_orchestration_completion(instance_id, timeout=30)
        worker.stop()

        assert state is not None
        assert state.serialized_output == "8"

    def test_a_stop_that_is_interrupted_does_not_fail_them(
        self, engine: LocalBackend, client: TaskHubGrpcClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        attempts: list[str] = []

        async def slow(ctx: Any, _: Any) -> str:
            attempts.append("attempt")
            if len(attempts) == 1:
                await asyncio.sleep(3600)
            return f"attempt {len(attempts)}"

        def interrupted(self: Any) -> None:
            raise KeyboardInterrupt

        worker = started(engine, slow, orchestrators=[call_one], stop_grace_period=3600)
        instance_id = client.schedule_new_orchestration("call_one", input=["slow", None])
        assert wait_until(lambda: bool(attempts))
        with monkeypatch.context() as patch:
            patch.setattr(UpstreamWorker, "stop", interrupted)
            with pytest.raises(KeyboardInterrupt):
                worker.stop()
        worker.stop()
        worker.start()
        state = client.wait_for_orchestration_completion(instance_id, timeout=30)
        worker.stop()

        assert state is not None
        assert state.serialized_output == '"attempt 2"'

    def test_those_that_ignore_their_cancellation_are_named(
        self,
        engine: LocalBackend,
        client: TaskHubGrpcClient,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        ignored: list[str] = []

        async def stubborn(ctx: Any, _: Any) -> str:
            ignored.append("begun")
            while "Waiting for async activities" not in caplog.text:
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    ignored.append("cancelled")
            return "at last"

        monkeypatch.setattr(binding, "CANCELLATION_WARNING_DELAY", 0.05)
        caplog.set_level(logging.INFO, logger="test.stubborn")
        worker = started(
            engine,
            stubborn,
            orchestrators=[call_one],
            stop_grace_period=0,
            logger=logging.getLogger("test.stubborn"),
        )
        instance_id = client.schedule_new_orchestration("call_one", input=["stubborn", None])
        assert wait_until(lambda: bool(ignored))
        worker.stop()

        assert ignored == ["begun", "cancelled"]
        [said] = [record for record in caplog.records if record.levelno == logging.WARNING and "Waiting" in record.msg]
        assert said.getMessage() == (
            "Waiting for async activities that continue although they were cancelled: "
            f"activity stubborn #1 of {instance_id}"
        )

    def test_a_grace_period_may_be_for_ever(
        self, engine: LocalBackend, client: TaskHubGrpcClient, no_leaks: None
    ) -> None:
        worker = started(engine, orchestrators=[call_one], stop_grace_period=float("inf"))
        worker.stop()


class TestContext:
    def test_tells_name_tags_and_metadata_to_sync_and_async_activities(
        self, engine: LocalBackend, client: TaskHubGrpcClient
    ) -> None:
        def facts(ctx: Any, _: Any) -> Any:
            return [ctx.name, ctx.tags, ctx.metadata, ctx.is_cancellation_requested]

        async def async_facts(ctx: Any, _: Any) -> Any:
            return facts(ctx, _)

        def calls(ctx: Any, name: str) -> Any:
            tags = {"colour": "red", "durabletask-aio.md.tenant": "acme"}
            result = yield ctx.call_activity(name, tags=tags)
            return result

        worker = started(engine, facts, async_facts, orchestrators=[calls])
        try:
            results = {name: run(client, "calls", name).serialized_output for name in ("facts", "async_facts")}
        finally:
            worker.stop()

        tags = '{"colour": "red", "durabletask-aio.md.tenant": "acme"}'
        import json

        for name, result in results.items():
            assert json.loads(result) == [name, json.loads(tags), {"tenant": "acme"}, False]

    def test_its_logger_names_the_activity_and_the_instance(
        self, engine: LocalBackend, client: TaskHubGrpcClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def logging_activity(ctx: Any, _: Any) -> None:
            ctx.logger.warning("low on %s", "paper", extra={"copies": 3})

        worker = started(engine, logging_activity, orchestrators=[call_one])
        with caplog.at_level(logging.WARNING):
            state = run(client, "call_one", ["logging_activity", None])
        worker.stop()

        (record,) = [r for r in caplog.records if "paper" in r.getMessage()]
        facts: Any = record
        assert record.name == "durabletask.aio.activity.logging_activity"
        assert (facts.instance_id, facts.activity_name, facts.copies) == (state.instance_id, "logging_activity", 3)
        assert record.getMessage() == f"{state.instance_id}/{facts.task_id}: low on paper"
