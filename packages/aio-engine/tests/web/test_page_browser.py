"""The page in a real browser: Chromium without a window, which Playwright drives."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the page needs the extra 'ui'")
pytest.importorskip("uvicorn", reason="the page needs the extra 'ui'")
pytest.importorskip("playwright", reason="these tests need playwright")

from playwright.sync_api import Browser, Page, expect, sync_playwright

from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.embedded import Engine
from durabletask_aio.engine.web.backend import Backend
from durabletask_aio.engine.web.server import PageServer
from durabletask_aio.engine.web.waiting import Awaited

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="these tests need Chromium: apt-get install chromium"),
]

expect.set_options(timeout=20_000)  # of a busy machine

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1400, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] if _is_root() else [])
        yield browser
        browser.close()


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def describe(instance_id: str, history: object) -> list[Awaited]:
    if instance_id != "described-in-browser":
        return []
    return [Awaited("the event 'approval'", "approval", "shop.py:9", 'await ctx.wait_for_external_event("approval")')]


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[PageServer]:
    with PageServer(engine.channel, describe_waiting=describe) as server:
        yield server


@pytest.fixture
def open_page(browser: Browser, server: PageServer) -> Iterator[Callable[..., Page]]:
    """Open an address; whatever the browser reports as an error fails the test."""
    contexts: list[Any] = []
    problems: list[str] = []

    def open_page(path: str = "", *, expects_errors: bool = False, **options: Any) -> Page:
        options = {"viewport": DESK, "locale": "en-GB", "timezone_id": "Asia/Tokyo", **options}
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        if not expects_errors:
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.goto(server.url + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def submit(page: Page, button: str, dialog: str, **fields: str) -> None:
    """Do what a dialog is for."""
    page.get_by_role("button", name=button, exact=True).click()
    shown = page.locator(f"#{dialog}")
    expect(shown).to_be_visible()
    for name, value in fields.items():
        shown.locator(f"[name={name}]").fill(value)
    shown.locator("[type=submit]").click()


def rows(page: Page) -> list[str]:
    return page.locator(".list tbody a.id").all_inner_texts()


# The list ----------------------------------------------------------------------------------------------------


def test_the_list_is_filtered_as_one_types(open_page: Any, start: Callable[..., str]) -> None:
    for number in range(3):
        start("waiter", f"typed-{number}", status="RUNNING")
    page = open_page()
    page.keyboard.press("/")
    page.keyboard.type("TYPED-1")
    expect(page.locator(".list tbody tr")).to_have_count(1)
    assert rows(page) == ["typed-1"]
    assert page.url.endswith("?q=TYPED-1")
    expect(page.locator("#search")).to_be_focused()
    page.get_by_role("link", name="Completed").click()
    expect(page.get_by_text("No instance is like that.")).to_be_visible()
    page.go_back()
    expect(page.locator(".list tbody tr")).to_have_count(1)
    page.get_by_role("link", name="Clear").click()
    expect(page.locator("#search")).to_have_value("")
    page.locator("select[name=name]").select_option("waiter")
    expect(page).to_have_url(re.compile(r"\?name=waiter$"))
    page.locator("summary", has_text="Filters").click()
    page.locator("[name=prefix]").fill("typed-2")
    expect(page.locator(".list tbody tr")).to_have_count(1)
    assert rows(page) == ["typed-2"]
    page.go_back()
    expect(page.locator("#search")).to_have_value("TYPED-1")
    expect(page.locator("select[name=name]")).to_have_value("")
    expect(page.locator("[name=prefix]")).to_have_value("")


def test_the_list_refreshes_and_stays_where_it_is(open_page: Any, start: Callable[..., str]) -> None:
    for number in range(45):
        start("waiter", f"scroll-{number:02}")
    page = open_page("?q=scroll")
    page.locator(".list tbody a.id").nth(20).focus()
    page.evaluate(
        """() => {
            window.marked = document.querySelectorAll(".list tbody tr")[25];
            const range = document.createRange();
            range.selectNodeContents(window.marked.querySelector("bdi"));
            getSelection().removeAllRanges();
            getSelection().addRange(range);
            window.marked.scrollIntoView({ block: "center" });
        }"""
    )
    before = page.evaluate("[document.activeElement.innerText, String(getSelection())]")
    position = page.evaluate("window.marked.getBoundingClientRect().top")
    start("waiter", "scroll-new")
    expect(page.locator(".list tbody tr").first).to_contain_text("scroll-new")
    assert page.evaluate("window.marked.isConnected")
    assert page.evaluate("[document.activeElement.innerText, String(getSelection())]") == before
    assert abs(page.evaluate("window.marked.getBoundingClientRect().top") - position) < 3


def test_refreshing_can_be_stopped(open_page: Any, start: Callable[..., str]) -> None:
    page = open_page("?q=stopped")
    page.keyboard.press("l")
    live = page.locator("#live")
    expect(live).to_have_attribute("aria-pressed", "false")
    start("waiter", "stopped-1", status="RUNNING")
    page.wait_for_timeout(3000)
    expect(page.locator(".list")).to_have_count(0)
    live.click()
    expect(page.locator(".list tbody tr")).to_have_count(1)


def test_children_open_by_mouse_and_by_keyboard(
    open_page: Any, start: Callable[..., str], wait_for: Any, client: Any
) -> None:
    start("parent", "tree", input=2)
    wait_for(lambda: client.get_orchestration_state("tree/child-1") is not None)
    page = open_page("?name=parent&q=tree")
    page.get_by_role("button", name="2 children").click()
    expect(page.locator(".level-1")).to_have_count(2)
    page.get_by_role("link", name="tree", exact=True).focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".level-1")).to_have_count(0)
    page.keyboard.press("ArrowRight")
    expect(page.locator(".level-1")).to_have_count(2)
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(page.get_by_role("link", name="tree/child-1")).to_be_focused()
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("tree/child-0")
    page.go_back()
    expect(page.locator(".level-1")).to_have_count(2)


def test_pages_of_the_list(open_page: Any, start: Callable[..., str]) -> None:
    for number in range(30):
        start("waiter", f"paged-{number:02}")
    page = open_page("?q=paged&size=25")
    expect(page.locator(".list tbody tr")).to_have_count(25)
    page.get_by_role("link", name="Next").click()
    expect(page.locator(".list tbody tr")).to_have_count(5)
    assert rows(page)[-1] == "paged-00"
    page.get_by_role("link", name="Previous").click()
    expect(page.locator(".list tbody tr")).to_have_count(25)
    page.get_by_role("link", name="Created").click()
    expect(page.locator(".list tbody tr").first).to_contain_text("paged-00")


# One instance ------------------------------------------------------------------------------------------------


def test_times_are_those_of_the_browser(open_page: Any, start: Callable[..., str], client: Any) -> None:
    instance_id = start("waiter", "tokyo", status="RUNNING")
    created = client.get_orchestration_state(instance_id).created_at
    page = open_page("instance?id=tokyo")
    hour = (created.hour + 9) % 24
    expect(page.locator(".facts time").first).to_contain_text(f"{hour:02}:{created.minute:02}")


def test_the_timeline_zooms_by_mouse_and_by_keyboard(open_page: Any, start: Callable[..., str]) -> None:
    start("order", "zoom", input="good", status="COMPLETED")
    page = open_page("instance?id=zoom")
    charge = page.locator(".operation", has_text="charge").locator("rect")

    def width() -> float:
        return float(str(charge.get_attribute("width")).rstrip("%"))

    all_of_it = width()
    page.get_by_role("button", name="Zoom in").click()
    assert width() > 1.9 * all_of_it or width() < 1
    page.get_by_role("button", name="All", exact=True).click()
    assert abs(width() - all_of_it) < 0.01
    page.locator(".operation > summary").first.focus()
    page.keyboard.press("+")
    at = float(str(charge.get_attribute("x")).rstrip("%"))
    page.keyboard.press("ArrowRight")
    assert float(str(charge.get_attribute("x")).rstrip("%")) < at
    page.keyboard.press("0")
    assert abs(width() - all_of_it) < 0.01
    axis = page.locator(".axis-track").bounding_box()
    assert axis is not None
    page.mouse.move(axis["x"] + axis["width"] * 0.5, axis["y"] + 10)
    page.mouse.down()
    page.mouse.move(axis["x"] + axis["width"] * 0.75, axis["y"] + 10)
    page.mouse.up()
    assert page.locator(".axis text").first.text_content() != "0"


def test_the_timeline_groups_and_opens(open_page: Any, start: Callable[..., str]) -> None:
    start("order", "groups", input="good", status="COMPLETED")
    page = open_page("instance?id=groups")
    group = page.locator(".group")
    expect(group).to_have_count(1)
    expect(group.locator(".operation").first).to_be_hidden()
    page.get_by_role("button", name="Expand").click()
    expect(group.locator(".operation").first).to_be_visible()
    group.locator(".operation > summary").first.click()
    expect(group.locator(".operation-body").first).to_contain_text("item 0")
    group.locator(".operation-body").first.get_by_role("link").last.click()
    expect(page.locator("li.target")).to_contain_text("Activity completed")
    page.get_by_role("button", name="Collapse").click()
    expect(group.locator(".operation").first).to_be_hidden()


def test_what_is_open_stays_open_while_the_instance_goes_on(
    open_page: Any, start: Callable[..., str], client: Any
) -> None:
    start("waiter", "goes-on", status="RUNNING", input="never")
    page = open_page("instance?id=goes-on")
    event = page.locator("details.event").first
    event.locator("summary").click()
    expect(event.locator(".event-body")).to_be_visible()
    client.raise_orchestration_event("goes-on", "other", data="x")
    expect(page.locator("details.event", has_text="Event received")).to_be_visible()
    expect(event.locator(".event-body")).to_be_visible()
    expect(event.locator("summary")).to_be_focused()


def test_a_payload_is_copied_whole(open_page: Any, engine: Engine, start: Callable[..., str]) -> None:
    value = ["x" * 100] * 500
    start("waiter", "copies", input=value, start_at=_tomorrow())
    page = open_page("instance?id=copies", permissions=["clipboard-read", "clipboard-write"])
    expect(page.locator(".cut")).to_be_visible()
    page.get_by_role("button", name="Copy Input").click()
    expect(page.locator("#toast")).to_have_text("Copied.")
    assert json.loads(page.evaluate("navigator.clipboard.readText()")) == value


def _tomorrow() -> datetime:
    return datetime.now(timezone.utc) + timedelta(days=1)


def test_a_deeply_nested_payload_is_shown(open_page: Any, engine: Engine) -> None:
    request = pb.CreateInstanceRequest(name="waiter", instanceId="deep-in-browser")
    request.scheduledStartTimestamp.FromDatetime(_tomorrow())
    request.input.value = "[" * 50_000 + "]" * 50_000
    Backend(engine.channel).call("StartInstance", request)
    page = open_page("instance?id=deep-in-browser")
    expect(page.locator(".json").first).to_contain_text("[[[[[[")
    expect(page.locator(".cut")).to_be_visible()


def test_markup_in_an_id_is_text(open_page: Any, start: Callable[..., str]) -> None:
    strange = "<img src=x onerror=alert(1)>/../\u00fc?&#"
    start("waiter", strange, status="RUNNING")
    page = open_page("?q=onerror")
    page.get_by_role("link", name=strange).click()
    expect(page.locator("h1")).to_contain_text(strange)
    submit(page, "Suspend", "dialog-suspend")
    expect(page.locator(".badge").first).to_have_text("Suspended")


# Actions -----------------------------------------------------------------------------------------------------


def test_start_an_instance(open_page: Any, client: Any) -> None:
    page = open_page(expects_errors=True)
    submit(page, "Start instance", "dialog-start", name="waiter", input="not json", instance_id="from-page")
    dialog = page.locator("#dialog-start")
    expect(dialog.locator(".problem")).to_contain_text("The input is not JSON")
    assert dialog.locator("[name=input]").input_value() == "not json"
    dialog.locator("[name=input]").fill('"go"')
    dialog.locator("[type=submit]").click()
    expect(page.locator("h1")).to_contain_text("from-page")
    expect(page.locator("#toast")).to_have_text("Started from-page.")
    assert client.get_orchestration_state("from-page").serialized_input == '"go"'


def test_suspend_resume_and_raise_an_event(open_page: Any, start: Callable[..., str]) -> None:
    start("waiter", "acted-on", status="RUNNING")
    page = open_page("instance?id=acted-on")
    badge = page.locator(".badge").first
    submit(page, "Suspend", "dialog-suspend", reason="lunch")
    expect(badge).to_have_text("Suspended")
    submit(page, "Resume", "dialog-resume")
    expect(badge).to_have_text("Running")
    submit(page, "Raise event", "dialog-event", name="go", data='{"approved": true}')
    expect(badge).to_have_text("Completed")
    expect(page.locator("[data-key=payload-Output]")).to_contain_text('{"approved": true}')


def test_raise_the_event_that_is_awaited(open_page: Any, start: Callable[..., str]) -> None:
    start("waiter", "described-in-browser", status="RUNNING", input="approval")
    page = open_page("instance?id=described-in-browser")
    expect(page.locator(".waits")).to_contain_text('await ctx.wait_for_external_event("approval")')
    page.locator(".waits").get_by_role("button", name="Raise").click()
    dialog = page.locator("#dialog-event")
    assert dialog.locator("[name=name]").input_value() == "approval"
    dialog.locator("[type=submit]").click()
    expect(page.locator(".badge").first).to_have_text("Completed")


def test_terminate_and_purge(open_page: Any, start: Callable[..., str], client: Any, wait_for: Any) -> None:
    start("parent", "ended-from-page", input=1)
    wait_for(lambda: client.get_orchestration_state("ended-from-page/child-0").runtime_status.name == "RUNNING")
    page = open_page("instance?id=ended-from-page")
    submit(page, "Terminate", "dialog-terminate", reason="no longer wanted")
    expect(page.locator(".badge").first).to_have_text("Terminated")
    expect(page.locator("[data-key=payload-Output]")).to_contain_text("no longer wanted")
    wait_for(lambda: client.get_orchestration_state("ended-from-page/child-0").runtime_status.name == "TERMINATED")
    submit(page, "Purge", "dialog-purge")
    expect(page.locator("h1")).to_have_text("Instances")
    expect(page.locator("#toast")).to_have_text("Deleted 2 instances.")
    assert client.get_orchestration_state("ended-from-page") is None


def test_rewind_restart_and_fork(open_page: Any, start: Callable[..., str], client: Any) -> None:
    start("order", "again", input="bad", status="FAILED")
    page = open_page("instance?id=again")
    expect(page.locator(".failure")).to_contain_text('raise ValueError("the card <b>is declined</b>")')
    submit(page, "Rewind", "dialog-rewind", reason="the bank is back")
    expect(page.locator("details.event", has_text="Rewound")).to_be_visible()
    expect(page.locator(".badge").first).to_have_text("Failed")

    page.locator(".turn-mark").first.hover()
    page.locator(".turn-mark").first.get_by_role("button").click()
    dialog = page.locator("#dialog-fork")
    assert dialog.locator("[name=turns]").input_value() == "1"
    dialog.locator("[name=new_instance_id]").fill("again/fork")
    dialog.locator("[type=submit]").click()
    expect(page.locator("h1")).to_contain_text("again/fork")

    page.goto(page.url.replace("%2Ffork", ""))
    submit(page, "Restart", "dialog-restart")
    expect(page.locator("#toast")).to_contain_text("with the input of again.")
    expect(page.locator("h1")).not_to_contain_text("again")


def test_fork_after_an_event(open_page: Any, start: Callable[..., str], client: Any) -> None:
    start("order", "repaired", input="bad", status="FAILED")
    page = open_page("instance?id=repaired")
    priced = page.locator("details.event", has_text="Activity completed").last
    priced.locator("summary").click()
    number = priced.locator(".event-number").inner_text()
    priced.get_by_role("button", name="Fork after it").click()
    dialog = page.locator("#dialog-fork-event")
    assert dialog.locator("[name=after]").input_value() == number
    dialog.locator("[name=new_instance_id]").fill("repaired/fork")
    dialog.locator("[type=submit]").click()
    expect(page.locator("h1")).to_contain_text("repaired/fork")
    expect(page.locator("#toast")).to_contain_text(f"from repaired, up to event {number}.")

    page.goto(page.url.replace("%2Ffork", ""))
    scheduled = page.locator("details.event", has_text="Activity scheduled").first
    scheduled.locator("summary").click()
    expect(scheduled.locator(".event-facts")).to_be_visible()
    expect(scheduled.get_by_role("button", name="Fork after it")).to_have_count(0)


def test_a_dialog_asks_before_anything_happens(open_page: Any, start: Callable[..., str], client: Any) -> None:
    start("waiter", "asked", status="RUNNING")
    page = open_page("instance?id=asked")
    button = page.get_by_role("button", name="Terminate", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("#dialog-terminate")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(button).to_be_focused()
    button.click()
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    assert client.get_orchestration_state("asked").runtime_status.name == "RUNNING"


def test_a_refused_action_is_explained_in_the_dialog(open_page: Any, start: Callable[..., str]) -> None:
    start("order", "forks-badly", input="good", status="COMPLETED")
    page = open_page("instance?id=forks-badly", expects_errors=True)
    submit(page, "Fork", "dialog-fork", new_instance_id="forks-badly")
    expect(page.locator("#dialog-fork .problem")).to_contain_text("exists")


# Looks -------------------------------------------------------------------------------------------------------

CONTRAST = """() => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgb = (color) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const luminance = ([red, green, blue]) => {
        const [r, g, b] = [red, green, blue].map((each) => {
            const part = each / 255;
            return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        for (let each = element; each; each = each.parentElement) {
            const color = rgb(getComputedStyle(each).backgroundColor);
            if (color[3] > 250) return color;
        }
        return [255, 255, 255];
    };
    const low = [];
    for (const element of document.querySelectorAll("body *")) {
        const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.nodeValue.trim());
        if (!text || !element.checkVisibility() || element.closest("svg, option")) continue;
        const [one, other] = [luminance(rgb(getComputedStyle(element).color)), luminance(behind(element))];
        const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        if (ratio < 4.5) low.push(`${ratio.toFixed(2)} ${element.className} ${element.innerText.slice(0, 30)}`);
    }
    return low;
}"""

UNNAMED = """() => [...document.querySelectorAll("a, button, input:not([type=hidden]), select, textarea, summary")]
    .filter((each) => each.checkVisibility())
    .filter((each) => !(each.innerText.trim() || each.ariaLabel || each.labels?.length || each.title))
    .map((each) => each.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="module")
def things(start: Callable[..., str]) -> list[str]:
    """One page of each kind."""
    start("order", "looks-failed", input="bad", status="FAILED", tags={"region": "eu"})
    start("order", "looks-done", input="good", status="COMPLETED", tags={"region": "eu"})
    start("many", "looks-" + "long-" * 20 + "id", status="RUNNING", input={"a": list(range(50))})
    start("holder", "looks-holder", input="looks", status="RUNNING")
    ids = ["looks-failed", "looks-done", "looks-" + "long-" * 20 + "id", "looks-holder"]
    pages = [f"instance?id={each}" for each in ids]
    return [
        "?q=looks",
        "?created=24h&children=all",
        "entities",
        "entity?id=@counter@looks",
        "engine",
        *pages,
        "nothing",
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_every_page_is_readable_and_fits(
    open_page: Any, things: list[str], scheme: str, viewport: Any, server: PageServer
) -> None:
    page = open_page(color_scheme=scheme, viewport=viewport, reduced_motion="reduce", expects_errors=True)
    is_dark = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every((each) => each < 60)")
    assert is_dark is (scheme == "dark")
    for path in things:
        page.goto(server.url + path)
        for details in page.locator("main details:not([open]) > summary").all()[:40]:
            if details.is_visible():
                details.click()
        assert page.evaluate(CONTRAST) == [], path
        assert page.evaluate(UNNAMED) == [], path
        too_wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert too_wide <= 0, path


def test_a_phone_can_do_it_all(open_page: Any, start: Callable[..., str]) -> None:
    start("waiter", "on-the-phone", status="RUNNING")
    page = open_page("?q=on-the-phone", viewport=PHONE, has_touch=True, is_mobile=True)
    page.get_by_role("link", name="on-the-phone").tap()
    page.get_by_role("button", name="Suspend").tap()
    dialog = page.locator("#dialog-suspend")
    box = dialog.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE["width"]
    dialog.locator("[type=submit]").tap()
    expect(page.locator(".badge").first).to_have_text("Suspended")


# The engine goes and comes -----------------------------------------------------------------------------------


def test_a_page_that_loses_its_server_recovers(browser: Browser, engine: Engine, start: Callable[..., str]) -> None:
    start("waiter", "lost", status="RUNNING")
    server = PageServer(engine.channel).start()
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{server.url}?q=lost")
    server.stop()
    live = page.locator("#live")
    expect(live).to_have_text("No answer", timeout=30_000)
    assert rows(page) == ["lost"]
    server.start()
    expect(live).to_have_text("Live", timeout=30_000)
    page.goto(f"{server.url}instance?id=lost")
    submit(page, "Suspend", "dialog-suspend")
    expect(page.locator(".badge").first).to_have_text("Suspended")
    context.close()
    server.stop()


def test_a_page_with_a_token_asks_for_it(browser: Browser, engine: Engine) -> None:
    with PageServer(engine.channel, token="sesame") as server:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{server.url}engine")
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_text("That is not the token of this page.")).to_be_visible()
        page.get_by_label("Token").fill("sesame")
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("Instances")
        page.get_by_role("button", name="Log out").click()
        expect(page.locator("h1")).to_have_text("Log in")
        context.close()
