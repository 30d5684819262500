"""What users can switch: the sandbox mode, and the environment."""

import pytest
from durabletask.aio import SandboxMode, WorkflowValidationError

from durabletask_aio.core import settings


@pytest.mark.parametrize("mode", list(SandboxMode))
def test_members_and_strings_are_the_same_thing(mode):
    assert SandboxMode.parse(mode) is mode
    assert SandboxMode.parse(mode.value) is mode
    assert mode == mode.value
    assert str(mode) == f"{mode}" == mode.value


def test_the_values_are_the_specified_ones():
    assert [mode.value for mode in SandboxMode] == ["off", "best_effort", "strict"]


@pytest.mark.parametrize("value", ["Strict", "on", "", None, True, 1, ["off"]])
def test_anything_else_names_the_right_ones(value):
    with pytest.raises(WorkflowValidationError) as caught:
        SandboxMode.parse(value)
    assert str(caught.value) == (
        f"sandbox_mode={value!r} is not a sandbox mode; use one of 'off', 'best_effort', 'strict' or a member of "
        f"durabletask.aio.SandboxMode, as in sandbox_mode=SandboxMode.BEST_EFFORT"
    )


@pytest.mark.parametrize("variable", ["DAPR_WF_DEBUG", "DT_DEBUG"])
@pytest.mark.parametrize("value", ["true", "1", "yes", "on", "TRUE", "Yes", "oN", " true "])
def test_either_variable_switches_debugging_on(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    assert settings.debug_enabled()


@pytest.mark.parametrize("value", ["false", "0", "no", "off", "", "truth", "2"])
def test_other_values_leave_it_off(monkeypatch, value):
    monkeypatch.setenv("DAPR_WF_DEBUG", value)
    monkeypatch.setenv("DT_DEBUG", value)
    monkeypatch.setenv("DAPR_WF_DISABLE_DETECTION", value)
    assert not settings.debug_enabled()
    assert not settings.detection_disabled()


@pytest.mark.parametrize("value", ["true", "1", "YES", "On"])
def test_detection_can_be_disabled(monkeypatch, value):
    monkeypatch.setenv("DAPR_WF_DISABLE_DETECTION", value)
    assert settings.detection_disabled()


def test_the_step_budget_has_a_default_and_a_variable(monkeypatch):
    monkeypatch.delenv("DURABLETASK_AIO_STEP_BUDGET", raising=False)
    assert settings.step_budget() == 1_000_000
    monkeypatch.setenv("DURABLETASK_AIO_STEP_BUDGET", "5000")
    assert settings.step_budget() == 5000


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", ""])
def test_a_step_budget_that_is_none_is_refused(monkeypatch, value):
    monkeypatch.setenv("DURABLETASK_AIO_STEP_BUDGET", value)
    with pytest.raises(WorkflowValidationError, match="is not a positive whole number; unset it for 1,000,000"):
        settings.step_budget()
