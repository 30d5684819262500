"""The documentation is written in the words of `scripts/vocabulary.txt`; `hatch run lint:prose` reports the same."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def prose(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import `scripts/prose.py`."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    monkeypatch.delitem(sys.modules, "prose", raising=False)
    return importlib.import_module("prose")


def test_documentation_avoids_the_listed_words(prose: Any) -> None:
    assert prose.check(prose.DOCUMENTATION) == []


@pytest.mark.slow
def test_docstrings_and_comments_avoid_the_listed_words(prose: Any) -> None:
    assert prose.check(prose.SOURCES) == []


@pytest.fixture
def found(prose: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Write a file and return its findings."""
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    entries = prose.vocabulary("# comment\n\nfor ever -> forever\ntwins? -> equivalent generator\n")

    def find(name: str, text: str) -> list[str]:
        (tmp_path / name).write_text(text)
        return list(prose.findings(tmp_path / name, entries))

    return find


def test_a_phrase_is_found_in_prose_and_across_a_line_break(found: Any) -> None:
    text = "# Title\n\nIt waits for\never. The Twins wait.\n"
    assert found("page.md", text) == [
        "page.md:3: 'for ever': write forever",
        "page.md:4: 'Twins': write equivalent generator",
    ]


def test_code_and_link_targets_of_a_page_are_skipped(found: Any) -> None:
    blocks = "```py\ntwin\n```\n\n- a\n\n  ```\n  twin\n  ```\n"
    assert found("page.md", f"`twin`, [text](twin.md) <!-- twin -->\n\n{blocks}") == []


def test_docstrings_and_comments_of_a_module_are_checked(found: Any) -> None:
    function = 'def twin():\n    """Return `twin`,\n    a twin.\n    """\n'
    source = f'"""The twin."""\n\nx = "twin"  # lasts for\n# ever\n\n\n{function}'
    assert [finding.rpartition(": ")[0] for finding in found("module.py", source)] == [
        "module.py:3: 'for # ever'",
        "module.py:1: 'twin'",
        "module.py:9: 'twin'",
    ]


def test_names_of_parameters_are_not_checked(found: Any) -> None:
    source = '"""The name.\n\n    Args:\n        twin: a number.\n        other: for ever.\n"""\n'
    assert found("module.py", source) == ["module.py:5: 'for ever': write forever"]


@pytest.mark.parametrize("markup", [":class:`Task`", ":py:meth:`~a.b`", "``Task``"])
def test_a_docstring_is_markdown_and_not_rest(found: Any, markup: str) -> None:
    (finding,) = found("module.py", f'"""Text.\n\nSee {markup}."""\n')
    assert finding == f"module.py:3: '{markup}': write Markdown"
