"""What this package relies on in ``durabletask``; each failure says what to look at."""

from __future__ import annotations

import hashlib
import inspect
import textwrap
from types import SimpleNamespace
from typing import Any

import pytest
from durabletask import worker as upstream

from durabletask_aio.worker import _upstream
from durabletask_aio.worker.twins import twin as make_twin

# Of the sources with which this release was compared: durabletask 1.12.0.
EXECUTE_DIGESTS = {"7f5550cd5bc7514b"}
ACTIVITY_DIGESTS = {"954f8fdb1e532b83"}


def test_every_name_that_is_needed_is_there() -> None:
    assert _upstream.missing_names() == [], (
        "durabletask no longer has these names; adapt durabletask_aio.worker._upstream"
    )


def test_a_missing_name_is_told_in_one_sentence() -> None:
    module = SimpleNamespace(**vars(upstream))
    del module._AsyncWorkerManager
    module._ActivityExecutor = SimpleNamespace()

    with pytest.raises(
        ImportError, match=r"lacks _ActivityExecutor\.execute, _AsyncWorkerManager, which durabletask-aio"
    ):
        _upstream.self_check(module)


def test_execute_is_still_the_one_whose_end_we_repeat() -> None:
    source = textwrap.dedent(inspect.getsource(upstream._OrchestrationExecutor.execute))
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]

    assert digest in EXECUTE_DIGESTS, (
        "upstream changed _OrchestrationExecutor.execute: compare it with OrchestrationExecutor._continue in "
        f"durabletask_aio.worker._upstream, and then add {digest!r} here"
    )


def test_the_async_twin_of_execute_activity_is_still_up_to_date() -> None:
    sources = [
        textwrap.dedent(inspect.getsource(function))
        for function in (upstream.TaskHubGrpcWorker._execute_activity, upstream._ActivityExecutor.execute)
    ]
    digest = hashlib.sha256("".join(sources).encode()).hexdigest()[:16]

    assert digest in ACTIVITY_DIGESTS, (
        "upstream changed how activities are executed: compare it with Activities._respond, _run and _call in "
        f"durabletask_aio.worker.activities, and then add {digest!r} here"
    )


class TestTwins:
    def test_run_the_same_code_with_other_globals(self) -> None:
        twin = make_twin(uses_a_global, NAME="theirs")

        assert (uses_a_global(), twin()) == ("ours", "theirs")

    def test_keep_defaults(self) -> None:
        twin = make_twin(uses_a_global, NAME="theirs")

        assert twin.__kwdefaults__ == {"suffix": ""}  # type: ignore[attr-defined]
        assert twin(suffix="!") == "theirs!"

    def test_refuse_a_name_that_the_code_does_not_use(self) -> None:
        with pytest.raises(ImportError, match="uses_a_global of durabletask no longer uses OTHER"):
            make_twin(uses_a_global, OTHER="x")

    def test_change_nothing_of_upstream(self) -> None:
        before = dict(vars(upstream))
        _upstream.orchestrator_turn(lambda *args, **keywords: None)
        _upstream.activity_execution(lambda *args: None)  # type: ignore[arg-type, return-value]

        assert dict(vars(upstream)) == before


NAME = "ours"


def uses_a_global(*, suffix: str = "") -> Any:
    return NAME + suffix
