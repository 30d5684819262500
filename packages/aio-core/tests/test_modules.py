"""The modules of the core: the map in the package's docstring, and imports without circles."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

import durabletask_aio.core

PACKAGE = "durabletask_aio.core"
MODULES = {path.stem: path for path in Path(durabletask_aio.core.__file__).parent.glob("*.py")}
MAP_LINE = re.compile(r"^    ((?:\w+)(?:, \w+)*): ", re.MULTILINE)


def test_the_map_in_the_package_docstring_names_every_module_once():
    listed = [name for names in MAP_LINE.findall(durabletask_aio.core.__doc__) for name in names.split(", ")]
    assert sorted(listed) == sorted(MODULES.keys() - {"__init__"})


def imports(tree):
    """The modules of the core that a module imports anywhere, in functions too, except for type checkers."""
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            nodes += node.orelse
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name == PACKAGE or name.startswith(f"{PACKAGE}."):
                module = name.removeprefix(PACKAGE).removeprefix(".").partition(".")[0]
                yield module if module in MODULES else "__init__"


def cycle(graph):
    """One circle of the graph, or `None`."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return None


def test_no_circle_of_imports():
    graph = {name: set(imports(ast.parse(path.read_text(encoding="utf-8")))) for name, path in MODULES.items()}
    assert graph["driver"] >= {"loop", "execution"}, "the imports are not found"
    found = cycle(graph)
    assert found is None, " -> ".join(found or [])


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import durabletask_aio.core.loop", {"loop"}),
        ("from durabletask_aio.core import loop, errors", {"loop", "errors"}),
        ("from durabletask_aio.core import Operation", {"__init__"}),
        ("from durabletask_aio.core.loop import WorkflowLoop", {"loop"}),
        ("def function():\n    from durabletask_aio.core import loop", {"loop"}),
        ("if TYPE_CHECKING:\n    from durabletask_aio.core import loop\nelse:\n    import asyncio", set()),
        ("import asyncio", set()),
    ],
)
def test_every_form_of_import_is_found(source, found):
    assert set(imports(ast.parse(source))) == found


def test_a_circle_is_found():
    assert set(cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}
