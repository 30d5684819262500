"""The private names of `durabletask` we rely on are still there."""

from __future__ import annotations

from durabletask_aio.testing import _upstream


def test_upstream_has_every_name_we_rely_on():
    assert _upstream.verify() == []


def test_a_missing_name_is_reported_in_a_sentence(monkeypatch):
    monkeypatch.setattr(_upstream, "_CONTEXT_STATE", ("_no_such_thing",))
    monkeypatch.delattr(_upstream._worker.TaskHubGrpcWorker, "_execute_entity_batch")
    assert _upstream.verify() == [
        "upstream's orchestration context no longer keeps _no_such_thing",
        "upstream's TaskHubGrpcWorker no longer has the method _execute_entity_batch",
    ]
