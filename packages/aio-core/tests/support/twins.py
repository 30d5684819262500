"""Random workflows, each written twice from one syntax tree: with `yield` for upstream, and with `await` for us.

The two texts differ in what a migration changes, and in nothing else::

    def program(ctx, x):             async def program(ctx, x):
    yield                            await
    yield from                       await
    task.when_all(...)               ctx.when_all(...)
    task.when_any(...)               ctx.when_any_with_result(...)

Races are over operations scheduled for them: among several that are done already, upstream takes the first of the
list and `ctx.when_any` the one that was done first, on purpose.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from types import GeneratorType
from typing import Any, NamedTuple

from durabletask import task
from durabletask.entities import EntityInstanceId
from random_engine import RandomEngine, shortest_completing
from replays import Answer, readable, replayed
from turns import Instance, canonical

from durabletask_aio.core.orchestrator import as_orchestrator

EVENTS = ("go", "Stop", "STOP")
GENERATIONS = 2
_LATER = "ctx.current_utc_datetime + timedelta(minutes=1)"


class Style(NamedTuple):
    """One of the two ways to write a program."""

    define: str
    wait: str
    delegate: str
    when_all: str
    lock: str
    is_async: bool


GENERATOR = Style("def", "yield", "yield from", "task.when_all", "with (yield {}):", False)
ASYNC = Style("async def", "await", "await", "ctx.when_all", "async with {}:", True)

Lines = list[str]
Node = Callable[[Style], Lines]
"""A statement, as a function from the style to its lines."""

Operation = Callable[[Style], str]
"""The call that schedules an operation, as an expression."""


class Twins(NamedTuple):
    """A program in both ways, as orchestrators and as text."""

    generator: Callable[..., Any]
    asynchronous: Callable[..., Any]
    generator_text: str
    async_text: str
    events: tuple[str, ...]

    def __repr__(self) -> str:
        return f"\n{self.generator_text}\n{self.async_text}\nevents: {self.events}"


def twins(random: Random) -> Twins:
    """A random program."""
    writer = _Writer(random)
    helpers = [writer.helper(number) for number in range(random.randint(0, 2))]
    main = writer.main()
    texts = ["\n\n".join("\n".join(part(style)) for part in [*helpers, main]) + "\n" for style in (GENERATOR, ASYNC)]
    events = tuple(random.choice(EVENTS) for _ in range(random.randint(0, 8)))
    generator = _function(texts[0])
    asynchronous = as_orchestrator(_function(texts[1]))
    return Twins(generator, asynchronous, texts[0], texts[1], events)


def _function(text: str) -> Callable[..., Any]:
    names: dict[str, Any] = {
        "task": task,
        "timedelta": timedelta,
        "datetime": datetime,
        "EntityInstanceId": EntityInstanceId,
    }
    exec(compile(text, "<random program>", "exec"), names)
    return names["program"]


class Captured:
    """Runs a generator orchestrator and keeps its generators and contexts, so that they can be examined and closed."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._runs: list[tuple[Any, GeneratorType[Any, Any, Any]]] = []

    def __call__(self, ctx: task.OrchestrationContext, input: Any = None) -> Any:
        generator = self._function(ctx, input)
        self._runs.append((ctx, generator))
        return generator

    @property
    def __name__(self) -> str:
        return "program"

    def drops_trailing_events(self) -> bool:
        """Whether the last run ended by catching a failure.

        Upstream then resumes the finished generator with that failure at each later event of the batch, and so drops
        the event.  An async workflow does not, on purpose.
        """
        ctx, generator = self._runs[-1]
        return generator.gi_frame is None and ctx._previous_task is not None and ctx._previous_task.is_failed

    def close(self) -> None:
        """End the generators at once: upstream leaves them, and their `finally`, to the garbage collector.

        Not by `close()`, to which a `yield` in a `finally` block is an error.
        """
        for _, generator in self._runs:
            for _ in range(50):
                try:
                    generator.throw(_RunEnded())
                except (StopIteration, Exception, _RunEnded):
                    break
        self._runs.clear()


class _RunEnded(BaseException):
    """Ends a generator that upstream has dropped."""


class TwinEngine(RandomEngine):
    """Runs the pair, starting with either; avoids what differs on purpose, which `test_twins` tests by name."""

    def __init__(self, random: Random, pair: Twins) -> None:
        super().__init__(
            random,
            events=pair.events,
            failures=random.choice([0, 0.05, 0.3]),
            max_batch=random.choice([1, 3, 6]),
            # Upstream leaves entities locked if it ends an instance while one of them is called; we do not.
            terminations="lock_entities" not in pair.generator_text,
        )
        self._generator = Captured(pair.generator)

    def _batch(self, instance: Instance) -> list[Any]:
        batch = super()._batch(instance)
        if len(batch) > 1:
            size = shortest_completing(instance, self._generator, instance.history, batch)
            if size < len(batch) and self._generator.drops_trailing_events():
                batch = batch[:size]
            self._generator.close()
        return batch


def assert_same_turns(pair: Twins, instance: Instance) -> None:
    """Assert that the async equivalent answers each turn of `instance` as `instance` did."""
    for number, (end, actions) in enumerate(zip(instance.cuts, instance.turns, strict=True)):
        begin = instance.batch_begin(end)
        ours = replayed(instance, end, begin=begin, orchestrator=pair.asynchronous)
        theirs = Answer(canonical(actions), instance.custom_statuses[number])
        assert ours == theirs, (
            f"turn {number} of {pair!r}\n-- the generator --\n{readable(theirs)}\n-- async --\n{readable(ours)}"
        )


class _Writer:
    """Draws a random syntax tree."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self._names = 0
        self._helpers: list[str] = []
        self._budget = random.randint(2, 24)

    def helper(self, number: int) -> Node:
        body = self._block(1, in_lock=False)
        name = f"helper{number}"
        self._helpers.append(name)

        def node(s: Style) -> Lines:
            lines = [f"{s.define} {name}(ctx, log):"]
            if not s.is_async:
                lines.append("    if not log: yield ctx.create_timer(timedelta(seconds=1))")
            else:
                lines.append("    if not log: await ctx.create_timer(timedelta(seconds=1))")
            return [*lines, *_indented(body(s)), "    return len(log)"]

        return node

    def main(self) -> Node:
        body = self._block(0, in_lock=False)
        ending = self._ending()

        def node(s: Style) -> Lines:
            start = [f"{s.define} program(ctx, generation):", "    log = [generation]"]
            first = [f"    log.append(({s.wait} ctx.call_activity('first', input=generation)))"]
            return [*start, *_indented(body(s)), *first, *_indented(ending(s))]

        return node

    def _ending(self) -> Node:
        random = self.random
        kind = random.choice(["return", "return", "return", "raise", "continue", "continue", "none"])
        if kind == "return":
            return lambda s: ["return log"]
        if kind == "raise":
            return lambda s: ["raise ValueError('at the end', len(log))"]
        if kind == "none":
            return lambda s: ["ctx.set_custom_status(log)"]
        save, status = random.random() < 0.7, random.random() < 0.3

        # After a timer: what upstream does with an event behind continue_as_new depends on whether the last wait
        # failed, see Captured.
        def node(s: Style) -> Lines:
            lines = [
                f"if generation < {GENERATIONS}:",
                f"    {s.wait} ctx.create_timer(timedelta(seconds=2))",
                f"    ctx.continue_as_new(generation + 1, save_events={save})",
                "    return" + (" log" if status else ""),
            ]
            return [*lines, "return log"]

        return node

    # -- statements -----------------------------------------------------------------------------------------------

    def _block(self, depth: int, *, in_lock: bool) -> Node:
        nodes: list[Node] = []
        variables: list[str] = []
        for _ in range(self.random.randint(1, 4)):
            if self._budget <= 0 and nodes:
                break
            self._budget -= 1
            nodes.append(self._statement(depth, variables, in_lock=in_lock))
        return lambda s: [line for node in nodes for line in node(s)]

    def _statement(self, depth: int, variables: list[str], *, in_lock: bool) -> Node:
        random = self.random
        simple: list[Callable[[], Node]] = [
            self._await,
            self._await,
            self._all,
            self._race,
            self._note,
            self._side_effect,
            lambda: self._schedule(variables),
            lambda: self._schedule(variables),
            self._cancel,
        ]
        if variables:
            simple += [lambda: self._await_variable(variables)] * 3
        nested: list[Callable[[], Node]] = [
            lambda: self._try(depth, in_lock=in_lock),
            lambda: self._try(depth, in_lock=in_lock),
            lambda: self._loop(depth, in_lock=in_lock),
            lambda: self._branch(depth, in_lock=in_lock),
        ]
        if not in_lock:
            nested.append(lambda: self._lock(depth))
            if self._helpers:
                simple.append(self._call_helper)
        choices = simple if depth >= 3 or random.random() < 0.7 else nested
        return random.choice(choices)()

    def _await(self) -> Node:
        operation = self._operation()
        return lambda s: [f"log.append(({s.wait} {operation(s)}))"]

    def _schedule(self, variables: list[str]) -> Node:
        operation = self._operation()
        name = self._name("v")
        variables.append(name)
        return lambda s: [f"{name} = {operation(s)}"]

    def _await_variable(self, variables: list[str]) -> Node:
        name = self.random.choice(variables)
        return lambda s: [f"log.append(({s.wait} {name}))"]

    def _cancel(self) -> Node:
        operation = self._cancellable()
        name = self._name("c")
        between = self._await() if self.random.random() < 0.6 else None

        def node(s: Style) -> Lines:
            waiting = between(s) if between else []
            return [f"{name} = {operation(s)}", *waiting, f"{name}.cancel()"]

        return node

    def _all(self) -> Node:
        operation = self._composite()
        return lambda s: [f"log.append(({s.wait} {operation(s)}))"]

    def _race(self) -> Node:
        random = self.random
        parts: list[tuple[str, Operation]] = []
        for _ in range(random.randint(1, 4)):
            cancellable = random.random() < 0.4
            parts.append(
                ("cancellable", self._cancellable())
                if cancellable
                else ("other", random.choice([self._operation, self._operation, self._composite])())
            )
        race, catches = self._name("race"), random.random() < 0.6
        cancels = random.random() < 0.7
        waits_for_loser = random.randrange(len(parts)) if random.random() < 0.3 else None

        def node(s: Style) -> Lines:
            lines = [f"{race} = [{', '.join(part(s) for _, part in parts)}]"]
            if s.is_async:
                take = [f"index, value = await ctx.when_any_with_result({race})"]
                caught = ["index, value = e.winner_index, e.details.message"]
                before: Lines = []
            else:
                before = [f"winner = yield task.when_any({race})", f"index = {race}.index(winner)"]
                take = ["value = winner.get_result()"]
                caught = ["value = e.details.message"]
            if catches:
                take = ["try:", *_indented(take), "except task.TaskFailedError as e:", *_indented(caught)]
            lines += [*before, *take, "log.append([index, value])"]
            if cancels:
                for place, (kind, _) in enumerate(parts):
                    if kind == "cancellable":
                        lines.append(f"if index != {place}: {race}[{place}].cancel()")
            if waits_for_loser is not None and not (cancels and parts[waits_for_loser][0] == "cancellable"):
                lines.append(f"log.append(({s.wait} {race}[{waits_for_loser}]))")
            return lines

        return node

    def _note(self) -> Node:
        what = self.random.choice(["ctx.new_uuid()", "str(ctx.current_utc_datetime)", "ctx.instance_id", "len(log)"])
        return lambda s: [f"log.append({what})"]

    def _side_effect(self) -> Node:
        line = self.random.choice(
            [
                "ctx.set_custom_status({'seen': len(log)})",
                "ctx.set_custom_status(None)",
                "ctx.send_event('other', 'note', data=len(log))",
                "ctx.signal_entity(EntityInstanceId('counter', 'z'), 'add', len(log))",
                f"ctx.signal_entity(EntityInstanceId('counter', 'z'), 'add', 1, {_LATER})",
                "ctx.call_activity('forgotten', input=len(log))",
            ]
        )
        return lambda s: [line]

    def _call_helper(self) -> Node:
        name = self.random.choice(self._helpers)
        return lambda s: [f"log.append(({s.delegate} {name}(ctx, log)))"]

    def _try(self, depth: int, *, in_lock: bool) -> Node:
        random = self.random
        body = self._block(depth + 1, in_lock=in_lock)
        handler = self._block(depth + 1, in_lock=in_lock) if random.random() < 0.4 else None
        final = self._block(depth + 1, in_lock=in_lock) if random.random() < 0.3 else None
        reaction = random.choice(["log", "log", "log", "raise", "from", "context"])

        def node(s: Style) -> Lines:
            lines = ["try:", *_indented(body(s)), "except task.TaskFailedError as e:"]
            if handler is not None:
                lines += _indented(handler(s))
            lines += _indented(
                {
                    "log": ["log.append(['failed', e.details.error_type, e.details.message])"],
                    "raise": ["raise"],
                    "from": ["raise LookupError('wrapped', len(log)) from e"],
                    "context": ["raise ZeroDivisionError('while handling')"],
                }[reaction]
            )
            if final is not None:
                lines += ["finally:", *_indented(final(s))]
            return lines

        return node

    def _loop(self, depth: int, *, in_lock: bool) -> Node:
        body = self._block(depth + 1, in_lock=in_lock)
        count, name = self.random.randint(2, 3), self._name("i")
        return lambda s: [f"for {name} in range({count}):", *_indented(body(s))]

    def _branch(self, depth: int, *, in_lock: bool) -> Node:
        body, other = self._block(depth + 1, in_lock=in_lock), self._block(depth + 1, in_lock=in_lock)
        return lambda s: [
            "if isinstance(log[-1], int) and log[-1] % 2:",
            *_indented(body(s)),
            "else:",
            *_indented(other(s)),
        ]

    def _lock(self, depth: int) -> Node:
        keys = self.random.sample("abc", self.random.randint(1, 3))
        entities = ", ".join(f"EntityInstanceId('counter', {key!r})" for key in keys)
        # Calls are waited for at once: upstream leaves entities locked whose call is still out at the block's end.
        calls = [self.random.choice(keys) for _ in range(self.random.randint(0, 3))]
        body = self._block(depth + 1, in_lock=True) if self.random.random() < 0.5 else None

        def node(s: Style) -> Lines:
            lines = [s.lock.format(f"ctx.lock_entities([{entities}])"), "    log.append('locked')"]
            for key in calls:
                lines.append(
                    f"    log.append(({s.wait} ctx.call_entity(EntityInstanceId('counter', {key!r}), 'add', 1)))"
                )
            return [*lines, *(_indented(body(s)) if body else [])]

        return node

    # -- operations -----------------------------------------------------------------------------------------------

    def _operation(self) -> Operation:
        random = self.random
        kind = random.choice(["activity"] * 4 + ["retried", "sub", "sub retried", "entity", "cancellable"])
        if kind == "activity":
            tags = ", tags={'kind': 'test'}" if random.random() < 0.2 else ""
            name = random.choice("fgh")
            return lambda s: f"ctx.call_activity({name!r}, input=log[-1]{tags})"
        if kind == "retried":
            policy = self._policy()
            return lambda s: f"ctx.call_activity('unsteady', input=len(log), retry_policy={policy})"
        if kind == "sub":
            more = random.choice(["", f", instance_id='child-{self._name('n')}'", ", version='1.2'"])
            return lambda s: f"ctx.call_sub_orchestrator('child', input=log[-1]{more})"
        if kind == "sub retried":
            policy = self._policy()
            return lambda s: f"ctx.call_sub_orchestrator('child', retry_policy={policy})"
        if kind == "entity":
            return lambda s: "ctx.call_entity(EntityInstanceId('plain', 'k'), 'get', len(log))"
        return self._cancellable()

    def _cancellable(self) -> Operation:
        random = self.random
        if random.random() < 0.4:
            name = random.choice(EVENTS)
            return lambda s: f"ctx.wait_for_external_event({name!r})"
        delay = random.choice(
            [
                "timedelta(seconds=5)",
                "timedelta(0)",
                "timedelta(minutes=3, microseconds=7)",
                "timedelta(days=8)",
                "ctx.current_utc_datetime + timedelta(hours=1)",
                "datetime(2026, 1, 1)",
            ]
        )
        return lambda s: f"ctx.create_timer({delay})"

    def _composite(self, depth: int = 0) -> Operation:
        parts: list[Operation] = []
        for _ in range(self.random.randint(1, 4)):
            deeper = depth < 2 and self.random.random() < 0.2
            parts.append(self._composite(depth + 1) if deeper else self._operation())
        return lambda s: f"{s.when_all}([{', '.join(part(s) for part in parts)}])"

    def _policy(self) -> str:
        random = self.random
        more = ""
        if random.random() < 0.5:
            more += f", backoff_coefficient={random.choice([1.5, 2.0])}"
        if random.random() < 0.3:
            more += ", max_retry_interval=timedelta(seconds=4)"
        return (
            f"task.RetryPolicy(first_retry_interval=timedelta(seconds={random.randint(1, 3)}), "
            f"max_number_of_attempts={random.randint(1, 4)}{more})"
        )

    def _name(self, prefix: str) -> str:
        self._names += 1
        return f"{prefix}{self._names}"


def _indented(lines: Lines) -> Lines:
    return [textwrap.indent(line, "    ") for line in lines]
