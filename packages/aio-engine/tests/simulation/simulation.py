"""A deterministic simulation of an engine with its clients and workers: one seed decides everything.

The engine is real: kernel, commands, transitions, dispatch and store.  Threads, network, disk and time are simulated.
A simulation is a list of steps, each a number from which all that happens in the step is derived; so a failing list can
be shortened by leaving out steps (see `shrink`), and the rest remains as it was.
"""

from __future__ import annotations

import json
import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from invariants import Tables, Violation, check_dispatcher, check_is_over, check_store, expect
from model import Model, operation_key, sent_operations
from simulated_programs import CHILDREN, ENTITIES, EVENT_NAMES, ROOTS, SECOND, Programs, Weights
from simulated_store import Crash, FaultyConnection, SimulatedStore, connect
from simulated_workers import Answer, SimulatedWorker
from simulated_workflows import Problem

from durabletask_aio.engine import events, transitions, turns
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.clock import SystemClock
from durabletask_aio.engine.commands import InstanceNotFoundError, Transaction
from durabletask_aio.engine.kernel import BatchWork, EngineBusyError, Kernel, TaskWork, TurnWork
from durabletask_aio.engine.state import StartInstance
from durabletask_aio.engine.streams import ACTIVITY, WORK_KINDS, Lease, Names, WorkerStream, WorkKind
from durabletask_aio.engine.tokens import BatchToken, TurnToken
from durabletask_aio.engine.transitions import CONTINUED_AS_NEW, SUSPENDED, TERMINAL

T = TypeVar("T")

GAP = 1_000_000

STEPS = 60
"""Steps of a simulation, without those that follow once faults stop."""

MAX_FINAL_ROUNDS = 2000

_REFUSALS = (
    InstanceNotFoundError,
    transitions.InstanceExistsError,
    transitions.NotAllowedError,
    EngineBusyError,
)
"""What a client may be answered."""

Command = Callable[[Transaction], Any]


class SimulatedKernel(Kernel):
    """A kernel that reports what it does."""

    def __init__(self, simulation: Simulation, *arguments: Any, **settings: Any) -> None:
        self.simulation = simulation
        self.is_loaded = False
        super().__init__(*arguments, **settings)
        self.is_loaded = True

    def _publish(self, transactions: list[Transaction]) -> None:
        for transaction in transactions:
            self.simulation.model.touched.update(transaction.touched)
            if not self.is_loaded:
                self.simulation.set_aside(transaction)
        try:
            super()._publish(transactions)
        except Exception as error:
            self.simulation.failure = error
            raise

    def _prepare(self, lease: Lease) -> TurnWork | TaskWork | BatchWork | None:
        try:
            prepared = super()._prepare(lease)
            if isinstance(prepared, TaskWork):
                found = self.store.task(prepared.task.seq) == prepared.task
                expect(found, "an activity is given to a worker that is not to be done any more")
        except Exception as error:
            # The engine logs it.
            self.simulation.failure = error
            raise
        return prepared


class Simulation:
    """One simulation at work."""

    def __init__(self, seed: int, steps: Sequence[int] | None = None) -> None:
        rng = random.Random(seed)
        self.seed = seed
        planned = [rng.getrandbits(32) for _ in range(STEPS)]
        self.steps = planned if steps is None else list(steps)
        self.log: list[str] = []
        self.rng = random.Random(seed)
        self.fails = True
        self.monotonic_time, self.wall_offset = 0, 1_000_000 * SECOND
        self.model = Model()
        self.ids = random.Random(seed + 1)
        self.connection = connect()
        self.synced: tuple[FaultyConnection, Model] | None = None
        """What a power cut leaves."""
        self.happened: set[str] = set()
        self.focus = rng.choice(_FOCUSES)
        self.clock_step = rng.choice([0, 1])
        self.settings = {
            "turn_lease": rng.choice([5.0, 60.0]),
            "activity_lease": rng.choice([None, 10.0]),
            "reconnect_period": rng.choice([0.0, 10.0]),
        }
        self.workers = [self._worker(rng, number) for number in range(rng.randint(1, 3))]
        self.streams: list[WorkerStream] = []
        self.excess: dict[WorkerStream, int] = {}
        self.store: SimulatedStore
        self.kernel: SimulatedKernel
        self.life = 0
        self.failure: Exception | None = None
        """An error in a part of the engine that continues after errors."""
        self._start_engine()
        for worker in self.workers:
            if worker.is_remote:
                self._connect(worker)

    def _worker(self, rng: random.Random, number: int) -> SimulatedWorker:
        is_remote = rng.random() >= 0.2 * self.focus.get("in_process", 1)
        is_pulled = rng.random() < 0.15
        limits = {kind: rng.choice([1, 2, 5]) for kind in WORK_KINDS if rng.random() < 0.7 and not is_pulled}
        names: dict[WorkKind, Names] = {}
        if rng.random() < 0.2:
            names[ACTIVITY] = {rng.choice(["work", "flaky"]): frozenset[str]()}
        return SimulatedWorker(rng.choice(["", f"w{number}"]), limits, names, is_remote, is_pulled)

    # -- time and ids ----------------------------------------------------------------------------------------------

    def monotonic(self) -> float:
        self.monotonic_time += self.clock_step
        return self.monotonic_time / SECOND

    def wall(self) -> float:
        return (self.monotonic_time + self.wall_offset) / SECOND

    def new_id(self) -> str:
        return f"{self.ids.getrandbits(64):016x}"

    # -- the engine ------------------------------------------------------------------------------------------------

    def _start_engine(self) -> None:
        self.life += 1
        self.store = SimulatedStore(self.connection, self.model.begin, self.model.commit, self.life * GAP)
        clock = SystemClock(Kernel.last_time(self.store), wall=self.wall, monotonic=self.monotonic)
        self.kernel = SimulatedKernel(
            self, self.store, clock, new_id=self.new_id, monotonic=self.monotonic, **self.settings
        )
        self.streams = []
        for worker in self.workers:
            if worker.is_remote:
                worker.stream = None
            else:
                worker.die()
                self._connect(worker)

    def set_aside(self, transaction: Transaction) -> None:
        """The engine has suspended an instance whose turns it takes for what has ended the process."""
        self.happened.add("set aside")
        for instance_id in transaction.touched:
            self.note(f"{instance_id} is set aside")
            self.model.lives[instance_id].control = "suspend"

    def _restart(self) -> None:
        self.store.crash()
        self._start_engine()
        self.check_everything()

    @property
    def tables(self) -> Tables:
        return Tables(self.store)

    def _connect(self, worker: SimulatedWorker, *, says_what_it_holds: bool = False) -> None:
        stream = worker.connect()
        self.streams.append(stream)
        holding = worker.holding() if says_what_it_holds else None
        lost = self.kernel.open_stream(stream, holding)
        if self.rng.random() < 0.5:
            worker.drop(lost)
        if holding is not None:
            # Two streams, one after the other, may have given it more than one may.
            self.excess[stream] = len(holding)

    def _disconnect(self, worker: SimulatedWorker) -> None:
        assert worker.stream is not None
        self.kernel.close_stream(worker.stream)
        worker.stream = None

    def execute(self, command: Command) -> Any:
        """Run a command of a client or a worker; returns its result, or what it was refused with."""
        try:
            return self.kernel.execute(command)
        except _REFUSALS as refusal:
            if isinstance(refusal, EngineBusyError):
                self.happened.add("not written")
            return refusal

    def _noted(self, command: Callable[[Transaction], T], note: Callable[[T], None] = lambda result: None) -> Command:
        def run(transaction: Transaction) -> T:
            result = command(transaction)
            self.model.after(transaction)
            note(result)
            return result

        return run

    # -- steps -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run all steps, then stop the faults and wait until everything has ended.

        Raises:
            Violation: if an invariant does not hold.
            Problem: if a worker was given something wrong.
        """
        logger = logging.getLogger("durabletask.aio.engine")
        level = logger.level
        logger.setLevel(logging.CRITICAL + 1)
        try:
            for number, step in enumerate(self.steps):
                self.rng = random.Random(step)
                name = self._choose(_STEPS)
                self.log.append(f"{number}: {name}")
                self._step(name)
                self.check(everything=number % 16 == 15)
            self.log.append("no more faults")
            self._finish()
        finally:
            logger.setLevel(level)
            self.connection.close()
            if self.synced is not None:
                self.synced[0].close()

    def _step(self, name: str) -> None:
        try:
            _STEPS[name][1](self)
        except Crash:
            self.log.append(f"the engine crashes {self.store.crashes_at} a commit")
            self.happened.add(f"crash {self.store.crashes_at} a commit")
            self._restart()

    def note(self, text: str) -> None:
        self.log.append(f"    {text}")

    # Clients

    def command(self) -> None:
        command = self._client_command()
        self.note(f"-> {self.execute(command)}")

    def group(self) -> None:
        """Several commands wait for one transaction."""
        futures = [self.kernel.submit(self._client_command()) for _ in range(self.rng.randint(2, 4))]
        answers = [each for worker in self.workers for each in worker.answers]
        if answers and self.rng.random() < 0.5:
            answer = self.rng.choice(answers)
            futures.append(self.kernel.submit(self._completion(answer)))
        if self.rng.random() < 0.2:
            self.disk()
        self._serve()
        for future in futures:
            expect(future.done(), "a command of a group gets no answer")
            error = future.exception()
            if isinstance(error, Crash):
                raise error
            if error is not None and not isinstance(error, _REFUSALS):
                raise error
            self.note(f"-> {error or future.result()}")

    def _client_command(self) -> Command:
        return _COMMANDS[self._choose(_COMMANDS)][1](self)

    def _choose(self, among: Mapping[str, tuple[float, object]]) -> str:
        weights = [weight * self.focus.get(name, 1) for name, (weight, _) in among.items()]
        return self.rng.choices(list(among), weights=weights)[0]

    def _any_id(self) -> str:
        ids = [*ROOTS, *CHILDREN]
        if self.rng.random() < 0.3:
            ids = list(self.model.lives) or ids
        return self.rng.choice(ids)

    def _ended_id(self) -> str:
        """Return the id of an instance that has ended, mostly."""
        ended = [key for key, life in self.model.lives.items() if life.status in TERMINAL]
        return self.rng.choice(ended) if ended and self.rng.random() < 0.8 else self._any_id()

    def start(self) -> Command:
        instance_id = self.rng.choice(ROOTS)
        replaceable = self.rng.choice([frozenset[int](), TERMINAL, TERMINAL, TERMINAL | {transitions.RUNNING}])
        delay = self.rng.choice([None, None, None, 2 * SECOND, -SECOND])
        scheduled_at = None if delay is None else self.kernel.clock.now() + delay
        program = json.dumps(Programs(self.rng, self.focus).program())
        self.note(f"start {instance_id} {program}")
        message = StartInstance(
            instance_id, "program", input=program, scheduled_at=scheduled_at, replaceable=replaceable
        )
        return self._noted(lambda transaction: transaction.start_instance(message))

    def raise_event(self) -> Command:
        instance_id, name, data = self._any_id(), self.rng.choice(EVENT_NAMES), self.new_id()
        self.note(f"raise {name} {data} to {instance_id}")
        return self._noted(
            lambda transaction: transaction.raise_event(instance_id, name, data),
            lambda _: self.model.raise_event(instance_id, data),
        )

    def suspend(self) -> Command:
        instance_id = self._any_id()
        self.note(f"suspend {instance_id}")
        return self._noted(
            lambda transaction: transaction.suspend(instance_id, None),
            lambda _: self.model.control(instance_id, "suspend"),
        )

    def resume(self) -> Command:
        instance_id = self._any_id()
        self.note(f"resume {instance_id}")
        return self._noted(
            lambda transaction: transaction.resume(instance_id, None),
            lambda _: self.model.control(instance_id, "resume"),
        )

    def terminate(self) -> Command:
        instance_id, recurse = self._any_id(), self.rng.random() < 0.5
        self.note(f"terminate {instance_id}, recurse={recurse}")
        return self._noted(
            lambda transaction: transaction.terminate(instance_id, None, recurse),
            lambda _: self.model.terminate(instance_id),
        )

    def terminate_now(self) -> Command:
        instance_id = self._any_id()
        self.note(f"terminate {instance_id} at once")
        return self._noted(lambda transaction: transaction.terminate_now(instance_id, None))

    def rewind(self) -> Command:
        failed = [key for key, life in self.model.lives.items() if life.status == transitions.FAILED]
        roots = [each for each in failed if each in ROOTS]
        if roots and self.rng.random() < 0.7:
            failed = roots
        instance_id = self.rng.choice(failed) if failed else self._any_id()
        self.note(f"rewind {instance_id}")
        return self._noted(lambda transaction: transaction.rewind_instance(instance_id, None))

    def restart(self) -> Command:
        instance_id, new_id = self._ended_id(), self.rng.choice([None, "r0"])
        self.note(f"restart {instance_id} as {new_id}")
        return self._noted(lambda transaction: transaction.restart_instance(instance_id, new_id))

    def purge(self) -> Command:
        instance_id, recursive = self._ended_id(), self.rng.random() < 0.5
        self.note(f"purge {instance_id}, recursive={recursive}")

        def note(count: int) -> None:
            if count:
                self.happened.add("purged")

        return self._noted(lambda transaction: transaction.purge(instance_id, recursive=recursive), note)

    def signal(self) -> Command:
        entity_id, key = self.rng.choice(ENTITIES), self.new_id()
        operation = self.rng.choice(["add", "add", "delete", "forward", "start"])
        due = self.kernel.clock.now() + self.rng.choice([-SECOND, SECOND]) if self.rng.random() < 0.3 else None
        event = events.signal(self.kernel.clock.now(), entity_id, operation, key, events.string_value(key))
        self.note(f"signal {entity_id} {operation} {key}")
        return self._noted(
            lambda transaction: transaction.signal_entity(entity_id, event, due),
            lambda _: self.model.send(entity_id, key),
        )

    def clean_entities(self) -> Command:
        self.note("clean entities")

        def check(result: tuple[int, int]) -> None:
            expect(result[1] == 0, f"{result[1]} entities were locked by executions that are over")

        return self._noted(
            lambda transaction: transaction.clean_entities(remove_empty=True, release_orphaned=True), check
        )

    # Workers

    def work(self) -> None:
        """Let a worker take items, run some and answer."""
        for _ in range(self.rng.randint(1, 3)):
            worker = self.rng.choice(self.workers)
            while worker.receive(self.kernel) and self.rng.random() < 0.5:
                pass
            if worker.work:
                self._work_on(worker, worker.work.pop(self.rng.randrange(len(worker.work))))

    def _work_on(self, worker: SimulatedWorker, item: pb.WorkItem) -> None:
        answer = worker.run(item, self.rng, fails=self.fails)
        fate = self.rng.choices(["sent", "later", "lost", "twice", "abandoned"], weights=[75, 12, 4, 5, 4])[0]
        self.note(f"{self._describe(answer)} is {fate}")
        self.happened.add(f"answer {fate}")
        if fate == "abandoned":
            self.kernel.abandon(answer.token.lease)
        elif fate != "lost":
            if fate != "sent":
                worker.answers.append(answer)
            if fate != "later":
                self.send(worker, answer)

    def deliver(self) -> None:
        """An answer arrives late."""
        workers = [each for each in self.workers if each.answers]
        if workers:
            worker = self.rng.choice(workers)
            answer = worker.answers.pop(self.rng.randrange(len(worker.answers)))
            self.note(f"{self._describe(answer)} arrives late")
            self.send(worker, answer)

    def _describe(self, answer: Answer) -> str:
        token = answer.token
        if isinstance(answer.response, pb.OrchestratorResponse) and isinstance(token, TurnToken):
            actions = [each.WhichOneof("orchestratorActionType") for each in answer.response.actions]
            return f"turn of {token.instance_id} {actions}"
        if isinstance(token, BatchToken):
            return f"batch of {token.entity_id}"
        return f"activity {answer.request.activityRequest.input.value}"

    def send(self, worker: SimulatedWorker, answer: Answer) -> None:
        """Deliver an answer to the engine; the worker keeps it if the engine cannot take it."""
        try:
            counted = self.kernel.complete(answer.token.lease, self._completion(answer))
        except EngineBusyError as error:
            self.note(f"-> {error}")
            worker.answers.append(answer)
        except Crash:
            if self.rng.random() < 0.7:
                worker.answers.append(answer)
            raise
        else:
            if not counted:
                self.note("-> it does not count")
                self.happened.add("stale answer")

    def _completion(self, answer: Answer) -> Command:
        token, response = answer.token, answer.response

        def complete(transaction: Transaction) -> bool:
            if isinstance(token, TurnToken):
                assert isinstance(response, pb.OrchestratorResponse)
                return self._complete_turn(transaction, token, response, answer.request.orchestratorRequest)
            if isinstance(token, BatchToken):
                assert isinstance(response, pb.EntityBatchResult)
                return self._complete_batch(transaction, token, response, answer.request.entityRequestV2)
            assert isinstance(response, pb.ActivityResponse)
            counted = transaction.complete_activity(token, response)
            self.model.after(transaction)
            return counted

        return complete

    def _complete_turn(
        self,
        transaction: Transaction,
        token: TurnToken,
        response: pb.OrchestratorResponse,
        request: pb.OrchestratorRequest,
    ) -> bool:
        before = transaction.store.instance(token.instance_id)
        counted = transaction.complete_turn(token, response)
        if not counted:
            return False
        assert before is not None
        after = transaction.store.instance(token.instance_id)
        is_resumed = any(event.HasField("executionResumed") for event in request.newEvents)
        is_terminated = after is not None and after.status == transitions.TERMINATED
        if before.status == SUSPENDED and is_terminated and not is_resumed:
            # What a suspended instance has asked for is in its history, and its worker does not see that.
            response = pb.OrchestratorResponse()
        continued = any(each.completeOrchestration.orchestrationStatus == CONTINUED_AS_NEW for each in response.actions)
        self.model.after(transaction, continued=token.instance_id if continued else "")
        if continued:
            self.happened.add("continued as new")
        for entity_id, key in sent_operations(response):
            self.model.send(entity_id, key)
        children = {each.createSubOrchestration.instanceId for each in response.actions}
        for action in response.actions:
            if action.HasField("sendEvent"):
                target, data = action.sendEvent.instance.instanceId, action.sendEvent.data.value
                # One that is started by this turn, too, gets the event if it came later.
                if target not in children or self._has_event(transaction, target, data):
                    self.model.raise_event(target, data)
            if action.sendEntityMessage.HasField("entityUnlockSent"):
                self.happened.add("locked")
            if action.HasField("rewindOrchestration"):
                self.happened.add("rewound")
                self._note_rewind(transaction, token, action.rewindOrchestration)
        return True

    @staticmethod
    def _has_event(transaction: Transaction, instance_id: str, data: str) -> bool:
        instance = transaction.store.instance(instance_id)
        return instance is not None and any(data.encode() in each.event for each in transaction.store.inbox(instance))

    def _note_rewind(self, transaction: Transaction, token: TurnToken, action: pb.RewindOrchestrationAction) -> None:
        """Calls whose answer did not find the instance running are made once more."""
        for event in turns.unanswered(action.newHistory):
            if event.HasField("entityOperationCalled"):
                call = event.entityOperationCalled
                key, target = call.input.value, call.targetInstanceId.value
                waiting = [
                    operation_key(pb.HistoryEvent.FromString(each.event))
                    for each in transaction.store.operations(target)
                ]
                executed = self.model.executed.get(target, Counter())[key]
                if self.model.sent[target][key] < executed + waiting.count(key):
                    self.model.send(target, key)

    def _complete_batch(
        self, transaction: Transaction, token: BatchToken, result: pb.EntityBatchResult, request: pb.EntityRequest
    ) -> bool:
        before = {each.seq: each for each in transaction.store.operations(token.entity_id)}
        entity = transaction.store.entity(token.entity_id)
        counted = transaction.complete_batch(token, result)
        if not counted:
            return False
        assert entity is not None
        after = {each.seq for each in transaction.store.operations(token.entity_id)}
        executed = [each for seq, each in before.items() if seq not in after]
        keys = [operation_key(pb.HistoryEvent.FromString(each.event)) for each in executed]
        given = [operation_key(each) for each in request.operationRequests]
        expect(keys == given[: len(keys)], f"a batch of {given} has executed {keys}")
        for key in keys:
            self.model.execute(token.entity_id, key)
        if entity.lock is not None:
            others = {each.execution_id for each in executed} - {entity.lock.execution_id}
            expect(not others, f"{token.entity_id} is locked, and has executed operations of others")
        for action in result.actions:
            if action.HasField("sendSignal"):
                self.model.send(action.sendSignal.instanceId, action.sendSignal.input.value)
        self.model.after(transaction)
        return True

    def stream(self) -> None:
        """A stream ends or a worker comes back."""
        worker = self.rng.choice(self.workers)
        if worker.stream is None:
            self._reconnect(worker)
        elif self.rng.random() < 0.3:
            # The connection is new, and the engine has not noticed the end of the old one.
            self.happened.add("came back before its end was noticed")
            old = worker.stream
            self._reconnect(worker)
            if self.rng.random() < 0.3:
                # Another one was on its way for longer, and comes too late.
                late = WorkerStream(worker.limits, worker.names, worker.name, worker.connections - 1)
                self.kernel.open_stream(late, frozenset())
                self.kernel.close_stream(late)
            self.kernel.close_stream(old)
        else:
            self.note(f"the stream of {worker.name or 'an unknown worker'} ends")
            self.happened.add("stream ended")
            self._disconnect(worker)
            if self.rng.random() < 0.5:
                self._reconnect(worker)
            elif self.rng.random() < 0.3:
                worker.die()

    def _reconnect(self, worker: SimulatedWorker) -> None:
        says = self.rng.random() < 0.6
        if says and worker.holding():
            self.happened.add("came back and said what it held")
        self.note(f"{worker.name or 'an unknown worker'} comes back" + (" and says what it holds" if says else ""))
        self._connect(worker, says_what_it_holds=says)

    # Time and faults

    def tick(self) -> None:
        self._serve()

    def _serve(self) -> None:
        """Do what the engine's thread does; it logs an error, and continues a second later."""
        try:
            self.kernel._serve_once()
        except EngineBusyError as error:
            self.note(f"-> {error}")

    def clock(self) -> None:
        """Time passes, or the wall clock is set."""
        if self.rng.random() < 0.1:
            self.happened.add("clock set")
            self.wall_offset += self.rng.choice([-3600, -5, 5, 3600]) * SECOND
        due = self.store.next_due()
        if due is not None and self.rng.random() < 0.6:
            self.monotonic_time += max(due - self.kernel.clock.now(), 0)
        else:
            self.monotonic_time += self.rng.choice([1, SECOND // 10, SECOND, 7 * SECOND, 70 * SECOND])
        self._serve()

    def crash(self) -> None:
        """The engine ends at its next commit, or now."""
        self.store.crashes_at = self.rng.choice(["before", "after", "outside of"])
        if self.store.crashes_at == "outside of":
            raise Crash

    def sync(self) -> None:
        """What has been committed by now is on the disk."""
        if self.synced is not None:
            self.synced[0].close()
        self.synced = connect(), self.model.copy()
        self.connection.backup(self.synced[0])

    def power_cut(self) -> None:
        """Commits that are not on the disk are undone, as they may be with `durability="os"`."""
        if self.synced is None:
            return
        self.happened.add("power cut")
        self.store.crash()
        self.connection.close()
        disk, model = self.synced
        self.connection, self.model = connect(), model.copy()
        disk.backup(self.connection)
        self._start_engine()
        self.check_everything()

    def disk(self) -> None:
        """A statement or a commit fails."""
        self.connection.fails_in = self.rng.randint(0, 12)
        self.connection.rolls_back = self.rng.random() < 0.7

    # -- the end ---------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Stop the faults: everything must end."""
        self.store.crashes_at = self.connection.fails_in = None
        self.fails = False
        for worker in self.workers:
            for answer in worker.answers:
                self.send(worker, answer)
            if worker.stream is not None:
                self._disconnect(worker)
        self.monotonic_time += 100 * SECOND
        self._serve()
        self.workers = [SimulatedWorker("", dict.fromkeys(WORK_KINDS, 3), {})]
        self._connect(self.workers[0])
        self._wait_for_the_end()
        # Activities do not fail any more, so what has failed can go further, with its children.
        for instance_id, life in list(self.model.lives.items()):
            if life.status == transitions.FAILED and instance_id in ROOTS:
                self._rewind(instance_id)
        self._wait_for_the_end()
        for worker in self.workers:
            self._disconnect(worker)

    def _wait_for_the_end(self) -> None:
        for _ in range(MAX_FINAL_ROUNDS):
            if not self._finish_some():
                break
            self.check()
        else:
            raise Violation("it never ends")
        self.check_everything()
        check_is_over(self.kernel, self.tables)

    def _finish_some(self) -> bool:
        """Do what can be done; returns whether there was anything."""
        (worker,) = self.workers
        self._serve()
        if worker.receive(self.kernel):
            answer = worker.run(worker.work.pop(), self.rng, fails=False)
            self.note(self._describe(answer))
            self.send(worker, answer)
            return True
        if self.kernel.dispatcher._paused:
            self.monotonic_time += SECOND
            return True
        for instance in self.tables.instances():
            if instance.status == SUSPENDED:
                self._resume(instance.instance_id)
                return True
        due = self.store.next_due()
        if due is None:
            return False
        self.monotonic_time += max(due - self.kernel.clock.now(), 0) + 1
        return True

    def _rewind(self, instance_id: str) -> None:
        self.note(f"rewind {instance_id}")
        self.execute(self._noted(lambda transaction: transaction.rewind_instance(instance_id, None)))

    def _resume(self, instance_id: str) -> None:
        self.note(f"resume {instance_id}")
        self.execute(
            self._noted(
                lambda transaction: transaction.resume(instance_id, None),
                lambda _: self.model.control(instance_id, "resume"),
            )
        )

    # -- checks ----------------------------------------------------------------------------------------------------

    def check(self, *, everything: bool = False) -> None:
        """Check the invariants of what has changed."""
        if self.failure is not None:
            raise self.failure
        if everything:
            self.check_everything()
            return
        tables = self.tables
        touched = sorted(self.model.touched)
        self.model.touched.clear()
        for instance_id in touched:
            self.model.check_instance(tables, instance_id)
        check_dispatcher(self.kernel, tables, {each: self.excess.get(each, 0) for each in self.streams})

    def check_everything(self) -> None:
        """Check all invariants."""
        tables = self.tables
        self.model.touched.clear()
        for instance in tables.instances():
            is_known = instance.instance_id in self.model.lives
            expect(is_known, f"{instance.instance_id} exists and was never started")
        for instance_id in list(self.model.lives):
            self.model.check_instance(tables, instance_id)
        self.model.check_operations(tables)
        self.model.check_purged(tables)
        check_store(tables)
        check_dispatcher(self.kernel, tables, {each: self.excess.get(each, 0) for each in self.streams})


_STEPS: dict[str, tuple[float, Callable[[Simulation], None]]] = {
    "work": (46, Simulation.work),
    "command": (22, Simulation.command),
    "group": (4, Simulation.group),
    "deliver": (7, Simulation.deliver),
    "stream": (5, Simulation.stream),
    "tick": (4, Simulation.tick),
    "clock": (8, Simulation.clock),
    "disk": (2, Simulation.disk),
    "sync": (1, Simulation.sync),
    "power_cut": (0.7, Simulation.power_cut),
    "crash": (2, Simulation.crash),
}
_COMMANDS: dict[str, tuple[float, Callable[[Simulation], Command]]] = {
    "start": (10, Simulation.start),
    "raise_event": (6, Simulation.raise_event),
    "suspend": (3, Simulation.suspend),
    "resume": (4, Simulation.resume),
    "terminate": (1.5, Simulation.terminate),
    "terminate_now": (1, Simulation.terminate_now),
    "rewind": (4, Simulation.rewind),
    "restart": (1.5, Simulation.restart),
    "purge": (2, Simulation.purge),
    "signal": (4, Simulation.signal),
    "clean_entities": (0.5, Simulation.clean_entities),
}


_FOCUSES: list[Weights] = [
    {},
    {"activities": 3, "child": 15, "fan_out": 6, "rewind": 8, "terminate_now": 0, "terminate": 0.3, "work": 1.5},
    {"lock": 8, "activities": 2, "fail": 2, "rewind": 4},
    {"race": 15, "fail": 8, "fan_out": 3, "rewind": 15, "terminate_now": 0, "terminate": 0.3},
    {"group": 6, "disk": 8},
    {"continue": 5, "suspend": 4, "resume": 4, "raise_event": 2, "terminate": 3},
    {"crash": 10, "in_process": 5, "start": 2, "terminate_now": 6, "work": 0.6},
    {"sync": 6, "power_cut": 8, "raise_event": 6, "deliver": 4, "signal": 4, "wait": 4, "activities": 2},
    {"crash": 4, "clock": 5, "activities": 4, "fan_out": 4, "work": 0.5},
    {"stream": 5, "deliver": 2, "clock": 2},
    {"child": 6, "continue": 2, "purge": 6, "restart": 4, "terminate": 3},
    {"call": 5, "signal": 8, "clean_entities": 6, "lock": 2},
]
"""What happens more often in a simulation."""


# -- running and shrinking -----------------------------------------------------------------------------------------


class SimulationFailed(AssertionError):
    """A seed has failed; the message has the shortest list of steps that still fails."""


def failure_of(seed: int, steps: Sequence[int] | None = None) -> tuple[Exception | None, Simulation]:
    """Run a simulation; returns how it fails, `None` if it does not."""
    simulation = Simulation(seed, steps)
    try:
        simulation.run()
    except Exception as error:
        return error, simulation
    return None, simulation


def run_seed(seed: int) -> Simulation:
    """Run the simulation of a seed.

    Raises:
        SimulationFailed: if it fails.
    """
    error, simulation = failure_of(seed)
    if error is None:
        return simulation
    steps = shrink(seed, simulation.steps, type(error))
    error, shortest = failure_of(seed, steps)
    assert error is not None
    log = "\n".join(shortest.log[-200:])
    raise SimulationFailed(
        f"{type(error).__name__}: {error}\n\nsimulation.run_steps({seed}, {steps})\n\n{log}"
    ) from error


def run_steps(seed: int, steps: Sequence[int]) -> Simulation:
    """Run the steps of a failure that has been printed."""
    simulation = Simulation(seed, steps)
    simulation.run()
    return simulation


def shrink(seed: int, steps: Sequence[int], kind: type[Exception]) -> list[int]:
    """Return as few of the steps as possible that still fail in the same way."""
    current, size = list(steps), max(len(steps) // 2, 1)
    while True:
        place, is_shorter = 0, False
        while place < len(current):
            shorter = current[:place] + current[place + size :]
            if isinstance(failure_of(seed, shorter)[0], kind):
                current, is_shorter = shorter, True
            else:
                place += size
        if not is_shorter:
            if size == 1:
                return current
            size = max(size // 2, 1)


FAILURES = (Violation, Problem, SimulationFailed)
"""What a defect of the engine shows as."""
