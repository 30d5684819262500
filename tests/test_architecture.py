"""How the modules of the packages may depend on each other, and on `durabletask`.

import-linter (`hatch run layers:check`) checks the packages as wholes; here are the rules that it has no contract for.
Imports inside functions count, because they can fail like any other; those for type checkers only do not.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("core", "sandbox", "worker", "testing", "engine", "dapr")


def sources(part: str) -> dict[str, Path]:
    """The modules of a package by their full names."""
    folder = ROOT / "packages" / f"aio-{part}" / "src"
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.py")):
        names = list(path.relative_to(folder).with_suffix("").parts)
        found[".".join(names[:-1] if names[-1] == "__init__" else names)] = path
    return found


def imports(tree: ast.AST, *, for_types: bool) -> Iterator[tuple[str, str | None]]:
    """Each imported module, with the name that is taken from it; `None` for a plain `import`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not for_types:
            yield from imports(ast.Module(node.orelse, []), for_types=for_types)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from ((node.module, alias.name) for alias in node.names)
        else:
            yield from imports(node, for_types=for_types)


def imported(path: Path, *, for_types: bool = False) -> list[tuple[str, str | None]]:
    return list(imports(ast.parse(path.read_text(encoding="utf-8")), for_types=for_types))


def dependencies(modules: Mapping[str, Path]) -> dict[str, set[str]]:
    """Which of `modules` each of them imports."""
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        targets = [f"{module}.{taken}" if taken else module for module, taken in imported(path)]
        # `from package import name` imports a module of that name, or else the package itself.
        graph[name] = {target if target in modules else target.rpartition(".")[0] for target in targets}
        graph[name] &= modules.keys() - {name}
    return graph


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The groups of modules that import each other, directly or through others (Tarjan's algorithm)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        stack.append(name)
        for target in sorted(graph[name]):
            if target not in order:
                visit(target)
                lowest[name] = min(lowest[name], lowest[target])
            elif target in stack:
                lowest[name] = min(lowest[name], order[target])
        if lowest[name] == order[name]:
            position = stack.index(name)
            group = sorted(stack[position:])
            del stack[position:]
            if len(group) > 1:
                found.append(group)

    for name in sorted(graph):
        if name not in order:
            visit(name)
    return found


def is_upstream(module: str) -> bool:
    return re.match(r"durabletask(\.|$)", module) is not None and not module.startswith("durabletask.aio")


@pytest.mark.parametrize("part", PARTS)
def test_no_modules_import_each_other(part: str) -> None:
    assert circles(dependencies(sources(part))) == []


ADAPTERS = {
    "core": {"_upstream_client", "_upstream_data", "_upstream_microsoft"},
    "worker": {"_upstream"},
    "engine": {"_upstream"},
    "sandbox": {"rules.ownership"},  # which looks up the folder of durabletask, and uses nothing in it
}


@pytest.mark.parametrize("part", ADAPTERS)
def test_upstream_is_imported_by_the_adapters_alone(part: str) -> None:
    """For types too: an adapter is what has to be rewritten for another executor."""
    importing = {
        name
        for name, path in sources(part).items()
        if any(is_upstream(module) for module, _ in imported(path, for_types=True))
    }
    assert importing == {f"durabletask_aio.{part}.{name}" for name in ADAPTERS[part]}


PRIVATE_NAMES_OF_UPSTREAM = re.compile(
    r"durabletask\.internal|\b(?:worker|task|client)\._(?!upstream\b)[a-z]|(?<!self)\._registry\b|\._pending_",
)


def test_private_names_of_upstream_are_in_the_adapters_alone() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for part in PARTS
        for path in sources(part).values()
        if not path.name.startswith(("_upstream", "_interpreter"))  # the second is the same for asyncio's tasks
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if PRIVATE_NAMES_OF_UPSTREAM.search(line)
    ]
    assert not found, "private names of upstream outside of the adapter modules:\n" + "\n".join(found)


# The checks themselves ---------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path) -> dict[str, Path]:
    texts = {
        "p": "from p import a",
        "p.a": "from p.b import thing\nimport os",
        "p.b": "def late():\n    from p import c",
        "p.c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.a import other\nelse:\n    import p.d",
        "p.d": "",
    }
    modules = {name: tmp_path / f"{name}.py" for name in texts}
    for name, path in modules.items():
        path.write_text(texts[name])
    return modules


def test_imports_for_types_do_not_make_a_circle(package: dict[str, Path]) -> None:
    graph = dependencies(package)
    assert graph == {"p": {"p.a"}, "p.a": {"p.b"}, "p.b": {"p.c"}, "p.c": {"p.d"}, "p.d": set()}
    assert circles(graph) == []


def test_an_import_inside_a_function_makes_a_circle(package: dict[str, Path]) -> None:
    package["p.c"].write_text("class C:\n    def method(self):\n        import p.a")
    assert circles(dependencies(package)) == [["p.a", "p.b", "p.c"]]


# -- the page ---------------------------------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
FILES = re.findall(r"`([\w/.-]+\.(?:py|md))`", PAGE)
MEMBERS = set(re.findall(r"`((?:[A-Z]\w+|_upstream)\.\w+)`", PAGE)) - {"_upstream.py"}


@pytest.mark.parametrize("named", sorted(set(FILES)))
def test_the_architecture_page_names_files_that_exist(named: str) -> None:
    name = named.rpartition("/")[2]
    paths = [path for folder in ("packages", "tests", "docs", "benchmarks") for path in (ROOT / folder).rglob(name)]
    assert any(f"/{path.relative_to(ROOT).as_posix()}".endswith(f"/{named}") for path in paths)


@pytest.mark.parametrize("member", sorted(MEMBERS))
def test_the_architecture_page_names_members_that_exist(member: str) -> None:
    owner, _, name = member.partition(".")
    assigned = re.compile(rf"\bdef {name}\b|\b(self\.)?{name}(: .+)? = ")
    found = [path for part in PARTS for path in sources(part).values() if assigned.search(path.read_text("utf-8"))]
    assert any(path.stem == owner or f"class {owner}" in path.read_text("utf-8") for path in found)
