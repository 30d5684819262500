"""Requests in workflows: taken in order, answered once, refused, carried over, and told of the end of the execution."""

# ruff: noqa: RET503 - a loop over requests ends with the requests of the test

import json
from dataclasses import dataclass
from typing import Optional, TypedDict

import pytest
from durabletask.aio import Request, RequestStream, WorkflowValidationError, as_orchestrator
from durabletask.internal import orchestrator_service_pb2 as pb
from turns import Instance, canonical, new_executor, replay
from workflows import boom, failure_of, finished, result_of, started

from durabletask_aio.core.hosting import turn_scope
from durabletask_aio.core.replies import ANSWER_EVENT, REPLY_WORKFLOW, event_of, reply, reply_input
from durabletask_aio.core.rewinding import events_to_remove

APPROVE = event_of("approve")


class Named(TypedDict):
    name: str


@dataclass
class Approval:
    by: str
    amount: int


def asked(number, data=None, *, at=None, name=APPROVE):
    """The event of the request with that number, one second after another."""
    return (number if at is None else at, name, {"reply_to": f"reply-{number}", "data": data})


def sent(instance):
    """What the instance has sent: the receiver and the payload of each event."""
    events = [each.sendEvent for turn in instance.turns for each in turn if each.HasField("sendEvent")]
    assert {each.name for each in events} <= {ANSWER_EVENT}
    return [(each.instance.instanceId, json.loads(each.data.value)) for each in events]


async def approvals(ctx, last):
    async for request in ctx.requests("approve"):
        request.answer(f"{request.name}: {request.data}")
        if request.data == last:
            return "done"


class TestStream:
    def test_it_gives_each_request_in_order_and_each_is_answered_at_its_sender(self):
        instance = finished(approvals, 3, events=[asked(1, 1), asked(2, 2), asked(3, 3)])
        assert instance.result == "done"
        assert sent(instance) == [(f"reply-{n}", {"answer": f"approve: {n}"}) for n in (1, 2, 3)]
        replay(instance)

    def test_a_request_is_answered_once_however_often_the_workflow_is_replayed(self):
        instance = started(approvals, 9)
        for number in (1, 2):
            instance.turn(instance.raised(APPROVE, {"reply_to": f"reply-{number}", "data": number}))
        executor = new_executor(instance)
        with turn_scope():
            begin = instance.batch_begin(instance.cuts[-1])
            actions = executor.execute(
                "instance-1", instance.history[:begin], instance.history[begin : instance.cuts[-1]]
            ).actions
        assert [each.sendEvent.instance.instanceId for each in actions] == ["reply-2"]
        assert len(sent(instance)) == 2

    def test_requests_that_came_before_the_loop_are_kept_and_names_have_no_case(self):
        async def workflow(ctx):
            await ctx.sleep(60)
            return await approvals(ctx, 2)

        instance = finished(workflow, events=[asked(1, 1, name=APPROVE.upper()), asked(2, 2)])
        assert [receiver for receiver, _ in sent(instance)] == ["reply-1", "reply-2"]

    def test_several_names_are_apart(self):
        async def workflow(ctx):
            first = await ctx.requests("refund").__anext__()
            second = await ctx.requests("approve").__anext__()
            second.answer("second")
            first.answer("first")
            return [first.data, second.data]

        instance = finished(workflow, events=[asked(1, "a"), asked(2, "b", name=event_of("refund"))])
        assert instance.result == ["b", "a"]
        assert sent(instance) == [("reply-1", {"answer": "second"}), ("reply-2", {"answer": "first"})]

    def test_tasks_that_share_a_stream_share_its_requests(self):
        async def workflow(ctx):
            stream = ctx.requests("approve")

            async def take(number):
                request = await stream.__anext__()
                request.answer(number)

            await ctx.gather(take(1), take(2))

        assert sent(finished(workflow, events=[asked(1), asked(2)])) == [
            ("reply-1", {"answer": 1}),
            ("reply-2", {"answer": 2}),
        ]

    def test_a_request_that_arrived_before_a_timeout_is_kept(self):
        async def workflow(ctx):
            stream = ctx.requests("approve")
            with pytest.raises(TimeoutError):
                await ctx.with_timeout(stream.__anext__(), 5)
            request = await stream.__anext__()
            request.answer()
            return request.data

        instance = finished(workflow, events=[asked(1, "late", at=10)])
        assert instance.result == "late"
        assert sent(instance) == [("reply-1", {"answer": None})]

    def test_a_wait_that_was_cancelled_takes_no_request(self):
        async def workflow(ctx):
            with pytest.raises(TimeoutError):
                await ctx.with_timeout(ctx.requests("approve").__anext__(), 5)
            request = await ctx.requests("approve").__anext__()
            request.answer()
            return request.data

        assert result_of(workflow, events=[asked(1, "late", at=10)]) == "late"

    def test_an_answer_may_come_later_than_the_request(self):
        async def workflow(ctx):
            request = await ctx.requests("approve").__anext__()
            before = [request.is_answered, repr(request)]
            request.answer(await ctx.call_activity("double", input=request.data))
            return [*before, request.is_answered, repr(request)]

        instance = finished(workflow, activities={"double": lambda n: 2 * n}, events=[asked(1, 21)])
        assert instance.result == [False, "<Request 'approve' open>", True, "<Request 'approve' answered>"]
        assert sent(instance) == [("reply-1", {"answer": 42})]

    def test_its_types_are_public(self):
        async def workflow(ctx):
            stream = ctx.requests("approve")
            request = await stream.__anext__()
            request.answer()
            return [type(stream) is RequestStream, type(request) is Request]

        assert result_of(workflow, events=[asked(1)]) == [True, True]

    def test_a_deadlock_that_waits_for_a_request_is_none(self):
        async def workflow(ctx):
            await ctx.requests("approve").__anext__()

        assert started(workflow).turns == [[]]

    @pytest.mark.parametrize("payload", [None, 7, {"data": 1}, {"reply_to": ""}, {"reply_to": "@entity@key"}])
    def test_an_event_that_is_no_request_is_skipped(self, payload):
        instance = finished(approvals, 2, events=[(1, APPROVE, payload), asked(2, 2)])
        assert sent(instance) == [("reply-2", {"answer": "approve: 2"})]


class TestValidation:
    def test_data_becomes_the_type_that_is_asked_for(self):
        async def workflow(ctx):
            request = await ctx.requests("approve", Approval).__anext__()
            request.answer(request.data == Approval("ann", 5))

        assert sent(finished(workflow, events=[asked(1, {"by": "ann", "amount": 5})])) == [
            ("reply-1", {"answer": True})
        ]

    @pytest.mark.parametrize("data", ["text", 7, None, [1], {"by": "ann"}])
    def test_data_of_another_type_is_refused_and_not_seen(self, data):
        async def workflow(ctx):
            request = await ctx.requests("approve", Approval).__anext__()
            request.answer()
            return request.data.by

        instance = finished(workflow, events=[asked(1, data), asked(2, {"by": "eve", "amount": 1})])
        assert instance.result == "eve"
        (receiver, refusal), second = sent(instance)
        assert receiver == "reply-1"
        assert refusal["refusal"].startswith("the data of the request 'approve' is no Approval: ")
        assert second == ("reply-2", {"answer": None})
        replay(instance)

    @pytest.mark.parametrize(
        ("kind", "data"),
        [(float, 1), (list[int], [1]), (object, "any"), (Optional[int], 7), (Named, {"name": "ann"})],  # noqa: UP045
    )
    def test_data_that_fits_is_passed_on(self, kind, data):
        async def workflow(ctx):
            request = await ctx.requests("approve", kind).__anext__()
            request.answer()
            return request.data

        assert result_of(workflow, events=[asked(1, data)]) == data

    @pytest.mark.parametrize("name", ["", 7, None])
    def test_a_name_is_a_string(self, name):
        async def workflow(ctx):
            ctx.requests(name)

        assert "the name of a request is a string" in failure_of(workflow).errorMessage

    def test_the_event_itself_cannot_be_waited_for(self):
        async def workflow(ctx):
            await ctx.wait_for_external_event("durabletask-aio.request.approve")

        assert "ctx.requests('approve')" in failure_of(workflow).errorMessage


class TestAnswer:
    def test_a_refusal_has_its_reason(self):
        async def workflow(ctx):
            request = await ctx.requests("approve").__anext__()
            request.refuse("too much")

        assert sent(finished(workflow, events=[asked(1)])) == [("reply-1", {"refusal": "too much"})]

    @pytest.mark.parametrize("second", ["answer", "refuse"])
    def test_a_second_answer_is_an_error_that_names_the_first(self, second):
        async def workflow(ctx):
            request = await ctx.requests("approve").__anext__()
            request.answer(1)
            with pytest.raises(WorkflowValidationError, match=r"was answered at .*test_requests\.py:\d+"):
                getattr(request, second)("again")

        assert sent(finished(workflow, events=[asked(1)])) == [("reply-1", {"answer": 1})]

    def test_an_answer_that_cannot_be_serialised_is_an_error_and_leaves_the_request_open(self):
        async def workflow(ctx):
            request = await ctx.requests("approve").__anext__()
            with pytest.raises(WorkflowValidationError, match=r"request\.answer"):
                request.answer(object())
            request.answer("instead")

        assert sent(finished(workflow, events=[asked(1)])) == [("reply-1", {"answer": "instead"})]

    @pytest.mark.parametrize("reason", ["", None, 7])
    def test_a_reason_is_a_string(self, reason):
        async def workflow(ctx):
            request = await ctx.requests("approve").__anext__()
            request.refuse(reason)

        assert "the reason of a refusal is a string" in failure_of(workflow, events=[asked(1)]).errorMessage


class TestEnd:
    """What is open when the execution ends: taken and not answered, or not taken at all."""

    def test_clients_are_told_that_the_workflow_has_completed(self):
        async def workflow(ctx):
            await ctx.requests("approve").__anext__()
            await ctx.sleep(10)

        instance = finished(workflow, events=[asked(1), asked(2), asked(3, name=event_of("other"))])
        assert sent(instance) == [(f"reply-{n}", {"unanswered": "completed"}) for n in (1, 2, 3)]
        replay(instance)

    def test_clients_are_told_that_the_workflow_has_failed(self):
        async def workflow(ctx):
            stream = ctx.requests("approve")
            await stream.__anext__()
            await ctx.sleep(10)
            stream._next = stream._wait()  # delivered, and not taken
            raise ValueError("boom")

        instance = finished(workflow, events=[asked(1), asked(2)])
        assert sent(instance) == [(f"reply-{n}", {"unanswered": "failed"}) for n in (1, 2)]

    @pytest.mark.parametrize("save_events", [False, True])
    def test_continue_as_new_carries_over_what_was_not_taken(self, save_events):
        async def workflow(ctx):
            stream = ctx.requests("approve")
            await stream.__anext__()
            await ctx.sleep(10)
            stream._next = stream._wait()  # delivered, and not taken
            ctx.continue_as_new(None, save_events=save_events)

        instance = finished(workflow, events=[asked(1), asked(2), asked(3), (4, "event", 4)])
        assert sent(instance) == [("reply-1", {"unanswered": "continued as new"})]
        end = next(each.completeOrchestration for each in instance.turns[-1] if each.HasField("completeOrchestration"))
        carried = [each.eventRaised for each in end.carryoverEvents]
        assert [json.loads(each.input.value)["reply_to"] for each in carried if each.name == APPROVE] == [
            "reply-2",
            "reply-3",
        ]
        assert ("event" in [each.name for each in carried]) == save_events

    def test_a_rewind_takes_back_that_it_has_failed(self):
        async def workflow(ctx):
            request = await ctx.requests("approve").__anext__()
            request.answer(await ctx.call_activity("boom"))

        instance = Instance(as_orchestrator(workflow), name="w").run({"boom": boom}, events=[asked(1)])
        assert sent(instance) == [("reply-1", {"unanswered": "failed"})]
        end = pb.ExecutionCompletedEvent(
            orchestrationStatus=pb.ORCHESTRATION_STATUS_FAILED, failureDetails=instance.failure
        )
        answer = pb.HistoryEvent(eventId=3, eventSent=pb.EventSentEvent(instanceId="reply-1", name=ANSWER_EVENT))
        history = [*instance.history, answer, pb.HistoryEvent(eventId=-1, executionCompleted=end)]
        removed = events_to_remove(history, "instance-1")
        assert removed is not None
        assert {history[at].WhichOneof("eventType") for at in removed} >= {"eventSent", "executionCompleted"}


class TestReplyWorkflow:
    """What workers run to pass on an answer."""

    def reply_of(self, limit, *events):
        instance = Instance(reply, reply_input("order-1", "approve", limit), name=REPLY_WORKFLOW).start()
        instance.turn(*(event(instance) for event in events))
        return instance

    @pytest.mark.parametrize("limit", [None, 60.0])
    def test_it_returns_what_it_is_sent(self, limit):
        instance = self.reply_of(limit, lambda each: each.raised(ANSWER_EVENT, {"answer": [1]}))
        assert instance.result == {"answer": [1]}
        assert canonical(instance.turns[-1])

    def test_it_ends_at_its_limit(self):
        assert self.reply_of(60.0, lambda each: each.fired(1)).result is None
