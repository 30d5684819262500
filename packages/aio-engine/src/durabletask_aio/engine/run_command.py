"""`durabletask-aio run`: one workflow of a file, on an engine in the command's own process."""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from durabletask_aio.core.command_line import CommandError, json_option, printable
from durabletask_aio.core.hosting import annotated_kind, function_name, orchestrator_info
from durabletask_aio.engine.embedded import Engine
from durabletask_aio.engine.instance_commands import Json, report_end, wait_for_end
from durabletask_aio.engine.store import StoreError

if TYPE_CHECKING:
    from durabletask.aio.worker import TaskHubGrpcWorker

_EPILOG = """\
\b
examples:
  durabletask-aio run app.py:order --input 5
  durabletask-aio run app.py:order --input 5 --db orders.db --id order-1
  durabletask-aio run shop.workflows:order

The workflow is the function after the colon. The other workflows and the activities of the module are registered too:
the functions whose first parameter is annotated with AsyncWorkflowContext, OrchestrationContext or ActivityContext,
those that it imports included.

With --db and --id, the same command continues an instance that an earlier one has begun, however that one ended.
The result is printed to standard output as JSON, and the exit code is 1 if the workflow did not complete.
"""

Function = Callable[..., Any]


class _Functions(NamedTuple):
    workflow: str
    """The name under which the workflow to start is registered."""
    workflows: dict[str, Function]
    activities: dict[str, Function]


@click.command("run", short_help="Run a workflow of a file, on an engine in this process.", epilog=_EPILOG)
@click.argument("reference", metavar="FILE:WORKFLOW")
@click.option("--input", "value", type=Json(), help="The input, in JSON.")
@click.option("--id", "instance_id", help="The id of the instance.  [default: a random one]")
@click.option(
    "--db", type=click.Path(dir_okay=False), metavar="FILE", help="Keep the instance in this file (default: in memory)."
)
@click.option(
    "--sandbox-mode",
    type=click.Choice(["off", "best_effort", "strict"]),
    help="What watches the workflows for non-determinism; needs the extra `sandbox`.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show the log of worker and client, not only warnings.")
@json_option
def run(
    reference: str,
    value: Any,
    instance_id: str | None,
    db: str | None,
    sandbox_mode: str | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Run the workflow WORKFLOW of a Python file, or of a module, to its end, and print its result.

    Engine and worker run in this process; no server is needed, and nothing listens on a port.
    """
    functions = _load(reference)
    logger = _logger(verbose)
    engine = Engine(db)
    try:
        engine.start()
    except StoreError as error:
        raise CommandError(f"{error}.") from error
    try:
        options = {} if sandbox_mode is None else {"sandbox_mode": sandbox_mode}
        try:
            worker = engine.worker(logger=logger, **options)
        except ImportError as error:
            raise CommandError(str(error)) from error
        with worker:
            _register(worker, functions)
            worker.start()
            client = engine.client(logger=logger)
            earlier = client.get_orchestration_state(instance_id) if instance_id else None
            if earlier is None:
                instance_id = client.schedule_new_orchestration(
                    functions.workflow, input=value, instance_id=instance_id or None
                )
            elif earlier.name != functions.workflow:
                raise CommandError(f"the instance {instance_id!r} is one of {earlier.name!r}: give another --id")
            else:
                click.echo(f"{printable(earlier.instance_id)} was started before; waiting for its end.", err=True)
                instance_id = earlier.instance_id
            state = wait_for_end(client, instance_id)
    finally:
        engine.stop()
    report_end(state, as_json=as_json)


def _logger(verbose: bool) -> logging.Logger:
    """Return the logger of worker and client: what goes wrong is shown, such as each failed attempt of an activity."""
    logger = logging.getLogger("durabletask_aio.run")
    logger.propagate = False
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
    logger.handlers = [handler]
    return logger


def _register(worker: TaskHubGrpcWorker, functions: _Functions) -> None:
    try:
        for name, function in functions.workflows.items():
            # A function that `as_orchestrator` made has its name already.
            options = {} if orchestrator_info(function) is not None else {"name": name}
            worker.add_orchestrator(function, **options)
        for name, function in functions.activities.items():
            worker.add_activity(function, name=name)
    except (TypeError, ValueError) as error:
        raise CommandError(str(error)) from error


# -- the functions of a module ----------------------------------------------------------------------------------------


def _load(reference: str) -> _Functions:
    location, colon, name = reference.rpartition(":")
    if not colon or not name.isidentifier():
        raise CommandError(f"{reference!r} does not name a workflow; for example: durabletask-aio run app.py:order")
    module = _import(location)
    workflows: dict[str, Function] = {}
    activities: dict[str, Function] = {}
    for value in vars(module).values():
        kind = _kind_of(value)
        if kind is not None:
            registered = activities if kind == "activity" else workflows
            registered.setdefault(function_name(value), value)
    function: Any = getattr(module, name, None)
    if not _is_workflow(function):
        raise CommandError(_not_found(location, name, function, list(workflows)))
    workflow = function_name(function)
    workflows[workflow] = function  # it may have no annotation
    return _Functions(workflow, workflows, activities)


def _kind_of(value: object) -> str | None:
    if orchestrator_info(value) is not None:
        return "workflow"
    return annotated_kind(value) if inspect.isfunction(value) else None


def _is_workflow(value: object) -> bool:
    if not callable(value) or _kind_of(value) == "activity":
        return False
    is_coroutine_or_generator = inspect.iscoroutinefunction(value) or inspect.isgeneratorfunction(value)
    return is_coroutine_or_generator or _kind_of(value) is not None


def _not_found(location: str, name: str, found: object, workflows: list[str]) -> str:
    if found is not None:
        kind = "an activity" if _kind_of(found) == "activity" else "no workflow"
        return f"{name!r} of {location} is {kind}; a workflow is an async function of an AsyncWorkflowContext"
    what = f"{location} has no workflow {name!r}"
    nearest = difflib.get_close_matches(name, workflows, n=1)
    if nearest:
        return f"{what}; did you mean {nearest[0]!r}?"
    return f"{what}; it has {', '.join(map(repr, workflows))}." if workflows else f"{what}."


def _import(location: str) -> ModuleType:
    """Import a file or a module, whose folder is put on the import path as `python FILE` does."""
    path = Path(location)
    if path.suffix == ".py" or os.sep in location:
        if not path.is_file():
            raise CommandError(f"there is no file {location}")
        folder, name = path.resolve().parent, path.stem
    else:
        folder, name = Path.cwd(), location
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    except Exception as error:  # Importing runs the user's code.
        raise CommandError(f"cannot import {location}: {_described(error)}") from error


def _described(error: Exception) -> str:
    described = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):  # which names its line itself
        return described
    # Without the frames of this command, of importlib and of what the user's code calls in the standard library.
    standard = ("<frozen", sysconfig.get_path("stdlib"), __file__)
    lines = [line for line in traceback.extract_tb(error.__traceback__) if not line.filename.startswith(standard)]
    return f"{described} ({lines[-1].filename}:{lines[-1].lineno})" if lines else described
