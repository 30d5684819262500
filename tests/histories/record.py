"""Records the histories of a version: `python tests/histories/record.py 0.2`.

Run it once with each Python of `scenarios.PYTHONS`, in an environment that has the four packages (in the version that
is about to be released) and anyio:

    python3.10 -m venv env310
    env310/bin/pip install anyio ./packages/aio-core ./packages/aio-sandbox ./packages/aio-worker ./packages/aio-testing
    env310/bin/python tests/histories/record.py 0.2

It writes `tests/histories/0.2/SCENARIO.pyVERSION.json`, one file for each execution of each instance that is kept:
the second execution is `SCENARIO.2.pyVERSION.json`, a sub-orchestration `SCENARIO-child.pyVERSION.json`.  Files that
exist are left alone, since they stand for instances in flight; `--again` replaces them, for a set that is not released
yet.  `--only NAME` records one scenario.  Folders of older versions stay, and are still replayed.

`workflows.sha256` in the folder holds the number of lines of `workflows.py` and their digest: these lines may not
change any more.

What is recorded is what the real worker is sent and answers over gRPC: an interceptor of the worker's channel keeps
each work item and each answer.  Each scenario has an engine and a worker of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import logging
import platform
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parents[1]))

import grpc
from durabletask.aio.testing import History, local_backend
from durabletask.aio.worker import TaskHubGrpcWorker
from durabletask.client import AsyncTaskHubGrpcClient
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend
from histories import workflows
from histories.recording import HERE, ORDER, Facts, Recording, Turn, canonical, fingerprint
from histories.replaying import continued, difference, full_replays
from histories.scenarios import PYTHONS, Scenario, scenarios_of

PYTHON = ".".join(platform.python_version_tuple()[:2])
PACKAGES = ("durabletask", "durabletask-aio-core", "durabletask-aio-sandbox", "durabletask-aio-worker", "anyio")
ENDED = ("COMPLETED", "FAILED", "TERMINATED")


class Tap(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Keeps the turns that go over a worker's channel: what the engine sent, and what the worker answered."""

    def __init__(self) -> None:
        self._sent: dict[tuple[str, str], pb.OrchestratorRequest] = {}
        self.turns: dict[str, list[tuple[pb.OrchestratorRequest, pb.OrchestratorResponse]]] = {}
        """The turns of each instance, in the order of their answers."""

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        stream = continuation(client_call_details, request)
        return _Observed(stream, self._note) if client_call_details.method.endswith("/GetWorkItems") else stream

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        if client_call_details.method.endswith("/CompleteOrchestratorTask"):
            sent = self._sent.pop((request.instanceId, request.completionToken))
            answer = pb.OrchestratorResponse()
            answer.CopyFrom(request)
            self.turns.setdefault(request.instanceId, []).append((sent, answer))
        return continuation(client_call_details, request)

    def _note(self, item: pb.WorkItem) -> None:
        if item.HasField("orchestratorRequest"):
            kept = pb.OrchestratorRequest()
            kept.CopyFrom(item.orchestratorRequest)
            self._sent[kept.instanceId, item.completionToken] = kept


class _Observed:
    """A stream that shows what it yields."""

    def __init__(self, stream: Any, note: Any) -> None:
        self._stream = stream
        self._note = note

    def __iter__(self) -> Iterator[Any]:
        for item in self._stream:
            self._note(item)
            yield item

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Host:
    """What the steps of a scenario act on."""

    def __init__(self, client: AsyncTaskHubGrpcClient) -> None:
        self.client = client
        self.sleep = asyncio.sleep

    async def until(self, instance_id: str, *, says: Any = None, status: str | None = None) -> None:
        """Wait for a custom status, or for a status."""
        for _ in range(1500):
            state = await self.client.get_orchestration_state(instance_id)
            if state is not None and (
                (says is not None and state.serialized_custom_status == json.dumps(says))
                or (status is not None and state.runtime_status.name == status)
            ):
                return
            await asyncio.sleep(0.02)
        raise TimeoutError(f"{instance_id} did not get to {says or status}: {state}")

    async def end(self, instance_id: str) -> None:
        """Wait until the instance has ended."""
        # Not the client's own wait: upstream's engine would keep one of its ten threads busy with it.
        for _ in range(1500):
            state = await self.client.get_orchestration_state(instance_id)
            if state is not None and state.runtime_status.name in ENDED:
                return
            await asyncio.sleep(0.02)
        raise TimeoutError(f"{instance_id} did not end: {state}")


@contextmanager
def engine(name: str) -> Iterator[str]:
    """An engine of that name; its address."""
    if name == "local":
        with local_backend() as backend:
            yield backend.address
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    upstream = InMemoryOrchestrationBackend(port=port)
    try:
        yield upstream.start()
    finally:
        upstream.stop()


def worker_for(scenario: Scenario, address: str, tap: Tap) -> TaskHubGrpcWorker:
    """A worker with all functions.  On upstream's engine it keeps no sessions, so that every turn is a full replay."""
    options: dict[str, Any] = {} if scenario.engine == "local" else {"max_extended_sessions": 0}
    if scenario.timer_interval is not None:
        options["maximum_timer_interval"] = timedelta(seconds=scenario.timer_interval)
    worker = TaskHubGrpcWorker(host_address=address, interceptors=[tap], stop_grace_period=0.5, **options)
    if asyncio.iscoroutinefunction(scenario.workflow):
        worker.add_orchestrator(scenario.workflow, sandbox_mode=scenario.sandbox_mode)
    else:
        worker.add_orchestrator(scenario.workflow)
    for child in cast(list[Any], workflows.CHILDREN):
        worker.add_orchestrator(child)
    for activity in workflows.ACTIVITIES:
        worker.add_activity(activity)
    for entity in workflows.ENTITIES:
        worker.add_entity(entity)
    return worker


async def record(scenario: Scenario) -> list[tuple[str, Recording]]:
    """Run a scenario; the recordings with their file names."""
    workflows.attempts.clear()
    tap = Tap()
    instance_id = scenario.name
    with engine(scenario.engine) as address:
        worker = worker_for(scenario, address, tap)
        worker.start()
        client = AsyncTaskHubGrpcClient(host_address=address)
        try:
            host = Host(client)
            await client.schedule_new_orchestration(
                scenario.name,
                input=scenario.input,
                instance_id=instance_id,
                tags=scenario.tags,
                version=scenario.version,
            )
            for step in scenario.do:
                await step(host, instance_id)
            kept = {instance_id: scenario.workflow, **{instance_id + suffix: flow for suffix, flow in scenario.also}}
            for each in kept:
                if scenario.expected != "RUNNING":
                    await host.end(each)
            state = await client.get_orchestration_state(instance_id)
            if state is None or state.runtime_status.name != scenario.expected:
                raise AssertionError(f"{scenario.name} is {state}")
            histories = {each: await History.fetch(client, each) for each in kept}
        finally:
            await client.close()
            await asyncio.to_thread(worker.stop)
    found: list[tuple[str, Recording]] = []
    for each, workflow in kept.items():
        for number, turns in enumerate(executions(tap.turns[each]), 1):
            facts = facts_of(scenario, workflow.__name__)
            name = f"{each}{f'.{number}' if number > 1 else ''}.py{PYTHON.replace('.', '')}.json"
            found.append((name, recording_of(facts, turns, histories[each])))
    return found


def executions(turns: list[tuple[pb.OrchestratorRequest, pb.OrchestratorResponse]]) -> list[list[Any]]:
    """The turns by execution: a new one begins where the history is not that of the turn before with more events."""
    found: list[list[Any]] = []
    before: list[pb.HistoryEvent] | None = None
    for request, response in turns:
        past = list(request.pastEvents)
        if before is None or past[: len(before)] != before:
            found.append([])
        found[-1].append((request, response))
        before = past + list(request.newEvents)
    return found


def facts_of(scenario: Scenario, workflow: str) -> Facts:
    """What is noted about a recording, where it can be replayed included."""
    first, last = (scenario.since if scenario.since != PYTHONS[0] else None), None
    because = None if first is None else f"what it uses is there from Python {scenario.since} on"
    if scenario.changed is not None:
        because = scenario.because
        if ORDER.index(PYTHON) < ORDER.index(scenario.changed):
            last = ORDER[ORDER.index(scenario.changed) - 1]
        else:
            first = scenario.changed
    return Facts(
        scenario=scenario.name,
        workflow=workflow,
        python=platform.python_version(),
        packages={name: importlib.metadata.version(name) for name in PACKAGES},
        engine=scenario.engine,
        sandbox_mode=scenario.sandbox_mode if workflow == scenario.name else "off",
        timer_interval=scenario.timer_interval,
        needs=scenario.needs,
        first_python=first,
        last_python=last,
        because=because,
    )


def recording_of(facts: Facts, turns: list[Any], fetched: History) -> Recording:
    """The recording of one execution, whose history is that of its last turn and, if it is known, what came after."""
    request = turns[-1][0]
    events = [*request.pastEvents, *request.newEvents]
    if fetched.protobuf[: len(events)] == events:
        events = fetched.protobuf
    history = History.from_events(events, instance_id=request.instanceId)
    if History.from_json(history.to_json()).protobuf != events:
        raise AssertionError(f"{facts.scenario}: the format of histories does not hold all of this history")
    return Recording(
        facts,
        history,
        [
            Turn(
                len(sent.pastEvents),
                len(sent.newEvents),
                list(answer.actions),
                answer.customStatus.value if answer.HasField("customStatus") else None,
            )
            for sent, answer in turns
        ],
    )


def check(path: Path, recorded: Recording) -> None:
    """Check that a file holds every byte of what was recorded, replays, and contains no data of this machine."""
    recording = Recording.load(path)
    for written, turn in zip(recording.turns, recorded.turns, strict=True):
        if canonical(written.actions) != canonical(turn.actions):
            raise AssertionError(f"{path.name}: the format does not hold these actions: {turn.actions}")
    workflow = getattr(workflows, recording.facts.workflow)
    for replay in (full_replays, continued):
        for turn, answer in replay(recording, workflow):
            found = difference(turn, answer)
            if found:
                raise AssertionError(f"{path.name} does not replay ({replay.__name__}, turn at {turn.past}):\n{found}")
    text = path.read_text(encoding="utf-8")
    for private in (str(HERE), str(Path.home()), sys.prefix, sys.base_prefix, socket.gethostname()):
        if len(private) > 3 and private in text:
            raise AssertionError(f"{path.name} names this machine: {private}")


def main() -> int:
    """Record what belongs to the running Python."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", help="the folder to write to, as 0.2")
    parser.add_argument("--only", metavar="NAME", help="one scenario")
    parser.add_argument("--again", action="store_true", help="replace files that exist")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    problems = 0
    for scenario in scenarios_of(PYTHON):
        if options.only not in (None, scenario.name):
            continue
        path = HERE / options.version / f"{scenario.name}.py{PYTHON.replace('.', '')}.json"
        if path.exists() and not options.again:
            continue
        try:
            for name, recording in asyncio.run(record(scenario)):
                recording.save(path.with_name(name))
                check(path.with_name(name), recording)
                print(f"{name}: {len(recording.turns)} turns, {len(recording.history)} events")
        except Exception as error:
            problems += 1
            print(f"FAILED {scenario.name}: {type(error).__name__}: {error}")
    digest = HERE / options.version / "workflows.sha256"
    if options.again or not digest.exists():
        digest.write_text(fingerprint() + "\n", encoding="utf-8", newline="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
