"""What all pages share: templates, forms, messages after an action, and answers that a browser has already."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode

import jinja2
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from durabletask_aio.engine.web.access import Forms, Login, set_cookie
from durabletask_aio.engine.web.backend import Backend
from durabletask_aio.engine.web.errors import PageError
from durabletask_aio.engine.web.formats import FILTERS, FUNCTIONS
from durabletask_aio.engine.web.payloads import preview
from durabletask_aio.engine.web.waiting import DescribeWaiting

FOLDER = Path(__file__).parent

_MESSAGE_COOKIE = "durabletask-aio-message"
_MAX_MESSAGE = 600
_MAX_FORM = 4 * 1024 * 1024


class Site:
    """Renders pages and reads forms.

    Attributes:
        backend: the engine.
        forms: tokens of forms.
        login: the token that users enter, `None` for no such check.
        describe_waiting: finds out what an instance awaits, `None` if no application was given.
        address: where workers and clients connect to the engine, empty if that is not known.
    """

    def __init__(
        self, backend: Backend, login: Login | None, describe_waiting: DescribeWaiting | None, address: str
    ) -> None:
        self.backend = backend
        self.forms = Forms()
        self.login = login
        self.describe_waiting = describe_waiting
        self.address = address
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(FOLDER / "templates"),
            autoescape=True,
            lstrip_blocks=True,
            trim_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        self._templates.filters.update(FILTERS)
        functions: dict[str, Any] = self._templates.globals
        functions.update(FUNCTIONS, preview=preview)
        self._assets = _digest(*(path.read_bytes() for path in sorted((FOLDER / "static").iterdir())))

    def page(self, request: Request, template: str, *, version: bytes | None = None, **values: Any) -> Response:
        """Render a page.

        Args:
            request: what it answers.
            template: the name of its template.
            version: the data that it shows: a browser that has shown the same gets only the answer that it has it.
            values: for the template.

        Returns:
            The answer.
        """
        if version is not None and self.has_seen(request, template, version):
            return Response(status_code=304, headers={"ETag": self._tag(request, template, version)})
        message = _message(request)
        headers = {} if version is None else {"ETag": self._tag(request, template, version)}
        token = self.forms.token(request)
        response = self._html(request, template, 200, headers, form_token=token, message=message, **values)
        self.forms.keep(request, response)
        if message is not None:
            response.delete_cookie(_MESSAGE_COOKIE)
        return response

    def has_seen(self, request: Request, template: str, version: bytes) -> bool:
        """Return whether a browser shows this already."""
        return request.headers.get("if-none-match") == self._tag(request, template, version)

    def _tag(self, request: Request, template: str, version: bytes) -> str:
        # The address, which filters are shown from.  The form token too: after the page's server was started again, the
        # forms that a browser has are of no use.
        parts = (template, str(request.url), self.forms.token(request), self._assets)
        return f'"{_digest(version, *(part.encode() for part in parts))}"'

    def error(self, request: Request, error: PageError) -> Response:
        """Render a page, or JSON for the page's script, that says what went wrong."""
        if wants_json(request):
            return JSONResponse({"error": error.text}, error.status)
        return self._html(request, "error.html", error.status, {}, form_token="", message=None, error=error)

    def _html(
        self, request: Request, template: str, code: int, headers: dict[str, str], /, **values: Any
    ) -> HTMLResponse:
        def url(path: str, **query: str | int) -> str:
            return url_for(request, path, **query)

        html = self._templates.get_template(template).render(
            url=url, assets=self._assets, has_login=self.login is not None, version=headers.get("ETag", ""), **values
        )
        return HTMLResponse(html, code, headers)

    def done(self, request: Request, text: str, location: str) -> Response:
        """Answer an action: report its result on the page that comes next.

        Args:
            request: the action.
            text: what was done, a sentence.
            location: the address of the page that comes next.

        Returns:
            The answer.
        """
        if wants_json(request):
            return JSONResponse({"message": text, "location": location})
        response = RedirectResponse(location, 303)
        set_cookie(request, response, _MESSAGE_COOKIE, quote(text[:_MAX_MESSAGE]), 60)
        return response

    async def read_form(self, request: Request) -> dict[str, str]:
        """Read a form of this page.

        Raises:
            PageError: if it is not a form of this page, or too large.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        if kind != "application/x-www-form-urlencoded":
            raise PageError(415, "Not a form", "An action is sent as a form of this page.")
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > _MAX_FORM:
                    raise PageError(413, "Too large", "The form is larger than 4 MiB; use a client for such a payload.")
        except ClientDisconnect:
            raise PageError(400, "Cut off", "The form did not arrive whole.") from None
        fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=100)
        form = {name: values[-1] for name, values in fields.items()}
        if not self.forms.accepts(request, form.get("form_token", "")):
            raise PageError(
                403,
                "Not from this page",
                "The form is not one of this page, or too old: reload the page and try again.",
            )
        return form


def url_for(request: Request, path: str, **query: str | int) -> str:
    """Return an address of this page, wherever it is mounted."""
    pairs = {name: value for name, value in query.items() if value != ""}
    return f"{request.scope.get('root_path', '')}{path}{'?' + urlencode(pairs) if pairs else ''}"


def wants_json(request: Request) -> bool:
    """Return whether the page's script asks, which shows the answer within the page."""
    return request.headers.get("accept", "").startswith("application/json")


def check_json(text: str, what: str) -> str | None:
    """Return a payload that was entered in a form, `None` if there is none.

    Raises:
        PageError: if it is not JSON.
    """
    if not text.strip():
        return None
    try:
        json.loads(text)
    except ValueError as error:
        hint = 'A text is written in double quotes: "like this".'
        raise PageError(400, "Not JSON", f"{what} is not JSON: {error}. {hint}") from None
    except RecursionError:
        pass  # deeper than this parser goes; other languages' parsers may take it
    return text


def _message(request: Request) -> str | None:
    text = request.cookies.get(_MESSAGE_COOKIE)
    return unquote(text)[:_MAX_MESSAGE] if text else None


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:24]
