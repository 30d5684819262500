"""Who may use the page: the names it is called by, the token, and whether a form is the page's own."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
import time
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing from other sites, no script or style in the markup, no page around this one."""

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

FORM_COOKIE = "durabletask-aio-form"
_LOGIN_COOKIE = "durabletask-aio-login"
_LOGIN_SECONDS = 12 * 60 * 60
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:/@\[\]]+))(?::[0-9]{1,5})?", re.IGNORECASE)
_OPEN_PATHS = ("/healthz", "/login")
"""What can be asked for without the token, with the assets: nothing there is about instances."""


class Hosts:
    """The names under which the page answers.

    A site that a browser visits can have its own name point at this machine, and then read what the page answers.  Such
    a request carries that name in its Host header.
    """

    def __init__(self, names: Iterable[str] = (), *, any_address: bool = False) -> None:
        """Collect the names.

        Args:
            names: in addition to those of the loopback addresses.
            any_address: whether IP addresses are accepted too, which no site can take for its name.
        """
        self._names = LOOPBACK_NAMES | {name.lower().strip("[]") for name in names}
        self._any_address = any_address

    def accepts(self, host: str) -> bool:
        """Return whether a Host header has one of the names, with any port or none."""
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = (match[1] or match[2]).lower()
        return name in self._names or (self._any_address and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Login:
    """The token that the page asks for, and the cookie that a browser gets for it."""

    def __init__(self, token: str) -> None:
        """Derive the key of the cookies, so that they end with the token.

        Args:
            token: what users and programs show.
        """
        self._token = token.encode()
        self._key = hashlib.sha256(b"durabletask-aio login\0" + self._token).digest()

    def is_token(self, given: str) -> bool:
        """Return whether that is the token."""
        return hmac.compare_digest(given.encode(), self._token)

    def is_logged_in(self, connection: HTTPConnection) -> bool:
        """Return whether a request has the token or a cookie that is still valid."""
        scheme, _, given = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(given.strip()):
            return True
        expires, _, signature = connection.cookies.get(cookie_name(_LOGIN_COOKIE, connection), "").partition(".")
        return (
            hmac.compare_digest(signature.encode(), self._signature(expires).encode())
            and expires.isdigit()
            and int(expires) > time.time()
        )

    def log_in(self, request: Request, response: Response) -> None:
        """Set the cookie."""
        expires = str(int(time.time()) + _LOGIN_SECONDS)
        value = f"{expires}.{self._signature(expires)}"
        set_cookie(request, response, cookie_name(_LOGIN_COOKIE, request), value, _LOGIN_SECONDS)

    def log_out(self, request: Request, response: Response) -> None:
        """Delete the cookie."""
        response.delete_cookie(cookie_name(_LOGIN_COOKIE, request))

    def _signature(self, expires: str) -> str:
        return hmac.new(self._key, expires.encode(), "sha256").hexdigest()


class Forms:
    """Tokens that show that a form was on this page: a signature of a cookie that only this page sets and reads.

    Cookies do not tell ports apart, so another program on this machine can set this one; it cannot sign it.
    """

    def __init__(self) -> None:
        """Make a key, which lasts as long as this object."""
        self._key = secrets.token_bytes(32)

    def token(self, request: Request) -> str:
        """Return the token for the forms of a page; `keep` has to follow."""
        return self._signature(self._cookie(request))

    def keep(self, request: Request, response: Response) -> None:
        """Set the cookie that belongs to the tokens of a page."""
        if request.cookies.get(FORM_COOKIE) != self._cookie(request):
            set_cookie(request, response, FORM_COOKIE, self._cookie(request))

    def accepts(self, request: Request, token: str) -> bool:
        """Return whether a request comes from a form of this page."""
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        if site is not None:
            # Under this page's referrer policy, the origin of its forms is "null".
            if site != "same-origin" or origin not in (None, "null", _origin(request)):
                return False
        elif origin not in (None, _origin(request)):
            return False
        cookie = request.cookies.get(FORM_COOKIE)
        return bool(cookie) and hmac.compare_digest(token.encode(), self._signature(str(cookie)).encode())

    def _cookie(self, request: Request) -> str:
        known = request.cookies.get(FORM_COOKIE)
        if known:
            return known
        if not hasattr(request.state, "form_cookie"):
            request.state.form_cookie = secrets.token_urlsafe(24)
        made: str = request.state.form_cookie
        return made

    def _signature(self, cookie: str) -> str:
        return hmac.new(self._key, cookie.encode(), "sha256").hexdigest()


def _origin(request: Request) -> str:
    return f"{request.url.scheme}://{request.headers.get('host', '')}"


def cookie_name(name: str, connection: HTTPConnection) -> str:
    """Return a name of its own for each port, since browsers send cookies to every port of a host."""
    return f"{name}-{connection.url.port or 0}"


def set_cookie(request: Request, response: Response, name: str, value: str, seconds: int | None = None) -> None:
    """Set a cookie that scripts cannot read and other sites do not send."""
    is_secure = request.url.scheme == "https"
    response.set_cookie(name, value, max_age=seconds, httponly=True, samesite="strict", secure=is_secure)


class Guard:
    """Refuses requests under other names and without the token, and adds the headers that protect a page."""

    def __init__(self, app: ASGIApp, hosts: Hosts, login: Login | None) -> None:
        """Wrap an application.

        Args:
            app: the application.
            hosts: the names it answers to.
            login: the token; `None` for no such check.
        """
        self._app = app
        self._hosts = hosts
        self._login = login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; part of ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refuse(scope)
        await (self._app if refusal is None else refusal)(scope, receive, send_with_headers)

    def _refuse(self, scope: Scope) -> Response | None:
        hosts = Headers(scope=scope).getlist("host")
        if len(hosts) != 1 or not self._hosts.accepts(hosts[0].strip()):
            return PlainTextResponse("This page does not answer under that name.\n", 421)
        root: str = scope.get("root_path", "")
        path = str(scope["path"]).removeprefix(root)
        if self._login is None or path in _OPEN_PATHS or path.startswith("/static/"):
            return None
        connection = HTTPConnection(scope)
        if self._login.is_logged_in(connection):
            return None
        if "text/html" in connection.headers.get("accept", "") and scope["method"] == "GET":
            return RedirectResponse(f"{root}/login", 303)
        return PlainTextResponse("This page asks for a token.\n", 401, {"WWW-Authenticate": "Bearer"})
