"""What this package requires of `durabletask`, and what a user sees if it is missing."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from types import SimpleNamespace

import pytest

from durabletask_aio.engine import _upstream


def test_every_required_name_is_there() -> None:
    assert _upstream.missing_names() == [], (
        "durabletask no longer has these names; adapt durabletask_aio.engine._upstream"
    )


def test_missing_names_are_listed_in_one_sentence() -> None:
    methods = dict.fromkeys(_upstream.SERVICE.methods_by_name)
    del methods["RewindInstance"], methods["Hello"]
    service = SimpleNamespace(methods_by_name=methods)
    messages = SimpleNamespace(DESCRIPTOR=SimpleNamespace(services_by_name={"TaskHubSidecarService": service}))

    with pytest.raises(
        ImportError,
        match=r"lacks TaskHubSidecarService\.Hello, TaskHubSidecarService\.RewindInstance, which durabletask-aio-eng",
    ):
        _upstream.self_check(messages)


def test_a_missing_service_is_named() -> None:
    messages = SimpleNamespace(__name__="messages", DESCRIPTOR=SimpleNamespace(services_by_name={}))

    assert _upstream.missing_names(messages) == ["messages.TaskHubSidecarService"]


WITHOUT_CHANNEL = """
class Client:
    def __init__(self, host_address): ...
durabletask.client.TaskHubGrpcClient = Client
"""


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("del durabletask.client.AsyncTaskHubGrpcClient", "durabletask.client.AsyncTaskHubGrpcClient"),
        ("del stubs.TaskHubSidecarServiceStub", f"{_upstream.pb_grpc.__name__}.TaskHubSidecarServiceStub"),
        (WITHOUT_CHANNEL, "the parameter 'channel' of TaskHubGrpcClient"),
    ],
    ids=["client", "stub", "parameter"],
)
def test_a_missing_name_is_shown_when_the_facade_is_imported(change: str, named: str) -> None:
    program = (
        "import durabletask.client\nimport durabletask.internal.orchestrator_service_pb2_grpc as stubs\n"
        f"{change}\nimport durabletask.aio.engine"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert f"\nImportError: durabletask {version('durabletask')} lacks {named}, which durabletask-aio-" in done.stderr
