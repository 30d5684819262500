"""`ActivityContext`: what an activity is called with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from durabletask_aio.core import hosting
from durabletask_aio.worker._upstream import task


class ActivityContext(task.ActivityContext):
    """The first argument of an activity, sync or async: upstream's `ActivityContext` with more properties."""

    __module__ = "durabletask.aio.worker"

    def __init__(
        self, orchestration_id: str, task_id: int, name: str, tags: Mapping[str, str], stopping: Callable[[], bool]
    ) -> None:
        super().__init__(orchestration_id, task_id)
        self._name = name
        self._tags = dict(tags)
        self._stopping = stopping

    @property
    def name(self) -> str:
        """The name under which the activity was called."""
        return self._name

    @property
    def tags(self) -> dict[str, str]:
        """A copy of the tags of this call (`call_activity(..., tags=...)`), metadata included."""
        return dict(self._tags)

    @property
    def metadata(self) -> dict[str, str] | None:
        """The metadata of the calling workflow; `None` if it has none or the engine does not transport tags."""
        return hosting.metadata_from_tags(self._tags)

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records have the attributes `instance_id`, `activity_name` and `task_id`.

        Its name is `durabletask.aio.activity.NAME`, and its messages begin with instance id and task id. Without any
        configuration of `logging`, records from `INFO` on go to standard error.
        """
        facts = {"instance_id": self.orchestration_id, "activity_name": self._name, "task_id": self.task_id}
        return _ActivityLogger(logging.getLogger(f"durabletask.aio.activity.{self._name}"), facts)

    @property
    def is_cancellation_requested(self) -> bool:
        """Whether the worker is stopping.

        An async activity is cancelled when the grace period ends. A sync activity cannot be cancelled, and the worker
        waits for it, so a long one should read this property from time to time and return.
        """
        return self._stopping()


class _ActivityLogger(hosting.VisibleLogger):
    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        facts: Any = self.extra
        kwargs["extra"] = {**facts, **(kwargs.get("extra") or {})}
        return f"{facts['instance_id']}/{facts['task_id']}: {msg}", kwargs
