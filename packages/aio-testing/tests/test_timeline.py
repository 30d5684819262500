"""Timelines: reading a history, and the text and the page made of it."""

from __future__ import annotations

import asyncio
import io
import json
import re
import shutil
import subprocess
import zlib
from datetime import timedelta

import pytest
from durabletask.aio.testing import History, WorkflowEnvironment
from durabletask.client import OrchestrationStatus
from durabletask.entities import EntityInstanceId
from durabletask.task import RetryPolicy

from durabletask_aio.core.command_line import run_command
from durabletask_aio.testing.environment import DEFAULT_START
from durabletask_aio.testing.timeline import Kind, Outcome, Timeline, duration_text, payload_text
from durabletask_aio.testing.timeline_command import timeline as command
from durabletask_aio.testing.timeline_html import render_html
from durabletask_aio.testing.timeline_text import render_text

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENT = RetryPolicy(first_retry_interval=timedelta(seconds=5), max_number_of_attempts=3, backoff_coefficient=3)
START = {
    "event_type": "ExecutionStartedEvent",
    "event_id": -1,
    "timestamp": "2024-01-01T00:00:00+00:00",
    "name": "hello",
    "input": '"ü"',
    "orchestration_instance": {"instance_id": "one"},
}
COUNTER = EntityInstanceId("counter", "one")


async def fan_out(ctx, count):
    parts = await asyncio.gather(*(ctx.call_activity("resize", input=f"photo {n}") for n in range(count)))
    return await ctx.call_activity("publish", input=parts)


async def retried(ctx):
    return await ctx.call_activity("charge", input={"amount": 5}, retry_policy=PATIENT)


async def delivery(ctx):
    await ctx.call_activity("ship")
    return "delivered"


async def approval(ctx, order):
    await ctx.call_activity("publish", input=order)
    name = await ctx.with_timeout(ctx.wait_for_external_event("approve"), timedelta(days=3))
    await ctx.sleep(3600)
    await ctx.call_entity(COUNTER, "add", 1)
    ctx.signal_entity(COUNTER, "note", name)
    ctx.send_event("warehouse", "sold", data=order)
    return await ctx.call_sub_orchestrator(delivery, instance_id="delivery-1")


async def patient(ctx):
    await ctx.sleep(timedelta(days=30))
    await ctx.call_activity("publish")
    await ctx.sleep(timedelta(hours=1))
    await ctx.sleep(timedelta(hours=1))


async def long_wait(env):
    env.stub("publish", returns="ok", delay=1)
    handle = await env.start(patient)
    await handle.result()
    return handle.history


def counter(context, value):
    return value


@pytest.fixture
async def env():
    async with WorkflowEnvironment(
        orchestrators=[fan_out, retried, approval, delivery, patient], entities=[counter], verify=False
    ) as environment:
        environment.stub("resize", calls=lambda value: value.upper(), delay=4)
        environment.stub("publish", returns="ok", delay=1.5)
        environment.stub("charge", raises=ConnectionError("no <answer>"), delay=2)
        environment.stub("ship", returns=None, delay=timedelta(days=1))
        yield environment


@pytest.fixture
async def approved(env):
    handle = await env.start(approval, input={"id": 17}, instance_id="order-17")
    await env.advance(timedelta(hours=30))
    await handle.raise_event("approve", "Grace")
    await handle.result()
    return handle.history


@pytest.fixture
async def failed(env):
    handle = await env.start(retried, instance_id="order-18")
    with pytest.raises(Exception, match="no <answer>"):
        await handle.result()
    return handle.history


class TestReading:
    async def test_activities_have_their_times_inputs_and_results(self, env):
        handle = await env.start(fan_out, input=2)
        await handle.result()
        timeline = Timeline.of(handle.history)
        assert [(row.kind, row.name, row.input) for row in timeline.rows] == [
            (Kind.ACTIVITY, "resize", '"photo 0"'),
            (Kind.ACTIVITY, "resize", '"photo 1"'),
            (Kind.ACTIVITY, "publish", '["PHOTO 0", "PHOTO 1"]'),
        ]
        bar = timeline.rows[2].bars[0]
        assert (bar.start - DEFAULT_START, bar.duration) == (timedelta(seconds=4), timedelta(seconds=1.5))
        assert (bar.outcome, bar.text) == (Outcome.COMPLETED, '"ok"')
        assert (timeline.status, timeline.result, len(timeline.turns)) == (OrchestrationStatus.COMPLETED, '"ok"', 3)

    async def test_a_retried_activity_is_one_row_with_its_delays(self, failed):
        timeline = Timeline.of(failed)
        (row,) = timeline.rows
        assert [bar.outcome for bar in row.bars] == [
            Outcome.FAILED,
            Outcome.WAITED,
            Outcome.FAILED,
            Outcome.WAITED,
            Outcome.FAILED,
        ]
        assert [bar.duration.total_seconds() for bar in row.bars] == [2, 5, 2, 15, 2]
        assert row.bars[1].text == "pause before attempt 2"
        assert row.bars[4].text == "ConnectionError: no <answer>"
        assert "no <answer>" in timeline.failure

    async def test_timers_events_children_and_entities(self, approved):
        rows = {row.name: row for row in Timeline.of(approved).rows}
        assert list(rows) == [
            "publish",
            "until 2024-01-04 00:00:01",
            "approve",
            "until 2024-01-02 07:00:00",
            "add of @counter@one",
            "note → @counter@one",
            "sold → warehouse",
            "delivery",
        ]
        assert rows["until 2024-01-04 00:00:01"].outcome is Outcome.DROPPED
        assert rows["until 2024-01-02 07:00:00"].outcome is Outcome.WAITED
        assert [bar.outcome for bar in rows["approve"].bars] == [Outcome.WAITED, Outcome.MOMENT]
        assert rows["add of @counter@one"].kind is Kind.ENTITY
        assert rows["delivery"].bars[0].duration == timedelta(days=1)

    async def test_locks_say_that_they_are_locks(self):
        async def locks(ctx):
            async with ctx.lock_entities([COUNTER]):
                await ctx.call_entity(COUNTER, "get")

        async with WorkflowEnvironment(orchestrators=[locks], entities=[counter]) as env:
            handle = await env.start(locks)
            await handle.result()
        rows = [f"{row.kind.value} {row.name}" for row in Timeline.of(handle.history).rows]
        assert rows == ["entity lock of @counter@one", "entity get of @counter@one", "entity release of @counter@one"]

    async def test_turns_of_one_instant_are_drawn_one_after_the_other(self):
        async def sequence(ctx):
            await ctx.call_activity("first")
            await ctx.call_activity("second")

        async with WorkflowEnvironment(orchestrators=[sequence]) as env:
            env.stub("first", returns=1)
            env.stub("second", returns=2)
            handle = await env.start(sequence)
            await handle.result()
        timeline = Timeline.of(handle.history)
        first, second = (row.bars[0] for row in timeline.rows)
        assert first.start < first.end == second.start < second.end == timeline.end
        page = render_html(handle.history)
        assert "Turns of one instant are drawn one after the other." in page
        assert "took</dt><dd>0 ms in 3 turns" in page
        assert re.findall("class='tick'[^>]*>([^<]*)", page) == ["start"]
        assert "class='took'" not in page
        lines = render_text(handle.history).splitlines()
        assert [re.sub(" +", " ", line) for line in lines[2:]] == [
            "├─ ✓ activity first start 0 ms → 1",
            "└─ ✓ activity second start 0 ms → 2",
        ]

    async def test_turns_at_different_times_have_no_note(self, failed):
        assert "Turns of one instant" not in render_html(failed)

    async def test_a_wait_that_was_recorded_as_several_timers_is_one_row(self, env):
        rows = Timeline.of(await long_wait(env)).rows
        assert [(row.kind, row.name, len(row.bars)) for row in rows] == [
            (Kind.TIMER, "until 2024-01-31 00:00:00", 10),
            (Kind.ACTIVITY, "publish", 1),
            (Kind.TIMER, "until 2024-01-31 01:00:01", 1),
            (Kind.TIMER, "until 2024-01-31 02:00:01", 1),
        ]
        assert len(rows[0].attempts) == 1
        assert rows[0].end - rows[0].start == timedelta(days=30)

    async def test_the_delays_of_a_retried_sub_orchestration_are_not_attempts(self):
        async def parent(ctx):
            await ctx.call_sub_orchestrator(retried, retry_policy=PATIENT, instance_id="child")

        async with WorkflowEnvironment(orchestrators=[parent, retried], verify=False) as env:
            env.stub("charge", raises=ConnectionError("no answer"))
            handle = await env.start(parent)
            with pytest.raises(Exception, match="no answer"):
                await handle.result()
        (row,) = Timeline.of(handle.history).rows
        assert (len(row.attempts), len(row.bars), row.target) == (3, 5, "child")

    async def test_an_operation_without_an_outcome_is_running(self, env):
        handle = await env.start(retried)
        (row,) = Timeline.of(handle.history).rows
        assert row.outcome is Outcome.RUNNING

    async def test_suspensions(self, env):
        handle = await env.start(approval, input=1)
        await env.advance(60)
        await handle.suspend()
        await env.advance(60)
        await handle.resume()
        ((start, end),) = Timeline.of(handle.history).suspensions
        assert end - start == timedelta(seconds=60)

    async def test_a_history_that_only_says_when_its_turns_began(self, approved):
        unstamped = [
            event if event["event_type"] == "OrchestratorStartedEvent" else {**event, "timestamp": "1970-01-01"}
            for event in approved.to_dicts()
        ]
        timeline = Timeline.of(History.from_dicts(unstamped))
        assert timeline.start == Timeline.of(approved).start
        assert timeline.end - timeline.start > timedelta(days=2)

    def test_a_history_without_its_start(self):
        with pytest.raises(ValueError, match="does not say which workflow was started"):
            Timeline.of(History([]))


class TestText:
    async def test_a_retried_failure(self, failed):
        assert render_text(failed).splitlines() == [
            "retried()  order-18  FAILED after 26 s, 6 turns",
            "                         at  took  input → result",
            '├─ ✗ activity charge  start  26 s  {"amount": 5}  3 attempts',
            "│  ├─ ✗ attempt 1     start   2 s  ConnectionError: no <answer>",
            "│  ├─ ✗ attempt 2      +7 s   2 s  ConnectionError: no <answer>",
            "│  └─ ✗ attempt 3     +24 s   2 s  ConnectionError: no <answer>",
            (
                "└─ ✗ failed: TaskFailedError: activity 'charge' failed with builtins.ConnectionError: no <answer> "
                "[workflow 'retried', instance 'order-18', step 1]"
            ),
        ]

    async def test_an_approval(self, approved):
        lines = render_text(approved).splitlines()
        assert lines[0] == 'approval({"id": 17})  order-17  COMPLETED after 2 d 7 h, 6 turns'
        assert re.sub(" +", " ", lines[2]) == '├─ ✓ activity publish start 1.5 s {"id": 17} → "ok"'
        assert re.sub(" +", " ", lines[3]).endswith("2 d 6 h not waited for any more")
        assert lines[-2].endswith('instance delivery-1  → "delivered"')
        assert lines[-1] == '└─ returned "delivered"'

    async def test_a_workflow_that_is_suspended_and_waits(self, env):
        handle = await env.start(approval, input=1)
        await env.advance(60)
        await handle.suspend()
        text = render_text(handle.history)
        assert text.startswith("approval(1)  approval-1  SUSPENDED after 1 min")
        assert "<span class='status suspended'>suspended</span>" in render_html(handle.history)
        await handle.resume()
        assert "RUNNING after" in render_text(handle.history)
        await handle.suspend()
        await handle.terminate()
        assert "TERMINATED after" in render_text(handle.history)
        assert re.search("├─ ‖ suspended +\\+1 min +0 ms\n", text)
        assert "no outcome yet" in text

    async def test_a_failure_stays_on_its_line(self):
        async def workflow(ctx):
            raise ValueError("two\nlines\n" + "x" * 400)

        async with WorkflowEnvironment(orchestrators=[workflow]) as env:
            handle = await env.start(workflow)
        _, failure = render_text(handle.history).splitlines()
        assert failure.startswith("└─ ✗ failed: ValueError: two lines xxx")
        assert failure.endswith("xxx…")
        assert len(failure) < 330

    async def test_a_wait_of_thirty_days_is_one_line(self, env):
        line = render_text(await long_wait(env)).splitlines()[2]
        assert re.sub(" +", " ", line) == "├─ ◷ timer until 2024-01-31 00:00:00 start 30 d recorded as 10 timers"

    @pytest.mark.parametrize(
        ("duration", "text"),
        [
            (0.0003, "0 ms"),
            (0.34, "340 ms"),
            (2.5, "2.5 s"),
            (26, "26 s"),
            (59.999999, "1 min"),
            (0.9999, "1 s"),
            (200, "3 min 20 s"),
            (187200, "2 d 4 h"),
        ],
    )
    def test_durations(self, duration, text):
        assert duration_text(timedelta(seconds=duration)) == text

    def test_payloads_are_shortened(self):
        assert payload_text('{"a":  [1, 2]}') == '{"a": [1, 2]}'
        assert payload_text("<xml>") == "<xml>"
        assert payload_text('"' + "x" * 100 + '"', 10) == '"xxxxxxxx…'


class TestPage:
    async def test_it_is_self_contained(self, approved):
        page = render_html(approved)
        assert not re.search(r"https?://|<script|src=|@import|url\((?!#)", page)

    async def test_payloads_are_escaped(self, failed):
        page = render_html(failed)
        assert "no &lt;answer&gt;" in page
        assert "<answer>" not in page

    async def test_every_mark_has_a_tooltip(self, approved):
        page = render_html(approved)
        assert (
            "<title>activity publish #1\ninput: {&quot;id&quot;: 17}\nat start\ndone, 1.5 s\nresult: &quot;ok&quot;"
            in page
        )
        for heading in ("Activities", "Timers", "Events", "Sub-orchestrations", "Entities"):
            assert f">{heading}</text>" in page

    async def test_close_ticks_after_a_long_wait_show_their_distance(self):
        async def workflow(ctx):
            await ctx.sleep(timedelta(days=2, hours=6))
            await ctx.call_activity("publish")
            await ctx.call_activity("publish")

        async with WorkflowEnvironment(orchestrators=[workflow]) as env:
            env.stub("publish", returns="ok", delay=2)
            handle = await env.start(workflow)
            await handle.result()
        ticks = re.findall("class='tick'[^>]*>([^<]+)<", render_html(handle.history))
        assert ticks == ["start", "+2 d 6 h", "2 s later", "2 s later"]

    async def test_the_payload_of_an_event_is_shown_beside_it(self, approved):
        assert ">1 d 5 h, &quot;Grace&quot;</text>" in render_html(approved)

    async def test_text_at_the_edge_of_the_drawing_is_before_the_bar(self, env):
        handle = await env.start(approval, input=1)
        await env.advance(60)
        page = render_html(handle.history)
        assert "<dt>so far</dt><dd>1.5 s in 2 turns, up to the last event</dd>" in page
        assert "text-anchor='end'>no outcome yet</text>" in page

    async def test_empty_lanes_are_not_drawn(self, failed):
        assert ">Timers</text>" not in render_html(failed)

    async def test_the_table_has_the_same_content(self, failed):
        assert "attempt 2: ConnectionError: no &lt;answer&gt;" in render_html(failed)

    async def test_suspension_is_shaded(self, env):
        handle = await env.start(approval, input=1)
        await handle.suspend()
        await env.advance(60)
        await handle.resume()
        assert "<title>suspended for 1 min</title>" in render_html(handle.history)

    @pytest.mark.slow
    @pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
    async def test_a_browser_draws_a_fan_out_a_retried_failure_and_an_approval(self, env, approved, failed, tmp_path):
        fanned_out = await env.start(fan_out, input=8)
        await fanned_out.result()
        green, red, violet, white = (33, 122, 85), (197, 48, 48), (122, 79, 201), (255, 255, 255)
        assert _drawn(fanned_out.history, tmp_path) >= {green, white}
        assert _drawn(failed, tmp_path) >= {red, white}
        assert _drawn(approved, tmp_path) >= {green, violet, white}


def _drawn(history, folder):
    """The colours of the page in a browser."""
    page, picture = folder / "timeline.html", folder / "timeline.png"
    page.write_text(render_html(history), encoding="utf-8")
    picture.unlink(missing_ok=True)
    subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={folder / 'profile'}",
            f"--screenshot={picture}",
            "--window-size=1280,800",
            page.as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    return _colours(picture.read_bytes())


def _colours(png):
    """The colours of an 8-bit RGB(A) picture."""
    position, data, width, channels = 8, b"", 0, 3
    while position < len(png):
        length = int.from_bytes(png[position : position + 4], "big")
        kind, body = png[position + 4 : position + 8], png[position + 8 : position + 8 + length]
        if kind == b"IHDR":
            width, channels = int.from_bytes(body[:4], "big"), {2: 3, 6: 4}[body[9]]
        elif kind == b"IDAT":
            data += body
        position += length + 12
    raw, stride, colours = zlib.decompress(data), width * channels, set()
    previous = bytearray(stride)
    for start in range(0, len(raw), stride + 1):
        line = bytearray(raw[start + 1 : start + 1 + stride])
        _unfilter(raw[start], line, previous, channels)
        colours.update(tuple(line[n : n + 3]) for n in range(0, stride, channels))
        previous = line
    return colours


def _unfilter(kind, line, previous, channels):
    for n in range(len(line)):
        left = line[n - channels] if n >= channels else 0
        up = previous[n]
        corner = previous[n - channels] if n >= channels else 0
        if kind == 1:
            line[n] = (line[n] + left) & 255
        elif kind == 2:
            line[n] = (line[n] + up) & 255
        elif kind == 3:
            line[n] = (line[n] + (left + up) // 2) & 255
        elif kind == 4:
            guess = left + up - corner
            nearest = min((left, up, corner), key=lambda each: abs(guess - each))
            line[n] = (line[n] + nearest) & 255


class TestCommand:
    def run(self, *arguments):
        return run_command(command, [str(each) for each in arguments], prog_name="durabletask-aio timeline")

    async def test_a_page(self, approved, tmp_path, capsys):
        approved.save(tmp_path / "one.json")
        assert self.run(tmp_path / "one.json", "-o", tmp_path / "one.html") == 0
        assert (tmp_path / "one.html").read_text(encoding="utf-8") == render_html(approved)
        assert capsys.readouterr().out == f"wrote {tmp_path / 'one.html'}\n"

    async def test_text(self, approved, tmp_path, capsys):
        approved.save(tmp_path / "one.json")
        assert self.run(tmp_path / "one.json") == 0
        assert capsys.readouterr().out == render_text(approved) + "\n"

    async def test_json(self, approved, tmp_path, capsys):
        approved.save(tmp_path / "one.json")
        assert self.run(tmp_path / "one.json", "--json") == 0
        text = capsys.readouterr().out
        document = json.loads(text)
        times = {"start": "2024-01-01T00:00:00+00:00", "end": "2024-01-03T07:00:00+00:00", "seconds": 198000.0}
        assert {key: value for key, value in document.items() if key != "operations"} == {
            "workflow": "approval",
            "instance_id": approved.instance_id,
            "status": "COMPLETED",
            **times,
            "turns": 6,
            "input": '{"id": 17}',
            "result": '"delivered"',
            "failure": None,
            "suspensions": [],
        }
        assert [(each["kind"], each["name"], each["outcome"]) for each in document["operations"]] == [
            ("activity", "publish", "completed"),
            ("timer", "until 2024-01-04 00:00:01", "dropped"),
            ("event", "approve", "moment"),
            ("timer", "until 2024-01-02 07:00:00", "waited"),
            ("entity", "add of @counter@one", "completed"),
            ("entity", "note → @counter@one", "moment"),
            ("event", "sold → warehouse", "moment"),
            ("sub-orchestration", "delivery", "completed"),
        ]
        assert document["operations"][-1]["instance_id"] == "delivery-1"
        assert self.run(tmp_path / "one.json", "--json", "-o", tmp_path / "document.json") == 0
        assert (tmp_path / "document.json").read_text(encoding="utf-8") == text
        assert capsys.readouterr().out == ""

    async def test_json_of_a_retried_activity_has_its_attempts(self, failed, tmp_path, capsys):
        failed.save(tmp_path / "one.json")
        assert self.run(tmp_path / "one.json", "--json") == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["status"], document["seconds"]) == ("FAILED", 26.0)
        assert "no <answer>" in document["failure"]
        (operation,) = document["operations"]
        assert (operation["seconds"], operation["input"], operation["number"]) == (26.0, '{"amount": 5}', 1)
        assert [(each["outcome"], each["seconds"]) for each in operation["attempts"]] == [("failed", 2.0)] * 3
        assert all("no <answer>" in each["detail"] for each in operation["attempts"])

    async def test_redacted(self, approved, tmp_path, capsys):
        approved.save(tmp_path / "one.json")
        assert self.run(tmp_path / "one.json", "--redact") == 0
        assert "Grace" not in capsys.readouterr().out

    async def test_the_folder_of_the_page_is_made(self, approved, tmp_path):
        approved.save(tmp_path / "one.json")
        assert self.run(tmp_path / "one.json", "-o", tmp_path / "new" / "one.html") == 0
        assert (tmp_path / "new" / "one.html").exists()

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("none.json", None, "none.json: No such file or directory"),
            ("empty.json", '{"events": []}', "empty.json does not say which workflow was started; is it the whole"),
            ("broken.json", "{", "broken.json: this is not a history: not JSON"),
        ],
    )
    def test_a_file_that_is_not_a_history_is_exit_code_two(self, tmp_path, capsys, name, content, message):
        if content is not None:
            (tmp_path / name).write_text(content)
        assert self.run(tmp_path / name) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error

    def test_a_page_that_cannot_be_written_is_exit_code_two(self, tmp_path, capsys):
        History.from_dicts([START]).save(tmp_path / "one.json")
        assert self.run(tmp_path / "one.json", "-o", tmp_path) == 2
        assert "Is a directory" in capsys.readouterr().err

    def test_control_characters_are_escaped(self, tmp_path, capsys):
        History.from_dicts([{**START, "name": "\x1b[31mred"}]).save(tmp_path / "one.json")
        assert self.run(tmp_path / "one.json") == 0
        assert capsys.readouterr().out.startswith("\\x1b[31mred(")

    def test_a_console_without_the_characters_gets_question_marks(self, tmp_path, monkeypatch):
        History.from_dicts([START]).save(tmp_path / "one.json")
        console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        monkeypatch.setattr("sys.stdout", console)
        assert self.run(tmp_path / "one.json") == 0
        console.flush()
        assert console.buffer.getvalue().startswith(b'hello("?")  one  RUNNING')
