"""Proof that an execution is its own replay, wherever its history is cut.

The yardstick is one live execution that is fed the history event by event and never replays: what an engine with
extended sessions would keep.  Against it stand fresh replays, one for each cut, with another split into old and new
events each time, and on a heap that is stirred in between so that no two of them see the same addresses.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from random import Random
from typing import Any, NamedTuple

from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.worker import _OrchestrationExecutor, _Registry, _RuntimeOrchestrationContext
from turns import _QUIET, Instance, canonical, execute

from durabletask_aio.core.disposal import turn_scope

TRACES_VARIABLE = "DURABLETASK_AIO_TEST_TRACES"
"""Names a file to which :func:`assert_replays` appends a digest of each instance: compared between hash seeds."""

MAX_CUTS = 160
MAX_REPLAYED = 40_000
"""Histories of more events than the first are cut at so many places, spread evenly; and at fewer if together their
replays had to go through more events than the second."""


class Moment(NamedTuple):
    """What an execution would answer if its turn ended here."""

    actions: list[bytes]
    custom_status: str | None


class StirredHeap:
    """Garbage of random shapes and ages, so that objects made after it have other addresses than before."""

    def __init__(self, seed: object = 0) -> None:
        self._random = Random(f"heap/{seed}")
        self._kept: list[Any] = []

    def stir(self) -> None:
        random = self._random
        for _ in range(random.randint(1, 60)):
            size = random.randint(1, 40)
            self._kept.append([object() for _ in range(size)] if random.random() < 0.5 else bytearray(size * 16))
        random.shuffle(self._kept)
        del self._kept[random.randint(0, len(self._kept)) :]


def live(
    instance: Instance, cuts: Container[int], orchestrator: Callable[..., Any] | None = None
) -> Iterator[tuple[int, Moment]]:
    """Feed the history of ``instance`` to one live execution, and yield what it would answer at each of the cuts.

    Upstream's executor, but for its replaying from the beginning.
    """
    registry = _Registry()
    registry.add_named_orchestrator(instance.name, orchestrator or instance.orchestrator)
    executor = _OrchestrationExecutor(registry, _QUIET, instance.converter)
    executor._orchestration_name = instance.name
    context = _RuntimeOrchestrationContext(
        instance.instance_id, registry, maximum_timer_interval=timedelta(days=3), data_converter=instance.converter
    )
    context._is_replaying = False
    failed = False
    with turn_scope():
        for end, event in enumerate(instance.history, 1):
            if not failed:
                try:
                    executor.process_event(context, event)
                except Exception as error:
                    # As in upstream's execute(): the rest of the batch is not looked at.
                    context.set_failed(error)
                    failed = True
            if end not in cuts:
                continue
            sequence = context._sequence_number
            moment = Moment(canonical(context.get_actions()), context._encoded_custom_status)
            context._sequence_number = sequence  # get_actions takes a number when it continues as new
            yield end, moment


def replayed(instance: Instance, end: int, *, begin: int, orchestrator: Callable[..., Any] | None = None) -> Moment:
    """What a replay of the first ``end`` events answers, of which those from ``begin`` on are new."""
    again = execute(instance, instance.history[:begin], instance.history[begin:end], orchestrator=orchestrator)
    return Moment(canonical(again.actions), again.encoded_custom_status)


def assert_replays(
    instance: Instance, orchestrator: Callable[..., Any] | None = None, *, seed: object = 0
) -> dict[int, Moment]:
    """Assert that ``instance``, cut after any event of its history, is replayed to the very same actions.

    With an ``orchestrator``, that this one would have done what the instance's own did.  Returns what it would have
    answered at each cut.
    """
    random = Random(f"cuts/{seed}")
    heap = StirredHeap(seed)
    cuts = _cuts(instance)
    moments = dict(live(instance, {*cuts, *instance.cuts}, orchestrator))
    for end in cuts:
        begin = random.choice([end - 1, 0, random.randrange(end)])
        heap.stir()
        again = replayed(instance, end, begin=begin, orchestrator=orchestrator)
        assert again == moments[end], _difference(
            f"{instance.instance_id}: replayed up to event {end} (new from {begin})", again, moments[end]
        )
    for number, (end, actions) in enumerate(zip(instance.cuts, instance.turns, strict=True)):
        recorded = canonical(actions)
        assert moments[end].actions == recorded, _difference(
            f"{instance.instance_id}: turn {number}",
            moments[end],
            Moment(recorded, moments[end].custom_status),
        )
    _record(instance, list(moments.values()))
    return moments


def _cuts(instance: Instance) -> list[int]:
    size = len(instance.history)
    count = min(MAX_CUTS, max(4, 2 * MAX_REPLAYED // size))
    if size <= count:
        return list(range(1, size + 1))
    return sorted({1 + index * (size - 1) // (count - 1) for index in range(count)})


def _difference(what: str, again: Moment, expected: Moment) -> str:
    return f"{what}: the replay answers\n{readable(again)}\nand the execution answered\n{readable(expected)}"


def readable(moment: Moment) -> str:
    """The actions as text: for messages."""
    return "\n".join(
        [str(pb.OrchestratorAction.FromString(action)) for action in moment.actions]
        + [f"custom status: {moment.custom_status}"]
    )


def digest(moments: Sequence[Moment]) -> str:
    """A short name for a whole run, the same wherever the run was the same."""
    text = repr([(moment.actions, moment.custom_status) for moment in moments])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# -- every workflow of a test -----------------------------------------------------------------------------------------


@contextmanager
def recorded_instances() -> Iterator[list[Instance]]:
    """Collects the instances that are made inside of the block."""
    made: list[Instance] = []
    original = Instance.__init__

    def noted(self: Instance, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        made.append(self)

    Instance.__init__ = noted  # type: ignore[method-assign]
    try:
        yield made
    finally:
        Instance.__init__ = original  # type: ignore[method-assign]


def _record(instance: Instance, moments: Sequence[Moment]) -> None:
    path = os.environ.get(TRACES_VARIABLE)
    if path:
        test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps([test, instance.instance_id, digest(moments)]) + "\n")
