"""How the core finds its companions, and what it says when they are missing, broken or of another version."""

import logging
import warnings
from importlib.metadata import version
from types import SimpleNamespace

import pytest
from durabletask.aio import (
    AsyncWorkflowContext,
    AsyncWorkflowError,
    SandboxMode,
    WorkflowValidationError,
    as_orchestrator,
)
from turns import Instance

from durabletask_aio.core import distributions, plugins

PIP = 'pip install "durabletask-aio-core[sandbox]"'


async def workflow(ctx, value=None):
    return await ctx.call_activity("a", input=value)


def entry(loaded, *, name="main", group="some.group", distribution="acme-plugin", error=None):
    """An entry point as importlib.metadata would find it, of a distribution in version 9.9."""

    def load():
        if error is not None:
            raise error
        return loaded

    dist = None if distribution is None else SimpleNamespace(name=distribution, version="9.9")
    return SimpleNamespace(name=name, group=group, value="acme.plugin:main", dist=dist, load=load)


@pytest.fixture
def installed(monkeypatch):
    """Install entry points: `installed(group, entry, ...)`; every other group is empty."""
    groups = {}

    def find(*, group):
        return groups.get(group, [])

    monkeypatch.setattr(distributions, "entry_points", find)
    monkeypatch.setattr(plugins, "_advised", False)
    monkeypatch.setattr(plugins, "_loaded", None)
    monkeypatch.delenv("DAPR_WF_DEBUG", raising=False)
    monkeypatch.delenv("DT_DEBUG", raising=False)
    monkeypatch.delenv("DAPR_WF_DISABLE_DETECTION", raising=False)
    return lambda group, *entries: groups.__setitem__(group, list(entries))


class Guard:
    """Implements both guards of the protocols: records the calls, and by default accepts everything."""

    def __init__(self, function, *, violation=None, context_type=None, watch=True):
        self.function = function
        self.context_type = context_type
        self.violation = violation
        self.watch = watch
        self.seen = []

    def begin(self, execution):
        self.execution = execution
        self.seen.append("begin")
        return self if self.watch else None

    def enter(self):
        self.seen.append("enter")

    def exit(self):
        self.seen.append("exit")
        return self.violation


class FakeSandbox:
    protocol_version = plugins.PROTOCOL_VERSION

    def __init__(self, **options):
        self.options = options
        self.guards = []
        self.advised = []

    def guard(self, function, mode, *, workflow_name):
        self.mode = mode
        self.guards.append(Guard(function, **self.options))
        return self.guards[-1]

    def advise(self, function, *, workflow_name):
        self.advised.append(workflow_name)


@pytest.mark.parametrize("mode", [SandboxMode.STRICT, "best_effort"])
def test_a_mode_that_needs_the_sandbox_says_what_to_install(installed, mode):
    with pytest.raises(WorkflowValidationError) as caught:
        as_orchestrator(workflow, sandbox_mode=mode)
    assert str(caught.value) == (
        f"sandbox_mode={str(mode)!r} for workflow 'workflow' needs the sandbox, which is not installed "
        f"[workflow 'workflow']\n  {PIP}"
    )


def test_mode_off_looks_for_no_sandbox(installed, monkeypatch):
    monkeypatch.setattr(distributions, "entry_points", lambda **_: pytest.fail("looked for entry points"))
    as_orchestrator(workflow)
    as_orchestrator(workflow, sandbox_mode="off")


def test_a_sandbox_of_another_protocol_names_both_distributions(installed):
    installed(plugins.SANDBOX_GROUP, entry(SimpleNamespace(protocol_version=2), group=plugins.SANDBOX_GROUP))

    with pytest.raises(AsyncWorkflowError) as caught:
        as_orchestrator(workflow, sandbox_mode="strict")
    assert str(caught.value) == (
        f"acme-plugin 9.9 (entry point 'main' of group 'durabletask.aio.sandbox') speaks version 2 of the plugin "
        f"protocol, and durabletask-aio-core {version('durabletask-aio-core')} speaks {plugins.PROTOCOL_VERSION}\n"
        f"  pip install --upgrade durabletask-aio-core acme-plugin"
    )


def test_a_sandbox_that_states_no_protocol_is_refused_too(installed):
    installed(plugins.SANDBOX_GROUP, entry(object(), distribution=None))
    with pytest.raises(AsyncWorkflowError, match=r"acme\.plugin:main .* speaks version None of the plugin protocol"):
        as_orchestrator(workflow, sandbox_mode="strict")


def test_a_broken_integration_warns_and_breaks_nothing(installed):
    calls = []
    installed(
        plugins.INTEGRATIONS_GROUP,
        entry(None, name="broken", group=plugins.INTEGRATIONS_GROUP, error=ImportError("no module named acme")),
        entry(lambda: calls.append("called"), name="fine", group=plugins.INTEGRATIONS_GROUP),
    )

    with pytest.warns(UserWarning, match="broken") as caught:
        broken = plugins.load_integrations()

    assert (
        broken
        == [str(warning.message) for warning in caught]
        == [
            (
                "acme-plugin 9.9 (entry point 'broken' of group 'durabletask.aio.integrations') could not be loaded: "
                "ImportError: no module named acme"
            )
        ]
    )
    assert calls == ["called"]


def test_without_integrations_the_core_finds_none(installed):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plugins.load_integrations() == []


def test_an_integration_that_fails_when_called_counts_as_missing(installed):
    def fails():
        raise RuntimeError("no")

    installed(plugins.INTEGRATIONS_GROUP, entry(fails))
    with pytest.warns(UserWarning, match="RuntimeError: no") as caught:
        assert plugins.load_integrations() == [str(caught[0].message)]


# -- the guard at work ----------------------------------------------------------------------------------------------


def test_a_guard_brackets_every_stretch_of_workflow_code(installed):
    sandbox = FakeSandbox()
    installed(plugins.SANDBOX_GROUP, entry(sandbox))

    instance = Instance(as_orchestrator(workflow, sandbox_mode="strict"), 3).run()

    assert instance.result == 3
    assert sandbox.mode is SandboxMode.STRICT
    # The second turn replays the first stretch, and continues.
    assert sandbox.guards[0].seen == ["begin", "enter", "exit", "begin", "enter", "exit", "enter", "exit"]


def test_a_guard_sees_replay_stable_facts_of_the_execution(installed):
    sandbox = FakeSandbox()
    installed(plugins.SANDBOX_GROUP, entry(sandbox))
    facts = []

    async def curious(ctx):
        execution = sandbox.guards[0].execution
        facts.append(
            (
                execution.instance_id,
                execution.workflow_name,
                execution.is_replaying,
                execution.now() == ctx.now(),
                execution.stream("clock") is not execution.stream("other"),
                execution.stream("random") is ctx.random(),
            )
        )

    Instance(as_orchestrator(curious, sandbox_mode="strict")).run()
    assert facts == [("instance-1", "curious", False, True, True, True)]


def test_a_violation_fails_the_instance_even_if_the_workflow_went_on(installed):
    installed(plugins.SANDBOX_GROUP, entry(FakeSandbox(violation=ValueError("no clocks"))))
    instance = Instance(as_orchestrator(workflow, sandbox_mode="strict")).run()
    assert instance.failure.errorMessage == "no clocks"


def test_a_guard_may_hand_out_a_context_of_its_own_and_an_instrumented_twin(installed):
    class Watched(AsyncWorkflowContext):
        __slots__ = ()

    class Instrumenting(FakeSandbox):
        def guard(self, function, mode, *, workflow_name):
            async def twin(ctx, value=None):
                return [type(ctx).__name__, await function(ctx, value)]

            return Guard(twin, context_type=Watched)

    installed(plugins.SANDBOX_GROUP, entry(Instrumenting()))
    assert Instance(as_orchestrator(workflow, sandbox_mode="strict"), 3).run().result == ["Watched", 3]


def test_a_guard_that_does_not_watch_costs_nothing(installed):
    sandbox = FakeSandbox(watch=False)
    installed(plugins.SANDBOX_GROUP, entry(sandbox))
    assert Instance(as_orchestrator(workflow, sandbox_mode="strict"), 3).run().result == 3
    assert set(sandbox.guards[0].seen) == {"begin"}


def test_detection_disabled_by_the_environment_asks_no_guard(installed, monkeypatch):
    sandbox = FakeSandbox()
    installed(plugins.SANDBOX_GROUP, entry(sandbox))
    monkeypatch.setenv("DAPR_WF_DISABLE_DETECTION", "true")

    assert Instance(as_orchestrator(workflow, sandbox_mode="strict"), 3).run().result == 3
    assert not sandbox.guards


def test_detection_disabled_after_registration_stops_a_guard(installed, monkeypatch):
    sandbox = FakeSandbox(violation=ValueError("no clocks"))
    installed(plugins.SANDBOX_GROUP, entry(sandbox))
    orchestrator = as_orchestrator(workflow, sandbox_mode="strict")
    monkeypatch.setenv("DAPR_WF_DISABLE_DETECTION", "1")

    assert Instance(orchestrator, 3).run().result == 3


# -- advice in debug mode -------------------------------------------------------------------------------------------


def test_debug_mode_says_once_what_to_install(installed, monkeypatch, caplog):
    monkeypatch.setenv("DT_DEBUG", "1")
    with caplog.at_level(logging.WARNING, "durabletask.aio"):
        as_orchestrator(workflow)
        as_orchestrator(workflow, name="another")
    assert [record.getMessage() for record in caplog.records] == [
        f"debug mode warns of non-deterministic calls once the sandbox is installed: {PIP}"
    ]


def test_debug_mode_asks_an_installed_sandbox_for_advice(installed, monkeypatch):
    sandbox = FakeSandbox()
    installed(plugins.SANDBOX_GROUP, entry(sandbox))
    monkeypatch.setenv("DAPR_WF_DEBUG", "true")

    as_orchestrator(workflow, name="orders")
    assert (sandbox.advised, sandbox.guards) == (["orders"], [])


def test_without_debug_mode_nobody_is_asked(installed, caplog):
    sandbox = FakeSandbox()
    installed(plugins.SANDBOX_GROUP, entry(sandbox))
    as_orchestrator(workflow)
    assert not sandbox.advised
    assert not caplog.records
