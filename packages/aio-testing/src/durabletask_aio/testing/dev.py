"""`durabletask-aio dev`: the local engine for a worker in another terminal."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import click

from durabletask_aio.core.command_line import CommandError, json_option, write_json
from durabletask_aio.engine.store import StoreError
from durabletask_aio.testing.dev_ui import DevUi
from durabletask_aio.testing.local import LocalBackend, local_backend

DEFAULT_PORT = 4001
"""Where upstream's workers and clients look if they are told nothing."""

DEFAULT_UI_PORT = 4002

_EPILOG = """\
\b
examples:
  durabletask-aio dev --ui         then start a worker and a client in another terminal: nothing to set
  durabletask-aio dev --port 0     on a free port, which it prints
  durabletask-aio dev --db dev.db  keep the instances in a file, and continue with them at the next start

For development: one process, no authentication, and only programs on this machine can connect.
Ctrl-C and SIGTERM end it with exit code 0; the exit code is 2 if a port is taken or the file cannot be used.
"""


def _port(ctx: click.Context, option: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdigit() or int(text) > 65535:
        raise click.BadParameter(f"a port is a number from 0 to 65535, not {text!r}", ctx, option)
    return int(text)


@click.command("dev", short_help="Run the local engine until Ctrl-C (this machine only).", epilog=_EPILOG)
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
@click.option("--ui", is_flag=True, help="Show instances and their timelines on a local page.")
@click.option(
    "--ui-port",
    callback=_port,
    metavar="PORT",
    help=f"Port of that page, 0 for a free one; implies --ui (default: {DEFAULT_UI_PORT}).",
)
@json_option
def dev(port: int, db: str | None, ui: bool, ui_port: int | None, as_json: bool) -> None:
    """Run the local engine until Ctrl-C (this machine only; in memory, or in a file).

    With --json, the document is one line with the addresses, printed when the engine is ready.
    """
    backend = local_backend(port, db=db)
    page: DevUi | None = None
    if ui or ui_port is not None:
        page = DevUi(backend, DEFAULT_UI_PORT if ui_port is None else ui_port)
    try:
        _start(backend, "--port")
        if page is not None:
            _start(page, "--ui-port")
        _serve(backend, page, as_json=as_json)
    finally:
        if page is not None:
            page.stop()
        backend.stop()


def _start(server: LocalBackend | DevUi, option: str) -> None:
    try:
        server.start()
    except OSError as error:
        raise CommandError(f"{error.strerror}.\nFor example: durabletask-aio dev {option} 0") from error
    except StoreError as error:
        raise CommandError(f"{error}.") from error


def _serve(backend: LocalBackend, page: DevUi | None, *, as_json: bool) -> None:
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if as_json:
            document = {
                "address": backend.address,
                "port": backend.port,
                "ui": None if page is None else page.url,
                "db": backend.path,
            }
            write_json(document, indent=None)
        else:
            _print_addresses(backend, page)
        # A timeout, because on Windows a wait without one cannot be interrupted.
        while not stop.wait(1.0):
            pass
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if not as_json:
        count = len(backend.instances())
        end = "forgotten" if backend.path is None else f"kept in {backend.path}"
        click.echo(f"\nStopped; {count} instance{'' if count == 1 else 's'} {end}.")


def _print_addresses(backend: LocalBackend, page: DevUi | None) -> None:
    click.echo(f"Local engine listening on {backend.address} (this machine only).")
    if backend.port == DEFAULT_PORT:
        click.echo("Workers and clients find it without any setting.")
    else:
        click.echo(f'Connect with TaskHubGrpcWorker(host_address="{backend.address}"), and the client likewise.')
    if page is not None:
        click.echo(f"Instances and their timelines: {page.url}")
    if backend.path is None:
        click.echo("It keeps everything in memory and forgets it on exit. Ctrl-C stops it.")
    else:
        click.echo(f"It keeps everything in {backend.path}. Ctrl-C stops it.")
