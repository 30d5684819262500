"""One process has one SDK: which one, who has chosen it, and that the core takes everything of it from the seam."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from durabletask_aio import families
from durabletask_aio.core import _upstream_dialect, _upstream_microsoft
from durabletask_aio.families import DAPR, MICROSOFT, FamilyConflictError


@pytest.fixture
def nothing_chosen(monkeypatch):
    """As in a process that has imported neither SDK."""
    monkeypatch.setattr(families, "_choice", None)
    for name in (DAPR.messages, MICROSOFT.messages):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_this_process_has_microsofts():
    assert families.chosen() is MICROSOFT
    families.choose(MICROSOFT)


@pytest.mark.parametrize(("first", "second"), [(MICROSOFT, DAPR), (DAPR, MICROSOFT)], ids=["dapr last", "dapr first"])
def test_the_second_family_of_a_process_is_refused_with_both_names_and_both_places(nothing_chosen, first, second):
    families.choose(first)
    families.choose(first)
    with pytest.raises(FamilyConflictError) as caught:
        families.choose(second)
    message = str(caught.value)
    assert message.startswith(f"{second.import_path} needs {second.title} (imported at {__file__}:")
    assert f"this process has {first.title}, chosen first at {__file__}:" in message
    assert families.chosen() is first, "the first choice stays"


def test_without_a_choice_it_is_microsofts(nothing_chosen):
    assert families.chosen() is MICROSOFT
    with pytest.raises(FamilyConflictError, match="chosen first at"):
        families.choose(DAPR)


@pytest.mark.parametrize(("wanted", "other"), [(MICROSOFT, DAPR), (DAPR, MICROSOFT)], ids=["microsoft", "dapr"])
def test_an_sdk_that_other_code_has_imported_is_a_conflict_too(nothing_chosen, monkeypatch, wanted, other):
    monkeypatch.setitem(sys.modules, other.messages, sys)
    with pytest.raises(FamilyConflictError, match=f"{other.title}, which other code in it has imported first"):
        families.choose(wanted)


def run(*lines):
    """Run a program in a fresh process; return what it prints, or its error output."""
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip()


def test_the_public_path_of_microsofts_is_refused_after_the_choice_of_daprs():
    refused = run("from durabletask_aio import families", "families.choose(families.DAPR)", "import durabletask.aio")
    assert "FamilyConflictError: durabletask.aio needs Microsoft's durabletask (imported at <string>:3)" in refused
    assert "this process has Dapr's workflow SDK, chosen first at <string>:2" in refused


PROGRAM = """
import sys, types
from durabletask_aio import families
families.choose(families.DAPR)
from durabletask import task

# A dialect that is Microsoft's by another name, with two names of its own.
dialect = types.ModuleType(families.DAPR.dialect)
with open({path!r}, encoding="utf-8") as source:
    exec(compile(source.read(), {path!r}, "exec"), vars(dialect))
class TaskFailedError(task.TaskFailedError): pass
dialect.TaskFailedError = TaskFailedError
dialect.END = "the end"
sys.modules["durabletask_aio.dapr"] = types.ModuleType("durabletask_aio.dapr")
sys.modules[dialect.__name__] = dialect

from durabletask_aio.core import declared_failures, divergence
print(declared_failures.TaskFailedError is TaskFailedError, divergence.END)
print("durabletask_aio.core._upstream_microsoft" in sys.modules)
"""


def test_the_core_takes_its_executor_from_the_dialect_that_was_chosen():
    assert run(PROGRAM.format(path=_upstream_microsoft.__file__)).split("\n") == ["True the end", "False"]


def test_the_seam_lists_the_same_names_for_python_and_for_type_checkers():
    tree = ast.parse(Path(_upstream_dialect.__file__).read_text(encoding="utf-8"))
    for_types = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == _upstream_microsoft.__name__
        for alias in node.names
    ]
    assert sorted(for_types) == sorted(_upstream_microsoft.__all__)
    assert sorted(_upstream_dialect.__all__) == sorted([*for_types, "self_check"])
