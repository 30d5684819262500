"""The logger of a workflow, which is silent while the workflow replays, and where its records go by default."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from durabletask_aio.core.execution import Execution

    _Adapter = logging.LoggerAdapter[logging.Logger]
    _StreamHandler = logging.StreamHandler[TextIO]
else:
    _Adapter = logging.LoggerAdapter  # not subscriptable at run time before 3.11
    _StreamHandler = logging.StreamHandler

LOGGER_NAME = "durabletask.aio"


class _StandardError(_StreamHandler):
    """Writes to what `sys.stderr` is at that time; a test may have replaced it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self, logging.INFO)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class _Default(logging.Logger):
    """Takes the place of a logger that has no handler: writes to standard error, in the format of upstream's loggers.

    Upstream's worker writes its log to standard error from `INFO` on, without any configuration.  What workflows and
    activities log belongs next to it; `logging` would drop everything below `WARNING`.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, logging.INFO)
        handler = _StandardError()
        handler.setFormatter(
            logging.Formatter(
                "%(asctime)s.%(msecs)03d %(name)s %(levelname)s: %(message)s", datefmt="%Y-%m-%d %H:%M:%S"
            )
        )
        self.addHandler(handler)
        self.propagate = False


_defaults: dict[str, _Default] = {}


def configured(logger: logging.Logger) -> logging.Logger:
    """Return `logger` if the application has configured it, and otherwise a logger that writes to standard error.

    Configured is a logger with a handler, its own or one of a parent's (`logging.basicConfig` sets the root's), or with
    a level of its own.
    """
    current: logging.Logger | None = logger
    while current is not None:
        if current.handlers or current.disabled or (current.parent is not None and current.level):
            return logger
        current = current.parent if current.propagate else None
    found = _defaults.get(logger.name)
    if found is None:
        found = _defaults[logger.name] = _Default(logger.name)
    return found


class VisibleLogger(_Adapter):
    """An adapter of a logger that is visible without any configuration of `logging`; see `configured`."""

    @property
    def logger(self) -> logging.Logger:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The logger that records go to now."""
        return configured(self._named)

    @logger.setter
    def logger(self, logger: logging.Logger) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._named = logger


class ReplaySafeLogger(VisibleLogger):
    """Logs to `durabletask.aio`, or to the logger given, unless the workflow is replaying.

    Records carry `instance_id` and `workflow_name` as attributes, and their messages begin with both.  Without any
    configuration of `logging`, records from `INFO` on go to standard error.
    """

    def __init__(self, execution: Execution, logger: logging.Logger | None = None) -> None:
        extra = {"instance_id": execution.instance_id, "workflow_name": execution.workflow_name}
        super().__init__(logger or logging.getLogger(LOGGER_NAME), extra)
        self._execution = execution

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name that logging calls
        """Whether a record of this level would be logged now; never while the workflow is replaying."""
        return not self._execution.is_replaying and self.logger.isEnabledFor(level)

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        """Add workflow and instance to a message and its record; called by `logging`."""
        kwargs["extra"] = {**(self.extra or {}), **kwargs.get("extra", {})}
        return f"{self._execution.workflow_name} {self._execution.instance_id}: {msg}", kwargs
