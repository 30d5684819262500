"""`History`: its sources, its file format, redaction and comparison."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
from datetime import datetime, timedelta, timezone
from typing import Any, cast

import durabletask.history as typed
import pytest
from durabletask.aio.testing import History, HistoryFormatError
from durabletask.client import AsyncTaskHubGrpcClient, OrchestrationStatus
from durabletask.extensions.history_export.models import ExportFormat, ExportFormatKind
from durabletask.extensions.history_export.serialization import serialize_history
from durabletask.task import TaskFailedError
from google.protobuf import timestamp_pb2

from durabletask_aio.testing._upstream import pb, typed_event

ALL_TYPES = [field.name for field in pb.HistoryEvent.DESCRIPTOR.oneofs_by_name["eventType"].fields]


def filled(message, depth=0):
    """Give every field a value."""
    for field in message.DESCRIPTOR.fields:
        target = getattr(message, field.name)
        if field.message_type is None:
            value = {field.CPPTYPE_STRING: "text", field.CPPTYPE_BOOL: True}.get(field.cpp_type, 3)
            if hasattr(target, "extend"):
                target.extend([value, value])
            else:
                setattr(message, field.name, value)
        elif field.message_type.GetOptions().map_entry:
            if "string" in str(field.message_type.fields_by_name["value"].type) or field.name == "tags":
                target.update({"key": "value"})
        elif isinstance(target, timestamp_pb2.Timestamp):
            target.FromDatetime(datetime(2024, 2, 3, 4, 5, 6, 789))
        elif depth < 3 and field.name not in ("innerFailure", "orchestrationState"):
            filled(target, depth + 1)
    return message


def event_of(kind):
    event = pb.HistoryEvent(eventId=7)
    event.timestamp.FromDatetime(datetime(2024, 1, 1))
    getattr(event, kind).SetInParent()
    filled(getattr(event, kind))
    return event


@pytest.fixture
async def recorded(local_backend, grpc_worker):
    """A history with activities, a failure, a child, a timer, an event, tags and an entity call."""
    from durabletask.entities import EntityInstanceId

    def fine(context, value):
        return {"name": value, "amount": 12}

    def broken(context, value):
        raise ValueError(f"no such customer: {value}")

    def child(context, value):
        return value
        yield

    def counter(context, amount):
        return amount

    def everything(context, value):
        result = yield context.call_activity(fine, input=value, tags={"a": "b"})
        with contextlib.suppress(TaskFailedError):
            yield context.call_activity(broken, input=value)
        yield context.create_timer(timedelta(milliseconds=5))
        yield context.call_sub_orchestrator(child, input=value, instance_id="child")
        yield context.call_entity(EntityInstanceId("counter", "one"), "add", 3)
        context.send_event("nobody", "hello", data=1)
        yield context.wait_for_external_event("go")
        return result

    grpc_worker(orchestrators=[everything, child], activities=[fine, broken], entities=[counter])
    async with AsyncTaskHubGrpcClient(host_address=local_backend.address) as client:
        await client.schedule_new_orchestration(everything, input="Ada", instance_id="one", tags={"t": "u"})
        await client.raise_orchestration_event("one", "go", data={"by": "Grace"})
        await client.wait_for_orchestration_completion("one", timeout=60)
        yield local_backend.history("one")


class TestSources:
    async def test_client_and_engine_have_the_same_history(self, recorded, local_backend, client):
        async with AsyncTaskHubGrpcClient(host_address=local_backend.address) as async_client:
            assert await History.fetch(async_client, "one") == recorded
        assert await History.fetch(client, "one") == recorded

    def test_upstreams_typed_events_and_their_dicts_give_the_same(self, recorded):
        assert History.from_events(recorded.events) == recorded
        assert History.from_events(recorded.protobuf) == recorded
        assert History.from_dicts([typed.to_dict(event) for event in recorded]) == recorded

    @pytest.mark.parametrize("kind", [ExportFormatKind.JSON, ExportFormatKind.JSONL_GZIP])
    def test_files_of_upstreams_history_export_can_be_loaded(self, recorded, tmp_path, kind):
        path = tmp_path / ("one.json" if kind is ExportFormatKind.JSON else "one.jsonl.gz")
        path.write_bytes(serialize_history(recorded.events, instance_id="one", fmt=ExportFormat(kind=kind)))
        assert History.load(path) == recorded


class TestFormat:
    def test_saved_and_loaded_it_is_equal(self, recorded, tmp_path):
        path = recorded.save(tmp_path / "deep" / "one.json")
        assert History.load(path) == recorded
        assert History.load(path).save(tmp_path / "again.json").read_bytes() == path.read_bytes()

    def test_a_file_that_begins_with_a_byte_order_mark_is_read(self, recorded, tmp_path):
        path = tmp_path / "from-windows.json"
        path.write_text(recorded.to_json(), encoding="utf-8-sig")
        assert History.load(path) == recorded

    def test_the_document(self):
        events = [event_of("orchestratorStarted"), pb.HistoryEvent(eventId=1)]
        events[1].timestamp.FromDatetime(datetime(2024, 1, 1, 0, 0, 0, 5000))
        events[1].taskScheduled.name = "charge"
        events[1].taskScheduled.input.value = '{"ü": 1}'
        assert json.loads(History(events, instance_id="one").to_json()) == {
            "format": "durabletask-history",
            "version": 1,
            "instance_id": "one",
            "events": [
                {"event_type": "OrchestratorStartedEvent", "event_id": 7, "timestamp": "2024-01-01T00:00:00+00:00"},
                {
                    "event_type": "TaskScheduledEvent",
                    "event_id": 1,
                    "timestamp": "2024-01-01T00:00:00.005000+00:00",
                    "name": "charge",
                    "input": '{"ü": 1}',
                },
            ],
        }

    @pytest.mark.parametrize("kind", ALL_TYPES)
    def test_every_event_type_keeps_all_its_fields(self, kind):
        event = event_of(kind)
        plain = History([event]).to_dicts()
        assert typed_event(History.from_dicts(plain).protobuf[0]) == typed_event(event)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "this is not a history: not JSON"),
            ("3", 'this is not a history: expected a JSON object with a list of "events", or'),
            ('{"events": {}}', 'this is not a history: expected a JSON object with a list of "events", or'),
            ('{"version": null, "events": []}', "this release reads durabletask-history"),
            (
                '[{"event_type": "TaskScheduledEvent", "event_id": 1e400}]',
                "event 0 of the history cannot be read: its event_id cannot be inf",
            ),
            ("[3]", "event 0 of the history cannot be read: an event is an object with event_type, event_id and"),
            ('[{"event_type": "TaskSheduledEvent", "event_id": 1}]', "did you mean 'TaskScheduledEvent'"),
            ('{"format": "durabletask-history", "version": 9, "events": []}', "this release reads durabletask-history"),
            ('[{"event_type": "NoSuchEvent", "event_id": 1}]', "event 0 of the history cannot be read: there is no"),
            ('[{"event_type": "TaskScheduledEvent"}]', "event 0 of the history cannot be read: it has no 'event_id'"),
            (
                '[{"event_id": 1, "timestamp": "2024-01-01", "colour": 1}]',
                "has exactly the fields colour",
            ),
        ],
    )
    def test_a_document_that_is_not_a_history_is_an_error(self, text, message):
        with pytest.raises(HistoryFormatError, match=message.replace("(", r"\(")):
            History.from_json(text)

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("broken.json", b"{", "this is not a history: not JSON"),
            ("picture.json", b"\xff\xfe\x00", "this is not a history: not text in UTF-8"),
            ("broken.jsonl.gz", gzip.compress(b"{}\n{}\n"), "event 0 of the history cannot be read: it has no '"),
            ("lines.jsonl.gz", gzip.compress(b"{}\n{"), "this is not a history: not one JSON object a line"),
            ("empty.jsonl.gz", gzip.compress(b""), "this is not a history: its first line does not say"),
            ("plain.jsonl.gz", b"{}", "this is not a history: not compressed with gzip"),
            ("cut.jsonl.gz", gzip.compress(b"{}\n{}\n")[:-9], "this is not a history: its compressed data are cut off"),
            ("empty.json", b"", "this is not a history: it is empty"),
            ("utf-16.json", "[]".encode("utf-16"), "this is not a history: not text in UTF-8 (it looks like UTF-16)"),
            ("latin.json", '"ü"'.encode("latin-1"), "this is not a history: not text in UTF-8 (byte 1 is 0xfc)"),
            ("deep.json", b"[" * 200_000, "this is not a history: not JSON that can be read (nested too deeply)"),
            ("deep.jsonl.gz", gzip.compress(b"{}\n" + b"[" * 200_000), "this is not a history: not one JSON object a"),
            ("digits.json", b"[" + b"9" * 5000 + b"]", "this is not a history: not JSON (Exceeds the limit"),
            ("id.json", b'{"instance_id": {}, "events": []}', "its instance_id is {}, and not text"),
        ],
        ids=[
            *("json", "picture", "event", "lines", "empty", "plain", "cut", "nothing", "utf-16", "latin-1", "deep"),
            *("deep line", "digits", "instance id"),
        ],
    )
    def test_a_file_that_cannot_be_read_is_named(self, tmp_path, name, content, message):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(HistoryFormatError, match=re.escape(f"{name}: {message}")):
            History.load(tmp_path / name)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"event_id": 1.5}, "its event_id cannot be 1.5 (expected a whole number)"),
            ({"event_id": None}, "its event_id cannot be None (expected a whole number)"),
            ({"event_id": 2**63}, "its event_id cannot be 9223372036854775808 ("),
            ({"timestamp": 5}, "its timestamp cannot be 5 (expected a time in ISO format)"),
            ({"timestamp": "9999-12-31T23:59:59-14:00"}, "its timestamp cannot be '9999-12-31T23:59:59-14:00' ("),
            ({"event_type": "x" * 100_000}, "its event_type is not the name of a type of events"),
            ({"input": 5}, "its input cannot be 5 ("),
            ({"input": "\ud800"}, "its input cannot be '\\ud800' ("),
            ({"tags": {"a": 1}}, "its tags cannot be {'a': 1} ("),
            ({"tags": "abc"}, "its tags cannot be 'abc' ("),
            ({"parent_trace_context": []}, "its parent_trace_context cannot be [] (expected an object, not list)"),
            (
                {"event_type": "ExecutionCompletedEvent", "orchestration_status": 99},
                "its orchestration_status cannot be 99 (99 is not a valid OrchestrationStatus)",
            ),
            (
                {"event_type": "TaskFailedEvent", "failure_details": "no"},
                "its failure_details cannot be 'no' (",
            ),
        ],
        ids=lambda value: re.sub(r"\W+", "-", str(value))[:40],
    )
    def test_an_event_that_cannot_be_read_is_named_with_its_field(self, change, message):
        start = {"event_type": "TaskScheduledEvent", "event_id": 1, "timestamp": "2024-01-01", "name": "charge"}
        History.from_dicts([start])
        with pytest.raises(HistoryFormatError) as caught:
            History.from_dicts([start, {**start, **change}])
        assert str(caught.value).startswith(f"event 1 of the history cannot be read: {message}")

    @pytest.mark.parametrize("levels", [90, 400])
    def test_causes_are_nested_as_deeply_as_messages_can_be(self, levels):
        failure: dict[str, Any] = {"message": "m", "error_type": "t"}
        for _ in range(levels - 1):
            failure = {"message": "m", "error_type": "t", "inner_failure": failure}
        event = {"event_type": "TaskFailedEvent", "event_id": -1, "timestamp": "2024-01-01", "failure_details": failure}
        if levels == 90:
            message = History.from_dicts([event]).protobuf[0]
            assert pb.HistoryEvent.FromString(message.SerializeToString()) == message
        else:
            with pytest.raises(HistoryFormatError, match=r"event 0 .* its failure_details .* at most 90 causes"):
                History.from_dicts([event])

    def test_a_file_is_read_up_to_a_size(self, tmp_path):
        bomb = tmp_path / "bomb.jsonl.gz"
        bomb.write_bytes(gzip.compress(b" " * 3_000_000, compresslevel=1))
        plain = tmp_path / "plain.json"
        plain.write_text("[]".ljust(1000))
        with pytest.raises(HistoryFormatError, match=r"bomb.*: decompressed, it has more than 2,000,000 bytes"):
            History.load(bomb, max_size=2_000_000)
        with pytest.raises(HistoryFormatError, match=r"plain.*: it has more than 999 bytes; .* --max-size"):
            History.load(plain, max_size=999)
        assert len(History.load(plain, max_size=1000)) == 0


class TestRedaction:
    def test_payloads_are_hidden_and_the_shape_stays(self, recorded):
        redacted = recorded.redacted()
        text = redacted.to_json()
        for secret in ("Ada", "Grace", "no such customer", "test_history"):
            assert secret in recorded.to_json()
            assert secret not in text
        result = next(event for event in redacted if isinstance(event, typed.TaskCompletedEvent)).result
        assert json.loads(result) == {"name": "***", "amount": 0}
        assert len(redacted) == len(recorded)
        assert redacted.workflow_name == recorded.workflow_name

    def test_a_function_chooses_what_to_redact(self, recorded):
        seen = []

        def keep_amounts(path, value):
            seen.append(path)
            return value if path.endswith("amount") else None

        redacted = recorded.redacted(keep_amounts)
        result = next(event for event in redacted if isinstance(event, typed.TaskCompletedEvent)).result
        assert json.loads(result) == {"name": None, "amount": 12}
        assert "TaskScheduledEvent.input" in seen
        assert "TaskFailedEvent.failure_details.message" in seen

    def test_empty_payloads_stay_empty_and_readable(self):
        event = event_of("taskCompleted")
        event.taskCompleted.result.value = ""
        assert History([event]).redacted().protobuf[0].taskCompleted.result.value == ""

    @pytest.mark.parametrize("payload", ["<xml>secret</xml>", "[" * 100_000 + "]" * 100_000], ids=["xml", "deep"])
    def test_a_payload_that_cannot_be_read_as_json_is_replaced_as_a_whole(self, payload):
        event = event_of("eventRaised")
        event.eventRaised.input.value = payload
        (redacted,) = cast(Any, History([event]).redacted().events)
        assert redacted.input == "***"


class TestContent:
    def test_facts(self, recorded):
        assert recorded.instance_id == "one"
        assert recorded.workflow_name == "everything"
        assert recorded.status is OrchestrationStatus.COMPLETED
        assert repr(recorded) == f"<History of everything 'one': {len(recorded)} events, COMPLETED>"
        assert History(recorded.protobuf[:-1]).status is OrchestrationStatus.RUNNING

    def test_it_iterates_over_typed_events(self, recorded):
        assert isinstance(next(iter(recorded)), typed.OrchestratorStartedEvent)
        assert list(recorded) == list(recorded.events)

    def test_histories_are_equal_if_their_events_are(self, recorded):
        assert History(recorded.protobuf) == recorded
        assert History(recorded.protobuf[:-1]) != recorded
        assert recorded != recorded.protobuf

    def test_a_diff_ignores_times(self, recorded):
        later = History.from_dicts(
            {**plain, "timestamp": datetime(2030, 1, 1, tzinfo=timezone.utc).isoformat()}
            for plain in recorded.to_dicts()
        )
        assert later != recorded
        assert recorded.diff(later) == ""

    def test_a_diff_shows_what_differs(self, recorded):
        other = recorded.redacted(lambda path, value: "Eve" if value == "Ada" else value)
        diff = recorded.diff(other)
        assert '-{"event_type": "TaskScheduledEvent"' in diff
        assert '+{"event_type": "TaskScheduledEvent"' in diff
        assert '\\"Eve\\"' in diff
