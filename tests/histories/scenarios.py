"""How each workflow of `workflows.py` is started and driven when its history is recorded.

A scenario is recorded on one Python, another one from scenario to scenario, unless what it does is asyncio's or
anyio's own business and so may differ between Python versions: then it is recorded on each of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from durabletask.aio.worker import to_tags
from histories import workflows as w

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
"""The Python versions to record on."""

Step = Callable[[Any, str], Awaitable[None]]
"""Something to do to an instance: called with the host of `record.py` and the id."""


@dataclass(frozen=True)
class Scenario:
    """How a workflow is recorded."""

    workflow: Callable[..., Any]
    input: Any = None
    do: Sequence[Step] = ()
    expected: str = "COMPLETED"
    tags: dict[str, str] | None = None
    version: str | None = None
    engine: str = "local"
    """`"local"` for `durabletask.aio.testing.local_backend`, `"upstream"` for `durabletask.testing`."""

    sandbox_mode: str = "off"
    timer_interval: float | None = None
    also: Sequence[tuple[str, Callable[..., Any]]] = ()
    """Sub-orchestrations whose histories are kept too: what is added to the id, and the workflow."""

    each_python: bool = False
    since: str = "3.10"
    """The Python from which on there is what it uses."""

    changed: str | None = None
    """A Python from which on it does something else than before, so that no history may cross it."""

    because: str | None = None
    needs: str | None = None

    @property
    def name(self) -> str:
        return self.workflow.__name__


# Steps ---------------------------------------------------------------------------------------------------------------


def says(status: Any) -> Step:
    """Wait until the custom status is this."""

    async def wait(host: Any, instance_id: str) -> None:
        await host.until(instance_id, says=status)

    return wait


def event(name: str, data: Any = None) -> Step:
    """Raise an event."""

    async def send(host: Any, instance_id: str) -> None:
        await host.client.raise_orchestration_event(instance_id, name, data=data)

    return send


def time_passes(seconds: float) -> Step:
    """Wait, in real time."""

    async def wait(host: Any, instance_id: str) -> None:
        await host.sleep(seconds)

    return wait


def terminate(output: Any = None) -> Step:
    """End the instance, and its children."""

    async def end(host: Any, instance_id: str) -> None:
        await host.client.terminate_orchestration(instance_id, output=output, recursive=True)

    return end


def until(status: str) -> Step:
    """Wait for a status of the instance."""

    async def wait(host: Any, instance_id: str) -> None:
        await host.until(instance_id, status=status)

    return wait


async def rewind(host: Any, instance_id: str) -> None:
    await host.client.rewind_orchestration(instance_id)
    await host.until(instance_id, status="COMPLETED")


async def suspend(host: Any, instance_id: str) -> None:
    await host.client.suspend_orchestration(instance_id)
    await host.until(instance_id, status="SUSPENDED")


async def resume(host: Any, instance_id: str) -> None:
    await host.client.resume_orchestration(instance_id)
    await host.until(instance_id, status="RUNNING")


async def resume_to_the_end(host: Any, instance_id: str) -> None:
    await host.client.resume_orchestration(instance_id)


ready = says("ready")
TEA, CAKE = {"item": "tea", "weight": 0.5}, {"item": "cake", "weight": 1.5}
PAYLOAD = {"ü": ["né", None, 1.5, True, "\u2028 \\ \" '"], "long": "x" * 700, "n": {"a": {"b": [[], {}]}}}
GROUPS = "up to 3.10 the group is exceptiongroup's, from 3.11 Python's own, and so the failure has another type"

# The table -----------------------------------------------------------------------------------------------------------

TABLE = [
    Scenario(w.activities_in_sequence, 1),
    Scenario(w.activity_by_name_with_tags, "in"),
    Scenario(w.activity_without_input_or_result),
    Scenario(w.activity_with_return_type, "tea"),
    Scenario(w.activity_with_payload, PAYLOAD),
    Scenario(w.dataclass_as_input, TEA),
    Scenario(w.activity_failure_is_caught, engine="upstream"),
    Scenario(w.started_early_awaited_later),
    # Retries
    Scenario(w.retry_that_helps, each_python=True),
    Scenario(w.retry_in_vain, expected="FAILED"),
    Scenario(w.retry_until_the_time_is_up),
    Scenario(w.retries_side_by_side),
    # Sub-orchestrations
    Scenario(w.sub_orchestration, also=[("-child", w.child)]),
    Scenario(w.sub_orchestration_under_an_id_of_its_own, engine="upstream"),
    Scenario(w.sub_orchestration_by_name_with_return_type),
    Scenario(w.sub_orchestration_retried),
    Scenario(w.sub_orchestration_fails, expected="FAILED", also=[("-child", w.child_that_fails)]),
    Scenario(w.nested_sub_orchestrations, also=[("-mid", w.generator_child), ("-mid-inner", w.child)]),
    Scenario(w.several_sub_orchestrations),
    Scenario(w.sub_orchestration_that_continues_as_new, also=[("-child", w.child_that_counts_down)]),
    # Timers
    Scenario(w.timers_of_every_kind),
    Scenario(w.timers_that_are_due),
    Scenario(w.long_timer_in_chunks, timer_interval=0.2),
    Scenario(w.long_timer_that_is_not_waited_for, do=[ready, event("go")]),
    Scenario(w.timer_cancelled, each_python=True),
    Scenario(w.call_later, each_python=True),
    # External events
    Scenario(w.event_awaited, do=[ready, event("Arrived", TEA)]),
    Scenario(w.event_before_it_is_awaited, do=[ready, event("go", 7), event("gate")], engine="upstream"),
    Scenario(
        w.several_events,
        do=[
            ready,
            event("two", 2),
            event("GO", 1),
            event("nobody", 0),
            event("go", 2),
            event("Go", 3),
            event("one", 1),
        ],
    ),
    Scenario(
        w.events_that_carry_next_to_nothing,
        do=[ready, event("go", 0), event("go", ""), event("go", False), event("go", []), event("go")],
    ),
    Scenario(w.event_stream, do=[ready, *(event("parcel", each) for each in (TEA, CAKE, CAKE, TEA))]),
    Scenario(w.cancelled_wait_swallows_nothing, do=[says("too late"), event("go", 1), event("go", 2)]),
    Scenario(w.event_sent_to_another_instance, also=[("-child", w.child_that_waits)]),
    Scenario(w.two_events_race, do=[ready, event("second", 2), time_passes(0.1), event("first", 1)]),
    # Time limits
    Scenario(w.with_timeout_in_time),
    Scenario(w.with_timeout_runs_out, each_python=True),
    Scenario(w.nested_timeouts),
    Scenario(w.asyncio_timeout, each_python=True, since="3.11"),
    Scenario(w.wait_for, each_python=True),
    Scenario(
        w.wait_for_in_several_tasks,
        each_python=True,
        changed="3.12",
        because="from 3.12 on asyncio.wait_for starts a coroutine at once, and before in the next step",
    ),
    # Combining
    Scenario(w.gather_helpers, each_python=True),
    Scenario(w.gather_with_failures),
    Scenario(
        w.gather_of_what_is_done,
        each_python=True,
        changed="3.12",
        because="from 3.12 on asyncio.gather of what is done is done at once, and before in the next step",
    ),
    Scenario(w.ctx_gather_and_when_all),
    Scenario(w.races),
    Scenario(w.race_of_what_is_done),
    Scenario(w.asyncio_wait, each_python=True),
    Scenario(w.as_completed, each_python=True),
    Scenario(w.task_group, each_python=True, since="3.11"),
    Scenario(w.task_group_fails, each_python=True, since="3.11", expected="FAILED"),
    Scenario(w.bounded_queue, each_python=True),
    Scenario(w.event_lock_and_semaphore, each_python=True),
    Scenario(w.context_variables),
    Scenario(w.async_generator),
    # Cancellation
    Scenario(w.task_cancelled, each_python=True),
    Scenario(w.task_that_refuses_to_be_cancelled),
    Scenario(w.task_cancelled_before_it_starts),
    Scenario(w.operations_cancelled),
    Scenario(w.gather_cancelled),
    Scenario(w.shield, each_python=True),
    Scenario(
        w.main_task_cancelled,
        each_python=True,
        expected="FAILED",
        changed="3.11",
        because="up to 3.10 asyncio loses the message of a cancellation on its way, and the failure does not have it",
    ),
    # Continue-as-new
    Scenario(w.continue_as_new, 2, version="first"),
    Scenario(w.continue_as_new_keeps_events, 2, do=[ready, *(event("go", n) for n in (1, 2, 3)), event("gate")]),
    Scenario(
        w.continue_as_new_without_the_events,
        1,
        do=[says(1), event("go", "old"), event("gate"), says(0), event("go", "new")],
    ),
    Scenario(w.continue_as_new_with_tasks_and_cleanups, 1),
    # The execution itself
    Scenario(w.custom_status, engine="upstream"),
    Scenario(w.metadata, tags={**to_tags({"tenant": "acme", "step": "1"}), "own": "tag"}, also=[("-child", w.child)]),
    Scenario(w.cleanups),
    Scenario(w.values_of_the_context, each_python=True),
    Scenario(w.version_of_the_instance, version="2"),
    Scenario(w.upstream_context),
    # Entities
    Scenario(w.entity_calls_and_signals),
    Scenario(w.entity_lock),
    Scenario(w.entity_lock_is_given_back_when_the_block_fails),
    Scenario(w.entity_lock_that_comes_too_late),
    # Suspending, resuming, terminating
    Scenario(w.suspended_while_an_event_comes, do=[ready, suspend, event("go", 1), resume_to_the_end]),
    Scenario(
        w.suspended_while_things_happen,
        do=[ready, suspend, time_passes(0.6), resume, suspend, event("go", 1), resume_to_the_end],
    ),
    Scenario(w.terminated_while_waiting, do=[ready, terminate("enough")], expected="TERMINATED"),
    Scenario(w.terminated_while_suspended, do=[ready, suspend, terminate()], expected="TERMINATED", engine="upstream"),
    Scenario(
        w.terminated_with_its_child,
        do=[ready, time_passes(0.2), terminate("all of you")],
        expected="TERMINATED",
        also=[("-child", w.child_that_waits)],
    ),
    # Failures
    Scenario(w.activity_fails, expected="FAILED", engine="upstream"),
    Scenario(w.activity_is_not_registered, expected="FAILED"),
    Scenario(w.raises_its_own_error, expected="FAILED"),
    Scenario(w.raises_at_once, expected="FAILED"),
    Scenario(w.raises_with_a_cause, expected="FAILED"),
    Scenario(w.compensation, expected="FAILED"),
    Scenario(w.deadlock, expected="FAILED"),
    Scenario(w.timeout_is_not_caught, expected="FAILED"),
    Scenario(w.result_that_cannot_be_serialised, expected="FAILED"),
    Scenario(w.input_that_cannot_be_serialised),
    Scenario(w.forgotten_await, expected="FAILED"),
    Scenario(w.system_exit, expected="FAILED"),
    Scenario(w.unsupported_call, expected="FAILED"),
    Scenario(w.goes_on_after_continue_as_new, expected="FAILED"),
    Scenario(w.background_task_fails),
    Scenario(w.background_task_is_dropped),
    # The sandbox
    Scenario(w.sandbox_replaces_values, sandbox_mode="best_effort", each_python=True),
    Scenario(
        w.sandbox_strict_refuses,
        sandbox_mode="strict",
        each_python=True,
        expected="FAILED",
        changed="3.11",
        because="from 3.11 on the message of the violation has the column and the corrected line",
    ),
    Scenario(w.sandbox_strict_lets_through, sandbox_mode="strict"),
    # anyio
    Scenario(w.anyio_task_group, each_python=True, needs="anyio"),
    Scenario(w.anyio_timeouts, each_python=True, needs="anyio"),
    Scenario(w.anyio_shielded_scope, needs="anyio"),
    Scenario(w.anyio_streams_and_locks, needs="anyio"),
    Scenario(
        w.anyio_task_group_fails, each_python=True, needs="anyio", expected="FAILED", changed="3.11", because=GROUPS
    ),
    # Generators
    Scenario(w.generator_sequence, 3, do=[ready, event("go", "on")]),
    Scenario(w.generator_fan_out),
    Scenario(w.generator_with_entities),
    Scenario(w.generator_fails, expected="FAILED", engine="upstream"),
    Scenario(w.generator_that_continues_as_new, 2),
    # More of everything
    Scenario(w.fan_out, 25),
    Scenario(w.rewound, do=[until("FAILED"), rewind]),
    Scenario(w.debug_info),
    Scenario(w.timeout_of_a_task_group, each_python=True, since="3.11"),
    Scenario(w.eager_tasks, each_python=True, since="3.12"),
    Scenario(w.shut_down_queue, since="3.13"),
    Scenario(w.waiting_for_ever, do=[ready], expected="RUNNING"),
    Scenario(w.order_of_a_set, each_python=True),
    Scenario(w.metadata_of_the_next_execution, 2, tags=to_tags({"tenant": "acme", "step": "1"})),
    Scenario(w.names_of_tasks),
    Scenario(w.unordered_start_is_refused),
]

SCENARIOS = {each.name: each for each in TABLE}


def scenarios_of(python: str) -> list[Scenario]:
    """What is to be recorded on this Python."""
    found: list[Scenario] = []
    for number, each in enumerate(TABLE):
        possible = PYTHONS[PYTHONS.index(each.since) :]
        if python in possible and (each.each_python or possible[number % len(possible)] == python):
            found.append(each)
    return found
