"""The list's address as a search, and the other way round."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from starlette.datastructures import QueryParams

from durabletask_aio.engine.management import management_pb2 as messages
from durabletask_aio.engine.web.errors import PageError
from durabletask_aio.engine.web.formats import BY_KEY, Status

PAGE_SIZES = (25, 50, 100, 250)
_SIZE = 50
PERIODS = {"5min": "5 minutes", "1h": "1 hour", "24h": "24 hours", "7d": "7 days", "30d": "30 days"}
"""What can be chosen as the age of instances."""

_PERIOD = re.compile(r"(\d{1,6})(min|h|d)")
_SECONDS = {"min": 60, "h": 3_600, "d": 86_400}
_MAX_EXPANDED = 50
_RANGES = ("created_from", "created_to", "updated_from", "updated_to")
_DETAILS = ("prefix", "tag", "created", "updated", "parent", *_RANGES)
"""The filters that are not always in sight."""


@dataclass(frozen=True)
class Search:
    """What the list shows.

    Attributes:
        text: what the id or the name contains.
        statuses: of these only; empty for all.
        name: of this orchestrator only.
        prefix: how the id begins.
        tag: `name=value`.
        created: a period until now, such as `24h`.
        updated: the same for the last turn.
        created_from: a local time as browsers send it, as are the next three.
        offset: minutes from UTC to the browser's time.
        parent: the children of this instance only.
        all_children: whether children are listed among the others, and not under their parents.
        oldest_first: the order.
        expanded: the instances whose children are shown.
        page: the token of the page; `before` of one that is reached backwards.
        size: instances on a page.
    """

    text: str = ""
    statuses: frozenset[Status] = frozenset()
    name: str = ""
    prefix: str = ""
    tag: str = ""
    created: str = ""
    updated: str = ""
    created_from: str = ""
    created_to: str = ""
    updated_from: str = ""
    updated_to: str = ""
    offset: int = 0
    parent: str = ""
    all_children: bool = False
    oldest_first: bool = False
    expanded: tuple[str, ...] = ()
    page: str = ""
    before: str = ""
    size: int = _SIZE

    @classmethod
    def of(cls, query: QueryParams) -> Search:
        """Read an address.

        Args:
            query: its parameters.

        Returns:
            The search.
        """
        size = _number(query.get("size", ""), _SIZE)
        return cls(
            text=query.get("q", "").strip(),
            statuses=frozenset(BY_KEY[key] for key in query.getlist("status") if key in BY_KEY),
            name=query.get("name", "").strip(),
            prefix=query.get("prefix", "").strip(),
            tag=query.get("tag", "").strip(),
            created=_period(query.get("created", "")),
            updated=_period(query.get("updated", "")),
            created_from=query.get("created_from", ""),
            created_to=query.get("created_to", ""),
            updated_from=query.get("updated_from", ""),
            updated_to=query.get("updated_to", ""),
            offset=_number(query.get("offset", ""), 0),
            parent=query.get("parent", ""),
            all_children=query.get("children") == "all",
            oldest_first=query.get("order") == "oldest",
            expanded=tuple(dict.fromkeys(query.getlist("open")))[:_MAX_EXPANDED],
            page=query.get("page", ""),
            before=query.get("before", ""),
            size=size if size in PAGE_SIZES else _SIZE,
        )

    def parameters(self, **changes: Any) -> list[tuple[str, str]]:
        """Return the parameters of the address of this search, or of one that differs.

        Args:
            changes: fields with other values; all but `expanded` lead back to the first page.

        Returns:
            Names and values.
        """
        if changes.keys() - {"expanded", "page", "before"}:
            changes = {"page": "", "before": "", **changes}
        search = replace(self, **changes)
        pairs = [
            ("q", search.text),
            *(("status", status.key) for status in Status if status in search.statuses),
            ("name", search.name),
            *((name, str(getattr(search, name))) for name in _DETAILS),
            ("offset", str(search.offset) if any(getattr(search, name) for name in _RANGES) else ""),
            ("children", "all" if search.all_children else ""),
            ("order", "oldest" if search.oldest_first else ""),
            ("size", str(search.size) if search.size != _SIZE else ""),
            *(("open", instance_id) for instance_id in search.expanded),
            ("page", search.page),
            ("before", search.before),
        ]
        return [(name, value) for name, value in pairs if value]

    @property
    def details_count(self) -> int:
        """How many of the filters are set that are not always in sight."""
        return sum(bool(getattr(self, name)) for name in _DETAILS)

    @property
    def is_limited(self) -> bool:
        """Whether there are instances that the search leaves out, apart from children."""
        return bool(self.text or self.statuses or self.name or self.details_count)

    def request(self, now: datetime) -> messages.SearchInstancesRequest:
        """Return the search for the engine.

        Args:
            now: the time that periods end at.

        Returns:
            The request for the page.

        Raises:
            PageError: if a value cannot be read.
        """
        request = messages.SearchInstancesRequest(
            statuses=sorted(status.value for status in self.statuses),
            names=[self.name] if self.name else [],
            id_prefix=self.prefix,
            text=self.text,
            parent_id=self.parent,
            # A search for something finds children too, since their parents may not be among what is found.
            only_roots=not (self.all_children or self.parent or self.is_limited),
            newest_first=self.oldest_first if self.before else not self.oldest_first,
            page_size=self.size,
            page_token=self.before or self.page,
            with_outcome=True,
        )
        if self.tag:
            name, separator, value = self.tag.partition("=")
            if not separator:
                raise PageError(400, "Not a tag", f"Write a tag with its value, as in region=eu, and not {self.tag!r}.")
            request.tags[name.strip()] = value.strip()
        for kind in ("created", "updated"):
            period: str = getattr(self, kind)
            if period:
                getattr(request, f"{kind}_from").FromDatetime(now - _length(period))
            for end in ("from", "to"):
                entered: str = getattr(self, f"{kind}_{end}")
                if entered:
                    getattr(request, f"{kind}_{end}").FromDatetime(self._time(entered))
        return request

    def _time(self, entered: str) -> datetime:
        try:
            local = datetime.fromisoformat(entered)
            zone = timezone(timedelta(minutes=self.offset))
        except ValueError:
            text = f"Write a time as 2026-01-31T12:00, and not {entered!r}."
            raise PageError(400, "Not a time", text) from None
        return (local if local.tzinfo else local.replace(tzinfo=zone)).astimezone(timezone.utc)


def _period(text: str) -> str:
    return text if _PERIOD.fullmatch(text) else ""


def _length(period: str) -> timedelta:
    match = _PERIOD.fullmatch(period)
    assert match is not None
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])


def _number(text: str, default: int) -> int:
    return int(text) if re.fullmatch(r"-?\d{1,4}", text) else default
