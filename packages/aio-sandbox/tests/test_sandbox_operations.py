"""Rules about durable operations: names, results that nothing waits for, locks, contexts, errors and logs."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from durabletask_aio.sandbox.rules.findings import Finding
from durabletask_aio.sandbox.static.checker import Settings, check_sources

HEAD = """
import logging, threading
from durabletask.aio import AsyncWorkflowContext, raises
class Declined(Exception): ...
def charge(ctx, order): ...
def refund(ctx, order): ...
"""
WORKERS = """
def main(worker):
    worker.add_activity(charge)
    worker.add_activities(refund, *STEPS)
    worker.add_named_activity("send_mail", lambda ctx, text: None)
    worker.add_orchestrator(workflow)
"""

FOUND: dict[str, tuple[str, str, str]] = {
    "a misspelt activity": ("await ctx.call_activity('chrage')", "DET808", "did you mean `charge`?"),
    "a misspelt name of a list": ("await ctx.call_activity('pack_order')", "DET808", "did you mean `pack_orders`?"),
    "a misspelt given name": ("await ctx.call_activity('sent_mail')", "DET808", "did you mean `send_mail`?"),
    "a misspelt workflow": ("await ctx.call_sub_orchestrator('workflows')", "DET808", "did you mean `workflow`?"),
    "a workflow as an activity": (
        "await ctx.call_activity('workflow')",
        "DET808",
        "`workflow` is registered as a workflow",
    ),
    "a variable that nothing reads": ("kept = ctx.call_activity(charge)", "DET802", "kept in `kept`"),
    "a list that nothing reads": ("kept = [ctx.call_activity(charge)]", "DET802", "ctx.when_all(kept)"),
    "a comprehension that nothing reads": ("kept = [ctx.sleep(n) for n in order]", "DET802", "kept in `kept`"),
    "arithmetic": ("return ctx.call_activity(charge) + 1", "DET802", "used before it is there"),
    "a condition": ("if not ctx.call_activity(charge): return", "DET802", "(await ctx.call_activity(charge))"),
    "an element": ("return ctx.call_activity(charge)['total']", "DET802", "used before it is there"),
    "a text": ("return f'{ctx.call_activity(charge)}'", "DET802", "used before it is there"),
    "a lock": ("with threading.Lock():\n        await ctx.sleep(1)", "DET804", "A `threading.Lock` is held while"),
    "a lock of the module": (
        "with LOCK:\n        await ctx.sleep(1)",
        "DET804",
        "`ctx.lock_entities` between instances",
    ),
    "a context as input": ("await ctx.call_activity(charge, input=ctx)", "DET810", "The context `ctx` is given"),
    "a context in an annotation": ("await ctx.call_activity(wrong)", "DET810", "The activity `wrong` is annotated"),
    "an error by name": (
        "try:\n        await ctx.call_activity('charge')\n    except Declined: pass",
        "DET811",
        "`raises=(Declined,)` in the call, which changes the branch",
    ),
    "an error among others": (
        "try:\n        paid = await ctx.call_activity(charge)\n    except (ValueError, Declined): pass",
        "DET811",
        "`except Declined` does not match a failure of `ctx.call_activity(charge)`",
    ),
    "an input of another type": ("await ctx.call_activity('count', input='3')", "DET813", "`count` takes `int`"),
    "a result of another type": (
        "total: int = await ctx.call_activity('name_of')",
        "DET813",
        "`name_of` returns `str`",
    ),
    "a given type of the result": (
        "await ctx.call_activity('name_of', return_type=dict)",
        "DET813",
        "`dict` is expected",
    ),
    "a direct call": ("charge(None, order)", "DET814", "`await ctx.call_activity(charge, input=...)`"),
    "a direct call of what is not registered here": (
        "marked(None, order)",
        "DET814",
        "The activity `marked` is called directly",
    ),
    "an operation of a helper": ("started(ctx, order)", "DET802", "`await started(ctx, order)`"),
    "an operation of a helper that is used": ("return started(ctx, order) + 1", "DET802", "used before it is there"),
    "an operation of a local function": (
        "start = lambda item: ctx.call_activity(charge, input=item)\n    start(order)",
        "DET802",
        "`await start(order)`",
    ),
    "an early end before an operation": (
        "if ctx.is_replaying:\n        return\n    await ctx.sleep(1)",
        "DET806",
        "What follows depends on `ctx.is_replaying`",
    ),
    "a log": ("LOGGER.info('started')", "DET812", "`LOGGER.info()` writes again"),
    "an unused pragma": ("await ctx.sleep(1)  # determinism: allow[clock] not read", "DET903", "needs `clock`"),
}
RIGHT: dict[str, str] = {
    "a known name": "await ctx.call_activity('pack_orders')",
    "a name of another program": "await ctx.call_activity('translate')",
    "a variable that is read later": "kept = ctx.call_activity(charge)\n    await ctx.sleep(1)\n    await kept",
    "a variable that a nested function reads": (
        "kept = ctx.call_activity(charge)\n    async def wait(): return await kept\n    await wait()"
    ),
    "a variable that says that it is not read": "_kept = ctx.call_activity(charge)",
    "a result": "total = await ctx.call_activity(charge)\n    return total + 1",
    "operations that are compared": "one = ctx.sleep(1)\n    return await ctx.when_any([one]) == one",
    "a lock without an await": "with LOCK:\n        order += 1\n    await ctx.sleep(1)",
    "a lock of asyncio": "import asyncio\n    async with asyncio.Lock():\n        await ctx.sleep(1)",
    "the id of the instance": "await ctx.call_activity(charge, input=ctx.instance_id)",
    "a declared error": (
        "try:\n        await ctx.call_activity('charge', raises=(Declined,))\n    except Declined: pass"
    ),
    "an error that the function declares": (
        "try:\n        await ctx.call_activity(declaring)\n    except Declined: pass"
    ),
    "an error of something else": (
        "try:\n        await ctx.call_activity(charge, input=order.checked())\n    except Declined: pass"
    ),
    "an error of a helper": "try:\n        await helper(ctx)\n    except Declined: pass",
    "a failure": "try:\n        await ctx.call_activity(charge)\n    except (ValueError, TimeoutError): pass",
    "an early end before anything durable": "if ctx.is_replaying:\n        return\n    print(order)",
    "an input of the type": "await ctx.call_activity('count', input=3)",
    "an input that is converted": "await ctx.call_activity('count', input=True)",
    "a result of the type": "name: str = await ctx.call_activity('name_of', return_type=str)\n    return name",
    "a result that is converted": "total: float = await ctx.call_activity('size')\n    return total",
    "an activity that calls another": "await ctx.call_activity(both)",
    "an operation of a helper that is awaited": "return await started(ctx, order)",
    "an operation of a helper that waits later": "one = started(ctx, order)\n    return await ctx.when_all([one])",
    "an operation that a helper keeps": "kept = []\n    collected(ctx, kept)\n    await ctx.when_all(kept)",
    "a log that replays do not repeat": "ctx.create_replay_safe_logger(LOGGER).info('started')",
    "a guarded log": "if not ctx.is_replaying:\n        LOGGER.info('started')",
    "a pragma that is used": ("import time\n    return time.time()  # determinism: allow[clock] only printed"),
}
TAIL = """
LOCK = threading.Lock()
LOGGER = logging.getLogger("orders")
def pack_orders(ctx, order): ...
def wrong(ctx: AsyncWorkflowContext, order): ...
@raises(Declined)
def declaring(ctx, order): ...
def count(ctx, amount: int): ...
def marked(ctx: "task.ActivityContext", order): ...
def name_of(ctx, order) -> str: ...
def size(ctx, order) -> int: ...
def both(ctx, order): return charge(ctx, order), refund(ctx, order)
def started(ctx, order): return ctx.call_activity(charge, input=order)
def collected(ctx, kept):
    one = ctx.call_activity(charge)
    kept.append(one)
    return one
STEPS = [pack_orders, count, name_of, size, both]
async def helper(ctx):
    raise Declined
"""


def findings(body: str, folder: Path, workers: str = WORKERS) -> list[Finding]:
    workflow = f"async def workflow(ctx: AsyncWorkflowContext, order):\n    {body}\n"
    (folder / "flows.py").write_text(HEAD + TAIL + workflow + workers)
    return check_sources([folder], Settings(notes=True)).findings


@pytest.mark.parametrize("name", FOUND)
def test_it_is_found(name: str, tmp_path: Path) -> None:
    body, code, text = FOUND[name]

    (finding,) = findings(body, tmp_path)

    assert finding.rule.code == code
    assert text in finding.message


@pytest.mark.parametrize("name", RIGHT)
def test_nothing_is_found(name: str, tmp_path: Path) -> None:
    assert findings(RIGHT[name], tmp_path) == []


class TestRegistrations:
    def test_nothing_is_said_about_names_if_one_is_not_known(self, tmp_path: Path) -> None:
        workers = WORKERS + "    for each in load():\n        worker.add_activity(each)\n"

        assert findings("await ctx.call_activity('chrage')", tmp_path, workers) == []

    def test_lists_of_an_environment_and_decorators_register_names(self, tmp_path: Path) -> None:
        workers = """
        @app.activity(name="ship_order")
        def ship(ctx, order): ...
        env = WorkflowEnvironment(orchestrators=[workflow], activities=[charge])
        """
        body = "await ctx.call_activity('charge')\n    await ctx.call_activity('ship_order')"

        assert findings(body, tmp_path, textwrap.dedent(workers)) == []

    @pytest.mark.parametrize(
        ("second", "expected"),
        [
            ("worker.add_activity(refund, name='charge')", ["DET809"]),
            ("worker.add_activity(charge)", []),
            ("other.add_activity(refund, name='charge')", []),
            ("worker = make()\n    worker.add_activity(refund, name='charge')", []),
            ("with pytest.raises(ValueError):\n        worker.add_activity(refund, name='charge')", []),
            ("worker.add_activity(refund, name='charge')  # noqa: DET809", []),
        ],
    )
    def test_a_name_that_is_registered_twice(self, second: str, expected: list[str], tmp_path: Path) -> None:
        workers = f"def main(worker, other):\n    worker.add_activity(charge)\n    {second}\n"

        assert [each.rule.code for each in findings("return order", tmp_path, workers)] == expected
