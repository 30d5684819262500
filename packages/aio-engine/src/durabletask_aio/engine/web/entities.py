"""The entities: their list, and the page of one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from durabletask_aio.engine.web.errors import PageError
from durabletask_aio.engine.web.formats import to_datetime
from durabletask_aio.engine.web.lists import require_id
from durabletask_aio.engine.web.payloads import payload, preview
from durabletask_aio.engine.web.site import Site, url_for

_PAGE = 100


@dataclass(frozen=True)
class EntityRow:
    """An entity in the list.

    Attributes:
        id: `@name@key`.
        name: its name.
        key: its key.
        state: the beginning of its state.
        locked_by: the instance that holds it, empty if none does.
        waiting: how many operations wait.
        modified: when its state was last written.
    """

    id: str
    name: str
    key: str
    state: str
    locked_by: str
    waiting: int
    modified: datetime


class EntityPages:
    """Answers requests for entities."""

    def __init__(self, site: Site) -> None:
        """Use a site.

        Args:
            site: what all pages share.
        """
        self._site = site

    def list(self, request: Request) -> Response:
        """Answer a request for the list."""
        prefix = request.query_params.get("prefix", "").strip()
        if prefix and not prefix.startswith("@"):
            prefix = f"@{prefix}"
        found = self._site.backend.entities(prefix, _PAGE, request.query_params.get("page", ""))
        rows: list[EntityRow] = []
        for each in found.entities:
            name, key = split(each.instanceId)
            rows.append(
                EntityRow(
                    each.instanceId,
                    name,
                    key,
                    preview(each.serializedState.value),
                    each.lockedBy.value,
                    each.backlogQueueSize,
                    to_datetime(each.lastModifiedTime),
                )
            )
        token = found.continuationToken.value
        return self._site.page(
            request,
            "entities.html",
            version=found.SerializeToString(deterministic=True),
            rows=rows,
            prefix=prefix,
            is_first="page" not in request.query_params,
            first=url_for(request, "/entities", prefix=prefix),
            next=url_for(request, "/entities", prefix=prefix, page=token) if token else "",
        )

    def one(self, request: Request) -> Response:
        """Answer a request for the page of one."""
        entity_id = require_id(request)
        details = self._site.backend.management.entity(entity_id)
        name, key = split(entity_id)
        state = details.state if details.HasField("state") else None
        return self._site.page(
            request,
            "entity.html",
            version=details.SerializeToString(deterministic=True),
            entity=details,
            name=name,
            key=key,
            state=None if state is None else payload("State", state, url_for(request, "/entity/state", id=entity_id)),
        )

    def state(self, request: Request) -> Response:
        """Answer a request for the whole state of one, as text."""
        details = self._site.backend.management.entity(require_id(request))
        if not details.HasField("state"):
            raise PageError(404, "Not found", "This entity has no state.")
        return PlainTextResponse(details.state)


def split(entity_id: str) -> tuple[str, str]:
    """Return the name and the key in an entity's id."""
    if not entity_id.startswith("@"):
        return entity_id, ""
    name, _, key = entity_id[1:].partition("@")
    return name, key
