"""The lines of upstream's log that say too little, too much or the wrong thing: lowered, shortened or left out.

One filter on the worker's logger, and no patch of upstream.  The option `reword_upstream_log=False` switches it off.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

_YIELDED = re.compile(r": Orchestrator \S+ yielded with \d+ task")
_UNKNOWN = re.compile(r"\b([Oo]rchestrat(?:or|ion)) <unknown>")
_RPC_ERROR = re.compile(
    r"<_\w+ of RPC that terminated with:\s+status = StatusCode\.(\w+)\s+details = \"(.*?)\"\s.*?\n>", re.DOTALL
)
_CONNECTED = "Created fresh connection"
_NOT_CONNECTED = "Failed to create connection"
_RETRYING = "Connection failed, retrying"
_UNAVAILABLE_INTERVAL = 30.0
_STREAM_ERROR = "Error in work item stream: "


class UpstreamLogFilter(logging.Filter):
    """Rewords records of upstream's worker.

    - That an orchestrator waits, once for each turn, is logged at `DEBUG` and not at `INFO`.
    - `<unknown>` in place of the name, in the first turn of each instance, is left out.
    - An error of gRPC takes one line, with its status and its message.
    - That the engine cannot be reached is logged once in half a minute, and not twice for each attempt.
    - That the stream of work items has ended, because the worker stops, is no `WARNING`: it is left out.
    """

    def __init__(self, is_stopping: Callable[[], bool]) -> None:
        super().__init__()
        self._is_stopping = is_stopping
        self._unavailable_until = 0.0
        """Until when, on the monotonic clock, failed attempts to connect are not logged again."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Reword a record; called by `logging`.

        Returns:
            Whether it is logged.
        """
        if not isinstance(record.msg, str):
            return True
        if record.levelno >= logging.WARNING:
            return self._reword_warning(record)
        if record.levelno in (logging.DEBUG, logging.INFO):
            message = record.getMessage()
            if message.startswith(_CONNECTED):
                self._unavailable_until = 0.0
            if _YIELDED.search(message):
                record.levelno, record.levelname = logging.DEBUG, logging.getLevelName(logging.DEBUG)
            if "<unknown>" in message:
                record.msg, record.args = _UNKNOWN.sub(r"\1", message), None
        return True

    def _reword_warning(self, record: logging.LogRecord) -> bool:
        # Upstream formats its messages itself; records with arguments are this project's.
        if record.args:
            return True
        message: str = record.msg
        if message.startswith(_STREAM_ERROR) and self._is_stopping():
            return False
        if message.startswith(_RETRYING):
            return False
        if message.startswith(_NOT_CONNECTED):
            now = time.monotonic()
            if now < self._unavailable_until:
                return False
            self._unavailable_until = now + _UNAVAILABLE_INTERVAL
        if "of RPC that terminated with" in message:
            record.msg = _RPC_ERROR.sub(r"\1: \2", message)
        return True
