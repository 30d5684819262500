"""Payloads as HTML: formatted JSON, whatever its depth, and anything else as it is.

The formatter goes through the text from token to token and keeps a stack of its own: a parser that calls itself for
each level fails on a payload of some thousand levels, which another language's worker can send.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup, escape

MAX_SHOWN = 20_000
"""Characters of a payload that are shown; the rest is behind a link."""

_MAX_FORMATTED = 500_000
"""Characters of a payload that is formatted; a longer one takes too long."""

_MAX_LEVELS = 24
"""Levels that begin new lines; what is deeper stays on the line."""

_ONE_LINE = 72
"""Characters of a payload that stays on one line."""

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string> "[^"\\]*(?:\\.[^"\\]*)*" )
      | (?P<number> -?\d+(?:\.\d+)?(?:[eE][+-]?\d+)? )
      | (?P<word>   true|false|null|NaN|-?Infinity )
      | (?P<open>   [\[{] )
      | (?P<close>  [\]}] )
      | (?P<mark>   [,:] )
    )""",
    re.VERBOSE | re.DOTALL,
)
_SPACE = re.compile(r"\s*")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})(?:\\u([dD][c-fC-F][0-9a-fA-F]{2}))?|.)", re.DOTALL)
_CLOSING = {"[": "]", "{": "}"}


@dataclass(frozen=True)
class Payload:
    """A payload on a page.

    Attributes:
        label: what it is.
        html: the formatted text, or its beginning.
        length: of the whole payload, in characters.
        is_cut: whether only the beginning is shown.
        link: where the whole payload is.
    """

    label: str
    html: Markup
    length: int
    is_cut: bool
    link: str


class _NotJson(Exception):
    """The text is not JSON."""


def payload(label: str, text: str, link: str = "", limit: int = MAX_SHOWN) -> Payload:
    """Prepare a payload for a page.

    Args:
        label: what it is.
        text: the payload.
        link: where the whole payload is.
        limit: characters that are shown at most.

    Returns:
        The payload, cut if it is long.
    """
    html, is_cut = _formatted(text, limit)
    return Payload(label, html, len(text), is_cut, link)


def preview(text: str, limit: int = 120) -> str:
    """Return the beginning of a payload on one line; that of a string without its quotes."""
    if text.startswith('"') and len(text) <= 2 * limit:
        with contextlib.suppress(ValueError):
            text = json.loads(text)
    return text if len(text) <= limit else f"{text[:limit]}\u2026"


def _formatted(text: str, limit: int) -> tuple[Markup, bool]:
    if len(text) <= _MAX_FORMATTED:
        try:
            return _join(_pieces(text), limit)
        except _NotJson:
            pass
    return escape(text[:limit]), len(text) > limit


def _join(pieces: Iterator[tuple[str, str]], limit: int) -> tuple[Markup, bool]:
    parts: list[str] = []
    left = limit
    is_cut = False
    for kind, piece in pieces:  # to the end, since what is not JSON may show there only
        if left <= 0:
            is_cut = True
            continue
        shown = piece[:left]
        is_cut = is_cut or len(shown) < len(piece)
        left -= len(piece)
        parts.append(str(Markup('<span class="{}">{}</span>').format(kind, shown) if kind else escape(shown)))
    return Markup("".join(parts)), is_cut


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """Yield the formatted text as pairs of a class for the style sheet and a piece."""
    is_short = len(text) <= _ONE_LINE
    stack: list[str] = []
    position, previous, has_value = 0, "", False
    while match := _TOKEN.match(text, position):
        position = match.end()
        kind = str(match.lastgroup)
        token = match[kind]
        if not stack and (has_value or kind in ("close", "mark")):
            raise _NotJson
        if kind == "close":
            if _CLOSING[stack.pop()] != token:
                raise _NotJson
            yield "", "" if previous == "open" or is_short else _new_line(len(stack), _MAX_LEVELS - 1)
            yield "", token
        elif kind == "mark":
            yield "", token
            if token == ":":
                yield "", " "
            else:
                yield "", " " if is_short else _new_line(len(stack), _MAX_LEVELS) or " "
        else:
            if previous == "open" and not is_short:
                yield "", _new_line(len(stack), _MAX_LEVELS)
            if kind == "open":
                stack.append(token)
                yield "", token
            else:
                is_key = kind == "string" and _TOKEN_COLON.match(text, position) is not None
                yield ("key" if is_key else kind), (_readable(token) if kind == "string" else token)
        has_value = not stack and kind != "mark"
        previous = kind
    if stack or not has_value or _SPACE.match(text, position).end() != len(text):  # type: ignore[union-attr]
        raise _NotJson


_TOKEN_COLON = re.compile(r"\s*:")


def _new_line(levels: int, most: int) -> str:
    return "\n" + "  " * levels if levels <= most else ""


def _readable(token: str) -> str:
    """Show the printable characters that a JSON string has as escapes: encoders write all but ASCII so."""
    return _ESCAPE.sub(_unescape, token) if "\\u" in token else token


def _unescape(match: re.Match[str]) -> str:
    first, second = match[1], match[2]
    if first is None:
        return match[0]
    code = int(first, 16)
    if 0xD800 <= code < 0xDC00 and second is not None:
        code = 0x10000 + ((code - 0xD800) << 10) + int(second, 16) - 0xDC00
        return chr(code) if chr(code).isprintable() else match[0]
    shown = chr(code)
    if 0xD800 <= code < 0xE000 or not shown.isprintable() or shown in '"\\':
        return match[0]
    return shown + ("" if second is None else f"\\u{second}")
