"""Instances whose turns end the process: they are found over restarts, and set aside.

A workflow that makes the interpreter crash, or takes all the memory, ends an engine in its process too, and its turn
would be dispatched first after each start.  What was being run when a process ended is not written, so the engine
narrows it down.  Each unclean end is counted for every instance that had a turn to run and has not committed it since.
From the second one on, such an instance is a suspect: its turn runs only while no other suspect's does, and the file
says whose it is.  If the process ends then, that instance is the one.  After `MAX_CRASHES` it is suspended, with the
reason in its history; everything else continues.

Only the end of a process in which a worker ran is counted: the workflows of workers elsewhere cannot end the engine.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from durabletask_aio.engine.commands import Transaction
from durabletask_aio.engine.state import Instance
from durabletask_aio.engine.transitions import SUSPENDED

if TYPE_CHECKING:
    from durabletask_aio.engine.store import Store

_logger = logging.getLogger("durabletask.aio.engine")

MAX_CRASHES = 3
"""Unclean ends of the process during an instance's turn after which it is suspended."""

_CLEAN = "clean"
_RUNNING = "suspect"


class CrashLoops:
    """The suspects of one life of an engine.  Called under the kernel's lock."""

    def __init__(self, store: Store) -> None:
        """Look at how the life before has ended."""
        self._store = store
        self._has_worker = False
        self._waiting: deque[str] = deque()
        self._suspects: dict[str, str] = {}
        """The turns of suspects that have not been committed, by instance."""
        self.running: str | None = None
        """The suspect whose turn may run."""

    def start(self) -> list[str]:
        """Count an unclean end.

        Returns:
            The instances that have been set aside.
        """
        store = self._store
        was_unclean = store.meta(_CLEAN) == 0
        culprit = store.meta(_RUNNING)
        set_aside: list[str] = []
        crashes = store.crashes()
        counted: dict[str, tuple[str, int]] = {}
        if was_unclean:
            for instance in store.waiting_instances():
                turn_id, count = crashes.get(instance.instance_id, ("", 0))
                count = count if turn_id == instance.turn_id else 0
                # Of several suspects only the one that ran is counted again.
                if count < 2 or instance.instance_id == culprit:
                    count += 1
                counted[instance.instance_id] = instance.turn_id, count
                if count > MAX_CRASHES and instance.status != SUSPENDED:
                    set_aside.append(instance.instance_id)
                elif count >= 2:
                    self._suspects[instance.instance_id] = instance.turn_id
                    self._waiting.append(instance.instance_id)
        store.set_crashes(counted)
        store.set_meta(_RUNNING, None)
        store.set_meta(_CLEAN, 1)
        return set_aside

    def worker_joined(self) -> None:
        """Note that a worker runs in this process: it ends cleanly from now on only if `stop` is called."""
        if not self._has_worker:
            self._store.set_meta(_CLEAN, 0)
            self._has_worker = True

    def holds_back(self, instance: Instance) -> bool:
        """Return whether the instance is a suspect whose time has not come."""
        return self._suspects.get(instance.instance_id) == instance.turn_id and self.running != instance.instance_id

    def next(self, is_out: Callable[[str], bool]) -> str | None:
        """Choose the suspect that may run now, if none does.

        Args:
            is_out: whether a worker has the turn of an instance.
        """
        if self.running is not None:
            if not self._waiting or is_out(self.running):
                return None
            # No worker takes its turn, perhaps since none serves it: the others need not wait for it.
            self._waiting.append(self.running)
            self.running = None
        while self._waiting:
            suspect = self._waiting.popleft()
            # One that an answer from the life before, a client or a purge has cleared meanwhile is none any more.
            if suspect in self._suspects:
                self.running = suspect
                return suspect
        return None

    def dispatched(self, instance_id: str) -> None:
        """The turn of an instance goes to a worker; if it is a suspect, that is written before."""
        if instance_id == self.running:
            self._store.set_meta(_RUNNING, instance_id)

    def committed(self, instance_id: str, instance: Instance | None) -> None:
        """An instance has changed: if the turn of a suspect is over, it is none any more."""
        turn_id = self._suspects.get(instance_id)
        if turn_id is None or (instance is not None and instance.turn_id == turn_id):
            return
        del self._suspects[instance_id]
        if self.running == instance_id:
            self.running = None

    def stop(self) -> None:
        """Note that this life ends in order."""
        self._store.set_meta(_RUNNING, None)
        self._store.set_meta(_CLEAN, 1)


def set_aside(instance_id: str, transaction: Transaction) -> None:
    """Suspend an instance, with the reason in its history."""
    reason = (
        f"the process has ended without warning {MAX_CRASHES} times while a turn of this instance ran; resume it when "
        "its code has been mended"
    )
    if transaction.set_aside(instance_id, reason):
        _logger.error("Instance '%s' is suspended: %s", instance_id, reason)
