"""Is it safe to deploy?  A folder of recorded histories against twenty changes of the code, each of which is not.

    python benchmarks/replay_histories.py
    python benchmarks/replay_histories.py --folder /tmp/histories --messages

200 orders run in a workflow environment: some are charged at the second attempt, some wait for an approval, some of
those still do.  Their histories go to disk.  Then today's code replays them all, and so does each changed version,
which has to fail.  Printed are histories per second, and for each change how many of the histories it breaks and the
likely cause the first one names; `--messages` prints the first message in full.  `docs/replay.md` quotes those
messages: `--write-docs docs/replay.md` renews them.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import linecache
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from durabletask_aio.testing import History, ReplayError, WorkflowEnvironment, replay

ORDER = """\
import asyncio
import os
import time
from datetime import timedelta

from durabletask.task import RetryPolicy

PATIENT = RetryPolicy(first_retry_interval=timedelta(seconds=5), max_number_of_attempts=3)


async def order(ctx, amount):
    reserved = await ctx.call_activity("reserve", input=amount)
    await ctx.sleep(60)
    receipt, mailed = await asyncio.gather(
        ctx.call_activity("charge", input=reserved, retry_policy=PATIENT),
        ctx.call_activity("mail", input="thanks"),
    )
    if amount > 100:
        approved = await ctx.wait_for_external_event("approve")
        await ctx.call_activity("audit", input=approved)
    await ctx.call_sub_orchestrator("deliver", input=receipt, instance_id=f"delivery-{amount}")
    await ctx.call_activity("ship", input=receipt)
    return f"shipped for {amount}"
"""

RESERVE = '    reserved = await ctx.call_activity("reserve", input=amount)\n'
SLEEP = "    await ctx.sleep(60)\n"
CHARGE = '        ctx.call_activity("charge", input=reserved, retry_policy=PATIENT),\n'
MAIL = '        ctx.call_activity("mail", input="thanks"),\n'
SHIP = '    await ctx.call_activity("ship", input=receipt)\n'

CHANGES: dict[str, list[tuple[str, str]]] = {
    "An activity is renamed": [('"reserve"', '"reserve_stock"')],
    "An activity is replaced": [('"mail"', '"phone"')],
    "The first call is removed": [(RESERVE, "    reserved = amount\n")],
    "The last call is removed": [(SHIP, "")],
    "One of several calls is removed": [(MAIL, ""), ("receipt, mailed", "(receipt,)")],
    "A call is added before the others": [(RESERVE, '    await ctx.call_activity("log")\n' + RESERVE)],
    "A call is added at the end": [(SHIP, SHIP + '    await ctx.call_activity("survey")\n')],
    "Two calls change places": [(CHARGE + MAIL, MAIL + CHARGE), ("receipt, mailed", "mailed, receipt")],
    "A wait moves to another place": [(RESERVE + SLEEP, SLEEP + RESERVE)],
    "A wait is removed": [(SLEEP, "")],
    "A wait takes longer": [("sleep(60)", "sleep(90)")],
    "A message is sent that was not": [(SLEEP, '    ctx.send_event("warehouse", "reserved")\n' + SLEEP)],
    "An input changes": [("input=receipt)\n    return", "input=receipt.upper())\n    return")],
    "An input comes from the environment": [
        ('input="thanks"', 'input=os.environ.get("GREETING", "thank you")'),
    ],
    "A clock in a branch": [
        (SLEEP, '    if time.time() > 1_700_000_000:\n        await ctx.call_activity("late")\n' + SLEEP)
    ],
    "A limit changes, and with it the branch": [("amount > 100", "amount > 50")],
    "Another event is waited for": [('"approve"', '"approval"')],
    "A retry policy is removed": [(", retry_policy=PATIENT", "")],
    "A sub-orchestration gets another id": [('f"delivery-{amount}"', 'f"parcel-{amount}"')],
    "The result changes": [('f"shipped for {amount}"', '{"shipped": amount}')],
}

BEGIN, END = "<!-- messages: begin -->", "<!-- messages: end -->"


def load(source: str) -> Callable[..., Any]:
    """The workflow in this source, whose lines show up in messages as those of `order.py`."""
    linecache.cache["order.py"] = (len(source), None, source.splitlines(keepends=True), "order.py")
    names: dict[str, Any] = {"__name__": "order"}
    exec(compile(source, "order.py", "exec"), names)
    workflow: Callable[..., Any] = names["order"]
    return workflow


def shown_workflow() -> str:
    """The workflow as the documentation shows it: numbered lines, which the messages refer to."""
    numbered = [f"{number:>2}  {line}".rstrip() for number, line in enumerate(ORDER.splitlines(), start=1)]
    return "```text\n" + "\n".join(numbered) + "\n```"


def changed(change: str) -> str:
    """The source of the workflow after a change."""
    source = ORDER
    for old, new in CHANGES[change]:
        if source.count(old) != 1:
            raise ValueError(f"{change}: {old!r} is {source.count(old)} times in the workflow, not once")
        source = source.replace(old, new)
    return source


def deliver(ctx: Any, receipt: str) -> Generator[Any, Any, str]:
    return receipt
    yield


async def record(count: int) -> list[History]:
    """The histories of so many orders; every fifth is charged at the second attempt, every ninth is still open."""
    workflow = load(ORDER)
    async with WorkflowEnvironment(orchestrators=[workflow, deliver], verify=False) as env:
        declined: set[int] = set()

        def charge(amount: int) -> str:
            if amount % 5 == 0 and amount not in declined:
                declined.add(amount)
                raise ValueError("the bank is busy")
            return f"receipt {amount}"

        env.stub("reserve", calls=lambda amount: amount)
        env.stub("charge", calls=charge)
        for name in ("mail", "audit", "ship"):
            env.stub(name, returns=None)
        handles = []
        for amount in range(1, count + 1):
            handle = await env.start(workflow, input=amount, instance_id=f"order-{amount:03}")
            handles.append(handle)
            if amount <= 100:
                await handle.result()
                continue
            await env.advance(120)
            if amount % 9:
                await handle.raise_event("approve", "by Ada")
                await handle.result()
        return [handle.history for handle in handles]


def write(histories: Sequence[History], folder: Path) -> None:
    for history in histories:
        history.save(folder / f"{history.instance_id}.json")


def broken(histories: Sequence[History], change: str) -> Iterator[ReplayError]:
    """What the histories say about a change."""
    workflow = load(changed(change))
    for history in histories:
        try:
            replay(history, workflow)
        except ReplayError as error:  # noqa: PERF203 - what is looked for
            yield error


def sections(histories: Sequence[History]) -> str:
    """The part of the documentation that quotes the messages."""
    parts: list[str] = []
    for change in CHANGES:
        diff = difflib.unified_diff(ORDER.splitlines(), changed(change).splitlines(), lineterm="", n=0)
        lines = [line for line in diff if not line.startswith(("---", "+++", "@@"))]
        message = next(broken(histories, change))
        parts.append(f"### {change}\n\n```diff\n" + "\n".join(lines) + f"\n```\n\n```text\n{message}\n```\n")
    return "\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="histories (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="keep the histories there")
    parser.add_argument("--messages", action="store_true", help="print the first message of each change")
    parser.add_argument("--write-docs", type=Path, metavar="PAGE", help="renew the messages on this page")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        began = time.perf_counter()
        write(asyncio.run(record(arguments.count)), folder)
        print(f"recorded {arguments.count} histories in {time.perf_counter() - began:.2f} s")
        began = time.perf_counter()
        histories = [History.load(path) for path in sorted(folder.glob("order-*.json"))]
        seconds = time.perf_counter() - began
        events = sum(map(len, histories))
        print(
            f"loaded {len(histories)} with {events} events in {seconds:.2f} s: {len(histories) / seconds:.0f} a second"
        )

    workflow = load(ORDER)
    began = time.perf_counter()
    steps = sum(replay(history, workflow).steps for history in histories)
    seconds = time.perf_counter() - began
    print(f"replayed on today's code, {steps} steps, in {seconds:.2f} s: {len(histories) / seconds:.0f} a second\n")

    missed = 0
    began = time.perf_counter()
    for change in CHANGES:
        errors = list(broken(histories, change))
        missed += not errors
        cause = errors[0].divergence.likely_cause() if errors else "NOT FOUND"
        print(f"{change:<42} breaks {len(errors):>3} of {len(histories)}   {cause.partition(';')[0]}")
        if arguments.messages and errors:
            print(f"\n{errors[0]}\n")
    seconds = time.perf_counter() - began
    total = len(CHANGES) * len(histories)
    print(
        f"\n{len(CHANGES) - missed} of {len(CHANGES)} changes caught; {total} replays in {seconds:.2f} s: "
        f"{total / seconds:.0f} a second"
    )

    if arguments.write_docs is not None:
        page = arguments.write_docs.read_text(encoding="utf-8")
        head, _, rest = page.partition(BEGIN)
        tail = rest.partition(END)[2]
        arguments.write_docs.write_text(f"{head}{BEGIN}\n\n{sections(histories)}\n{END}{tail}", encoding="utf-8")
        print(f"wrote {arguments.write_docs}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
