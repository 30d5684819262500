"""The ASGI application."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from durabletask_aio.engine.management import management_pb2 as messages
from durabletask_aio.engine.management.client import EngineClient
from durabletask_aio.engine.web.access import Guard, Hosts, Login
from durabletask_aio.engine.web.rendering import render
from durabletask_aio.engine.web.waiting import DescribeWaiting


def create_app(
    channel: grpc.Channel,
    *,
    token: str | None = None,
    names: Sequence[str] = (),
    any_address: bool = False,
    describe_waiting: DescribeWaiting | None = None,
) -> Starlette:
    """Make the page of an engine.

    Args:
        channel: to the engine.
        token: what users have to enter, and programs to send as `authorization: Bearer TOKEN`; `None` for no check.
        names: host names under which the page answers, in addition to `localhost` and the loopback addresses.
        any_address: whether it also answers under every IP address.
        describe_waiting: finds out what an instance awaits; called with an instance id and its history.

    Returns:
        The application.
    """
    engine = EngineClient(channel)

    def instances(request: Request) -> HTMLResponse:
        found = engine.search_page(messages.SearchInstancesRequest(newest_first=True))
        return HTMLResponse(render("instances.html", instances=found.instances))

    guard = Middleware(
        Guard, hosts=Hosts(names, any_address=any_address), login=None if token is None else Login(token)
    )
    return Starlette(routes=[Route("/", instances)], middleware=[guard])
