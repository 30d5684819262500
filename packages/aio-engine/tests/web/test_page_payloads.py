"""Payloads as HTML."""

from __future__ import annotations

import json
import re
import time
from html import unescape

import pytest

pytest.importorskip("jinja2", reason="the page needs the extra 'ui'")

from durabletask_aio.engine.web.payloads import MAX_SHOWN, payload, preview


def text_of(html: str) -> str:
    return unescape(re.sub(r"</?span[^>]*>", "", html))


def shown(text: str) -> str:
    return text_of(payload("Input", text).html)


LONG = {"items": list(range(30)), "empty": {}, "none": [], "nested": [{"a": None}, [True, False]], "text": 'q"\\\n'}


@pytest.mark.parametrize("value", [LONG, list(LONG.items()), {"a" * 80: 1.5e-7}, ["x" * 80]])
def test_json_is_indented_and_stays_the_same_value(value: object) -> None:
    text = shown(json.dumps(value))
    assert json.loads(text) == json.loads(json.dumps(value))
    assert text == json.dumps(value, indent=2)


def test_a_short_payload_stays_on_its_line() -> None:
    assert shown('{"a":[1,2],"b":{}}') == '{"a": [1, 2], "b": {}}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "1 2",
        "[1",
        "[1]]",
        '{"a": 1} tail',
        "]",
        ",",
        '"open',
        "[1}",
        "<b>x</b>",
        "\x00",
        "nul",
        "[" * 50_000,
    ],
    ids=lambda text: repr(text)[:20],
)
def test_what_is_not_json_is_shown_as_it_is(text: str) -> None:
    assert shown(text) == text[:MAX_SHOWN]


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_depth_is_no_limit(opening: str) -> None:
    depth = 50_000
    text = opening * depth + "1" + ("]" if opening == "[" else "}") * depth
    started = time.process_time()
    result = payload("Input", text)
    assert time.process_time() - started < 5
    assert result.is_cut
    assert len(text_of(result.html)) == MAX_SHOWN
    assert re.sub(r"\s", "", text_of(result.html)) == text[: len(re.sub(r"\s", "", text_of(result.html)))]


def test_a_deep_payload_keeps_its_lines_short_enough_to_read() -> None:
    text = shown("[" * 100 + "]" * 100)
    assert max(map(len, text.splitlines())) <= 200
    assert json.loads(text) == json.loads("[" * 100 + "]" * 100)


def test_markup_in_a_payload_is_text() -> None:
    html = payload("Input", json.dumps({"<script>": "</span><img src=x onerror=alert(1)>" + "x" * 80})).html
    assert "<script>" not in html
    assert "<img" not in html
    assert "&lt;img" in html


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r'"Z\u00fcrich"', '"Zürich"'),
        (r'"\ud83d\ude00"', '"😀"'),
        (r'"\ud83d"', r'"\ud83d"'),
        (r'"\ude00\u0041"', r'"\ude00A"'),
        (r'"\u202e\u0000"', r'"\u202e\u0000"'),
        (r'"\\u00fc"', r'"\\u00fc"'),
        (r'"\u0022\u005c"', r'"\u0022\u005c"'),
    ],
)
def test_escaped_characters_are_readable_where_that_is_safe(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_a_long_payload_is_cut() -> None:
    result = payload("Input", json.dumps("x" * 60_000), limit=1000)
    assert result.is_cut
    assert result.length == 60_002
    assert len(text_of(result.html)) == 1000


def test_a_very_long_payload_is_not_parsed() -> None:
    text = "[" + "1," * 1_000_000 + "1]"
    started = time.process_time()
    result = payload("Input", text)
    assert time.process_time() - started < 1
    assert text_of(result.html) == text[:MAX_SHOWN]


@pytest.mark.parametrize(("text", "expected"), [('"a b"', "a b"), ('"open', '"open'), ("[1, 2]", "[1, 2]")])
def test_a_preview_is_short(text: str, expected: str) -> None:
    assert preview(text) == expected
    assert preview("x" * 500, 10) == "x" * 10 + "…"
