"""The list of instances."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from durabletask_aio.engine.management import management_pb2 as messages
from durabletask_aio.engine.web.errors import PageError
from durabletask_aio.engine.web.formats import LISTED, Status, status_of
from durabletask_aio.engine.web.search import PAGE_SIZES, PERIODS, Search
from durabletask_aio.engine.web.site import Site, url_for

_MAX_CHILDREN = 100
"""Children that are shown under their parent; the others are behind a link."""

_MAX_LEVELS = 8


@dataclass(frozen=True)
class Row:
    """An instance in the list.

    Attributes:
        instance: the instance.
        status: its status.
        level: 0, or how many parents are shown above it.
        is_open: whether its children are shown.
        toggle: the address of the list with its children shown, or hidden again.
        more: how many of the children of its parent are not shown, in the last of those that are.
    """

    instance: messages.InstanceSummary
    status: Status
    level: int
    is_open: bool
    toggle: str
    more: int = 0


@dataclass(frozen=True)
class Choice:
    """A status to filter by.

    Attributes:
        status: the status.
        count: how many instances have it.
        is_chosen: whether it is among those that are shown.
        link: the address of the list with the choice changed.
    """

    status: Status
    count: int
    is_chosen: bool
    link: str


class InstanceList:
    """Answers requests for the list."""

    def __init__(self, site: Site) -> None:
        """Use a site.

        Args:
            site: what all pages share.
        """
        self._site = site

    def show(self, request: Request) -> Response:
        """Answer a request."""
        search = Search.of(request.query_params)
        management = self._site.backend.management
        found = management.search_page(search.request(datetime.now(timezone.utc)))
        instances = list(found.instances)
        if search.before:
            instances.reverse()
        rows, children = self._rows(request, search, instances)
        overview = management.overview()
        return self._site.page(
            request,
            "instances.html",
            version=b"".join(each.SerializeToString(deterministic=True) for each in (found, overview, *children)),
            search=search,
            rows=rows,
            choices=[
                Choice(
                    status,
                    overview.instances.get(status.value, 0),
                    status in search.statuses,
                    link(request, search, statuses=search.statuses ^ {status}),
                )
                for status in LISTED
            ],
            total=sum(overview.instances.values()),
            overview=overview,
            is_pending=overview.instances.get(Status.PENDING.value, 0) > 0,
            address=self._site.address,
            names=overview.names,
            sizes=PAGE_SIZES,
            periods=PERIODS,
            everything=url_for(request, "/"),
            newer=self._page_link(request, search, found, forward=False),
            older=self._page_link(request, search, found, forward=True),
            reverse=link(request, search, oldest_first=not search.oldest_first),
            first=link(request, search, page="", before=""),
        )

    def _rows(
        self, request: Request, search: Search, instances: Sequence[messages.InstanceSummary]
    ) -> tuple[list[Row], list[messages.SearchInstancesResponse]]:
        answers: list[messages.SearchInstancesResponse] = []

        def rows(some: Sequence[messages.InstanceSummary], level: int) -> Iterator[Row]:
            for instance in some:
                is_open = instance.child_count > 0 and instance.instance_id in search.expanded and level < _MAX_LEVELS
                expanded = [each for each in search.expanded if each != instance.instance_id]
                if not is_open:
                    expanded.append(instance.instance_id)
                toggle = link(request, search, expanded=tuple(expanded))
                yield Row(instance, status_of(instance.status), level, is_open, toggle)
                if is_open:
                    answer = self._site.backend.management.search_page(
                        messages.SearchInstancesRequest(
                            parent_id=instance.instance_id, page_size=_MAX_CHILDREN, with_outcome=True
                        )
                    )
                    answers.append(answer)
                    shown = list(rows(answer.instances, level + 1))
                    yield from shown
                    if instance.child_count > len(answer.instances):
                        yield Row(
                            instance,
                            status_of(instance.status),
                            level + 1,
                            False,
                            "",
                            instance.child_count - len(answer.instances),
                        )

        return list(rows(instances, 0)), answers

    @staticmethod
    def _page_link(request: Request, search: Search, found: messages.SearchInstancesResponse, *, forward: bool) -> str:
        """Return the address of the next page in one direction, empty if this is the last."""
        onwards, back = found.next_page_token, found.previous_page_token
        if search.before:
            # This page was read backwards: its tokens mean the other direction.
            onwards, back = back, onwards
        elif not search.page:
            back = ""
        if forward:
            return link(request, search, page=onwards, before="") if onwards else ""
        return link(request, search, page="", before=back) if back else ""


def link(request: Request, search: Search, **changes: Any) -> str:
    """Return the address of a search that differs from another one."""
    parameters = search.parameters(**changes)
    return url_for(request, "/") + (f"?{urlencode(parameters)}" if parameters else "")


def require_id(request: Request) -> str:
    """Return the id in an address.

    Raises:
        PageError: if there is none.
    """
    instance_id = request.query_params.get("id", "")
    if not instance_id:
        raise PageError(400, "Which one?", "The address has no id.")
    return instance_id
