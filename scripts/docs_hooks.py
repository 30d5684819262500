"""Hooks of mkdocs that insert generated tables and example programs into the pages.

A line `<!-- table: NAME -->` is replaced by the result of the function of that name in `TABLES`, and a line
`<!-- program: PATH -->` by the contents of that file.  An unknown name or a missing file fails the build.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import docs_assistants
from mkdocs.exceptions import PluginError

MARKER = re.compile(r"^<!-- table: (\S+) -->$", re.MULTILINE)
PROGRAM = re.compile(r"^<!-- program: (\S+) -->$", re.MULTILINE)
ROOT = Path(__file__).resolve().parent.parent


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    if page.file.src_uri in MEASUREMENTS:
        page.meta["search"] = {"exclude": True}
    markdown = MARKER.sub(lambda match: TABLES[match[1]](), markdown)
    markdown = PROGRAM.sub(lambda match: program(match[1]), markdown)
    docs_assistants.add(page, markdown)
    return markdown


def on_page_content(html: str, page: Any, **_: Any) -> str:
    if page.file.src_uri.startswith("reference/api/"):
        API_PAGES[page.file.src_uri] = html
    return html


def on_post_build(config: Any, **_: Any) -> None:
    check_api("".join(API_PAGES.values()))
    site = Path(config["site_dir"])
    check_search(site / "search" / "search_index.json")
    docs_assistants.write(config, site)


MEASUREMENTS = ("reference/detection-matrix.md", "reference/held-out.md")
"""Pages that others link to, and that are neither in the menu nor in the search."""

API_PAGES: dict[str, str] = {}


def check_api(html: str) -> None:
    """Fail the build if the API pages lack a public name; mkdocstrings does not report missing names."""
    companions = [f"durabletask.aio.{part}" for part in ("client", "engine", "sandbox", "testing", "worker")]
    missing = [
        f"{part}.{name}"
        for part in ("durabletask.aio", *companions)
        for name in importlib.import_module(part).__all__
        if f'id="{part}.{name}"' not in html
    ]
    if missing:
        raise PluginError(f"docs/reference/api/ does not show {', '.join(missing)}")


SEARCHES = {"pydantic": "data/", "cancel": "cancellation/", "deploy": "production/"}
"""What readers search for, and the page whose title or heading contains it."""


def check_search(index: Path) -> None:
    """Fail the build if a heading that readers search for is not in the index: titles weigh most in the search."""
    documents = json.loads(index.read_text(encoding="utf-8"))["docs"]
    for word, page in SEARCHES.items():
        titles = [each["title"] for each in documents if each["location"].partition("#")[0] == page]
        if not any(re.search(rf"\b{word}", title, re.IGNORECASE) for title in titles):
            raise PluginError(f"a search for '{word}' does not find {page}: none of {titles} contains it")


def refused_methods() -> str:
    """Return the table of refused loop methods, with the advice from the error message."""
    from durabletask_aio.core.refusals import ADVICE

    return table(("`loop.…`", "Alternative"), ((f"`{name}()`", advice) for name, advice in ADVICE.items()))


def errors() -> str:
    from durabletask_aio.core.errors import PUBLIC_ERRORS, AsyncWorkflowError

    def bases(error: type[BaseException]) -> str:
        everything_is = (AsyncWorkflowError, object, BaseException, Exception)
        named = [base for base in error.__mro__[1:] if base not in everything_is]
        public = [base for base in named if base in PUBLIC_ERRORS or not base.__module__.startswith("durabletask_aio")]
        return ", ".join(f"`{base.__name__}`" for base in public if not base.__name__.startswith("_"))

    rows = ((f"`{error.__name__}`", bases(error), first_sentence(error)) for error in PUBLIC_ERRORS)
    return table(("Error", "Is also a", "Means"), rows)


def rules() -> str:
    """Return a section for each rule of the sandbox, with the anchor that messages link to."""
    from durabletask_aio.sandbox.cli.explanation import calls_of, described
    from durabletask_aio.sandbox.rules.default import default_catalogue
    from durabletask_aio.sandbox.rules.definitions import RULES

    def calls(rule: Any) -> str:
        found = described(calls_of(rule, default_catalogue()))
        return f"Calls: {found}.\n\n" if found else ""

    return "\n\n".join(
        f"## {rule.code} {rule.slug} {{ #{rule.code.lower()} }}\n\n"
        f"**{rule.title}.** ({rule.severity.value}, category `{rule.category.value}`)\n\n{rule.why}\n\n{calls(rule)}"
        f"Use {rule.alternative}. In a generator orchestrator: {rule.generator_alternative}.\n\n"
        f"{fenced(rule.bad, title='wrong')}\n\n{fenced(rule.good, title='right')}"
        for rule in RULES
    )


def libraries() -> str:
    """The libraries that the sandbox knows: by library, its calls and base classes under each rule."""
    from durabletask_aio.sandbox.rules.libraries import shipped_libraries

    def names(described: Any) -> str:
        rules = {code: [*described.get("calls", {}).get(code, ())] for code in described.get("calls", {})}
        for code, bases in described.get("bases", {}).items():
            rules.setdefault(code, []).extend(f"class …({base})" for base in bases)
        kept = [*described.get("generators", ()), *described.get("creators", ())]
        listed = [
            f"[{code}](rules.md#{code.lower()}): " + ", ".join(f"`{name.partition('?')[0]}`" for name in found)
            for code, found in rules.items()
        ]
        return "<br>".join([*listed, *(f"followed: `{name}`" for name in kept)])

    return table(("Library", "Calls"), ((f"`{name}`", names(each)) for name, each in shipped_libraries().items()))


def worker_options() -> str:
    """The keyword options of a worker: the items of `WorkerOptions`, their defaults and the texts below them."""
    from durabletask_aio.worker import options

    # `inspect` looks for the class in the facade, since its `__module__` is the public import path.
    classes = (node for node in ast.parse(inspect.getsource(options)).body if isinstance(node, ast.ClassDef))
    definition: Any = next(node for node in classes if node.name == "WorkerOptions")
    texts = {
        ast.unparse(item.target): " ".join(text.value.value.split())
        for item, text in zip(definition.body, definition.body[1:], strict=False)
        if isinstance(item, ast.AnnAssign)
    }
    rows = ((f"`{name}`", f"`{option.default!r}`", texts[name]) for name, option in options.OPTIONS.items())
    return table(("Keyword", "Default", "Meaning"), rows)


ENGINES = {"Local engine": "local", "Upstream's in-memory engine": "upstream"}
"""The columns of the tables of engines, and the files in `docs/assets/engines` that
`durabletask-aio conformance ADDRESS --json -o FILE` has written."""


def outcomes() -> dict[str, dict[str, str]]:
    """Return what became of each scenario on each engine: by name of the scenario and of the engine."""
    found: dict[str, dict[str, str]] = {}
    for engine, name in ENGINES.items():
        document = json.loads((ROOT / f"docs/assets/engines/{name}.json").read_text(encoding="utf-8"))
        for each in document["scenarios"]:
            found.setdefault(each["name"], {})[engine] = each["outcome"]
    return found


def engines() -> str:
    """Return how many scenarios of each subject work on each engine."""
    works: Counter[tuple[str, str]] = Counter()
    run: Counter[tuple[str, str]] = Counter()
    for name, by_engine in outcomes().items():
        for engine, outcome in by_engine.items():
            for subject in (f"`{name.partition('.')[0]}`", "all"):
                works[subject, engine] += outcome == "works"
                run[subject, engine] += outcome != "not run"
    subjects = sorted({subject for subject, _ in run} - {"all"})
    rows = (
        (subject, *(_share(works[subject, engine], run[subject, engine]) for engine in ENGINES))
        for subject in (*subjects, "all")
    )
    return table(("Scenarios", *ENGINES), rows)


def _share(works: int, run: int) -> str:
    return f"{works} of {run}" if run else "not run"


def engine_findings() -> str:
    """Return the scenarios that do not work on every engine."""
    from durabletask_aio.testing.conformance.registry import load_scenarios, scenario_modules

    descriptions = {each.name: each.description for each in load_scenarios(scenario_modules())}
    rows = (
        (f"`{name}`", descriptions[name], *(by_engine.get(engine, "not run") for engine in ENGINES))
        for name, by_engine in outcomes().items()
        if not {*by_engine.values()} <= {"works", "not run"}
    )
    return table(("Scenario", "", *ENGINES), rows)


def first_sentence(documented: Any) -> str:
    """Return the first sentence of a docstring."""
    paragraph = " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.:;]) (?=[A-Z])", paragraph)[0]


def program(path: str) -> str:
    """Return a program of the repository without its module docstring."""
    code = (ROOT / path).read_text(encoding="utf-8").rstrip()
    return fenced(re.sub(r'\A""".*?"""\n+', "", code, flags=re.DOTALL), title=path)


def fenced(code: str, *, title: str) -> str:
    return f'```python title="{title}"\n{code}\n```'


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


TABLES: dict[str, Callable[[], str]] = {
    "engine-findings": engine_findings,
    "engines": engines,
    "errors": errors,
    "libraries": libraries,
    "refused-methods": refused_methods,
    "rules": rules,
    "worker-options": worker_options,
}
