"""The private names of `durabletask` we rely on are still there."""

from __future__ import annotations

import inspect

from durabletask_aio.testing import _upstream
from durabletask_aio.testing.engine import Engine
from durabletask_aio.testing.handouts import HandoutBackend
from durabletask_aio.testing.local import LocalEngine


def test_upstream_has_every_name_we_rely_on():
    assert _upstream.verify() == []


def test_a_missing_name_is_reported_in_a_sentence(monkeypatch):
    monkeypatch.setitem(_upstream._BACKEND_METHODS, "_gone", ())
    monkeypatch.setitem(_upstream._BACKEND_METHODS, "_enqueue_entity", ("entity",))
    monkeypatch.setattr(_upstream, "_BACKEND_STATE", ("_no_such_state",))
    monkeypatch.setattr(_upstream, "_CONTEXT_STATE", ("_no_such_thing",))
    assert _upstream.verify() == [
        "upstream's InMemoryOrchestrationBackend._enqueue_entity now takes (entity_id), we call it with (entity)",
        "upstream's InMemoryOrchestrationBackend no longer has the method _gone",
        "upstream's InMemoryOrchestrationBackend no longer keeps _no_such_state",
        "upstream's orchestration context no longer keeps _no_such_thing",
    ]


def test_every_private_method_we_override_is_on_the_list():
    upstream = _upstream.InMemoryOrchestrationBackend
    public = {"__init__", "start", "stop", "reset"}
    for ours in (HandoutBackend, Engine, LocalEngine):
        for name, member in vars(ours).items():
            if inspect.isfunction(member) and hasattr(upstream, name) and name not in public:
                assert name in _upstream._BACKEND_METHODS, name
