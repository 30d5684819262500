"""The two wrapped methods of upstream's worker: what goes through, what is refused, and what is put back."""

import asyncio
import functools
from typing import Any

import pytest
from durabletask import task
from durabletask.aio import SandboxMode, WorkflowValidationError, as_orchestrator
from durabletask.worker import TaskHubGrpcWorker

from durabletask_aio.core import distributions, registration


async def workflow(ctx, input):
    return input


def generator(ctx, input):
    yield ctx.call_activity("a")


async def activity(ctx, input):
    return input


def plain_activity(ctx, input):
    return input


@pytest.fixture
def worker():
    """Upstream's own worker, without integrations; it is never started, so it connects to nothing."""
    before = registration.originals, registration._registrar
    registration.install()
    yield TaskHubGrpcWorker()
    registration.uninstall()
    if before[0] is not None:
        registration.install(before[1])


def registered(worker):
    return worker._registry.orchestrators


ADDED = {"add_orchestrators", "add_activities"}


def test_exactly_four_attributes_of_upstreams_class_change(worker):
    changed = {
        name
        for name, value in vars(TaskHubGrpcWorker).items()
        if getattr(value, "__module__", "").startswith("durabletask_aio.")
        or getattr(getattr(value, "__code__", None), "co_filename", "").endswith("registration.py")
    }
    assert changed == {"add_orchestrator", "add_activity"} | ADDED


def test_uninstalling_puts_the_very_functions_back(worker):
    originals = registration.originals
    registration.uninstall()
    assert TaskHubGrpcWorker.add_orchestrator is originals.add_orchestrator
    assert TaskHubGrpcWorker.add_activity is originals.add_activity
    assert not ADDED & vars(TaskHubGrpcWorker).keys()
    registration.uninstall()
    assert registration.originals is None
    registration.install()


def test_the_wrapped_methods_look_like_upstreams(worker):
    assert TaskHubGrpcWorker.add_orchestrator.__name__ == "add_orchestrator"
    assert TaskHubGrpcWorker.add_orchestrator.__doc__ == registration.originals.add_orchestrator.__doc__


def test_installing_twice_wraps_once(worker):
    first = TaskHubGrpcWorker.add_orchestrator
    registration.install()
    assert TaskHubGrpcWorker.add_orchestrator is first


def test_plain_functions_go_straight_through(worker):
    assert worker.add_orchestrator(generator) == "generator"
    assert worker.add_activity(plain_activity) == "plain_activity"
    assert registered(worker)["generator"] is generator
    assert worker._registry.activities["plain_activity"] is plain_activity


def test_several_functions_are_registered_in_their_order(worker):
    orders = as_orchestrator(workflow, name="orders")

    assert worker.add_orchestrators(generator, orders) == ["generator", "orders"]
    assert worker.add_activities(plain_activity) == ["plain_activity"]
    assert worker.add_activities() == []
    assert registered(worker) == {"generator": generator, "orders": orders}
    assert worker._registry.activities == {"plain_activity": plain_activity}


@pytest.mark.parametrize("method", sorted(ADDED))
def test_a_list_of_functions_is_refused_with_the_form_that_is_right(worker, method):
    with pytest.raises(WorkflowValidationError) as caught:
        getattr(worker, method)([plain_activity])
    assert str(caught.value) == (
        f"{method}() takes functions, and one of its arguments is a list\n"
        f"  wrong: worker.{method}(functions)\n"
        f"  right: worker.{method}(*functions)"
    )


def test_nothing_is_registered_if_one_of_several_cannot_be_called(worker):
    with pytest.raises(WorkflowValidationError, match=r"is a str\n  wrong: worker.add_activities\('charge'\)"):
        worker.add_activities(plain_activity, "charge")
    assert not worker._registry.activities


def test_methods_that_upstream_has_itself_are_left_alone(worker, monkeypatch):
    registration.uninstall()
    monkeypatch.setattr(TaskHubGrpcWorker, "add_activities", print, raising=False)
    registration.install()
    assert worker.add_activities is print
    registration.uninstall()
    assert worker.add_activities is print
    registration.install()


def test_what_as_orchestrator_made_goes_straight_through(worker):
    orchestrator = as_orchestrator(workflow, name="orders")
    assert worker.add_orchestrator(orchestrator) == "orders"
    assert registered(worker)["orders"] is orchestrator


@pytest.mark.parametrize("function", [workflow, functools.partial(workflow)])
def test_an_async_workflow_is_refused_with_the_line_to_install_and_the_other_way(worker, function):
    with pytest.raises(WorkflowValidationError) as caught:
        worker.add_orchestrator(function)
    assert str(caught.value) == (
        "'workflow' is an async function, and upstream's worker runs generator orchestrators only\n"
        "  either: pip install durabletask-aio-worker   # then add_orchestrator(workflow) works as it is\n"
        "  or:     worker.add_orchestrator(durabletask.aio.as_orchestrator(workflow))"
    )
    assert not registered(worker)


def test_an_async_activity_is_refused_with_the_line_to_install_and_the_other_way(worker):
    with pytest.raises(WorkflowValidationError) as caught:
        worker.add_activity(activity)
    assert str(caught.value) == (
        "'activity' is an async function, and upstream's worker runs plain activities only\n"
        "  either: pip install durabletask-aio-worker   # then add_activity(activity) works as it is\n"
        "  or:     def activity(ctx, input): ...         # without async"
    )


def test_a_plain_function_around_an_async_activity_goes_straight_through(worker):
    @functools.wraps(activity)
    def runs_it(ctx, value):
        return asyncio.run(activity(ctx, value))

    assert worker.add_activity(runs_it) == "activity"
    assert worker._registry.activities["activity"] is runs_it


def test_a_coroutine_or_an_async_generator_in_place_of_an_activity_is_refused(worker):
    async def items(ctx, value):
        yield value

    coroutine: Any = activity(None, None)
    for function in (coroutine, items):
        with pytest.raises(WorkflowValidationError, match=f"{function.__name__!r} is an async function"):
            worker.add_activity(function)
    coroutine.close()


def test_a_name_for_an_activity_needs_the_worker_package(worker):
    @functools.wraps(activity)
    def runs_it(ctx, value):
        return asyncio.run(activity(ctx, value))

    for function in (plain_activity, runs_it):
        with pytest.raises(WorkflowValidationError, match=r"name='other'\) needs durabletask-aio-worker: pip install"):
            worker.add_activity(function, name="other")


def test_a_coroutine_in_place_of_a_workflow_is_named(worker):
    with pytest.raises(WorkflowValidationError, match=r"workflow\(\.\.\.\) was called, and its coroutine given"):
        worker.add_orchestrator(workflow("ctx", 1))


def test_an_async_generator_is_named(worker):
    async def wrong(ctx, input):
        yield 1

    with pytest.raises(WorkflowValidationError, match="is an async generator: it has 'yield' in an 'async def' body"):
        worker.add_orchestrator(wrong)


@pytest.mark.parametrize("keyword", [{"sandbox_mode": SandboxMode.STRICT}, {"name": "other"}])
def test_keywords_for_async_workflows_are_refused_for_generators(worker, keyword):
    name = next(iter(keyword))
    with pytest.raises(WorkflowValidationError) as caught:
        worker.add_orchestrator(generator, **keyword)
    assert str(caught.value) == (
        f"{name}= is for async workflows, and 'generator' is not one\n"
        f"  wrong: worker.add_orchestrator(generator, {name}=...)\n"
        f"  right: worker.add_orchestrator(generator)"
    )


def test_upstreams_own_errors_stay_upstreams(worker):
    worker.add_orchestrator(generator)
    with pytest.raises(ValueError, match="already exists") as caught:
        worker.add_orchestrator(generator)
    assert caught.type is ValueError


def test_a_registrar_takes_over_what_is_async(worker):
    class Registrar:
        protocol_version = 1
        calls: list[tuple[Any, ...]] = []

        def add_orchestrator(self, worker, function, *, name, sandbox_mode):
            self.calls.append((function, name, sandbox_mode))
            return "orchestrator"

        def add_activity(self, worker, function, *, name):
            self.calls.append((function, name))
            return "activity"

    registration.install(Registrar())
    assert worker.add_orchestrator(workflow, name="w", sandbox_mode="strict") == "orchestrator"
    assert worker.add_activity(activity) == "activity"
    assert worker.add_orchestrator(generator) == "generator"
    assert Registrar.calls == [(workflow, "w", "strict"), (activity, None)]


def test_names_are_upstreams(worker):
    assert worker.add_orchestrator(as_orchestrator(workflow)) == task.get_name(workflow)


class Accepting:
    protocol_version = 1

    def add_orchestrator(self, worker, function, *, name, sandbox_mode):
        return f"accepted {function.__name__}"

    def add_activity(self, worker, function, *, name):
        return f"accepted {function.__name__}"


@pytest.mark.parametrize(("method", "function"), [("add_orchestrator", workflow), ("add_activity", activity)])
def test_an_integration_is_looked_for_when_the_first_async_function_comes(worker, monkeypatch, method, function):
    searches = []

    def load():
        searches.append(1)
        registration.install(Accepting())
        return []

    monkeypatch.setattr(registration.plugins, "load_integrations", load)
    registration.install(registration.LateRegistrar())
    worker.add_orchestrator(generator)
    assert searches == []

    assert getattr(worker, method)(function) == f"accepted {function.__name__}"
    assert getattr(worker, method)(function) == f"accepted {function.__name__}"
    assert searches == [1]


@pytest.mark.parametrize(("method", "function"), [("add_orchestrator", workflow), ("add_activity", activity)])
def test_what_is_installed_is_checked_when_the_first_async_function_comes(worker, monkeypatch, method, function):
    def check():
        raise ImportError("durabletask 1.11 is installed")

    monkeypatch.setattr(registration.installation, "verify_installation", check)
    registration.install(registration.LateRegistrar())
    worker.add_orchestrator(generator)

    with pytest.raises(ImportError, match=r"1\.11 is installed"):
        getattr(worker, method)(function)


def test_without_an_integration_async_functions_are_refused_and_the_search_is_over(worker, monkeypatch):
    searches = []

    def load():
        searches.append(1)
        return []

    monkeypatch.setattr(registration.plugins, "load_integrations", load)
    registration.install(registration.LateRegistrar())

    for _ in range(2):
        with pytest.raises(WorkflowValidationError, match="pip install durabletask-aio-worker"):
            worker.add_orchestrator(workflow)
    assert searches == [1]


def test_a_broken_integration_is_reported_at_the_line_that_registers(worker, monkeypatch):
    class Broken:
        name, group, dist, value = "broken", registration.plugins.INTEGRATIONS_GROUP, None, "acme:main"

        def load(self):
            raise ImportError("no module named acme")

    monkeypatch.setattr(distributions, "entry_points", lambda *, group: [Broken()])
    registration.install(registration.LateRegistrar())

    with pytest.warns(UserWarning, match="could not be loaded") as caught, pytest.raises(WorkflowValidationError):
        worker.add_orchestrator(workflow)
    assert caught[0].filename == __file__

    for method, function in (("add_orchestrator", workflow), ("add_activity", activity)):
        with pytest.raises(
            WorkflowValidationError, match=r"repair this: .*: ImportError: no module named acme"
        ) as error:
            getattr(worker, method)(function)
        assert "pip install" not in str(error.value)
