"""What the engine costs over gRPC, compared with a bare gRPC server that answers the same calls.

    python benchmarks/engine_floor.py [STEPS]

One raw client, without any worker, runs a chain of activities: for each step it receives a turn, answers it, receives
an activity and answers that.  The bare server makes up the same messages, with a history of the same length, and keeps
nothing.  Printed is the CPU time of the server's process per step, the median of five rounds that alternate.

Exits with 1 if the engine in memory takes more than LIMIT times what the bare server takes.
"""

# ruff: noqa: N802 - methods named as the RPCs they answer

from __future__ import annotations

import argparse
import multiprocessing
import queue
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
from durabletask.internal import helpers
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.internal import orchestrator_service_pb2_grpc as pb_grpc

LIMIT = 1.2
ROUNDS = 5
INSTANCE = "x" * 32


class BareServicer(pb_grpc.TaskHubSidecarServiceServicer):
    """Sends the messages of a chain of activities, and keeps nothing but the bytes of the history."""

    def __init__(self) -> None:
        self.ready: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.past = bytearray()
        self.steps = 0

    def StartInstance(self, request: Any, context: Any) -> Any:
        self.past.clear()
        self.steps = 0
        self.ready.put("turn")
        return pb.CreateInstanceResponse(instanceId=request.instanceId)

    def _turn(self) -> bytes:
        new = pb.OrchestratorRequest(newEvents=self._new_events()).SerializeToString()
        head = pb.OrchestratorRequest(instanceId=INSTANCE).SerializeToString()
        body = head + bytes(self.past) + new
        return _delimited(1, body) + pb.WorkItem(completionToken="t" * 60).SerializeToString()

    def _new_events(self) -> list[Any]:
        first = helpers.new_orchestrator_started_event()
        if self.steps == 0:
            return [first, helpers.new_execution_started_event("chain", INSTANCE, "1")]
        return [first, helpers.new_task_completed_event(self.steps, "1")]

    def _activity(self) -> bytes:
        request = pb.ActivityRequest(name="plain", taskId=self.steps + 1)
        request.orchestrationInstance.instanceId = INSTANCE
        request.input.value = "1"
        return pb.WorkItem(completionToken="t" * 60, activityRequest=request).SerializeToString()

    def GetWorkItems(self, request: Any, context: Any) -> Any:
        context.add_callback(lambda: self.ready.put(None))
        while (kind := self.ready.get()) is not None:
            yield self._turn() if kind == "turn" else self._activity()

    def CompleteOrchestratorTask(self, request: Any, context: Any) -> Any:
        events = self._new_events()
        for action in request.actions:
            if action.HasField("scheduleTask"):
                events.append(helpers.new_task_scheduled_event(action.id, "plain", "1"))
                self.ready.put("activity")
        events.append(helpers.new_orchestrator_completed_event())
        self.past += pb.OrchestratorRequest(pastEvents=events).SerializeToString()
        return pb.CompleteTaskResponse()

    def CompleteActivityTask(self, request: Any, context: Any) -> Any:
        self.steps += 1
        self.ready.put("turn")
        return pb.CompleteTaskResponse()


def _delimited(number: int, body: bytes) -> bytes:
    size, encoded = len(body), bytearray([number << 3 | 2])
    while size > 127:
        encoded.append(size & 127 | 128)
        size >>= 7
    encoded.append(size)
    return bytes(encoded) + body


class AsBytes(grpc.ServerInterceptor):
    """Lets the stream carry bytes, as the engine does."""

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = continuation(details)
        if not details.method.endswith("GetWorkItems"):
            return handler
        return grpc.unary_stream_rpc_method_handler(handler.unary_stream, handler.request_deserializer, bytes)


def serve(kind: str, pipe: Connection, folder: str) -> None:
    """Run a server until told to stop; answers "cpu" with the CPU time of the process."""
    stop: Any
    if kind == "bare":
        server = grpc.server(ThreadPoolExecutor(8), interceptors=[AsBytes()])
        pb_grpc.add_TaskHubSidecarServiceServicer_to_server(BareServicer(), server)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        stop = lambda: server.stop(0)  # noqa: E731
    else:
        from durabletask.aio.engine import Engine

        path = None if kind == "memory" else Path(folder, f"{kind}-{time.time_ns()}.db")
        engine = Engine(path, durability="os" if kind == "os" else "fsync").start()
        address = engine.listen().address
        stop = engine.stop
    pipe.send(address)
    while pipe.recv() == "cpu":
        pipe.send(time.process_time())
    stop()


def run_chain(stub: Any, channel: Any, steps: int) -> None:
    """Run one instance, as a worker would."""
    stream = stub.GetWorkItems(pb.GetWorkItemsRequest())
    stub.StartInstance(pb.CreateInstanceRequest(instanceId=INSTANCE, name="chain"))
    done = 0
    for item in stream:
        if item.HasField("orchestratorRequest"):
            response = pb.OrchestratorResponse(instanceId=INSTANCE, completionToken=item.completionToken)
            if done == steps:
                action = response.actions.add(id=done + 1)
                action.completeOrchestration.orchestrationStatus = pb.ORCHESTRATION_STATUS_COMPLETED
                stub.CompleteOrchestratorTask(response)
                break
            action = response.actions.add(id=done + 1)
            action.scheduleTask.name = "plain"
            action.scheduleTask.input.value = "1"
            stub.CompleteOrchestratorTask(response)
        elif item.HasField("activityRequest"):
            done += 1
            answer = pb.ActivityResponse(instanceId=INSTANCE, taskId=done, completionToken=item.completionToken)
            answer.result.value = "1"
            stub.CompleteActivityTask(answer)
    stream.cancel()


def measure(kind: str, steps: int, folder: str) -> float:
    """Return the CPU time of a server per step, in milliseconds."""
    context = multiprocessing.get_context("spawn")
    pipe, end = context.Pipe()
    process = context.Process(target=serve, args=(kind, end, folder), daemon=True)
    process.start()
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(pipe.recv(), options=options) as channel:
        stub = pb_grpc.TaskHubSidecarServiceStub(channel)
        stub.Hello(pb_grpc.google_dot_protobuf_dot_empty__pb2.Empty()) if kind != "bare" else None
        pipe.send("cpu")
        before = pipe.recv()
        run_chain(stub, channel, steps)
        pipe.send("cpu")
        spent: float = pipe.recv() - before
    pipe.send("stop")
    process.join(10)
    return spent / steps * 1000


def main() -> int:
    """Measure all kinds in turn, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="?", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    kinds = ("bare", "memory", "os", "fsync")
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for kind in kinds:
                found[kind].append(measure(kind, options.steps, folder))
    medians = {kind: statistics.median(each) for kind, each in found.items()}
    print(f"chain of {options.steps} activities, CPU of the server's process, ms per step:")
    for kind, median in medians.items():
        print(f"  {kind:7} {median:6.3f}  {median / medians['bare']:5.2f}x")
    return int(medians["memory"] > LIMIT * medians["bare"])


if __name__ == "__main__":
    sys.exit(main())
