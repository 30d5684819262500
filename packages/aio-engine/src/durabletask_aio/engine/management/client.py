"""The typed client of the engine's second service."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from durabletask_aio.engine.management import management_pb2 as messages
from durabletask_aio.engine.management.rpc import stubs

TIMEOUT = 30.0
"""Seconds for a call by default."""


class EngineClient:
    """What an engine offers beyond upstream's protocol.

    The engine may be in this process or in another one.  Messages are those of `management.proto`, and errors are
    `grpc.RpcError`, as those of upstream's client.
    """

    def __init__(self, channel: grpc.Channel, *, timeout: float = TIMEOUT) -> None:
        """Use a channel.

        Args:
            channel: to the engine.
            timeout: seconds for each call; backups and vacuuming take as long as they need.
        """
        self._stubs = stubs(channel)
        self._timeout = timeout

    def search(
        self,
        *,
        statuses: Collection[int] = (),
        names: Collection[str] = (),
        id_prefix: str = "",
        id_contains: str = "",
        text: str = "",
        tags: Mapping[str, str] | None = None,
        created: tuple[datetime | None, datetime | None] = (None, None),
        updated: tuple[datetime | None, datetime | None] = (None, None),
        completed: tuple[datetime | None, datetime | None] = (None, None),
        parent_id: str = "",
        only_roots: bool = False,
        newest_first: bool = True,
        page_size: int = 100,
        with_outcome: bool = False,
    ) -> Iterator[messages.InstanceSummary]:
        """Find instances.

        Args:
            statuses: of these statuses, in the numbers of upstream's `OrchestrationStatus`.
            names: of these orchestrators.
            id_prefix: whose ids begin so.
            id_contains: whose ids contain that.
            text: whose ids or names contain that, in upper or lower case.
            tags: that have these tags.
            created: created from the first time on, and before the second; aware, `None` for no limit.
            updated: the same for the last turn.
            completed: the same for the end.
            parent_id: the children of this instance.
            only_roots: leave out what has a parent.
            newest_first: the order of their creation, or the other way round.
            page_size: how many to ask for at once.
            with_outcome: with the number of their children, and the failure or the beginning of the result.

        Yields:
            The instances; the next page is asked for when it is needed.
        """
        token = ""
        while True:
            page = self.search_page(
                messages.SearchInstancesRequest(
                    statuses=statuses,
                    names=names,
                    id_prefix=id_prefix,
                    id_contains=id_contains,
                    text=text,
                    tags=tags,
                    created_from=_timestamp(created[0]),
                    created_to=_timestamp(created[1]),
                    updated_from=_timestamp(updated[0]),
                    updated_to=_timestamp(updated[1]),
                    completed_from=_timestamp(completed[0]),
                    completed_to=_timestamp(completed[1]),
                    parent_id=parent_id,
                    only_roots=only_roots,
                    newest_first=newest_first,
                    page_size=page_size,
                    with_outcome=with_outcome,
                    page_token=token,
                )
            )
            yield from page.instances
            token = page.next_page_token
            if not token:
                return

    def search_page(self, request: messages.SearchInstancesRequest) -> messages.SearchInstancesResponse:
        """Return one page of a search.

        Args:
            request: what to find, and which page of it.

        Returns:
            The page.
        """
        response: messages.SearchInstancesResponse = self._call("SearchInstances", request)
        return response

    def overview(self) -> messages.Overview:
        """Return how many instances there are, and the names of their orchestrators.

        Returns:
            Counts by status, and the names.
        """
        response: messages.Overview = self._call("GetOverview", messages.GetOverviewRequest())
        return response

    def details(self, instance_id: str) -> messages.InstanceDetails:
        """Return an instance with what it waits for.

        Args:
            instance_id: the instance.

        Returns:
            The instance, its children and what is pending.
        """
        response: messages.InstanceDetails = self._call(
            "GetInstanceDetails", messages.GetInstanceDetailsRequest(instance_id=instance_id)
        )
        return response

    def fork(
        self, instance_id: str, new_instance_id: str = "", *, turns: int = 0, after: int | str | None = None
    ) -> str:
        """Start a new instance with the history of another one up to a place, from where the code of today continues.

        What is kept is not run again.  Activities that were under way there are, and timers are due when they were.
        The new instance has no parent.

        Args:
            instance_id: the other instance, which stays as it is.
            new_instance_id: the new one; random if empty.
            turns: how many turns to keep; 0 for all but the one that ended the instance.
            after: in place of `turns`, the last event to keep: its number from 0 in the history, as the page shows it;
                or the step that it ended, by the name of the activity, child or external event, or by `#` and the
                number of the action.  The turn that received it is run again; what a turn asked for is kept with the
                whole turn.

        Returns:
            The id of the new instance.

        Raises:
            grpc.RpcError: if there is no such instance or place, or if a child of the instance was under way there, or
                a lock of entities held.
        """
        request = messages.ForkInstanceRequest(instance_id=instance_id, new_instance_id=new_instance_id, turns=turns)
        if isinstance(after, str):
            request.after_step = after
        elif after is not None:
            request.after_event = after
        response: messages.ForkInstanceResponse = self._call("ForkInstance", request)
        return response.instance_id

    def entity(self, entity_id: str) -> messages.EntityDetails:
        """Return an entity with what waits for it.

        Args:
            entity_id: the entity, as `@name@key`.

        Returns:
            Its state, its lock, and the names of its operations.
        """
        response: messages.EntityDetails = self._call(
            "GetEntityDetails", messages.GetEntityDetailsRequest(entity_id=entity_id)
        )
        return response

    def statistics(self) -> messages.Statistics:
        """Return numbers about the engine.

        Returns:
            Instances by status, queues, workers, the size of the file, and more.
        """
        response: messages.Statistics = self._call("GetStatistics", messages.GetStatisticsRequest())
        return response

    def backup(self, target: str) -> int:
        """Copy the database into a new file on the engine's machine, while it runs.

        Args:
            target: the file.

        Returns:
            Its size in bytes.
        """
        response: messages.BackupResponse = self._call("Backup", messages.BackupRequest(target=target), timeout=None)
        return response.bytes

    def vacuum(self) -> tuple[int, int]:
        """Give free pages of the file back to the file system; everything else waits meanwhile.

        Returns:
            The size of the file before and after, in bytes.
        """
        response: messages.VacuumResponse = self._call("Vacuum", messages.VacuumRequest(), timeout=None)
        return response.bytes_before, response.bytes_after

    def purge_older(self, age: timedelta, *, statuses: Collection[int] = (), dry_run: bool = False) -> int:
        """Delete instances that ended long ago, with their children.

        Args:
            age: how long ago, at least.
            statuses: of these statuses only; all that have ended if empty.
            dry_run: only count them, without their children.

        Returns:
            How many.
        """
        request = messages.PurgeOlderRequest(age=_duration(age), statuses=statuses, dry_run=dry_run)
        response: messages.PurgeOlderResponse = self._call("PurgeOlder", request, timeout=None)
        return response.count

    def set_retention(self, age: timedelta | None) -> None:
        """Say how long instances stay that have ended; it holds over restarts of the engine.

        Args:
            age: how long; `None` keeps them.
        """
        self._call("SetRetention", messages.SetRetentionRequest(age=None if age is None else _duration(age)))

    def _call(self, method: str, request: Any, timeout: float | None = -1) -> Any:
        return self._stubs[method](request, timeout=self._timeout if timeout == -1 else timeout)


def _timestamp(when: datetime | None) -> Timestamp | None:
    if when is None:
        return None
    if when.tzinfo is None:
        raise ValueError(f"{when!r} has no time zone; write datetime(..., tzinfo=timezone.utc)")
    result = Timestamp()
    result.FromDatetime(when)
    return result


def _duration(age: timedelta) -> Duration:
    result = Duration()
    result.FromTimedelta(age)
    return result
