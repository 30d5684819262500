"""`durabletask-aio dev`: an engine for a worker in another terminal, with its page."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

import click

from durabletask_aio.core.command_line import CommandError, json_option, write_json
from durabletask_aio.engine.embedded import Engine
from durabletask_aio.engine.serving import DEFAULT_PORT, DEFAULT_UI_PORT, Page, make_page, until_signal, wait_for
from durabletask_aio.engine.store import StoreError
from durabletask_aio.testing.application_process import ApplicationProcess
from durabletask_aio.testing.orchestrators import OrchestratorLookupError

if TYPE_CHECKING:
    from collections.abc import Callable

    from durabletask_aio.engine.server import Server

_Listening = TypeVar("_Listening")

_EPILOG = """\
\b
examples:
  durabletask-aio dev --ui         then start a worker and a client in another terminal: nothing to set
  durabletask-aio dev --port 0     on a free port, which it prints
  durabletask-aio dev --db dev.db  keep the instances in a file, and continue with them at the next start
  durabletask-aio dev --app shop.workflows
                                   the page shows the lines at which instances of these workflows wait

For development: one process, no authentication, and only programs on this machine can connect.
Ctrl-C and SIGTERM end it with exit code 0; the exit code is 2 if a port is taken, or the file or the application cannot
be used.
"""


def _port(ctx: click.Context, option: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdigit() or int(text) > 65535:
        raise click.BadParameter(f"a port is a number from 0 to 65535, not {text!r}", ctx, option)
    return int(text)


@click.command("dev", short_help="Run an engine until Ctrl-C, for development (this machine only).", epilog=_EPILOG)
@click.option(
    "--port",
    callback=_port,
    metavar="PORT",
    default=str(DEFAULT_PORT),
    help=f"Port to listen on, 0 for a free one (default: {DEFAULT_PORT}, where workers and clients look).",
)
@click.option(
    "--db",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Keep the instances in this file (default: in memory).",
)
@click.option("--ui", is_flag=True, help="Serve the page of the engine: instances, what they wait for, actions.")
@click.option(
    "--ui-port",
    callback=_port,
    metavar="PORT",
    help=f"Port of that page, 0 for a free one; implies --ui (default: {DEFAULT_UI_PORT}).",
)
@click.option(
    "--app",
    "references",
    multiple=True,
    metavar="MODULE[:NAME]",
    help="Have the page show where workflows wait, by replaying their histories with this code: the module that has "
    "the orchestrators, or a worker or an orchestrator in it. Implies --ui; may be repeated.",
)
@json_option
def dev(port: int, db: str | None, ui: bool, ui_port: int | None, references: tuple[str, ...], as_json: bool) -> None:
    """Run an engine until Ctrl-C, for development (this machine only; in memory, or in a file).

    With --json, the document is one line with the addresses, printed when the engine is ready.
    """
    if ui_port is None and (ui or references):
        ui_port = DEFAULT_UI_PORT
    application = ApplicationProcess(references) if references else None
    with contextlib.ExitStack() as running:
        if application is not None:
            running.callback(application.stop)
            try:
                application.start()
            except OrchestratorLookupError as error:
                raise CommandError(str(error)) from error
        engine = Engine(db)
        try:
            engine.start()
        except StoreError as error:
            raise CommandError(f"{error}.") from error
        running.callback(engine.stop)
        server = _listening(lambda: engine.listen(port), "--port")
        page = None
        if ui_port is not None:
            page = _page(engine, ui_port, server, application)
            _listening(page.start, "--ui-port")
            running.callback(page.stop)
        _serve(engine, server, page, as_json=as_json)


def _listening(listen: Callable[[], _Listening], option: str) -> _Listening:
    try:
        return listen()
    except OSError as error:
        raise CommandError(f"{error.strerror}.\nFor example: durabletask-aio dev {option} 0") from error


def _page(engine: Engine, port: int, server: Server, application: ApplicationProcess | None) -> Page:
    try:
        return make_page(engine, port, address=server.address, describe_waiting=application)
    except ImportError as error:
        raise CommandError(str(error)) from error


def _serve(engine: Engine, server: Server, page: Page | None, *, as_json: bool) -> None:
    path = None if engine.path is None else str(engine.path)
    with until_signal() as stopped:
        if as_json:
            ui = None if page is None else page.url
            write_json({"address": server.address, "port": server.port, "ui": ui, "db": path}, indent=None)
        else:
            _print_addresses(server, page, path)
        wait_for(stopped)
    if not as_json:
        count = sum(engine.management().statistics().instances.values())
        end = "forgotten" if path is None else f"kept in {path}"
        click.echo(f"\nStopped; {count} instance{'' if count == 1 else 's'} {end}.")


def _print_addresses(server: Server, page: Page | None, path: str | None) -> None:
    click.echo(f"Local engine listening on {server.address} (this machine only).")
    if server.port == DEFAULT_PORT:
        click.echo("Workers and clients find it without any setting.")
    else:
        click.echo(f'Connect with TaskHubGrpcWorker(host_address="{server.address}"), and the client likewise.')
    if page is not None:
        click.echo(f"Instances and their timelines: {page.url}")
    if path is None:
        click.echo("It keeps everything in memory and forgets it on exit. Ctrl-C stops it.")
    else:
        click.echo(f"It keeps everything in {path}. Ctrl-C stops it.")
