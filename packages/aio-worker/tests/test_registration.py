"""What may be registered, under which name and mode, and what a worker keeps of upstream."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, cast

import pytest
from durabletask import task
from durabletask import worker as upstream
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.worker import TaskHubGrpcWorker as UpstreamWorker
from worker_support import QUIET, run, started

from durabletask_aio.core import AsyncWorkflowContext, plugins
from durabletask_aio.core.errors import WorkflowValidationError
from durabletask_aio.core.settings import SandboxMode
from durabletask_aio.testing.local import LocalBackend
from durabletask_aio.worker import _upstream, registration
from durabletask_aio.worker.activity_context import ActivityContext
from durabletask_aio.worker.binding import binding_of
from durabletask_aio.worker.worker import AsyncOrchestratorMixin, TaskHubGrpcWorker


async def workflow(ctx: Any, input: Any) -> Any:
    return await ctx.call_activity("double", input=input)


async def double(ctx: Any, number: int) -> int:
    return number * 2


def generator(ctx: Any, input: Any) -> Any:
    result = yield ctx.call_activity("plain_double", input=input)
    return result


def plain_double(ctx: Any, number: int) -> int:
    return number * 2


def info(worker: Any, name: str) -> Any:
    function: Any = _upstream.find_orchestrator(worker, name)
    return function.__durabletask_aio__


def place(function: Any) -> str:
    return f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"


@pytest.fixture
def some_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that accepts everything and does nothing, so that modes can be told apart without the real one."""

    class Sandbox:
        protocol_version = plugins.PROTOCOL_VERSION

        def guard(self, function: Any, mode: Any, *, workflow_name: str) -> None:
            return None

    monkeypatch.setattr(plugins, "load_sandbox", Sandbox)


@pytest.fixture(params=[UpstreamWorker, TaskHubGrpcWorker], ids=["upstream's class", "our class"])
def worker(request: pytest.FixtureRequest) -> Any:
    return request.param(logger=QUIET)


def has_upstreams_methods(worker: UpstreamWorker) -> bool:
    """Whether this worker still has every method of upstream's class: the promise to workers without async code."""
    names = {"_execute_orchestrator", "_execute_activity", "_execute_entity_batch", "start", "stop", "add_entity"}
    names.add("_async_run_loop")
    manager = worker._async_worker_manager
    return not names & vars(worker).keys() and type(manager) is upstream._AsyncWorkerManager


class TestAnInstanceWithoutAsyncCode:
    def test_keeps_every_method_of_upstream(self) -> None:
        worker: Any = UpstreamWorker(logger=QUIET)
        worker.add_orchestrator(generator)
        worker.add_activity(plain_double)

        assert worker._execute_orchestrator.__func__ is UpstreamWorker._execute_orchestrator
        assert worker._execute_activity.__func__ is UpstreamWorker._execute_activity
        assert has_upstreams_methods(worker)
        assert binding_of(worker) is None

    def test_registers_the_very_functions_it_is_given(self) -> None:
        worker = UpstreamWorker(logger=QUIET)
        worker.add_orchestrator(generator)
        worker.add_activity(plain_double)

        assert _upstream.find_orchestrator(worker, "generator") is generator
        assert _upstream.find_activity(worker, "plain_double") is plain_double

    @pytest.mark.parametrize("kind", ["orchestrator", "activity"])
    def test_is_bound_by_the_first_coroutine_function_and_alone(self, kind: str) -> None:
        bound, other = UpstreamWorker(logger=QUIET), UpstreamWorker(logger=QUIET)
        bound.add_orchestrator(workflow) if kind == "orchestrator" else bound.add_activity(double)

        assert binding_of(bound) is not None
        assert not has_upstreams_methods(bound)
        assert has_upstreams_methods(other)

    def test_is_not_bound_by_a_registration_that_failed(self) -> None:
        worker = UpstreamWorker(logger=QUIET)
        worker.add_orchestrator(generator)

        with pytest.raises(ValueError, match="A 'generator' orchestrator already exists"):
            cast(Any, worker).add_orchestrator(workflow, name="generator")

        assert has_upstreams_methods(worker)


class TestInstallation:
    def test_sets_four_attributes_of_upstreams_class_and_takes_them_back(self) -> None:
        with_us = dict(vars(UpstreamWorker))
        registration.uninstall()
        try:
            without_us = dict(vars(UpstreamWorker))
        finally:
            registration.install()

        added = {"add_orchestrators", "add_activities"}
        wrapped = {"add_orchestrator", "add_activity"}
        assert {name for name in with_us if with_us[name] is not without_us.get(name)} == wrapped | added
        assert without_us["add_orchestrator"].__code__.co_filename.endswith("worker.py")
        assert without_us["add_orchestrator"].__module__ == "durabletask.worker"
        assert without_us.keys() | added == with_us.keys()
        assert not added & without_us.keys()

    def test_can_be_repeated(self) -> None:
        registration.install()
        before = dict(vars(UpstreamWorker))
        registration.install()

        assert dict(vars(UpstreamWorker)) == before


class TestOrchestrators:
    def test_return_their_name_as_upstream_does(self, worker: Any) -> None:
        assert worker.add_orchestrator(workflow) == "workflow"
        assert worker.add_orchestrator(workflow, name="other") == "other"
        assert worker.add_orchestrator(generator) == "generator"

    def test_several_are_registered_by_one_call(self, worker: Any) -> None:
        assert worker.add_orchestrators(workflow, generator) == ["workflow", "generator"]
        assert worker.add_activities(double, plain_double) == ["double", "plain_double"]
        assert info(worker, "workflow").function is workflow
        assert _upstream.find_activity(worker, "plain_double") is plain_double
        with pytest.raises(WorkflowValidationError, match=r"right: worker.add_activities\(\*functions\)"):
            worker.add_activities([double])

    def test_work_as_decorators(self, worker: Any) -> None:
        @worker.add_orchestrator
        async def decorated(ctx: Any, input: Any) -> None: ...

        assert decorated == "decorated"  # upstream's decorator, too, leaves the name

    @pytest.mark.parametrize("mode", ["best_effort", SandboxMode.BEST_EFFORT])
    def test_can_be_given_again_with_a_mode(self, worker: Any, mode: Any, some_sandbox: None) -> None:
        worker.add_orchestrator(workflow)
        assert info(worker, "workflow").sandbox_mode is SandboxMode.OFF

        assert worker.add_orchestrator(workflow, sandbox_mode=mode) == "workflow"
        assert info(worker, "workflow").sandbox_mode is SandboxMode.BEST_EFFORT

    def test_given_again_without_a_mode_stay_as_they_are(self, worker: Any, some_sandbox: None) -> None:
        worker.add_orchestrator(workflow, sandbox_mode="best_effort")
        before = _upstream.find_orchestrator(worker, "workflow")
        worker.add_orchestrator(workflow)

        assert _upstream.find_orchestrator(worker, "workflow") is before

    def test_a_bound_method_given_again_is_the_same_function(self, worker: Any) -> None:
        class Workflows:
            async def method(self, ctx: Any, input: Any) -> None: ...

        workflows = Workflows()
        worker.add_orchestrator(workflows.method)

        assert worker.add_orchestrator(workflows.method, sandbox_mode="off") == "method"

    def test_another_function_under_a_taken_name_is_an_error_that_names_both(self, worker: Any) -> None:
        async def other(ctx: Any, input: Any) -> None: ...

        worker.add_orchestrator(workflow)
        with pytest.raises(ValueError, match="A 'workflow' orchestrator already exists") as caught:
            worker.add_orchestrator(other, name="workflow")
        assert str(caught.value) == (
            f"A 'workflow' orchestrator already exists: 'workflow' ({place(workflow)}), and {other.__qualname__!r} "
            f"({place(other)}) cannot have its name too\n"
            "  wrong: worker.add_orchestrator(other)\n"
            "  right: worker.add_orchestrator(other, name='another_workflow')"
        )

    def test_a_wrong_mode_names_the_right_ones(self, worker: Any) -> None:
        with pytest.raises(WorkflowValidationError, match="'off', 'best_effort', 'strict'"):
            worker.add_orchestrator(workflow, sandbox_mode="strikt")

    def test_a_generator_has_no_mode(self, worker: Any) -> None:
        with pytest.raises(TypeError, match="sandbox_mode= is for async workflows, and 'generator' is not one"):
            worker.add_orchestrator(generator, sandbox_mode="strict")

    def test_an_async_generator_is_no_workflow(self, worker: Any) -> None:
        async def both(ctx: Any, input: Any) -> Any:
            yield ctx.call_activity("double")

        with pytest.raises(WorkflowValidationError, match=r"await ctx\.call_activity"):
            worker.add_orchestrator(both, name="both") if isinstance(worker, TaskHubGrpcWorker) else (
                worker.add_orchestrator(both)
            )

    def test_on_our_class_a_generator_may_have_a_name(self) -> None:
        worker = TaskHubGrpcWorker(logger=QUIET)

        assert worker.add_orchestrator(generator, name="renamed") == "renamed"
        assert _upstream.find_orchestrator(worker, "renamed") is generator

    def test_every_kind_of_async_callable_is_recognised(self, worker: Any) -> None:
        async def prefixed(prefix: str, ctx: Any, input: Any) -> None: ...

        @functools.wraps(workflow)
        def wrapped(ctx: Any, input: Any) -> Any:
            return workflow(ctx, input)

        class Workflow:
            async def __call__(self, ctx: Any, input: Any) -> None: ...

            async def method(self, ctx: Any, input: Any) -> None: ...

        names = [
            worker.add_orchestrator(functools.partial(prefixed, "x")),
            worker.add_orchestrator(wrapped),
            worker.add_orchestrator(Workflow()),
            worker.add_orchestrator(Workflow().method),
        ]

        assert names == ["prefixed", "workflow", "Workflow", "method"]
        assert all(info(worker, name).name == name for name in names)


def charge(ctx: ActivityContext, amount: int) -> str:
    return "receipt"


async def charge_async(ctx: "task.ActivityContext", amount: int) -> str:
    return "receipt"


async def order(ctx: AsyncWorkflowContext, amount: int) -> str:
    return "ordered"


def old_order(ctx: task.OrchestrationContext, amount: int) -> Any:
    return (yield ctx.call_activity(charge, input=amount))  # type: ignore[arg-type]


def sync_order(ctx: AsyncWorkflowContext, amount: int) -> str:
    return "ordered"


def without_context(amount: int) -> str:
    return "receipt"


@functools.wraps(charge)
def charging_order(ctx: Any, amount: int) -> str:
    """An orchestrator that a decorator has made of an activity, whose annotations it has."""
    return "receipt"


def adapted(function: Any) -> Any:
    @functools.wraps(function)
    def activity(ctx: Any, input: Any) -> Any:
        return function(input)

    return activity


NO_ACTIVITY = "is an activity: its first parameter is an ActivityContext\n  wrong: worker.add_orchestrator({0})\n"
NO_WORKFLOW = "{1}\n  wrong: worker.add_activity({0})\n  right: worker.add_orchestrator({0})"


class TestTheOtherKindOfFunction:
    @pytest.mark.parametrize(
        ("method", "function", "message"),
        [
            ("add_orchestrator", charge, f"{NO_ACTIVITY}  right: worker.add_activity({{0}})"),
            ("add_orchestrator", charge_async, f"{NO_ACTIVITY}  right: worker.add_activity({{0}})"),
            (
                "add_orchestrator",
                sync_order,
                (
                    "takes an AsyncWorkflowContext, and is not async\n"
                    "  wrong: def {0}(ctx, input): ...\n"
                    "  right: async def {0}(ctx, input): ..."
                ),
            ),
            ("add_activity", order, NO_WORKFLOW),
            ("add_activity", sync_order, NO_WORKFLOW),
            ("add_activity", old_order, NO_WORKFLOW),
            (
                "add_activity",
                without_context,
                (
                    "takes (amount); an activity is called with its context and its input\n"
                    "  wrong: def {0}(amount): ...\n"
                    "  right: def {0}(ctx, amount): ..."
                ),
            ),
        ],
    )
    def test_is_refused_with_its_line_and_what_to_write(self, method: str, function: Any, message: str) -> None:
        why = "is a workflow: its first parameter is an AsyncWorkflowContext"
        if function is old_order:
            why = "is a generator function, which only an orchestrator can be"
        for name in (None, "other"):
            with pytest.raises(WorkflowValidationError) as caught:
                getattr(TaskHubGrpcWorker(logger=QUIET), method)(function, name=name)
            named = function.__name__
            assert str(caught.value) == f"{named!r} ({place(function)}) {message.format(named, why)}"

    def test_is_refused_by_upstreams_class_too_if_it_has_our_context(self) -> None:
        worker = UpstreamWorker(logger=QUIET)
        with pytest.raises(WorkflowValidationError, match=r"right: async def sync_order\(ctx, input\)"):
            worker.add_orchestrator(sync_order)  # type: ignore[arg-type]
        with pytest.raises(WorkflowValidationError, match=r"right: worker\.add_orchestrator\(sync_order\)"):
            worker.add_activity(sync_order)  # type: ignore[arg-type]

    def test_is_not_guessed(self, worker: Any) -> None:
        assert worker.add_orchestrator(charging_order) == "charge"
        assert worker.add_activity(adapted(without_context)) == "without_context"
        assert worker.add_activity(print) == "print"

    @pytest.mark.parametrize("method", ["add_orchestrator", "add_activity"])
    def test_something_else_is_no_function(self, method: str) -> None:
        with pytest.raises(WorkflowValidationError) as caught:
            getattr(TaskHubGrpcWorker(logger=QUIET), method)("charge")
        assert str(caught.value) == (
            f"{method}() takes a function, and not 'charge'\n"
            f"  wrong: worker.{method}('charge')\n"
            f"  right: worker.{method}(function)"
        )

    def test_a_lambda_has_no_name(self) -> None:
        worker = TaskHubGrpcWorker(logger=QUIET)
        with pytest.raises(
            WorkflowValidationError, match=r"right: add_activity\(lambda ctx, input: ..., name='work'\)"
        ):
            worker.add_activity(lambda ctx, input: input)
        assert worker.add_activity(lambda ctx, input: input, name="work") == "work"

    def test_an_activity_is_registered_once(self) -> None:
        worker = TaskHubGrpcWorker(logger=QUIET)
        worker.add_activities(charge, charge_async)
        for function in (charge, charge_async):
            with pytest.raises(
                ValueError, match=f"^A '{function.__name__}' activity already exists: .* is registered twice"
            ):
                worker.add_activity(function)


async def misspells(ctx: AsyncWorkflowContext, amount: int) -> str:
    return await ctx.call_activity("plain_doubel", input=amount)


async def starts_as_activity(ctx: AsyncWorkflowContext, amount: int) -> str:
    return await ctx.call_activity("misspells", input=amount)


async def starts_unknown(ctx: AsyncWorkflowContext, amount: int) -> str:
    return await ctx.call_sub_orchestrator("misspell", input=amount)


NAMES = "there are: misspells, starts_as_activity, starts_unknown"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            misspells,
            "no activity 'plain_doubel' is registered here; there are: plain_double; did you mean 'plain_double'?",
        ),
        (
            starts_as_activity,
            (
                "no activity 'misspells' is registered here; there is an orchestrator of that name: "
                "await ctx.call_sub_orchestrator('misspells', input=...)"
            ),
        ),
        (starts_unknown, f"no orchestrator 'misspell' is registered here; {NAMES}; did you mean 'misspells'?"),
    ],
)
def test_a_name_that_is_not_registered_gets_a_suggestion_and_the_line_of_its_call(
    engine: LocalBackend, client: TaskHubGrpcClient, function: Any, message: str
) -> None:
    worker = started(engine, plain_double, orchestrators=[misspells, starts_as_activity, starts_unknown])
    try:
        state = run(client, function, 1)
    finally:
        worker.stop()
    assert state.failure_details is not None
    (what, line), text = (
        state.failure_details.message.partition(" (")[::2],
        f"{function.__code__.co_filename}:{function.__code__.co_firstlineno + 1}) failed with ",
    )
    assert what.startswith(("activity '", "sub-orchestration '"))
    assert line.startswith(text)
    assert f"NotRegisteredError: {message} [workflow '{function.__name__}'" in line


def test_the_start_of_a_name_that_is_not_registered_gets_a_suggestion(
    engine: LocalBackend, client: TaskHubGrpcClient
) -> None:
    worker = started(engine, plain_double, orchestrators=[misspells])
    try:
        state = run(client, "misspell", 1)
    finally:
        worker.stop()
    assert state.failure_details is not None
    assert state.failure_details.error_type == "durabletask.worker.OrchestratorNotRegisteredError"
    assert state.failure_details.message == (
        "no orchestrator 'misspell' is registered here; there are: misspells; did you mean 'misspells'?"
    )
    assert not state.failure_details.stack_trace  # which would be the worker's


class TestWhileTheWorkerRuns:
    @pytest.mark.parametrize("kind", [UpstreamWorker, TaskHubGrpcWorker])
    def test_nothing_can_be_added(self, engine: LocalBackend, kind: Any) -> None:
        worker = started(engine, double, orchestrators=[workflow], worker_class=kind)
        try:
            with pytest.raises(RuntimeError, match=r"^Orchestrators cannot be added while the worker is running\.$"):
                worker.add_orchestrator(workflow)
            with pytest.raises(RuntimeError, match=r"^Activities cannot be added while the worker is running\.$"):
                worker.add_activity(double, name="again")
        finally:
            worker.stop()


class TestTheWorkersDefaultMode:
    def test_holds_for_workflows_without_one(self, some_sandbox: None) -> None:
        worker = TaskHubGrpcWorker(logger=QUIET, sandbox_mode="best_effort")
        worker.add_orchestrator(workflow)
        worker.add_orchestrator(workflow, name="unwatched", sandbox_mode="off")

        assert info(worker, "workflow").sandbox_mode is SandboxMode.BEST_EFFORT
        assert info(worker, "unwatched").sandbox_mode is SandboxMode.OFF

    def test_is_checked(self) -> None:
        with pytest.raises(WorkflowValidationError, match="sandbox_mode='loose' is not a sandbox mode"):
            TaskHubGrpcWorker(logger=QUIET, sandbox_mode="loose")


class TestTypes:
    @dataclass
    class Order:
        number: int

    def test_of_inputs_are_found_as_for_generators(self, engine: LocalBackend, client: TaskHubGrpcClient) -> None:
        async def typed(ctx: Any, order: Order) -> str:
            return f"{type(order).__name__} {order.number}"

        @functools.wraps(typed)
        def wrapped(ctx: Any, order: Any) -> Any:
            return typed(ctx, order)

        worker = TaskHubGrpcWorker(host_address=engine.address, logger=QUIET)
        worker.add_orchestrator(typed)
        worker.add_orchestrator(wrapped, name="wrapped")
        worker.add_orchestrator(functools.partial(typed_with_prefix, "a"), name="partial")
        worker.start()
        try:
            results = [run(client, name, {"number": 5}).serialized_output for name in ("typed", "wrapped", "partial")]
        finally:
            worker.stop()

        assert results == ['"Order 5"', '"Order 5"', '"a Order 5"']

    def test_of_results_are_those_of_a_pydantic_converter(
        self, engine: LocalBackend, client: TaskHubGrpcClient
    ) -> None:
        pydantic = pytest.importorskip("pydantic")
        from durabletask.serialization import JsonDataConverter

        class Invoice(pydantic.BaseModel):  # type: ignore[name-defined]
            total: float

        class PydanticConverter(JsonDataConverter):
            def can_reconstruct(self, target: Any) -> bool:
                return (isinstance(target, type) and issubclass(target, pydantic.BaseModel)) or super().can_reconstruct(
                    target
                )

            def serialize(self, value: Any) -> Any:
                return value.model_dump_json() if isinstance(value, pydantic.BaseModel) else super().serialize(value)

            def deserialize(self, data: Any, target: Any = None) -> Any:
                if data and isinstance(target, type) and issubclass(target, pydantic.BaseModel):
                    return cast(Any, target).model_validate_json(data)
                return super().deserialize(data, target)

        async def price(ctx: Any, invoice: Any) -> Any:
            assert isinstance(invoice, Invoice)
            return Invoice(total=invoice.total * 2)

        async def billing(ctx: Any, invoice: Any) -> Any:
            assert isinstance(invoice, Invoice)
            priced = await ctx.call_activity(price, input=invoice)
            assert isinstance(priced, Invoice)
            return priced.total

        # Annotated here, since names of this function's scope cannot be found from a string.
        for function in (price, billing):
            function.__annotations__["invoice"] = Invoice
        price.__annotations__["return"] = Invoice

        worker = started(engine, price, orchestrators=[billing], data_converter=PydanticConverter())
        try:
            state = run(client, "billing", {"total": 2.5})
        finally:
            worker.stop()

        assert (state.runtime_status, state.serialized_output) == (OrchestrationStatus.COMPLETED, "5.0")


@dataclass
class Order:
    number: int


async def typed_with_prefix(prefix: str, ctx: Any, order: Order) -> str:
    return f"{prefix} {type(order).__name__} {order.number}"


class TestTheMixin:
    def test_wants_a_worker_class(self) -> None:
        class NotAWorker(AsyncOrchestratorMixin):
            pass

        with pytest.raises(TypeError, match="NotAWorker is no worker"):
            NotAWorker()

    def test_runs_on_the_azure_managed_worker(self, engine: LocalBackend, client: TaskHubGrpcClient) -> None:
        azuremanaged = pytest.importorskip("durabletask.azuremanaged.worker")

        class Worker(AsyncOrchestratorMixin, azuremanaged.DurableTaskSchedulerWorker):  # type: ignore[name-defined]
            pass

        worker = started(
            engine,
            double,
            plain_double,
            orchestrators=[workflow, generator],
            worker_class=Worker,
            taskhub="hub",
            token_credential=None,
            max_extended_sessions=9,
            secure_channel=False,
        )
        try:
            results = [run(client, name, 4).serialized_output for name in ("workflow", "generator")]
        finally:
            worker.stop()

        assert results == ["8", "8"]
        assert worker.extended_session_stats.hits == 2

    def test_a_turn_of_the_subclasss_own_is_respected(self, engine: LocalBackend, client: TaskHubGrpcClient) -> None:
        turns: list[str] = []

        class Custom(UpstreamWorker):
            def _execute_orchestrator(self, req: Any, stub: Any, completionToken: Any) -> None:
                turns.append(req.instanceId)
                super()._execute_orchestrator(req, stub, completionToken)

        class Worker(AsyncOrchestratorMixin, Custom):
            pass

        worker = started(engine, double, orchestrators=[workflow], worker_class=Worker)
        try:
            state = run(client, "workflow", 4)
        finally:
            worker.stop()

        assert state.serialized_output == "8"
        assert turns == [state.instance_id] * 2


class TestEntities:
    def test_may_not_be_async(self, worker: Any) -> None:
        from durabletask.entities import DurableEntity

        async def counter(ctx: Any, input: Any) -> None: ...

        class Counter(DurableEntity):
            async def add(self, number: int) -> None: ...

        worker.add_orchestrator(workflow)
        with pytest.raises(WorkflowValidationError, match="entity operations cannot be async: counter"):
            worker.add_entity(counter)
        with pytest.raises(WorkflowValidationError, match=r"entity operations cannot be async: Counter\.add"):
            worker.add_entity(Counter)

    def test_that_are_not_async_work_as_before(self, worker: Any) -> None:
        def counter(ctx: Any, input: Any) -> None: ...

        worker.add_orchestrator(workflow)
        assert worker.add_entity(counter) == "counter"


class TestBothKindsOnOneWorker:
    @pytest.mark.parametrize("kind", [UpstreamWorker, TaskHubGrpcWorker])
    def test_async_and_generator_run_side_by_side(
        self, engine: LocalBackend, client: TaskHubGrpcClient, kind: Any
    ) -> None:
        worker = started(engine, double, plain_double, orchestrators=[workflow, generator], worker_class=kind)
        try:
            results = [run(client, name, 4).serialized_output for name in ("workflow", "generator")]
        finally:
            worker.stop()

        assert results == ["8", "8"]

    def test_the_converted_function_can_be_named_to_the_client(
        self, engine: LocalBackend, client: TaskHubGrpcClient
    ) -> None:
        worker = started(engine, double, orchestrators=[workflow])
        try:
            converted: task.Orchestrator[Any, Any] = _upstream.find_orchestrator(worker, "workflow")
            assert run(client, converted, 4).serialized_output == "8"
        finally:
            worker.stop()


class TestPublicNames:
    def test_say_where_to_import_them_from(self) -> None:
        import durabletask.aio.worker as public

        classes = [value for name in public.__all__ if isinstance(value := getattr(public, name), type)]
        assert {value.__module__ for value in classes} == {public.__name__}
