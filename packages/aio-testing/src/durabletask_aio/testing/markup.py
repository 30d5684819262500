"""`element`: builds HTML and SVG from values, and escapes everything that is not markup already."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_NO_MARKUP = ""


class Markup(str):
    """Text that is HTML or SVG already; any other string is escaped when it becomes part of an element."""

    __slots__ = ()


BREAK = Markup("<br>")


def element(name: str, *content: str, **attributes: str | float) -> Markup:
    """Return an element.

    Args:
        name: the name of the tag.
        *content: text, which is escaped, and markup.
        **attributes: a trailing underscore is removed and others become hyphens: `class_`, `text_anchor`; numbers are
            rounded to one decimal.

    Returns:
        The element with its closing tag, which HTML wants for all that are used here.
    """
    opened = "".join(f" {key.rstrip('_').replace('_', '-')}='{_text(value)}'" for key, value in attributes.items())
    return Markup(f"<{name}{opened}>{join(content)}</{name}>")


def join(parts: Iterable[str], separator: str = _NO_MARKUP) -> Markup:
    """Return the parts in sequence, with text escaped."""
    return Markup(separator.join(part if isinstance(part, Markup) else escape(part) for part in parts))


def _text(value: str | float) -> str:
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return escape(str(value))
