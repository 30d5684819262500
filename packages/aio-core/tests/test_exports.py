"""What is public, where it is found, and what the core imports."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import durabletask.aio
import durabletask.aio.client
import pytest
from durabletask import task
from durabletask.worker import TaskHubGrpcWorker

import durabletask_aio.core
import durabletask_aio.core.client

CORE = Path(durabletask_aio.core.__file__).parent
MODULES = sorted(CORE.glob("*.py"))
FACADE = Path(durabletask.aio.__file__)


def test_every_public_name_is_there_and_is_the_cores():
    missing = object()
    other = [
        name
        for name in durabletask.aio.__all__
        if getattr(durabletask.aio, name, missing) is not getattr(durabletask_aio.core, name)
    ]
    assert not other, f"missing from durabletask.aio, or not the core's: {other}"


def test_every_public_name_shows_the_path_it_is_imported_from():
    modules = {name: getattr(durabletask.aio, name).__module__ for name in durabletask.aio.__all__}
    del modules["RetryPolicy"]
    other = {name: module for name, module in modules.items() if module != "durabletask.aio"}
    assert not other, f"these show another module: {other}"


def test_the_retry_policy_is_one_of_upstreams():
    assert issubclass(durabletask.aio.RetryPolicy, task.RetryPolicy)


def test_both_lists_of_names_are_the_same_and_sorted():
    assert durabletask.aio.__all__ == durabletask_aio.core.__all__ == sorted(durabletask.aio.__all__)


def test_nothing_else_is_public():
    public = {name for name in vars(durabletask.aio) if not name.startswith("_")}
    submodules = {"client", "data", "engine", "sandbox", "testing", "worker"}  # if something has imported them
    assert public - submodules == set(durabletask.aio.__all__)


@pytest.mark.parametrize("name", ["__init__.py", "client.py", "data.py"])
def test_the_installed_facade_is_the_one_of_the_source(name):
    source = CORE.parents[2] / "facade" / name
    if not source.exists():
        pytest.skip("not run from the source tree")
    assert FACADE.with_name(name).read_text() == source.read_text(), "the facade has changed: install the core again"


def test_every_public_name_for_clients_shows_the_path_it_is_imported_from():
    assert durabletask.aio.client.__all__ == sorted(durabletask_aio.core.client.__all__)
    for name in durabletask.aio.client.__all__:
        public = getattr(durabletask.aio.client, name)
        assert public is getattr(durabletask_aio.core.client, name)
        assert public.__module__ == "durabletask.aio.client"


def test_upstreams_clients_are_imported_for_clients_alone():
    code = "import sys, durabletask.aio{}\nprint('durabletask.client' in sys.modules)"
    assert (run(code.format("")), run(code.format(".client"))) == ("False", "True")


def test_every_public_name_is_documented():
    bare = [name for name in durabletask.aio.__all__ if not inspect.getdoc(getattr(durabletask.aio, name))]
    assert not bare, f"without a docstring: {bare}"


def test_every_method_of_the_context_is_documented():
    members = {
        name: inspect.getattr_static(durabletask.aio.AsyncWorkflowContext, name)
        for name in vars(durabletask.aio.AsyncWorkflowContext)
        if not name.startswith("_")
    }
    assert members
    bare = [f"AsyncWorkflowContext.{name}" for name, member in members.items() if not inspect.getdoc(member)]
    assert not bare, f"without a docstring: {bare}"


def imported_by(module):
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_core_imports_none_of_its_companions():
    companions = tuple(f"durabletask_aio.{part}" for part in ("engine", "sandbox", "testing", "worker"))
    facades = ("durabletask.aio",)
    found = [
        f"{module.name} imports {name}"
        for module in MODULES
        for name in imported_by(module)
        if name.startswith(companions + facades)
    ]
    assert not found, "\n".join(found)


def test_private_names_of_upstream_are_touched_in_one_module_only():
    found = [
        f"{module.name} imports {name}"
        for module in MODULES
        if module.stem != "_upstream_microsoft"
        for name in imported_by(module)
        if name.startswith("durabletask.internal")
    ]
    assert not found, "\n".join(found)


def run(code):
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_does_not_load_the_sandbox_or_the_test_kit():
    loaded = run(
        "import sys, durabletask.aio\n"
        "print([m for m in sys.modules if m.startswith(('durabletask_aio.sandbox', 'durabletask_aio.testing'))])"
    )
    assert loaded == "[]"


def test_importing_reads_no_metadata():
    """`importlib.metadata` takes longer to import than all of the core."""
    assert run("import sys, durabletask.aio\nprint('importlib.metadata' in sys.modules)") == "False"


def test_importing_patches_nothing_of_the_standard_library():
    assert (
        run(
            "import asyncio, asyncio.tasks, asyncio.events, time, random, uuid, datetime, threading, logging\n"
            "modules = [asyncio, asyncio.tasks, asyncio.events, time, random, uuid, datetime, threading, logging]\n"
            "before = [dict(vars(m)) for m in modules]\n"
            "import durabletask.aio\n"
            "changed = [(m.__name__, n) for m, b in zip(modules, before) for n in b if vars(m).get(n) is not b[n]]\n"
            "print([c for c in changed if c[1] not in ('__builtins__',)])"
        )
        == "[]"
    )


def test_importing_changes_exactly_four_attributes_of_upstreams_worker():
    assert (
        run(
            "import durabletask.worker as w\n"
            "before = dict(vars(w.TaskHubGrpcWorker))\n"
            "import durabletask.aio\n"
            "print(sorted(n for n, v in vars(w.TaskHubGrpcWorker).items() if before.get(n) is not v))"
        )
        == "['add_activities', 'add_activity', 'add_orchestrator', 'add_orchestrators']"
    )
    assert TaskHubGrpcWorker.add_orchestrator.__name__ == "add_orchestrator"
