"""Run by test_packaging.py in an environment under test: tries what a user would try and prints what came of it.

The last line of the output is a JSON object: True for what worked, `Type: message` for what did not.
"""

import importlib
import json

FACTS = {}


def fact(description):
    """Try the decorated function at once, and remember how it went."""

    def remember(function):
        try:
            function()
        except Exception as error:
            FACTS[description] = f"{type(error).__name__}: {error}"
        else:
            FACTS[description] = True

    return remember


async def async_workflow(ctx, name):
    return await ctx.call_activity("greet", input=name)


def generator_workflow(ctx, name):
    return (yield ctx.call_activity("greet", input=name))


@fact("public names")
def public_names():
    from durabletask.aio import AsyncWorkflowContext, SandboxMode, as_orchestrator  # noqa: F401


for part in ("worker", "sandbox", "testing", "engine"):
    fact(f"import durabletask.aio.{part}")(lambda part=part: importlib.import_module(f"durabletask.aio.{part}"))


def new_worker():
    from durabletask.worker import TaskHubGrpcWorker

    return TaskHubGrpcWorker()


@fact("generators still register")
def generators():
    new_worker().add_orchestrator(generator_workflow)


if FACTS["public names"] is True:
    from durabletask.aio import SandboxMode, as_orchestrator

    @fact("as_orchestrator registers")
    def as_orchestrator_registers():
        new_worker().add_orchestrator(as_orchestrator(async_workflow))

    @fact("as_orchestrator with a mode")
    def as_orchestrator_with_a_mode():
        for mode in ("off", SandboxMode.BEST_EFFORT, "strict"):
            as_orchestrator(async_workflow, sandbox_mode=mode)

    @fact("an async function registers")
    def async_registers():
        new_worker().add_orchestrator(async_workflow)

    @fact("an async function with a mode")
    def async_with_a_mode():
        for mode in ("off", SandboxMode.BEST_EFFORT, "strict"):
            new_worker().add_orchestrator(async_workflow, sandbox_mode=mode)


print(json.dumps(FACTS))
