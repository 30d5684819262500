"""Asserts that an execution equals its own replay, wherever its history is cut.

One live execution on a `TurnExecutor` is fed the history event by event and never replays, as in a worker with extended
sessions.  It is compared with fresh replays on upstream's executor, one for each cut: each of them splits the events
into old and new ones at another place, and between them the heap is changed so that objects get other addresses.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from random import Random
from typing import Any, NamedTuple

from durabletask.internal import orchestrator_service_pb2 as pb
from turns import Instance, canonical, execute, new_executor

from durabletask_aio.core.hosting import TurnAborted, turn_scope

TRACES_VARIABLE = "DURABLETASK_AIO_TEST_TRACES"
"""Names a file to which `assert_replays` appends a digest of each instance; a test compares it between hash seeds."""

MAX_CUTS = 160
"""A longer history is cut at this many places, spread evenly."""

MAX_REPLAYED = 40_000
"""Maximum number of events that the replays of one instance process together; a longer history has fewer cuts."""


class Answer(NamedTuple):
    """What a turn that ends at some event answers."""

    actions: list[bytes]
    custom_status: str | None


class ShuffledHeap:
    """Allocates and frees objects at random, so that objects that are made later get other addresses."""

    def __init__(self, seed: object = 0) -> None:
        self._random = Random(f"heap/{seed}")
        self._kept: list[Any] = []

    def shuffle(self) -> None:
        random = self._random
        for _ in range(random.randint(1, 60)):
            size = random.randint(1, 40)
            self._kept.append([object() for _ in range(size)] if random.random() < 0.5 else bytearray(size * 16))
        random.shuffle(self._kept)
        del self._kept[random.randint(0, len(self._kept)) :]


class NoSteps:
    """The step runner of a replay, on which no step may run."""

    def submit(self, function: Callable[[], Any], *, is_async: bool, name: str) -> Future[Any]:
        raise AssertionError(f"step {name!r} was run on replay")


def live(
    instance: Instance, cuts: Container[int], orchestrator: Callable[..., Any] | None = None
) -> Iterator[tuple[int, Answer]]:
    """Feed the history of `instance` to one live execution.

    Args:
        instance: whose history it is.
        cuts: numbers of events.
        orchestrator: what to run instead of the instance's own.

    Yields:
        Each of the cuts, and what a turn that ends there answers.
    """
    executor = new_executor(instance, orchestrator)
    if instance.step_runner is not None:
        executor.step_runner = NoSteps()
        executor.remember(instance.history, ())
    executor.open(instance.instance_id)
    executor.set_replaying(False)
    context = executor.context
    failed = False
    with turn_scope():
        for end, event in enumerate(instance.history, 1):
            if not failed:
                # Not `feed`, which ignores what follows the end: confirmations, and events that are carried over.
                try:
                    executor.process_event(context, event)
                except Exception as error:
                    if not isinstance(error, TurnAborted):
                        executor.fail(error)
                    failed = True
            if end not in cuts:
                continue
            sequence = context._sequence_number
            answer = Answer(canonical(executor.take_actions()), context._encoded_custom_status)
            context._sequence_number = sequence  # taking the actions of a continue-as-new uses up a number
            yield end, answer


def replayed(instance: Instance, end: int, *, begin: int, orchestrator: Callable[..., Any] | None = None) -> Answer:
    """Return what a replay of the first `end` events answers, of which those from `begin` on are new."""
    past, new = instance.history[:begin], instance.history[begin:end]
    again = execute(instance, past, new, orchestrator=orchestrator, recorded=instance.history, runner=NoSteps())
    return Answer(canonical(again.actions), again.encoded_custom_status)


def assert_replays(
    instance: Instance, orchestrator: Callable[..., Any] | None = None, *, seed: object = 0
) -> dict[int, Answer]:
    """Assert that `instance`, cut after any event of its history, is replayed to the same actions.

    Args:
        instance: the instance, after its turns.
        orchestrator: what to run instead of the instance's own, and to compare with what that did.
        seed: of the places at which old and new events are split, and of the heap.

    Returns:
        What it answered at each cut.
    """
    random = Random(f"cuts/{seed}")
    heap = ShuffledHeap(seed)
    cuts = _cuts(instance)
    answers = dict(live(instance, {*cuts, *instance.cuts}, orchestrator))
    for end in cuts:
        begin = random.choice([end - 1, 0, random.randrange(end)])
        heap.shuffle()
        again = replayed(instance, end, begin=begin, orchestrator=orchestrator)
        assert again == answers[end], _difference(
            f"{instance.instance_id}: replayed up to event {end} (new from {begin})", again, answers[end]
        )
    for number, (end, actions) in enumerate(zip(instance.cuts, instance.turns, strict=True)):
        recorded = canonical(actions)
        assert answers[end].actions == recorded, _difference(
            f"{instance.instance_id}: turn {number}",
            answers[end],
            Answer(recorded, answers[end].custom_status),
        )
    if orchestrator is None:
        instance.asserted = len(instance.history)
    _record(instance, list(answers.values()))
    return answers


def _cuts(instance: Instance) -> list[int]:
    size = len(instance.history)
    count = min(MAX_CUTS, max(4, 2 * MAX_REPLAYED // size))
    if size <= count:
        return list(range(1, size + 1))
    return sorted({1 + index * (size - 1) // (count - 1) for index in range(count)})


def _difference(what: str, again: Answer, expected: Answer) -> str:
    return f"{what}: the replay answers\n{readable(again)}\nand the execution answered\n{readable(expected)}"


def readable(answer: Answer) -> str:
    """Return the actions as text, for messages."""
    return "\n".join(
        [str(pb.OrchestratorAction.FromString(action)) for action in answer.actions]
        + [f"custom status: {answer.custom_status}"]
    )


def digest(answers: Sequence[Answer]) -> str:
    """Return a hash of all answers of a run."""
    text = repr([(answer.actions, answer.custom_status) for answer in answers])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# -- every workflow of a test -----------------------------------------------------------------------------------------


@contextmanager
def recorded_instances() -> Iterator[list[Instance]]:
    """Collect the instances that are made inside of the block."""
    instances: list[Instance] = []
    original = Instance.__init__

    def recording_init(self: Instance, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        instances.append(self)

    Instance.__init__ = recording_init  # type: ignore[method-assign]
    try:
        yield instances
    finally:
        Instance.__init__ = original  # type: ignore[method-assign]


def _record(instance: Instance, answers: Sequence[Answer]) -> None:
    path = os.environ.get(TRACES_VARIABLE)
    if path:
        test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps([test, instance.instance_id, digest(answers)]) + "\n")
