"""Who may use the page."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette.testclient", reason="the page needs the extra 'ui'")
pytest.importorskip("jinja2", reason="the page needs the extra 'ui'")

from starlette import testclient
from starlette.applications import Starlette
from starlette.routing import Mount

import durabletask_aio.engine.web.app as application
from durabletask_aio.engine.embedded import Engine
from durabletask_aio.engine.web.access import Hosts
from durabletask_aio.engine.web.app import create_app

WEB = Path(application.__file__).parent


# Host names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:4002", "[::1]", "[::1]:4002", "Page.Example"])
def test_the_page_answers_under_its_names(host: str) -> None:
    assert Hosts(["page.example"]).accepts(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evil.example:80",
        "",
        "localhost@evil",
        "::1",
        "localhost:x",
        "10.0.0.1",
        "a b",
    ],
)
def test_the_page_answers_under_no_other_name(host: str) -> None:
    assert not Hosts(["page.example"]).accepts(host)


@pytest.mark.parametrize(
    ("host", "is_accepted"), [("10.0.0.1:4002", True), ("[fe80::1]", True), ("evil.example", False)]
)
def test_a_page_for_others_answers_under_addresses_too(host: str, is_accepted: bool) -> None:
    assert Hosts(any_address=True).accepts(host) is is_accepted


@pytest.mark.parametrize("path", ["/", "/instance?id=a", "/static/page.js", "/healthz", "/metrics", "/login"])
def test_a_wrong_host_gets_nothing(page: Any, path: str) -> None:
    answer = page.get(path, headers={"host": "evil.example"})
    assert answer.status_code == 421
    assert answer.text == "This page does not answer under that name.\n"


# Headers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/entities", "/engine", "/instance?id=none", "/nothing", "/static/page.css"])
def test_every_answer_has_the_protecting_headers(page: Any, path: str) -> None:
    headers = page.get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin"


def test_templates_have_no_script_or_style_of_their_own() -> None:
    """The policy forbids both; a browser would leave them out without a word."""
    for path in (WEB / "templates").glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|<script(?![^>]*\ssrc=)", text), path.name


def test_nothing_comes_from_other_sites() -> None:
    for path in [*(WEB / "templates").iterdir(), *(WEB / "static").iterdir()]:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//[a-z]+\.[a-z]", text), path.name


# Forms -------------------------------------------------------------------------------------------------------


def suspend(page: Any, fields: dict[str, str], **headers: str) -> Any:
    headers = {"accept": "application/json", **headers}
    return page.post("/actions/suspend", data={"id": "nobody", **fields}, headers=headers)


def test_a_form_without_a_token_is_refused(page: Any) -> None:
    page.get("/")
    answer = suspend(page, {})
    assert answer.status_code == 403
    assert answer.json() == {
        "error": "The form is not one of this page, or too old: reload the page and try again.",
    }


def test_a_token_without_its_cookie_is_refused(page: Any, support: Any) -> None:
    token = support.form_token(page)
    page.cookies.clear()
    assert suspend(page, {"form_token": token}).status_code == 403


def test_the_token_of_another_cookie_is_refused(page: Any, support: Any) -> None:
    token = support.form_token(page)
    page.cookies.clear()
    page.get("/")
    assert suspend(page, {"form_token": token}).status_code == 403


def test_a_cookie_set_by_another_program_does_not_make_a_token(page: Any) -> None:
    page.cookies.set("durabletask-aio-form", "chosen", domain="localhost.local")
    assert suspend(page, {"form_token": "chosen"}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://localhost:1"},
        {"sec-fetch-site": "cross-site"},
        {"origin": "null"},
        {"origin": "http://evil.example", "sec-fetch-site": "same-origin"},
        {"origin": "null", "sec-fetch-site": "cross-site"},
    ],
)
def test_a_form_that_another_site_sends_is_refused(page: Any, support: Any, headers: dict[str, str]) -> None:
    assert suspend(page, {"form_token": support.form_token(page)}, **headers).status_code == 403


@pytest.mark.parametrize(
    "headers", [{}, {"origin": "http://localhost"}, {"origin": "null", "sec-fetch-site": "same-origin"}], ids=str
)
def test_a_form_of_this_page_is_accepted(page: Any, support: Any, headers: dict[str, str]) -> None:
    answer = suspend(page, {"form_token": support.form_token(page)}, **headers)
    assert answer.status_code == 404
    assert answer.json() == {"error": "Orchestration instance 'nobody' not found."}


def test_the_cookie_of_forms_is_kept_from_scripts_and_other_sites(page: Any) -> None:
    cookie = page.get("/").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie


@pytest.mark.parametrize(
    "name", ["start", "raise-event", "suspend", "resume", "cancel", "terminate", "rewind", "restart", "fork", "purge"]
)
def test_an_action_is_never_a_get(page: Any, name: str) -> None:
    assert page.get(f"/actions/{name}?id=x").status_code == 405


def test_a_body_that_is_no_form_is_refused(page: Any) -> None:
    assert page.post("/actions/purge", json={"id": "x"}).status_code == 415


def test_a_form_of_any_size_is_not_read_to_its_end(page: Any, support: Any) -> None:
    fields = {"form_token": support.form_token(page), "input": "x" * (5 * 1024 * 1024), "name": "order"}
    answer = page.post("/actions/start", data=fields, headers={"accept": "application/json"})
    assert answer.status_code == 413


# The token ---------------------------------------------------------------------------------------------------


@pytest.fixture
def locked(engine: Engine) -> Any:
    return testclient.TestClient(create_app(engine.channel, token="sesame"), base_url="http://localhost")


@pytest.mark.parametrize("path", ["/", "/instance?id=a", "/metrics", "/engine", "/payload?id=a", "/actions/purge"])
def test_without_the_token_there_is_nothing_to_see(locked: Any, path: str) -> None:
    answer = locked.get(path)
    assert (answer.status_code, answer.text) == (401, "This page asks for a token.\n")


@pytest.mark.parametrize("header", ["Bearer wrong", "Bearer", "Basic sesame", "sesame", "Bearer sesame2", "Bearer ü"])
def test_another_token_is_refused(locked: Any, header: str) -> None:
    assert locked.get("/", headers={"authorization": header.encode()}).status_code == 401


def test_a_program_sends_the_token(locked: Any) -> None:
    assert locked.get("/metrics", headers={"authorization": "Bearer sesame"}).status_code == 200


def test_a_browser_logs_in_and_out(locked: Any, support: Any) -> None:
    asked = locked.get("/engine", headers={"accept": "text/html"})
    assert asked.url.path == "/login"

    wrong = locked.post("/login", data={"form_token": support.form_token(locked, "/login"), "token": "guess"})
    assert wrong.status_code == 401
    assert "That is not the token of this page." in wrong.text

    answer = locked.post("/login", data={"form_token": support.form_token(locked, "/login"), "token": "sesame"})
    assert answer.url.path == "/"
    assert locked.get("/engine").status_code == 200

    locked.post("/logout", data={"form_token": support.form_token(locked)})
    assert locked.get("/engine").status_code == 401


def test_a_login_ends_with_the_token(locked: Any, engine: Engine, support: Any) -> None:
    locked.post("/login", data={"form_token": support.form_token(locked, "/login"), "token": "sesame"})
    other = testclient.TestClient(create_app(engine.channel, token="other"), base_url="http://localhost")
    other.cookies = locked.cookies
    assert other.get("/").status_code == 401


def test_an_expired_or_changed_login_is_refused(locked: Any, support: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    locked.post("/login", data={"form_token": support.form_token(locked, "/login"), "token": "sesame"})
    name, value = next((each.name, each.value) for each in locked.cookies.jar if "login" in each.name)
    expires, _, signature = value.partition(".")
    for forged in (f"{int(expires) + 9}.{signature}", f"{expires}.", signature, "."):
        cookies = {name: forged}
        fresh = testclient.TestClient(locked.app, base_url="http://localhost", cookies=cookies)
        assert fresh.get("/").status_code == 401
    monkeypatch.setattr("durabletask_aio.engine.web.access.time.time", lambda: float(expires) + 1)
    assert locked.get("/").status_code == 401


def test_health_and_assets_need_no_token(locked: Any) -> None:
    assert locked.get("/healthz").text == "ok\n"
    assert locked.get("/static/page.css").status_code == 200


@pytest.mark.parametrize("path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/healthz/../"])
def test_no_path_leads_around_the_token(locked: Any, path: str) -> None:
    assert locked.get(path).status_code in (401, 404)


# Mounted -----------------------------------------------------------------------------------------------------


def test_the_page_can_be_mounted_in_another_application(
    engine: Engine, start: Callable[..., str], support: Any
) -> None:
    instance_id = start("waiter", "mounted", status="RUNNING")
    app = Starlette(routes=[Mount("/durable", create_app(engine.channel, token="sesame"))])
    page = testclient.TestClient(app, base_url="http://localhost", headers={"authorization": "Bearer sesame"})
    text = page.get("/durable/").text
    links = re.findall(r'(?:href|src|action)="([^"#]+)"', text)
    assert len(links) > 10
    assert all(link.startswith("/durable/") for link in links)
    assert page.get("/durable/static/page.js").status_code == 200
    fields = {"form_token": support.form_token(page, "/durable/"), "id": instance_id}
    answer = page.post("/durable/actions/suspend", data=fields)
    assert answer.url.path == "/durable/instance"
    assert "Asked it to suspend." in answer.text
    anonymous = testclient.TestClient(app, base_url="http://localhost")
    assert anonymous.get("/durable/").status_code == 401
    assert anonymous.get("/durable/", headers={"accept": "text/html"}).url.path == "/durable/login"
    assert anonymous.get("/durable/healthz").status_code == 200
