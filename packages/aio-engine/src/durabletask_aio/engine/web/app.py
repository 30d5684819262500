"""The ASGI application."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import grpc
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from durabletask_aio.engine.web.access import Guard, Hosts, Login
from durabletask_aio.engine.web.actions import Actions
from durabletask_aio.engine.web.backend import Backend
from durabletask_aio.engine.web.entities import EntityPages
from durabletask_aio.engine.web.errors import PageError, explained
from durabletask_aio.engine.web.formats import status_of
from durabletask_aio.engine.web.instance import InstancePage
from durabletask_aio.engine.web.lists import InstanceList
from durabletask_aio.engine.web.site import FOLDER, Site, url_for, wants_json
from durabletask_aio.engine.web.waiting import DescribeWaiting


def create_app(
    channel: grpc.Channel,
    *,
    token: str | None = None,
    names: Sequence[str] = (),
    any_address: bool = False,
    describe_waiting: DescribeWaiting | None = None,
    address: str = "",
) -> Starlette:
    """Make the page of an engine, to be served on its own or mounted in another application.

    Args:
        channel: to the engine.
        token: what users have to enter, and programs to send as `authorization: Bearer TOKEN`; `None` for no check.
        names: host names under which the page answers, in addition to `localhost` and the loopback addresses.
        any_address: whether it also answers under every IP address.
        describe_waiting: finds out what an instance awaits; called with an instance id and its history.
        address: where workers and clients connect to the engine, for the page to say; not said if empty.

    Returns:
        The application.
    """
    login = None if token is None else Login(token)
    site = Site(Backend(channel), login, describe_waiting, address)
    instance = InstancePage(site)
    entities = EntityPages(site)
    actions = Actions(site)
    extras = _Extras(site)
    routes = [
        Route("/", InstanceList(site).show),
        Route("/instance", instance.show),
        Route("/payload", instance.payload),
        Route("/history.json", instance.exported),
        Route("/entities", entities.list),
        Route("/entity", entities.one),
        Route("/entity/state", entities.state),
        Route("/engine", extras.engine),
        Route("/healthz", extras.health),
        Route("/metrics", extras.metrics),
        Route("/login", extras.login_form, methods=["GET"]),
        Route("/login", extras.log_in, methods=["POST"]),
        Route("/logout", extras.log_out, methods=["POST"]),
        *(Route(f"/actions/{name}", actions.endpoint(name), methods=["POST"]) for name in actions.all),
        Mount("/static", StaticFiles(directory=FOLDER / "static")),
    ]

    def engine_error(request: Request, error: Exception) -> Response:
        return site.error(request, explained(cast("grpc.RpcError", error)))

    def page_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, PageError)
        return site.error(request, error)

    def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        text = "The instances are on the first page." if error.status_code == 404 else error.detail
        response = site.error(request, PageError(error.status_code, error.detail, text))
        response.headers.update(error.headers or {})
        return response

    guard = Middleware(Guard, hosts=Hosts(names, any_address=any_address), login=login)
    return Starlette(
        routes=routes,
        middleware=[guard],
        exception_handlers={PageError: page_error, grpc.RpcError: engine_error, HTTPException: http_error},
    )


class _Extras:
    """The page of the engine, what programs ask for, and the login."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def engine(self, request: Request) -> Response:
        statistics = self._site.backend.management.statistics()
        return self._site.page(
            request,
            "engine.html",
            version=statistics.SerializeToString(deterministic=True),
            statistics=statistics,
            counts={status_of(number): count for number, count in sorted(statistics.instances.items())},
            kinds=sorted(statistics.queued),
            largest=[(each, status_of(each.status)) for each in statistics.largest],
        )

    def health(self, request: Request) -> Response:
        try:
            self._site.backend.check()
        except grpc.RpcError as error:
            return PlainTextResponse(f"{explained(error).title}\n", 503)
        return PlainTextResponse("ok\n")

    def metrics(self, request: Request) -> Response:
        try:
            from durabletask_aio.engine.web import metrics
        except ModuleNotFoundError:
            text = 'Metrics need prometheus-client: pip install "durabletask-aio-engine[metrics]"\n'
            return PlainTextResponse(text, 501)
        statistics = self._site.backend.management.statistics()
        return Response(metrics.exposition(statistics), media_type=metrics.CONTENT_TYPE)

    def login_form(self, request: Request) -> Response:
        if self._site.login is None:
            return RedirectResponse(url_for(request, "/"), 303)
        return self._site.page(request, "login.html", problem="")

    async def log_in(self, request: Request) -> Response:
        login = self._site.login
        form = await self._site.read_form(request)
        if login is None or login.is_token(form.get("token", "").strip()):
            response: Response = RedirectResponse(url_for(request, "/"), 303)
            if login is not None:
                login.log_in(request, response)
            return response
        if wants_json(request):
            raise PageError(401, "Not the token", "That is not the token of this page.")
        response = self._site.page(request, "login.html", problem="That is not the token of this page.")
        response.status_code = 401
        return response

    async def log_out(self, request: Request) -> Response:
        await self._site.read_form(request)
        response = RedirectResponse(url_for(request, "/login"), 303)
        if self._site.login is not None:
            self._site.login.log_out(request, response)
        return response
