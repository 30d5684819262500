"""Writes what coding assistants read of the docs: `llms.txt`, a list of the pages, and `llms-full.txt`, their text.

The format is that of https://llmstxt.org.  Both are made of the pages of the menu while the docs are built.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

SECTIONS = ("Learn", "How-to guides", "Understand", "Look up")
"""Sections of the menu that are listed; those for contributors are not."""
IN_FULL = ("Learn", "How-to guides", "Understand")
GENERATED = re.compile(
    r'^<style>[\s\S]*?</style>\n+|^:::.*\n(?: +.*\n?)*|^<div class="drawing">[\s\S]*?</div>\n+', re.MULTILINE
)

_pages: dict[str, tuple[Any, str]] = {}


def add(page: Any, markdown: str) -> None:
    """Remember a page, with its tables and programs inserted."""
    _pages[page.file.src_uri] = (page, GENERATED.sub("", markdown).strip())


def write(config: Any, site: Path) -> None:
    """Write both files into the built site."""
    menu = config["nav"]
    head = f"# {config['site_name']}\n\n> {config['site_description']}\n"
    lines, text = [head], [head]
    for section in menu:
        ((title, entries),) = section.items()
        if title not in SECTIONS:
            continue
        lines.append(f"\n## {title}\n")
        for source in _sources(entries):
            if source == "index.md":  # says what the other pages say
                continue
            page, markdown = _pages[source]
            lines.append(f"- [{page.title}]({config['site_url'] or ''}{page.url}): {_first_sentence(markdown)}")
            if title in IN_FULL:
                text.append(f"\n\n---\n\nPage: {page.url}\n\n{markdown}\n")
    (site / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (site / "llms-full.txt").write_text("".join(text), encoding="utf-8")


def _sources(entries: Any) -> list[str]:
    if isinstance(entries, str):
        return [entries]
    if isinstance(entries, dict):
        return [source for value in entries.values() for source in _sources(value)]
    return [source for entry in entries for source in _sources(entry)]


def _first_sentence(markdown: str) -> str:
    """Return the first sentence below the title, without links and emphasis."""
    body = re.sub(r"\A---\n.*?\n---\n", "", markdown, flags=re.DOTALL)
    paragraphs = [each for each in body.split("\n\n") if each and not each.startswith(("#", "<", "```", "!!!", "|"))]
    text = " ".join(re.sub(r"\[([^\]]*)\](\([^)]*\)|\[[^\]]*\])", r"\1", paragraphs[0]).split())
    return re.split(r"(?<=[.:]) (?=[A-Z])", text)[0].rstrip(":")
