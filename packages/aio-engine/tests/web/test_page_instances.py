"""The list of instances, and the page of one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

pytest.importorskip("starlette.testclient", reason="the page needs the extra 'ui'")
pytest.importorskip("jinja2", reason="the page needs the extra 'ui'")

from starlette import testclient

from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.embedded import Engine
from durabletask_aio.engine.web.app import create_app
from durabletask_aio.engine.web.backend import Backend
from durabletask_aio.engine.web.waiting import Awaited, WaitingUnknownError

DEEP = "[" * 50_000
STRANGE_IDS = [
    '<script>alert("1")</script>',
    "a/b/../c",
    "..",
    "Zürich, 東京 😀",
    "a b?c=d&e#f%2F",
    "'quote\"",
    "x" * 2000,
    "\u202eabc",
]


def ids(text: str) -> list[str]:
    """The ids in the list, in order."""
    return [unescape(each) for each in re.findall(r'<tr class="level-\d" data-key="([^"]*)"', text)]


def scheduled(engine: Engine, instance_id: str, value: str) -> None:
    """Store an instance with an input that no client of Python would make, and which no worker gets."""
    request = pb.CreateInstanceRequest(name="waiter", instanceId=instance_id)
    request.scheduledStartTimestamp.FromDatetime(datetime.now(timezone.utc) + timedelta(days=1))
    request.input.value = value
    Backend(engine.channel).call("StartInstance", request)


# Payloads and names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closing", ["", "]" * 50_000], ids=["open", "closed"])
def test_a_deeply_nested_payload_takes_nothing_down(
    page: Any, engine: Engine, start: Callable[..., str], client: Any, closing: str
) -> None:
    text = DEEP + closing
    given, returned = f"deep-input-{len(closing)}", f"deep-output-{len(closing)}"
    scheduled(engine, given, text)
    start("waiter", returned, status="RUNNING")
    ending = pb.TerminateRequest(instanceId=returned)
    ending.output.value = text
    Backend(engine.channel).call("TerminateInstance", ending)
    client.wait_for_orchestration_completion(returned, fetch_payloads=False, timeout=30)
    assert {given, returned} <= set(ids(page.get("/").text))
    for instance_id, field in ((given, "input"), (returned, "output")):
        answer = page.get(f"/instance?id={instance_id}")
        assert answer.status_code == 200
        assert "[[[[[[" in answer.text
        assert len(answer.content) < 200_000
        assert page.get(f"/payload?id={instance_id}&field={field}").text == text


def test_a_deeply_nested_state_of_an_entity_takes_nothing_down(
    page: Any, engine: Engine, client: Any, wait_for: Any
) -> None:
    from durabletask import entities

    client.signal_entity(entities.EntityInstanceId("Counter", "deep"), "text", input=DEEP)
    wait_for(lambda: "[[[[" in page.get("/entities").text)
    assert page.get("/entity?id=@counter@deep").status_code == 200
    assert json.loads(page.get("/entity/state?id=@counter@deep").text) == DEEP


@pytest.mark.parametrize("instance_id", STRANGE_IDS, ids=lambda each: ascii(each)[:20])
def test_an_id_may_hold_anything(page: Any, start: Callable[..., str], instance_id: str, act: Any) -> None:
    start("waiter", instance_id, status="RUNNING", tags={"<i>": "a=b&c"})
    text = page.get("/", params={"q": instance_id[:50]}).text
    assert instance_id in ids(text)
    assert "<script>alert" not in text
    assert "<i>" not in text
    found = re.search(r'<a class="id" href="([^"]*)"><bdi>' + re.escape(_escaped(instance_id)), text)
    assert found
    answer = page.get(unescape(found[1]))
    assert answer.status_code == 200
    assert f'<bdi class="mono">{_escaped(instance_id)}</bdi>' in answer.text
    assert act("suspend", id=instance_id).json()["location"] == f"/instance?id={quote(instance_id, safe='')}".replace(
        "%20", "+"
    )


def _escaped(text: str) -> str:
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"), ("'", "&#39;")):
        text = text.replace(character, entity)
    return text


def test_markup_in_names_and_payloads_is_text(page: Any, start: Callable[..., str], act: Any) -> None:
    start("<img src=x onerror=alert(1)>", "markup", input={"</pre><script>": "<b>"}, tags={"<u>": "<u>"})
    for path in ("/?q=markup", "/instance?id=markup"):
        text = page.get(path).text
        assert "&lt;img src=x" in text
        assert not re.search(r"<img|<script>|<u>|</pre><script", text)


def test_a_large_payload_is_cut_with_a_link_to_all_of_it(page: Any, engine: Engine) -> None:
    text = json.dumps(["x" * 100] * 3000)
    scheduled(engine, "large", text)
    html = page.get("/instance?id=large").text
    assert "only the beginning is shown" in html
    assert len(html) < 100_000
    link = re.search(r'<a href="([^"]+)" class="full">All of it</a>', html)
    assert link
    answer = page.get(unescape(link[1]))
    assert answer.text == text
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


# The list ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(start: Callable[..., str], client: Any) -> Sequence[str]:
    """Thirty instances, in the order in which they were created."""
    names = [f"shop-{number:02}" for number in range(30)]
    for number, name in enumerate(names):
        start("waiter", name, input="stop", tags={"parity": "odd" if number % 2 else "even"}, version="1.2")
    for name in names[:5]:
        client.terminate_orchestration(name)
        client.wait_for_orchestration_completion(name, timeout=30)
    return names


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"prefix": "shop-1"}, range(19, 9, -1)),
        ({"prefix": "shop-1", "order": "oldest"}, range(10, 20)),
        ({"q": "OP-2"}, range(29, 19, -1)),
        ({"q": "shop", "status": "terminated"}, range(4, -1, -1)),
        ({"prefix": "shop-0", "tag": "parity=odd"}, (9, 7, 5, 3, 1)),
        ({"prefix": "shop-0", "tag": "parity = odd", "status": "terminated"}, (3, 1)),
        ({"prefix": "shop-0", "name": "waiter", "created": "1h", "updated": "24h"}, range(9, -1, -1)),
        ({"prefix": "shop-0", "name": "other"}, ()),
        ({"prefix": "shop-0", "created_to": "2020-01-01T00:00"}, ()),
        ({"prefix": "shop-0", "created_from": "2020-01-01T00:00", "updated_to": "2099-01-01T00:00"}, range(9, -1, -1)),
        ({"prefix": "shop_0"}, ()),
        ({"q": "shop%"}, ()),
    ],
    ids=str,
)
def test_filters(page: Any, shop: Sequence[str], query: dict[str, str], expected: Sequence[int]) -> None:
    assert ids(page.get("/", params=query).text) == [shop[number] for number in expected]


def test_several_statuses_are_either(page: Any, shop: Sequence[str]) -> None:
    text = page.get("/?prefix=shop-0&status=terminated&status=running").text
    assert len(ids(text)) == 10


def test_a_local_time_is_read_with_the_offset_of_the_browser(page: Any, shop: Sequence[str]) -> None:
    local = datetime.now(timezone(timedelta(hours=9)))
    for minutes, expected in ((-5, 10), (5, 0)):
        entered = (local + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M")
        query = {"prefix": "shop-0", "created_from": entered, "offset": "540"}
        assert len(ids(page.get("/", params=query).text)) == expected


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"tag": "parity"}, "Write a tag with its value, as in region=eu, and not &#39;parity&#39;."),
        ({"created_from": "yesterday"}, "Write a time as 2026-01-31T12:00, and not &#39;yesterday&#39;."),
        ({"page": "x"}, "&#39;x&#39; is not a page token."),
        ({"created_from": "2020-01-01T00:00", "offset": "9999"}, "Write a time as"),
    ],
)
def test_a_filter_that_cannot_be_read_is_explained(page: Any, query: dict[str, str], text: str) -> None:
    answer = page.get("/", params=query)
    assert answer.status_code == 400
    assert text in answer.text


@pytest.mark.parametrize(
    "query", [{"status": "nonsense"}, {"size": "7"}, {"created": "-1h"}, {"offset": "x", "open": "zz"}]
)
def test_parameters_that_mean_nothing_are_left_out(page: Any, query: dict[str, str]) -> None:
    assert page.get("/", params=query).status_code == 200


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_pages_lead_forwards_and_back(page: Any, shop: Sequence[str], order: str) -> None:
    expected = list(shop) if order == "oldest" else list(reversed(shop))
    path = f"/?prefix=shop-&size=25&order={order}"
    first = page.get(path).text
    assert ids(first) == expected[:25]
    assert not re.search(r'rel="prev"', first)
    second = page.get(_link(first, "next")).text
    assert ids(second) == expected[25:]
    assert not re.search(r'rel="next"', second)
    back = page.get(_link(second, "prev")).text
    assert ids(back) == expected[:25]
    assert not re.search(r'rel="prev"', back)
    assert ids(page.get(_link(back, "next")).text) == expected[25:]


def _link(text: str, relation: str) -> str:
    found = re.search(rf'<a href="([^"]+)" data-soft="top" rel="{relation}"', text)
    assert found
    return unescape(found[1])


def test_children_are_shown_under_their_parent_when_it_is_opened(
    page: Any, start: Callable[..., str], wait_for: Any
) -> None:
    start("parent", "family", input=3)
    children = [f"family/child-{number}" for number in range(3)]
    wait_for(lambda: 'aria-label="3 children"' in page.get("/").text)
    closed = page.get("/").text
    assert "family" in ids(closed)
    assert not set(children) & set(ids(closed))
    toggle = re.search(r'<a class="expand" href="([^"]+)"[^>]+aria-expanded="false" aria-label="3 children"', closed)
    assert toggle
    opened = page.get(unescape(toggle[1])).text
    found = ids(opened)
    at = found.index("family")
    assert found[at + 1 : at + 4] == children
    assert 'aria-expanded="true"' in opened
    assert ids(page.get("/?parent=family").text) == children[::-1]
    assert set(children) < set(ids(page.get("/?children=all").text))


def test_a_failure_and_a_custom_status_are_in_the_list(page: Any, start: Callable[..., str]) -> None:
    start("order", "listed-failed", status="FAILED", input="bad")
    start("order", "listed-done", status="COMPLETED", input="good")
    text = page.get("/?q=listed").text
    assert "the card &lt;b&gt;is declined&lt;/b&gt;" in text
    assert ">pricing</span>" in text


def test_a_result_is_in_the_list_with_its_custom_status(page: Any, start: Callable[..., str]) -> None:
    start("order", "listed-result", status="COMPLETED", input="good")
    text = page.get("/?prefix=listed-result").text
    row = text.partition('data-key="listed-result"')[2].partition("</tr>")[0]
    note = unescape(re.sub(r"<[^>]+>", "", row.partition('class="c-note"')[2]))
    assert '["paid", {"item": "item 0", "price": 12.5}]' in note
    assert "pricing" in note


class TestWorkers:
    """What the list says of those that run the instances, and of where they are kept."""

    @pytest.fixture
    def lonely(self, tmp_path: Path) -> Iterator[Engine]:
        """An engine without a worker."""
        with Engine(tmp_path / "lonely.db") as engine:
            yield engine

    def text(self, engine: Engine, **options: Any) -> str:
        page = testclient.TestClient(create_app(engine.channel, **options), base_url="http://localhost")
        found = page.get("/").text
        return " ".join(unescape(re.sub(r"<[^>]+>", " ", found.partition("<main")[2])).split())

    def test_connected_workers_are_counted(self, engine: Engine) -> None:
        assert " 1 worker " in self.text(engine)
        assert "wait for a worker" not in self.text(engine)
        assert "Everything is in the memory of the engine, and is forgotten when it stops." in self.text(engine)

    def test_instances_that_wait_for_a_worker_are_explained(self, lonely: Engine, tmp_path: Path) -> None:
        text = self.text(lonely, address="localhost:5000")
        assert "No worker is connected" in text
        assert "Instances wait for a worker." not in text
        assert "There are no instances yet. A client starts them, or the button above. Workers and clients" in text
        assert 'connect with host_address="localhost:5000"' in text
        assert f"Everything is kept in {tmp_path / 'lonely.db'} ." in text

        lonely.client().schedule_new_orchestration("nobody")

        assert "Instances wait for a worker. Start a program" in self.text(lonely, address="localhost:5000")
        assert "Workers and clients of durabletask find this engine without" in self.text(
            lonely, address="localhost:4001"
        )
        assert "Workers and clients" not in self.text(lonely)


def test_what_has_not_changed_is_not_sent_again(page: Any, shop: Sequence[str], act: Any) -> None:
    for path in (f"/instance?id={shop[20]}", "/?prefix=shop-"):
        answer = page.get(path)
        tag = answer.headers["etag"]
        assert f'data-version="{_escaped(tag)}"' in answer.text
        again = page.get(path, headers={"if-none-match": tag})
        assert (again.status_code, again.content) == (304, b"")
        assert act("raise-event", id=shop[20], name="ignored").status_code == 200
        act("suspend", id=shop[20])
        act("resume", id=shop[20])
        assert page.get(path, headers={"if-none-match": tag}).status_code == 200


def test_another_filter_is_another_page_with_the_same_instances(page: Any) -> None:
    tag = page.get("/?q=nothing-is-like-this").headers["etag"]
    assert page.get("/?q=nor-like-that", headers={"if-none-match": tag}).status_code == 200


# One instance ------------------------------------------------------------------------------------------------


def test_an_unknown_instance_is_explained(page: Any) -> None:
    answer = page.get("/instance?id=nope")
    assert answer.status_code == 404
    assert "Orchestration instance &#39;nope&#39; not found." in answer.text
    assert page.get("/instance").status_code == 400
    assert page.get("/payload?id=nope&field=input").status_code == 404


def test_events_are_shown_with_all_that_they_hold(page: Any, start: Callable[..., str]) -> None:
    start("order", "events", status="COMPLETED", input="good", version="7.1")
    text = page.get("/instance?id=events").text
    plain = unescape(re.sub(r"<[^>]+>", "", text))
    for each in (
        "Activity scheduled",
        "Activity completed",
        "Timer created",
        "Timer fired",
        "Started",
        "Ended",
        "Turn 1",
    ):
        assert each in plain
    assert plain.count('{"item": "item 7", "price": 12.5}') >= 2
    assert "kind-activity" in text
    assert "\u00d7 8" in plain  # eight activities of one name are one row of the timeline


def test_a_payload_of_an_event_can_be_had_whole(page: Any, start: Callable[..., str]) -> None:
    start("order", "event-payload", status="COMPLETED", input="good")
    text = page.get("/instance?id=event-payload").text
    links = [unescape(each) for each in re.findall(r'<a href="(/payload\?id=event-payload&amp;event=[^"]+)"', text)]
    assert '"item 0"' in [page.get(link).text for link in links]
    assert page.get("/payload?id=event-payload&event=9999&field=input").status_code == 404
    assert page.get("/payload?id=event-payload&event=-1&field=input").status_code == 404
    assert page.get("/payload?id=event-payload&event=1&field=nothing").status_code == 404


@pytest.mark.parametrize("instance_id", ["exported", 'exp"/ü\u6771'])
def test_the_history_can_be_had_as_json(page: Any, start: Callable[..., str], client: Any, instance_id: str) -> None:
    start("order", instance_id, status="COMPLETED", input="good")
    link = re.search(r'<a href="([^"]+)"[^>]*>As JSON</a>', page.get(f"/instance?id={quote(instance_id)}").text)
    assert link is not None
    answer = page.get(unescape(link[1]))
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-disposition"].startswith('inline; filename="exp')
    document = answer.json()
    assert (document["format"], document["instance_id"]) == ("durabletask-history", instance_id)
    names = [type(event).__name__ for event in client.get_orchestration_history(instance_id)]
    assert [event["event_type"] for event in document["events"]] == names
    assert page.get("/history.json?id=nothing").status_code == 404
    assert page.get("/history.json").status_code == 400


def test_a_failure_is_shown_with_the_stack_of_the_activity(page: Any, start: Callable[..., str]) -> None:
    start("order", "failure", status="FAILED", input="bad")
    text = page.get("/instance?id=failure").text
    panel = text.partition('class="panel failure"')[2].partition("</section>")[0]
    plain = unescape(re.sub(r"<[^>]+>", "", panel))
    assert "TaskFailedError" in plain
    assert "caused by" in plain
    assert "ValueError: the card <b>is declined</b>" in plain
    assert 'raise ValueError("the card <b>is declined</b>")' in plain
    assert "1 failed operation" in plain


def test_what_an_instance_waits_for(page: Any, start: Callable[..., str], wait_for: Any) -> None:
    start("many", "waits", status="RUNNING")
    wait_for(lambda: "on worker" in page.get("/instance?id=waits").text)
    text = page.get("/instance?id=waits").text
    panel = text.partition('class="panel waits"')[2].partition("</section>")[0]
    assert "<b><bdi>slow</bdi></b> on worker" in panel
    assert 'data-style="left"' in panel
    assert "/instance?id=waits%2Fchild" in panel
    child = page.get("/instance?id=waits/child").text
    assert "No operation is outstanding: it waits for an external event." in child
    assert 'href="/instance?id=waits"' in child


def test_an_instance_that_no_worker_takes_says_so(page: Any, engine: Engine) -> None:
    scheduled(engine, "later", "1")
    assert "It starts <time" in page.get("/instance?id=later").text


def test_the_application_can_tell_what_its_workflow_awaits(
    engine: Engine, start: Callable[..., str], client: Any
) -> None:
    start("waiter", "described", status="RUNNING", input="approval")
    calls: list[tuple[str, str]] = []

    def describe(instance_id: str, history: Sequence[pb.HistoryEvent]) -> Sequence[Awaited]:
        calls.append((instance_id, str(history[1].WhichOneof("eventType"))))
        if instance_id == "described":
            return [Awaited("the event 'approval'", "approval", "shop.py:9", "await <event>", "  File shop.py")]
        if instance_id == "unknown":
            raise WaitingUnknownError("shop has no such workflow")
        raise RuntimeError("cannot be imported")

    page = testclient.TestClient(create_app(engine.channel, describe_waiting=describe), base_url="http://localhost")
    text = page.get("/instance?id=described").text
    assert "<b>the event &#39;approval&#39;</b>" in text
    assert "await &lt;event&gt;" in text
    assert 'data-fill-name="approval"' in text
    assert calls == [("described", "executionStarted")]
    tag = page.get("/instance?id=described").headers["etag"]
    assert page.get("/instance?id=described", headers={"if-none-match": tag}).status_code == 304
    assert len(calls) == 2, "not asked for a browser that has the page"

    start("waiter", "not-described", status="RUNNING")
    text = page.get("/instance?id=not-described").text
    assert "The application could not be asked what the workflow awaits: RuntimeError: cannot be imported" in text

    start("waiter", "unknown", status="RUNNING")
    text = page.get("/instance?id=unknown").text
    assert "The application could not be asked what the workflow awaits: shop has no such workflow</p>" in text


def test_a_long_history_has_pages(page: Any, start: Callable[..., str], client: Any, wait_for: Any) -> None:
    start("waiter", "long", status="RUNNING", input="never")
    for number in range(250):
        client.raise_orchestration_event("long", f"event-{number}", data=number)
    wait_for(lambda: "event-249" in page.get("/instance?id=long").text)
    last = page.get("/instance?id=long").text
    first = page.get("/instance?id=long&events=0").text
    assert "event-0<" in first
    assert "event-249<" not in first.partition('id="events"')[2]
    shown = re.findall(r'<li [^>]*id="event-(\d+)"', last)
    assert int(shown[-1]) > 250
    assert page.get("/instance?id=long&events=99999999").status_code == 200


@pytest.mark.parametrize(("turns", "first", "count"), [(0, 0, 0), (100, 0, 199), (101, 200, 1), (200, 200, 199)])
def test_the_last_page_of_events_is_never_empty(turns: int, first: int, count: int) -> None:
    web = pytest.importorskip("durabletask_aio.engine.web.instance", reason="the page needs the extra 'ui'")
    from durabletask_aio.engine.web import history

    turn = [
        pb.HistoryEvent(orchestratorStarted=pb.OrchestratorStartedEvent()),
        pb.HistoryEvent(orchestratorCompleted=pb.OrchestratorCompletedEvent()),
    ]
    window = web.window(history.read(turn * turns), "")
    assert (window.first, len(window.events)) == (first, count)
    assert window.next is None
    assert all(event.is_turn for event in window.events[-1:])


# Entities, the engine, programs ------------------------------------------------------------------------------


def test_an_entity_shows_who_holds_and_who_waits(page: Any, start: Callable[..., str], wait_for: Any, act: Any) -> None:
    start("holder", "holder-1", input="shared")
    wait_for(lambda: "holder-1" in page.get("/entities?prefix=counter@shared").text)
    start("holder", "holder-2", input="shared")
    wait_for(lambda: "holder-2" in page.get("/entity?id=@counter@shared").text)
    text = page.get("/entity?id=@counter@shared").text
    assert 'held by <a class="id" href="/instance?id=holder-1">' in text
    waiting = page.get("/instance?id=holder-2").text.partition('class="panel waits"')[2].partition("</section>")[0]
    assert "lock" in waiting
    assert "@counter@shared" in waiting
    act("raise-event", id="holder-1", name="release")
    wait_for(lambda: "held by" in (text := page.get("/entity?id=@counter@shared").text) and "holder-1" not in text)
    act("raise-event", id="holder-2", name="release")


def test_steps_patches_and_requests_are_shown_by_name(page: Any, engine: Engine, start: Callable[..., str]) -> None:
    from durabletask_aio.core.client import WorkflowClient

    start("steps", "has-steps", status="RUNNING")
    assert WorkflowClient(engine.client()).get_handle("has-steps").ask("approve", {"by": "Ada"}, timeout=30) == "fine"
    start_text = page.get("/instance?id=has-steps").text
    text = unescape(re.sub(r"<[^>]*>", "", start_text))

    events = re.findall(r'class="event-title">([^<]*)</span><span class="event-subject"><b><bdi>([^<]*)', start_text)
    assert [each for each in events if each[0] not in ("Started", "Ended", "Pause until steps are recorded")] == [
        ("Step", "weigh"),
        ("Steps are recorded", ""),
        ("Step", "weigh again"),
        ("Patch", "light"),
        ("Request received", "approve"),
        ("Request answered", "approve"),
    ]
    rows = re.findall(r'class="label-name">([^<]*)</bdi>.*?class="sr">([^<]*)', start_text, re.DOTALL)
    assert rows == [
        ("weigh", "step, moment"),
        ("weigh again", "step, failed"),
        ("light", "patch, moment"),
        ("approve", "request, moment"),
        ("approve", "answer, moment"),
    ]
    assert '["lamp"] → 4' in text
    assert "ValueError: it flies away" in text
    assert page.get("/payload?id=has-steps&event=2&field=result").text == "4"
    assert "durabletask-aio.reply" not in text
    assert "$" not in text


def test_the_page_of_the_engine(page: Any) -> None:
    text = page.get("/engine").text
    assert "none: in memory" in text
    assert "this process" in text
    assert "orchestration" in text


def test_metrics(page: Any, start: Callable[..., str]) -> None:
    pytest.importorskip("prometheus_client", reason="metrics need the extra 'metrics'")
    start("waiter", "measured", status="RUNNING")
    answer = page.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    values = dict(re.findall(r"^(\w+(?:\{[^}]*\})?) (\S+)$", answer.text, re.MULTILINE))
    assert float(values['durabletask_instances{status="running"}']) >= 1
    assert float(values['durabletask_queued_items{kind="activity"}']) >= 0
    assert float(values['durabletask_running_items{kind="orchestration"}']) >= 0
    assert float(values["durabletask_workers"]) == 1
    assert float(values["durabletask_commits_total"]) > 0
    assert float(values["durabletask_commands_total"]) > 0
    assert float(values["durabletask_file_bytes"]) > 0
    assert float(values["durabletask_largest_history_events"]) > 0
    assert float(values["durabletask_timers"]) >= 0


def test_an_engine_that_is_gone_is_explained() -> None:
    grpc = pytest.importorskip("grpc")
    with grpc.insecure_channel("localhost:1") as channel:
        page = testclient.TestClient(create_app(channel), base_url="http://localhost")
        answer = page.get("/")
        assert answer.status_code == 503
        assert "Is it running, and can this machine reach it?" in answer.text
        assert page.get("/healthz").status_code == 503
        assert page.get("/static/page.css").status_code == 200


def test_an_unknown_address_is_explained(page: Any) -> None:
    answer = page.get("/no/such/page")
    assert answer.status_code == 404
    assert "The instances are on the first page." in answer.text
