"""Looking into a workflow: the operation history, debug information, logs; and that it is free when it is off."""

import asyncio
import contextlib
import json
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import pytest
from durabletask.aio import ActivityFailedError, AsyncWorkflowContext, as_orchestrator
from turns import Instance, canonical, execute, replay
from workflows import boom, finished, line_in, result_of, started

from durabletask_aio.core import driver
from durabletask_aio.core.call_sites import waiting_line
from durabletask_aio.core.loop import WorkflowLoop
from durabletask_aio.core.serialization import SERIALIZABLE, find_unserializable


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for variable in ("DAPR_WF_DEBUG", "DT_DEBUG"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def debugging(monkeypatch):
    monkeypatch.setenv("DT_DEBUG", "true")


async def busy(ctx):
    done = ctx.call_activity("done", input=1)
    await done
    with contextlib.suppress(ActivityFailedError):
        await ctx.call_activity("boom")
    ctx.sleep(60).cancel()
    waiting = ctx.wait_for_external_event("never")
    ctx.add_cleanup(waiting.done)
    return ctx.get_debug_info()


@pytest.mark.usefixtures("debugging")
def test_debug_info_is_a_documented_mapping_of_facts():
    assert finished(busy, None, {"boom": boom}).result == {
        "instance_id": "instance-1",
        "workflow_name": "busy",
        "parent_instance_id": None,
        "version": None,
        "current_utc_datetime": "2026-01-01T12:00:00.023000+00:00",
        "step": 3,
        "sandbox_mode": "off",
        "cleanups": 1,
        "operations": [
            {
                "sequence": 1,
                "step": 1,
                "kind": "activity",
                "name": "done",
                "state": "completed",
                "outcome": None,
            },
            {
                "sequence": 2,
                "step": 2,
                "kind": "activity",
                "name": "boom",
                "state": "failed",
                "outcome": "activity 'boom' failed with builtins.ValueError: boom",
            },
            {"sequence": 3, "step": 3, "kind": "timer", "name": "60", "state": "cancelled", "outcome": None},
            {
                "sequence": 4,
                "step": None,
                "kind": "external event",
                "name": "never",
                "state": "pending",
                "outcome": None,
            },
        ],
    }


def test_without_debug_mode_there_is_no_list_of_operations():
    info = finished(busy, None, {"boom": boom}).result
    assert info["operations"] is None
    assert info["step"] == 3


def test_every_key_is_documented():
    text = AsyncWorkflowContext.get_debug_info.__doc__

    async def workflow(ctx):
        return list(ctx.get_debug_info())

    for key in result_of(workflow):
        assert f"`{key}`" in text


@pytest.mark.parametrize("debug_mode", ["true", ""])
def test_debug_info_is_the_same_on_every_replay_to_the_byte(monkeypatch, debug_mode):
    monkeypatch.setenv("DAPR_WF_DEBUG", debug_mode)

    async def workflow(ctx):
        for n in range(3):
            await ctx.call_activity("note", input=ctx.get_debug_info())
            await asyncio.gather(ctx.call_activity("a", input=n), ctx.sleep(n + 1))

    instance = finished(workflow)
    assert instance.result is None
    replay(instance)
    # The whole of it at once, too: not one turn after the other, but as after a restart.
    again = execute(instance, [], instance.history)
    ends = [action for action in again.actions if action.HasField("completeOrchestration")]
    assert canonical(ends) == canonical(instance.turns[-1])


def test_debug_info_can_be_returned_and_is_json():
    async def robust_workflow(ctx, input_data):
        try:
            return await ctx.call_activity("risky_activity")
        except ActivityFailedError as e:
            debug_info = ctx.get_debug_info()
            return {"error": str(e), "debug": debug_info}

    result = result_of(robust_workflow, None, {"risky_activity": boom})
    assert json.loads(json.dumps(result)) == result
    assert result["debug"]["instance_id"] == "instance-1"


# -- when it is read ------------------------------------------------------------------------------------------------


@pytest.mark.not_replayed("the workflow returns what the environment says")
def test_the_environment_is_read_when_an_execution_starts(monkeypatch):
    async def workflow(ctx):
        before = ctx.get_debug_info()["operations"]
        monkeypatch.setenv("DT_DEBUG", "1")
        return [before, ctx.get_debug_info()["operations"]]

    assert result_of(workflow) == [None, None]
    assert result_of(workflow) == [[], []]


@pytest.mark.not_replayed("the workflow returns what the environment says")
@pytest.mark.parametrize(("variable", "value"), [("DAPR_WF_DEBUG", "TRUE"), ("DT_DEBUG", "Yes"), ("DT_DEBUG", "on")])
def test_any_of_the_words_in_any_case_will_do(monkeypatch, variable, value):
    async def workflow(ctx):
        return ctx.get_debug_info()["operations"]

    assert result_of(workflow) is None
    monkeypatch.setenv(variable, value)
    assert result_of(workflow) == []


def test_off_nothing_is_recorded_and_no_log_is_made(monkeypatch):
    monkeypatch.setattr(driver, "OperationLog", lambda logger: pytest.fail("an operation log was made"))
    finished(busy, None, {"boom": boom})


def test_recording_changes_no_action(monkeypatch):
    plain = finished(_quiet, None, {"boom": boom})
    monkeypatch.setenv("DT_DEBUG", "1")
    recorded = finished(_quiet, None, {"boom": boom})
    assert [canonical(turn) for turn in plain.turns] == [canonical(turn) for turn in recorded.turns]


async def _quiet(ctx):
    await busy(ctx)


# -- logs -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("debugging")
def test_operations_are_logged_once_through_logging_and_never_printed(caplog, capfd):
    async def workflow(ctx):
        await ctx.call_activity("first")
        await ctx.call_activity("second")

    with caplog.at_level(logging.DEBUG, "durabletask.aio"):
        finished(workflow)

    scheduled = [record for record in caplog.records if "scheduled" in record.msg]
    assert [record.getMessage().partition(" (")[0] for record in scheduled] == [
        "workflow instance-1: scheduled activity 'first'",
        "workflow instance-1: scheduled activity 'second'",
    ]
    assert {record.name for record in scheduled} == {"durabletask.aio"}
    assert {record.levelno for record in scheduled} == {logging.DEBUG}
    assert capfd.readouterr() == ("", "")


def test_without_debug_mode_operations_are_not_logged(caplog):
    with caplog.at_level(logging.DEBUG, "durabletask.aio"):
        finished(_quiet, None, {"boom": boom})
    assert not caplog.records


def test_the_logger_is_silent_while_replaying_and_carries_instance_and_workflow(caplog):
    async def workflow(ctx):
        ctx.logger.info("begin")
        await ctx.call_activity("a")
        ctx.logger.warning("after %s", "a", extra={"order": 7})
        await ctx.call_activity("b")

    with caplog.at_level(logging.INFO, "durabletask.aio"):
        finished(workflow, instance_id="order-7")

    assert [record.getMessage() for record in caplog.records] == [
        "workflow order-7: begin",
        "workflow order-7: after a",
    ]
    assert [(r.instance_id, r.workflow_name) for r in caplog.records] == [("order-7", "workflow")] * 2
    assert caplog.records[1].order == 7


@pytest.mark.not_replayed("the workflow looks at the level of a logger")
def test_a_logger_of_ones_own_can_be_made_replay_safe(caplog):
    mine = logging.getLogger("my.app")

    async def workflow(ctx):
        safe = ctx.create_replay_safe_logger(mine)
        assert safe.isEnabledFor(logging.INFO) is not ctx.is_replaying
        safe.info("once")
        await ctx.call_activity("a")

    with caplog.at_level(logging.INFO, "my.app"):
        finished(workflow)
    assert [(record.name, record.getMessage()) for record in caplog.records] == [
        ("my.app", "workflow instance-1: once")
    ]


# -- where tasks wait -----------------------------------------------------------------------------------------------


def test_a_task_that_has_not_begun_waits_at_its_first_line():
    shown = []

    async def child():  # <-
        pass

    async def workflow(ctx):
        task = asyncio.create_task(child())
        shown.append(waiting_line(task))
        await task

    finished(workflow)
    assert shown == [f"{line_in(child)} in child"]


def test_a_task_made_of_an_operation_is_where_that_was_scheduled():
    shown = []

    async def workflow(ctx):
        task = asyncio.create_task(ctx.call_activity("a"))  # <-
        await asyncio.sleep(0)
        shown.append(waiting_line(task))

    finished(workflow)
    assert shown == [f"activity 'a' ({line_in(workflow)})"]


def test_a_task_in_an_async_generator_is_found():
    shown = []

    async def numbers(ctx):
        await ctx.sleep(1)
        yield 1

    async def workflow(ctx):
        async def child():
            async for _ in numbers(ctx):
                pass

        task = asyncio.create_task(child())
        await asyncio.sleep(0)
        shown.append(waiting_line(task))
        task.cancel()

    finished(workflow)
    assert shown[0].startswith(f"{__file__}:")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, {2}]}, "v['a'][1]"),
        ([1, (2, object())], "v[1][1]"),
        ({(1, 2): 3}, "v"),
    ],
)
def test_the_part_of_a_value_that_cannot_be_serialised_is_found(value, path):
    assert find_unserializable(value, "v", json.dumps).path == path


@dataclass
class Order:
    items: list
    due: object = None


@pytest.mark.parametrize(
    ("value", "path", "reason", "right"),
    [
        (Order([1, Order([], datetime(2030, 1, 1))]), "v.items[1].due", "its type is 'datetime'", "value.isoformat()"),
        ({"a": {(1, 2): 3}}, "v['a']", "it has a key of type 'tuple'", "{str(key): ...}"),
        ([{1}], "v[0]", "its type is 'set'", "sorted(value)"),
        (Order, "v", "its type is 'type'", ""),
    ],
)
def test_the_part_comes_with_a_reason_and_with_what_to_send_instead(value, path, reason, right):
    def serialize(value):
        return json.dumps(value, default=lambda each: vars(each) if isinstance(each, Order) else [][each])

    found = find_unserializable(value, "v", serialize)
    assert (found.path, found.reason, found.replacement) == (path, reason, right)


def test_a_value_that_can_be_serialised_has_none():
    assert find_unserializable({"a": [1]}, "v", json.dumps).value is SERIALIZABLE


def test_a_value_that_contains_itself_does_not_recurse_for_ever():
    value = []
    value.append(value)
    found = find_unserializable(value, "v", json.dumps)
    assert (found.path, found.reason) == ("v[0]", "it contains itself")


def test_an_execution_has_no_operation_log_by_default():
    seen = []

    async def workflow(ctx):
        seen.append(cast(WorkflowLoop, asyncio.get_running_loop()).operation_log)
        await ctx.call_activity("a")

    started(workflow)
    assert seen == [None]
    assert Instance(as_orchestrator(workflow)).run().result is None
