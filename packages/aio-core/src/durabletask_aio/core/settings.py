"""Settings: the sandbox mode of a workflow, and the environment variables."""

from __future__ import annotations

import os
from enum import Enum
from typing import Any

from durabletask_aio.core.errors import WorkflowValidationError

DEBUG_VARIABLES = ("DAPR_WF_DEBUG", "DT_DEBUG")
DISABLE_DETECTION_VARIABLE = "DAPR_WF_DISABLE_DETECTION"
STEP_BUDGET_VARIABLE = "DURABLETASK_AIO_STEP_BUDGET"

DEFAULT_STEP_BUDGET = 1_000_000
"""Callbacks that may run between two waits: ten times what it takes to start and finish 10,000 tasks."""

_TRUE = frozenset({"1", "true", "yes", "on"})


class SandboxMode(str, Enum):
    """How the sandbox treats non-deterministic calls of a workflow.

    Members equal their values, so `"strict"` and `SandboxMode.STRICT` can be used interchangeably.
    """

    OFF = "off"
    """Nothing is checked, imported or run: the default, without cost."""

    BEST_EFFORT = "best_effort"
    """A [`NonDeterminismWarning`][durabletask.aio.NonDeterminismWarning] for each call site; calls of clock, random and
    uuid return deterministic values."""

    STRICT = "strict"
    """A [`SandboxViolationError`][durabletask.aio.SandboxViolationError]; the instance fails even if the workflow
    catches it."""

    def __str__(self) -> str:
        return self.value

    @classmethod
    def parse(cls, value: Any) -> SandboxMode:
        """Return the mode that `value` names.

        Args:
            value: a member or its string.

        Returns:
            The member.

        Raises:
            WorkflowValidationError: for anything else; the message lists the modes.
        """
        try:
            return cls(value)
        except ValueError:
            modes = ", ".join(repr(mode.value) for mode in cls)
            msg = (
                f"sandbox_mode={value!r} is not a sandbox mode; use one of {modes} or a member of "
                f"durabletask.aio.SandboxMode, as in sandbox_mode=SandboxMode.BEST_EFFORT"
            )
            raise WorkflowValidationError(msg) from None


def _is_true(variable: str) -> bool:
    return os.environ.get(variable, "").strip().lower() in _TRUE


def debug_enabled() -> bool:
    """Whether `DAPR_WF_DEBUG` or `DT_DEBUG` is `true`, `1`, `yes` or `on`, in any case."""
    return any(map(_is_true, DEBUG_VARIABLES))


def detection_disabled() -> bool:
    """Whether `DAPR_WF_DISABLE_DETECTION` switches the detection of non-determinism off for the whole process."""
    return _is_true(DISABLE_DETECTION_VARIABLE)


def step_budget() -> int:
    """Return the callbacks that may run between two waits: `DURABLETASK_AIO_STEP_BUDGET` or the default.

    Raises:
        WorkflowValidationError: if the variable holds anything but a positive whole number.
    """
    text = os.environ.get(STEP_BUDGET_VARIABLE)
    if text is None:
        return DEFAULT_STEP_BUDGET
    if not text.strip().isdecimal() or int(text) < 1:
        msg = f"{STEP_BUDGET_VARIABLE}={text!r} is not a positive whole number; unset it for {DEFAULT_STEP_BUDGET:,}"
        raise WorkflowValidationError(msg)
    return int(text)
