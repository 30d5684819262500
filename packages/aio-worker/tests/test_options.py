"""The options of a worker: one list, from which the signature, the validation and the documentation are made."""

from __future__ import annotations

import dataclasses
import inspect
from datetime import timedelta
from typing import Any

import pytest
from durabletask.aio.worker import AsyncOrchestratorMixin, TaskHubGrpcWorker, WorkerOptions
from durabletask.worker import TaskHubGrpcWorker as UpstreamWorker
from worker_support import QUIET

from durabletask_aio.worker import options
from durabletask_aio.worker.options import OPTIONS, Settings


def settings(**options: Any) -> Settings:
    given: WorkerOptions = options  # type: ignore[assignment]
    return Settings.checked(given, generator_sessions=True)


class TestTheSignature:
    def test_has_upstreams_keywords_and_every_option_with_its_default(self) -> None:
        shown = inspect.signature(TaskHubGrpcWorker).parameters

        assert [*shown] == [*inspect.signature(UpstreamWorker).parameters, *OPTIONS]
        assert {name: shown[name].default for name in OPTIONS} == {
            "sandbox_mode": None,
            "max_extended_sessions": None,
            "extended_session_idle_timeout": 300.0,
            "shadow_replay_rate": 0.0,
            "on_divergence": "retry",
            "stop_grace_period": 10.0,
            "slow_turn_warning": 2.0,
            "turn_timeout": None,
            "history_size_warning": 5000,
            "reword_upstream_log": True,
        }
        assert shown["stop_grace_period"].annotation == float | timedelta

    def test_of_the_mixin_passes_on_the_keywords_of_the_other_class(self) -> None:
        shown = inspect.signature(AsyncOrchestratorMixin).parameters

        assert [*shown] == ["args", *OPTIONS, "keywords"]

    def test_is_that_of_the_types(self) -> None:
        """The options that a type checker sees are those that are checked and used."""
        assert [*OPTIONS] == [*WorkerOptions.__annotations__]
        assert {field.name for field in dataclasses.fields(Settings)} - {"generator_sessions"} == {*OPTIONS}

    def test_leaves_an_unknown_keyword_to_upstream(self) -> None:
        with pytest.raises(TypeError, match="unexpected keyword argument 'max_session'"):
            TaskHubGrpcWorker(logger=QUIET, max_session=3)  # type: ignore[call-arg]


class TestValues:
    def test_of_what_happens_to_a_diverged_instance_are_two(self) -> None:
        assert settings(on_divergence="fail").on_divergence == "fail"
        with pytest.raises(ValueError, match=r"^on_divergence must be 'retry' or 'fail', not 'ignore'$"):
            settings(on_divergence="ignore")

    def test_of_durations_are_seconds_or_timedeltas(self) -> None:
        assert settings(stop_grace_period=timedelta(minutes=2)).stop_grace_period == 120.0
        assert settings(stop_grace_period=3).stop_grace_period == 3.0

    def test_may_be_none_for_warnings(self) -> None:
        without = settings(slow_turn_warning=None, history_size_warning=None)

        assert (without.slow_turn_warning, without.history_size_warning) == (None, None)

    @pytest.mark.parametrize(
        ("option", "value", "error", "message"),
        [
            ("max_extended_sessions", -1, ValueError, "max_extended_sessions must not be negative, got -1"),
            ("max_extended_sessions", 1.5, TypeError, "max_extended_sessions must be an int, not float"),
            ("extended_session_idle_timeout", -1, ValueError, "extended_session_idle_timeout must not be negative"),
            ("stop_grace_period", "1", TypeError, "stop_grace_period must be seconds or a timedelta, not str"),
            ("slow_turn_warning", True, TypeError, "slow_turn_warning must be seconds or a timedelta, not bool"),
            ("turn_timeout", 0, ValueError, "turn_timeout must be positive, got 0"),
            ("shadow_replay_rate", 2, ValueError, "shadow_replay_rate must be between 0 and 1, got 2"),
            ("shadow_replay_rate", "0.1", TypeError, "shadow_replay_rate must be a number, not str"),
            ("history_size_warning", -5, ValueError, "history_size_warning must not be negative, got -5"),
        ],
    )
    def test_that_are_not_allowed_are_errors_that_name_the_option(
        self, option: str, value: Any, error: Any, message: str
    ) -> None:
        keywords: dict[str, Any] = {option: value}
        with pytest.raises(error, match=f"^{message}"):
            TaskHubGrpcWorker(logger=QUIET, **keywords)


class TestTheEnvironment:
    def test_sets_the_default_number_of_sessions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DT_MAX_EXTENDED_SESSIONS", "7")

        assert settings().max_extended_sessions == 7
        assert settings(max_extended_sessions=3).max_extended_sessions == 3

    def test_a_wrong_value_is_an_error_that_names_the_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DT_MAX_EXTENDED_SESSIONS", "many")

        with pytest.raises(ValueError, match=r"^DT_MAX_EXTENDED_SESSIONS must be a whole number .*, got 'many'$"):
            TaskHubGrpcWorker(logger=QUIET)


def test_every_option_is_documented_where_it_is_listed() -> None:
    import ast

    module = ast.parse(inspect.getsource(options))
    definition: Any = next(each for each in module.body if getattr(each, "name", "") == "WorkerOptions")
    documented = [
        ast.unparse(item.target)
        for item, text in zip(definition.body, definition.body[1:], strict=False)
        if isinstance(item, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    ]

    assert documented == [*OPTIONS]
