"""What users do with instances, through the forms of the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the page needs the extra 'ui'")

from durabletask_aio.engine.embedded import Engine


@pytest.fixture
def status_of(client: Any) -> Callable[[str], str]:
    return lambda instance_id: client.get_orchestration_state(instance_id).runtime_status.name


def test_start(act: Any, client: Any, engine: Engine) -> None:
    answer = act(
        "start", name="waiter", instance_id="started", input='"stop"', version="2", tags="region=eu, team = shop"
    )
    assert answer.json() == {"message": "Started started.", "location": "/instance?id=started"}
    state = client.get_orchestration_state("started")
    assert state.serialized_input == '"stop"'
    found = engine.management().details("started").instance
    assert found.tags == {"region": "eu", "team": "shop"}
    assert found.version == "2"


def test_start_with_a_random_id(act: Any, client: Any) -> None:
    instance_id = act("start", name="waiter", input="", instance_id=" ").json()["location"].partition("=")[2]
    assert len(instance_id) == 32
    assert client.get_orchestration_state(instance_id).serialized_input is None


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"name": " "}, "Enter the name of the orchestrator to start."),
        ({"name": "waiter", "input": "{1}"}, "The input is not JSON: Expecting property name"),
        ({"name": "waiter", "input": "plain"}, 'A text is written in double quotes: "like this".'),
        ({"name": "waiter", "tags": "region"}, "Write each tag as name=value, and not 'region'."),
    ],
)
def test_a_start_that_is_wrong_is_explained(act: Any, fields: dict[str, str], text: str) -> None:
    answer = act("start", **fields)
    assert answer.status_code == 400
    assert text in answer.json()["error"]


def test_an_input_deeper_than_pythons_parser_goes_can_be_started(act: Any, client: Any) -> None:
    deep = "[" * 5000 + "]" * 5000
    assert act("start", name="waiter", instance_id="deep-start", input=deep).status_code == 200
    assert client.get_orchestration_state("deep-start").serialized_input == deep


def test_an_id_that_is_taken_is_explained(act: Any, start: Callable[..., str]) -> None:
    start("waiter", "taken", status="RUNNING")
    answer = act("start", name="waiter", instance_id="taken")
    assert answer.status_code == 409
    assert "taken" in answer.json()["error"]


def test_raise_event(act: Any, start: Callable[..., str], client: Any) -> None:
    start("waiter", "gets-event", status="RUNNING")
    assert act("raise-event", id="gets-event", name="go", data='{"a": 1}').json()["message"] == "Sent the event go."
    assert client.wait_for_orchestration_completion("gets-event", timeout=30).serialized_output == '{"a": 1}'
    assert act("raise-event", id="gets-event", name="").json()["error"] == "Enter the name of the event."


@pytest.mark.parametrize("reason", ["out of <stock>", ""])
def test_cancel(act: Any, start: Callable[..., str], client: Any, page: Any, reason: str) -> None:
    instance_id = start("waiter", status="RUNNING")
    answer = act("cancel", id=instance_id, reason=reason)
    assert answer.json()["message"] == "Asked it to cancel itself. It can clean up before it ends."
    failure = client.wait_for_orchestration_completion(instance_id, timeout=30).failure_details
    assert failure.error_type == "durabletask.aio.WorkflowCancelledError"

    shown = page.get("/instance", params={"id": instance_id}).text
    listed = page.get("/", params={"prefix": instance_id}).text
    assert "Cancelled</h2>" in shown
    assert ("out of &lt;stock&gt;" if reason else "No reason was given.") in shown
    assert ("out of &lt;stock&gt;" if reason else "no reason was given") in listed
    for text in (shown, listed):
        assert "badge cancelled" in text
        assert "badge failed" not in text


def test_suspend_and_resume(act: Any, start: Callable[..., str], status_of: Any, wait_for: Any) -> None:
    start("waiter", "pauses", status="RUNNING")
    assert act("suspend", id="pauses", reason="lunch").status_code == 200
    wait_for(lambda: status_of("pauses") == "SUSPENDED")
    assert act("resume", id="pauses").json()["message"] == "Resumed."
    wait_for(lambda: status_of("pauses") == "RUNNING")


@pytest.mark.parametrize("is_recursive", [True, False])
def test_terminate(
    act: Any, start: Callable[..., str], status_of: Any, wait_for: Any, client: Any, is_recursive: bool
) -> None:
    parent = start("parent", f"ends-{is_recursive}", input=1, status="RUNNING")
    child = f"{parent}/child-0"
    wait_for(lambda: status_of(child) == "RUNNING")
    act("terminate", id=parent, reason="too <late>", **({"recursive": "on"} if is_recursive else {}))
    wait_for(lambda: status_of(parent) == "TERMINATED")
    assert client.get_orchestration_state(parent).serialized_output == '"too <late>"'
    if is_recursive:
        wait_for(lambda: status_of(child) == "TERMINATED")
    else:
        assert status_of(child) == "RUNNING"


def test_rewind(act: Any, start: Callable[..., str], status_of: Any, client: Any, wait_for: Any) -> None:
    start("order", "rewinds", input="bad", status="FAILED")
    before = client.get_orchestration_state("rewinds").last_updated_at
    assert act("rewind", id="rewinds", reason="try again").status_code == 200
    wait_for(lambda: client.get_orchestration_state("rewinds").last_updated_at > before)
    wait_for(lambda: status_of("rewinds") == "FAILED")


def test_an_action_that_is_not_possible_is_explained(act: Any, start: Callable[..., str]) -> None:
    start("waiter", "running", status="RUNNING")
    for name in ("rewind", "restart", "purge"):
        answer = act(name, id="running")
        assert answer.status_code == 409, name
        assert answer.json()["error"].endswith(".")
    assert act("suspend", id="").json()["error"] == "The form has no instance id."
    assert act("purge", id="nobody").status_code == 409


@pytest.mark.parametrize("is_new", [True, False])
def test_restart(act: Any, start: Callable[..., str], client: Any, is_new: bool) -> None:
    instance_id = start("order", f"restarts-{is_new}", input="good", status="COMPLETED")
    location = act("restart", id=instance_id, **({"new_id": "on"} if is_new else {})).json()["location"]
    new_id = location.partition("=")[2]
    assert (new_id == instance_id) is not is_new
    assert client.wait_for_orchestration_completion(new_id, timeout=30).runtime_status.name == "COMPLETED"


def test_fork(act: Any, start: Callable[..., str], client: Any) -> None:
    start("order", "forked", input="good", status="COMPLETED")
    answer = act("fork", id="forked", turns="1", new_instance_id="fork/1")
    assert answer.json()["location"] == "/instance?id=fork%2F1"
    assert client.wait_for_orchestration_completion("fork/1", timeout=30).runtime_status.name == "COMPLETED"
    answer = act("fork", id="forked", after="1", new_instance_id="fork/2")
    assert answer.status_code == 409, "the first turn"
    assert act("fork", id="forked", after="x").json()["error"] == "Enter the number of the event, and not 'x'."
    assert act("fork", id="forked", after="").json()["error"] == "Enter the number of the event, and not ''."
    assert act("fork", id="forked", turns="99").status_code == 409
    assert act("fork", id="forked", turns="-1").json()["error"] == "Enter how many turns to keep, and not '-1'."


def test_purge(act: Any, start: Callable[..., str], client: Any, status_of: Any, wait_for: Any) -> None:
    parent = start("parent", "purged", input=2, status="RUNNING")
    for number in range(2):
        client.raise_orchestration_event(f"{parent}/child-{number}", "go")
    wait_for(lambda: status_of(parent) == "COMPLETED")
    answer = act("purge", id=parent, recursive="on")
    assert answer.json() == {"message": "Deleted 3 instances.", "location": "/"}
    assert client.get_orchestration_state(parent) is None


def test_without_the_script_the_result_is_on_the_next_page(page: Any, start: Callable[..., str], support: Any) -> None:
    start("waiter", "plain-form", status="RUNNING")
    fields = {"form_token": support.form_token(page), "id": "plain-form"}
    answer = page.post("/actions/suspend", data=fields)
    assert answer.url.path == "/instance"
    assert "Asked it to suspend." in answer.text
    assert "Asked it to suspend." not in page.get("/instance?id=plain-form").text
    refused = page.post("/actions/rewind", data=fields)
    assert refused.status_code == 409
    assert "Not possible in this state" in refused.text
