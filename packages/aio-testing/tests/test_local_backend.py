"""The server: where it listens, how it starts and stops, whom it keeps waiting."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from durabletask.client import AsyncTaskHubGrpcClient, OrchestrationStatus, TaskHubGrpcClient

from durabletask_aio.engine.store import StoreError
from durabletask_aio.testing import local_backend as start_backend
from durabletask_aio.worker.worker import TaskHubGrpcWorker

psutil = pytest.importorskip("psutil")


def echo(context, value):
    return value


def orchestrator(context, value):
    return (yield context.call_activity(echo, input=value))


def wait_for_event(context, _):
    return (yield context.wait_for_external_event("go"))


def sleeper(context, seconds):
    yield context.create_timer(timedelta(seconds=seconds))
    return "awake"


def plain(text):
    """gRPC binds IPv4 addresses in their IPv6 form."""
    address = ipaddress.ip_address(text)
    return str(getattr(address, "ipv4_mapped", None) or address)


def listening_addresses(port):
    return {
        plain(connection.laddr.ip)
        for connection in psutil.Process().net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    }


class TestStartAndStop:
    def test_it_listens_on_loopback_only(self, local_backend):
        addresses = listening_addresses(local_backend.port)
        assert "127.0.0.1" in addresses
        assert addresses <= {"127.0.0.1", "::1"}

    def test_both_families_have_the_port_where_there_are_both(self, local_backend):
        try:
            with socket.create_server(("::1", 0), family=socket.AF_INET6):
                pass
        except OSError:
            pytest.skip("this machine has no ::1")
        assert listening_addresses(local_backend.port) == {"127.0.0.1", "::1"}

    def test_two_engines_at_once_have_two_ports(self):
        with start_backend() as one, start_backend() as other:
            assert one.port != other.port

    def test_a_port_in_use_is_named(self, local_backend):
        with pytest.raises(OSError, match=rf"port {local_backend.port} on localhost is in use by another program"):
            start_backend(local_backend.port).start()

    def test_a_port_taken_on_the_other_address_family_is_in_use_too(self):
        try:
            taken = socket.create_server(("::1", 0), family=socket.AF_INET6)
        except OSError:
            pytest.skip("this machine has no ::1")
        with taken, pytest.raises(OSError, match="in use by another program"):
            start_backend(taken.getsockname()[1]).start()

    def test_the_address_before_the_start_is_an_error_that_says_how_to_start(self):
        with pytest.raises(RuntimeError, match=r"has not been started; write `with local_backend\(\) as backend:`"):
            _ = start_backend().address

    def test_start_and_stop_may_be_called_twice(self):
        backend = start_backend()
        assert backend.start().port == backend.start().port
        backend.stop()
        backend.stop()

    async def test_it_is_an_async_context_manager_too(self):
        async with start_backend() as backend, AsyncTaskHubGrpcClient(host_address=backend.address) as client:
            assert await client.get_orchestration_state("nobody") is None
        assert listening_addresses(backend.port) == set()

    def test_no_thread_is_left_behind(self):
        before = set(threading.enumerate())
        with start_backend() as backend, TaskHubGrpcClient(host_address=backend.address) as client:
            client.schedule_new_orchestration("nobody serves this")
        left = {each.name for each in set(threading.enumerate()) - before}
        assert not {name for name in left if name.startswith("durabletask-aio")}

    def test_stopped_and_started_again_it_has_the_same_port_and_has_lost_nothing(
        self, local_backend, client, grpc_worker, wait_until
    ):
        grpc_worker(orchestrators=[wait_for_event, sleeper])
        waiting = client.schedule_new_orchestration(wait_for_event)
        sleeping = client.schedule_new_orchestration(sleeper, input=1)
        client.wait_for_orchestration_start(waiting)
        client.wait_for_orchestration_start(sleeping)
        port = local_backend.port

        local_backend.stop()
        assert listening_addresses(port) == set()
        local_backend.start()

        assert local_backend.port == port
        with TaskHubGrpcClient(host_address=local_backend.address) as other:  # the first one is still backing off
            other.raise_orchestration_event(waiting, "go", data="on")
            wait_until(
                lambda: set(local_backend.instances().values()) == {OrchestrationStatus.COMPLETED},
                "the worker to return",
            )
            outputs = [other.get_orchestration_state(each).get_output() for each in (waiting, sleeping)]
        assert outputs == ["on", "awake"]

    def test_instances_in_memory_can_be_looked_at_while_it_is_stopped(self, local_backend, client):
        client.schedule_new_orchestration("nobody serves this", instance_id="one")
        local_backend.stop()
        assert local_backend.instances() == {"one": OrchestrationStatus.PENDING}
        assert len(local_backend.history("one")) == 0
        local_backend.reset()
        assert local_backend.start().instances() == {}


class TestFile:
    def test_another_backend_continues_with_what_is_in_the_file(self, tmp_path):
        path = tmp_path / "instances.db"
        with start_backend(db=path) as first, TaskHubGrpcClient(host_address=first.address) as client:
            client.schedule_new_orchestration(orchestrator, input=3, instance_id="one")
            assert first.path == str(path)
        with start_backend(db=path) as second, TaskHubGrpcClient(host_address=second.address) as client:
            assert second.instances() == {"one": OrchestrationStatus.PENDING}
            with TaskHubGrpcWorker(host_address=second.address) as worker:
                worker.add_orchestrator(orchestrator)
                worker.add_activity(echo)
                worker.start()
                assert client.wait_for_orchestration_completion("one", timeout=60).get_output() == 3
            assert len(second.history("one")) == 8

    def test_two_backends_on_one_file_are_one_too_many(self, tmp_path):
        error = pytest.raises(StoreError, match=r"one\.db is in use by another engine of this process")
        with start_backend(db=tmp_path / "one.db"), error:
            start_backend(db=tmp_path / "one.db").start()
        start_backend(db=tmp_path / "one.db").start().stop()

    def test_a_port_in_use_leaves_the_file_to_others(self, tmp_path, local_backend):
        with pytest.raises(OSError, match="in use by another program"):
            start_backend(local_backend.port, db=tmp_path / "one.db").start()
        with start_backend(db=tmp_path / "one.db") as backend:
            assert backend.instances() == {}

    def test_a_stopped_backend_has_its_file_closed_and_says_so(self, tmp_path):
        with start_backend(db=tmp_path / "one.db") as backend:
            pass
        for use in (backend.instances, backend.reset, lambda: backend.history("one")):
            with pytest.raises(RuntimeError, match="the local engine does not run, so its file is not open"):
                use()


class TestWaiting:
    def test_fifty_waiting_clients_do_not_starve_the_worker(self, local_backend, client, grpc_worker):
        instance_ids = [client.schedule_new_orchestration(wait_for_event) for _ in range(50)]
        with ThreadPoolExecutor(50) as pool:
            waits = [pool.submit(client.wait_for_orchestration_completion, each, timeout=120) for each in instance_ids]
            # The worker comes last: its stream must still find a thread.
            grpc_worker(orchestrators=[wait_for_event, orchestrator], activities=[echo])
            other = client.schedule_new_orchestration(orchestrator, input="done")
            assert client.wait_for_orchestration_completion(other, timeout=60).get_output() == "done"
            for number, instance_id in enumerate(instance_ids):
                client.raise_orchestration_event(instance_id, "go", data=number)
            assert [each.result().get_output() for each in waits] == list(range(50))

    def test_a_wait_for_an_instance_that_does_not_exist_is_answered_at_once(self, client):
        assert client.wait_for_orchestration_start("nobody", timeout=600) is None
        assert client.wait_for_orchestration_completion("nobody", timeout=600) is None

    def test_a_client_that_gave_up_leaves_no_waiter_behind(self, local_backend, client, wait_until):
        instance_id = client.schedule_new_orchestration("nobody serves this")
        with pytest.raises(TimeoutError):
            client.wait_for_orchestration_completion(instance_id, timeout=1)
        wait_until(lambda: local_backend.kernel.watcher_count == 0, "the waiter to go")


class TestTimers:
    def test_two_hundred_timers_share_one_thread(self, local_backend, client, grpc_worker, wait_until):
        def many(context, _):
            from durabletask.task import when_all

            yield when_all([context.create_timer(timedelta(seconds=3)) for _ in range(200)])
            return "all"

        def timer_threads():
            return {each for each in threading.enumerate() if "timer" in each.name}

        # An engine that another test has just stopped may still be there, and that of this test may not have begun.
        before = timer_threads()
        grpc_worker(orchestrators=[many])
        instance_id = client.schedule_new_orchestration(many)
        wait_until(
            lambda: sum(event.HasField("timerCreated") for event in local_backend.history(instance_id).protobuf) == 200,
            "the timers to be set",
        )
        assert len(timer_threads() - before) <= 1
        assert threading.active_count() < 60
        assert client.wait_for_orchestration_completion(instance_id, timeout=60).get_output() == "all"

    def test_no_thread_watches_a_sub_orchestration(self, local_backend, client, grpc_worker, wait_until):
        def parent(context, _):
            return (yield context.call_sub_orchestrator(wait_for_event, instance_id="child"))

        def watching_threads():
            return {each for each in threading.enumerate() if "(watch)" in each.name}  # as upstream's are called

        before = watching_threads()  # An engine of upstream's that another test has just stopped may still be there.
        grpc_worker(orchestrators=[parent, wait_for_event])
        instance_id = client.schedule_new_orchestration(parent)
        wait_until(lambda: "child" in local_backend.instances(), "the child")
        assert watching_threads() <= before
        client.raise_orchestration_event("child", "go", data=1)
        assert client.wait_for_orchestration_completion(instance_id, timeout=60).get_output() == 1


class TestLooking:
    def test_instances_by_id_with_their_status(self, local_backend, client, grpc_worker):
        grpc_worker(orchestrators=[orchestrator, wait_for_event], activities=[echo])
        client.schedule_new_orchestration(wait_for_event, instance_id="b")
        client.schedule_new_orchestration(orchestrator, instance_id="a", input=1)
        client.wait_for_orchestration_completion("a", timeout=60)
        client.wait_for_orchestration_start("b", timeout=60)
        assert list(local_backend.instances().items()) == [
            ("b", OrchestrationStatus.RUNNING),
            ("a", OrchestrationStatus.COMPLETED),
        ]

    def test_every_event_of_a_history_says_when_it_happened(self, local_backend, client, grpc_worker):
        grpc_worker(orchestrators=[orchestrator], activities=[echo])
        instance_id = client.schedule_new_orchestration(orchestrator, input=1)
        client.wait_for_orchestration_completion(instance_id, timeout=60)
        history = local_backend.history(instance_id).protobuf
        assert len(history) == 8
        assert all(event.timestamp.seconds for event in history)

    def test_an_unknown_instance_is_named_with_those_there_are(self, local_backend, client):
        client.schedule_new_orchestration("any", instance_id="known")
        with pytest.raises(KeyError, match="no instance 'other' on the local engine; there are: known"):
            local_backend.history("other")

    def test_reset_forgets_instances_and_timers(self, local_backend, client, grpc_worker):
        grpc_worker(orchestrators=[sleeper, orchestrator], activities=[echo])
        instance_id = client.schedule_new_orchestration(sleeper, input=3600)
        client.wait_for_orchestration_start(instance_id, timeout=60)
        local_backend.reset()
        assert local_backend.instances() == {}
        # The worker is still connected.
        again = client.schedule_new_orchestration(orchestrator, input=2)
        assert client.wait_for_orchestration_completion(again, timeout=60).get_output() == 2

    def test_messages_may_be_larger_than_four_mebibytes(self, local_backend, grpc_worker):
        from durabletask.grpc_options import GrpcChannelOptions

        large = GrpcChannelOptions(max_receive_message_length=-1, max_send_message_length=-1)
        grpc_worker(orchestrators=[orchestrator], activities=[echo], channel_options=large)
        payload = "x" * (5 * 1024 * 1024)
        with TaskHubGrpcClient(host_address=local_backend.address, channel_options=large) as client:
            instance_id = client.schedule_new_orchestration(orchestrator, input=payload)
            assert client.wait_for_orchestration_completion(instance_id, timeout=60).get_output() == payload


def test_a_program_that_forgets_to_stop_the_engine_still_ends():
    program = (
        "from durabletask_aio.testing import local_backend\n"
        "backend = local_backend().start()\n"
        "print(backend.address, flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            address = process.stdout.readline().decode().strip()
            with TaskHubGrpcClient(host_address=address) as client, ThreadPoolExecutor(1) as pool:
                instance_id = client.schedule_new_orchestration("nobody serves this")
                waiting = pool.submit(client.wait_for_orchestration_completion, instance_id, timeout=300)
                process.stdin.write(b"\n")
                process.stdin.flush()
                assert process.wait(60) == 0
                assert waiting.exception(60) is not None
        finally:
            process.kill()


async def test_a_hundred_async_waits_are_served_together(local_backend, grpc_worker):
    grpc_worker(orchestrators=[wait_for_event])
    async with AsyncTaskHubGrpcClient(host_address=local_backend.address) as client:
        ids = [await client.schedule_new_orchestration(wait_for_event) for _ in range(100)]
        waits = [asyncio.ensure_future(client.wait_for_orchestration_completion(each, timeout=90)) for each in ids]
        await asyncio.sleep(0)
        for each in ids:
            await client.raise_orchestration_event(each, "go", data=each)
        assert [state.get_output() for state in await asyncio.gather(*waits)] == ids


def test_a_negative_period_is_refused():
    with pytest.raises(ValueError, match="reconnect_period=-1 is negative"):
        start_backend(reconnect_period=-1)
