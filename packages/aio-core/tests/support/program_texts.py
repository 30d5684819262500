"""The text of random workflows that use asyncio for all it is worth; the same for every dialect of the protocol.

`concurrent_programs` runs them on Microsoft's executor, the tests of `durabletask-aio-dapr` on Dapr's.
"""

from __future__ import annotations

import asyncio
from random import Random

EVENTS = ("go", "stop")
"""The names of events that the programs wait for."""

HAS_TASK_GROUP = hasattr(asyncio, "TaskGroup")
HAS_TIMEOUT = hasattr(asyncio, "timeout")

_PRELUDE = """\
def _name(each):
    return each.get_name() if hasattr(each, 'get_name') else getattr(each, 'name', type(each).__name__)

def _shown(value):
    return type(value).__name__ if isinstance(value, BaseException) else value

async def program(ctx, x):
    log = []
    def note(*facts):
        log.append([asyncio.current_task().get_name(), *facts])
    queue, bounded = asyncio.Queue(), asyncio.Queue(2)
    ranked, stack = asyncio.PriorityQueue(), asyncio.LifoQueue()
    lock, event, slots, condition = asyncio.Lock(), asyncio.Event(), asyncio.Semaphore(2), asyncio.Condition()
    variable = contextvars.ContextVar('variable', default='unset')
    tasks, operations = [], []
    async def numbers(count):
        for number in range(count):
            yield number, await ctx.call_activity('number', input=[number, len(log)])
"""

_CLEANUP = """
async def cancellable(ctx, x):
    log = []
    try:
        return await program(ctx, x)
    except asyncio.CancelledError as e:
        log.append(await ctx.call_activity('cancelled', input=str(e)))
        task = asyncio.current_task()
        if ctx.random().random() < 0.5 and hasattr(task, 'uncancel'):
            task.uncancel()
            log.append(await ctx.with_timeout(ctx.gather(ctx.sleep(5), asyncio.sleep(2)), 60))
            return [log, task.cancelling()]
        raise
    finally:
        with_cleanup = asyncio.create_task(ctx.call_activity('cleanup', input=len(log)))
        await asyncio.shield(with_cleanup)
"""


def program_text(seed: int, *, portable: bool, cancelled: bool) -> str:
    """Return the text of a program, whose function is `program`, or `cancellable`.

    Args:
        seed: names the program.
        portable: keep to what every supported Python has and has alike.
        cancelled: have it cleaned up when it is cancelled.
    """
    text = _Writer(Random(f"program/{seed}"), portable=portable).program()
    return text + _CLEANUP if cancelled else text


class _Writer:
    """Draws the text of a program."""

    def __init__(self, random: Random, *, portable: bool) -> None:
        self.random = random
        self.portable = portable
        self._names = 0
        self._workers: list[str] = []
        self._in_worker = True
        self._budget = random.randint(6, 40)

    def program(self) -> str:
        random = self.random
        lines = _PRELUDE.splitlines()
        for _ in range(random.randint(1, 4)):
            name = f"worker{len(self._workers)}"
            body = self._block(1)
            if random.random() < 0.5:
                body = [
                    "try:",
                    *_indented(body),
                    "except asyncio.CancelledError:",
                    *_indented([f"note('{name} cancelled')", *random.choice([["raise"], self._activity(), ["raise"]])]),
                ]
            if random.random() < 0.3:
                body = ["try:", *_indented(body), "finally:", *_indented(self._cheap())]
            lines += _indented([f"async def {name}(n):", *_indented(body), f"    return ['{name}', n, len(log)]"])
            self._workers.append(name)
        self._in_worker = False
        self._budget = max(self._budget, 8)
        lines += _indented(self._spawn())
        for _ in range(random.randint(1, 4)):
            lines += _indented(self._block(0))
        lines += _indented(random.choice([["return log"], ["return log"], ["raise LookupError(len(log), str(log))"]]))
        return "\n".join(lines) + "\n"

    # -- statements -----------------------------------------------------------------------------------------------

    def _block(self, depth: int) -> list[str]:
        lines: list[str] = []
        for _ in range(self.random.randint(1, 4)):
            if self._budget <= 0 and lines:
                break
            self._budget -= 1
            lines += self._statement(depth)
        return lines

    def _statement(self, depth: int) -> list[str]:
        random = self.random
        plain = [
            self._activity,
            self._activity,
            self._sleep,
            self._cheap,
            self._operations,
            self._consume,
            self._produce,
            self._wait_for_event,
            self._combine,
            self._combine,
            self._timeout,
            self._wait,
            self._wait,
            self._as_completed,
            self._gather,
            self._shield,
            self._cancel,
            self._generator,
        ]
        if not self.portable:
            plain.append(self._notified)  # Condition.wait does something else from 3.13 when it is cancelled
        if self._workers:
            plain += [self._spawn] * 4
            if HAS_TASK_GROUP and not self.portable:
                plain += [self._task_group] * 2
        nested = [self._locked, self._try, self._loop, self._branch]
        if HAS_TIMEOUT and not self.portable:
            nested.append(self._timeout_block)
        if depth >= 3 or random.random() < 0.75:
            return self._guarded(random.choice(plain)())
        return random.choice(nested)(depth)

    def _guarded(self, lines: list[str]) -> list[str]:
        """Most statements survive what goes wrong in them, or no program would get far."""
        if self.random.random() < 0.15:
            return lines
        label = self._name("problem")
        return ["try:", *_indented(lines), "except Exception as e:", f"    note({label!r}, type(e).__name__)"]

    def _activity(self) -> list[str]:
        label = self._name("a")
        return [f"note({label!r}, await ctx.call_activity({label!r}, input=len(log)))"]

    def _sleep(self) -> list[str]:
        seconds = self.random.choice(["0", "0.001", "1", "5.25", "90"])
        call = self.random.choice(["asyncio.sleep", "ctx.sleep" if seconds != "0" else "asyncio.sleep"])
        return [f"await {call}({seconds})"]

    def _cheap(self) -> list[str]:
        return [
            self.random.choice(
                [
                    "note(ctx.random().random())",
                    "note(str(ctx.uuid4()))",
                    "note(asyncio.get_running_loop().time())",
                    "note(len(asyncio.all_tasks()))",
                    "note(sorted(t.get_name() for t in asyncio.all_tasks()), variable.get())",
                    "variable.set(len(log))",
                    "note(variable.get())",
                    "event.set()",
                    "event.clear()",
                    "note([t.get_name() for t in set(tasks)])",
                    "note([o.name for o in set(operations)])",
                    "note([(o.name, o.done()) for o in operations])",
                    "asyncio.get_running_loop().call_soon(log.append, len(log))",
                    "asyncio.get_running_loop().call_later(3, log.append, 'later')",
                    "queue.put_nowait(len(log))",
                    "await asyncio.sleep(0)",
                    "raise ValueError(len(log))",
                ]
            )
        ]

    def _operation(self) -> str:
        label = self._name("o")
        kind = self.random.randrange(8)
        if kind < 5:
            return f"ctx.call_activity({label!r}, input=len(log))"
        if kind == 5:
            return f"ctx.create_timer({self.random.choice([1, 7.5, 60])})"
        if kind == 6:
            return f"ctx.call_sub_orchestrator({label!r}, input=len(log))"
        return f"ctx.wait_for_external_event({self.random.choice(EVENTS)!r})"

    def _operations(self) -> list[str]:
        return [f"operations.append({self._operation()})" for _ in range(self.random.randint(1, 3))]

    def _spawn(self) -> list[str]:
        lines = []
        for _ in range(self.random.randint(1, 4)):
            worker = self.random.choice(self._workers)
            name = f", name={self._name('n')!r}" if self.random.random() < 0.3 else ""
            lines.append(f"tasks.append(asyncio.create_task({worker}({self.random.randint(0, 9)}){name}))")
        return lines

    def _consume(self) -> list[str]:
        queue = self.random.choice(["queue", "bounded", "ranked", "stack"])
        return [f"note('got', await ctx.with_timeout({queue}.get(), {self.random.choice([2, 30])}))"]

    def _produce(self) -> list[str]:
        queue = self.random.choice(["queue", "bounded", "ranked", "stack"])
        return [f"await ctx.with_timeout({queue}.put(len(log)), {self.random.choice([2, 30])})"]

    def _wait_for_event(self) -> list[str]:
        return ["note('event', await ctx.with_timeout(event.wait(), 10))"]

    def _notified(self) -> list[str]:
        if self.random.random() < 0.5:
            how = self.random.choice(["notify()", "notify(2)", "notify_all()"])
            return ["async with condition:", f"    condition.{how}"]
        return ["async with condition:", "    note('notified', await ctx.with_timeout(condition.wait(), 20))"]

    def _some(self) -> str:
        """An expression for a few awaitables that may be done already."""
        worker = f"{self.random.choice(self._workers)}(1)" if self._workers else "asyncio.sleep(1)"
        # Only the main task waits for tasks that it did not start just now: two that wait for each other cancel each
        # other without end, and how deep that goes depends on the stack below.
        tasks = "operations[:2]" if self._in_worker else "tasks[-3:]"
        return self.random.choice(
            [
                tasks,
                "operations[-3:]",
                f"[*{tasks}, *operations[:2]]",
                f"[{self._operation()}, {self._operation()}]",
                f"[asyncio.create_task({worker}), {self._operation()}]",
                f"[asyncio.ensure_future({worker}), *operations[-1:]]",
            ]
        )

    def _with_coroutines(self) -> str:
        if self._workers and self.random.random() < 0.3:
            return f"[{self.random.choice(self._workers)}(7), {self.random.choice(self._workers)}(8)]"
        return self._some()

    def _combine(self) -> list[str]:
        call = self.random.choice(["when_all", "when_any", "when_any_with_result"])
        lines = [f"note({call!r}, await ctx.{call}({self._with_coroutines()}))"]
        if self.random.random() < 0.2:
            name = self._name("combined")
            lines = [f"{name} = ctx.{call}({self._with_coroutines()})", f"note(await {name}, await {name})"]
        return lines

    def _timeout(self) -> list[str]:
        seconds = self.random.choice([0, 1, 4.5, 60])
        worker = f"{self.random.choice(self._workers)}(2)" if self._workers else "asyncio.sleep(3)"
        group = "operations" if self._in_worker else "tasks"
        what = self.random.choice([self._operation(), worker, f"ctx.gather(*{group}[-2:])", "asyncio.sleep(2)"])
        return [f"note('in time', await ctx.with_timeout({what}, {seconds}))"]

    def _wait(self) -> list[str]:
        random = self.random
        when = random.choice(["FIRST_COMPLETED", "ALL_COMPLETED", "FIRST_EXCEPTION"])
        timeout = random.choice(["", ", timeout=6", ", timeout=0.5"])
        done, pending = self._name("done"), self._name("pending")
        lines = [
            f"awaited = {self._some()} or [ctx.sleep(1)]",
            f"{done}, {pending} = await asyncio.wait(awaited, return_when=asyncio.{when}{timeout})",
            f"for each in {done}: note('done', _name(each), each.cancelled() or each.exception() is None)",
        ]
        if random.random() < 0.5:
            lines.append(f"for each in {pending}: note('pending', _name(each)); each.cancel()")
        if random.random() < 0.3:
            lines.append(f"for each in {pending}: note(await ctx.call_activity('left', input=_name(each)))")
        return lines

    def _as_completed(self) -> list[str]:
        timeout = self.random.choice(["", ", timeout=9"])
        return [
            f"for each in asyncio.as_completed({self._some()}{timeout}):",
            "    try: note('completed', await each)",
            "    except Exception as e: note('not completed', type(e).__name__)",
        ]

    def _gather(self) -> list[str]:
        # From 3.12 asyncio.gather is done at once if all that it gathers is, and one step later before.
        call = "ctx.gather" if self.portable else self.random.choice(["asyncio.gather", "ctx.gather"])
        exceptions = self.random.choice(["", ", return_exceptions=True"])
        name = self._name("gathered")
        lines = [f"{name} = await {call}(*{self._with_coroutines()}{exceptions})"]
        return [*lines, f"note([_shown(each) for each in {name}])"]

    def _shield(self) -> list[str]:
        group = "operations" if self._in_worker else "tasks"
        what = self.random.choice([f"{group}[0]", "operations[0]", self._operation()])
        return [f"note('shielded', await ctx.with_timeout(asyncio.shield({what}), 3))"]

    def _cancel(self) -> list[str]:
        return [
            self.random.choice(
                [
                    "note(tasks[-1].cancel())",
                    "note([t.cancel() for t in tasks[:2]])",
                    "note(operations[-1].cancel())",
                    "note([o.cancel() for o in operations])",
                    "for each in set(tasks): note(each.get_name(), each.cancel())",
                ]
            )
        ]

    def _generator(self) -> list[str]:
        lines = ["async for number in numbers(2):", "    note('number', number)"]
        return [*lines, "    break"] if self.random.random() < 0.2 else lines

    def _task_group(self) -> list[str]:
        group = self._name("group")
        lines = [f"async with asyncio.TaskGroup() as {group}:"]
        for _ in range(self.random.randint(1, 3)):
            lines.append(f"    tasks.append({group}.create_task({self.random.choice(self._workers)}(3)))")
        if self.random.random() < 0.5:
            lines.append(f"    {group}.create_task({self._operation()})")
        return [*lines, *_indented(self._activity())]

    # -- blocks ---------------------------------------------------------------------------------------------------

    def _locked(self, depth: int) -> list[str]:
        return [f"async with {self.random.choice(['lock', 'slots'])}:", *_indented(self._block(depth + 1))]

    def _try(self, depth: int) -> list[str]:
        handlers = self.random.choice(["Exception", "(Exception, asyncio.CancelledError)", "ValueError"])
        lines = ["try:", *_indented(self._block(depth + 1)), f"except {handlers} as e:", "    note(type(e).__name__)"]
        if self.random.random() < 0.3:
            lines += ["finally:", *_indented(self._cheap())]
        return lines

    def _loop(self, depth: int) -> list[str]:
        return [f"for {self._name('i')} in range({self.random.randint(2, 3)}):", *_indented(self._block(depth + 1))]

    def _branch(self, depth: int) -> list[str]:
        return [
            "if len(log) % 2:",
            *_indented(self._block(depth + 1)),
            "else:",
            *_indented(self._block(depth + 1)),
        ]

    def _timeout_block(self, depth: int) -> list[str]:
        return [
            "try:",
            f"    async with asyncio.timeout({self.random.choice([0.5, 3, 40])}):",
            *_indented(_indented(self._block(depth + 1))),
            "except TimeoutError:",
            "    note('too late', asyncio.current_task().cancelling())",
        ]

    def _name(self, prefix: str) -> str:
        self._names += 1
        return f"{prefix}{self._names}"


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]
