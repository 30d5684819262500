"""`durabletask-aio serve`, and the commands for a durable engine's file."""

from __future__ import annotations

import itertools
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import click
import grpc

from durabletask_aio.core import request_cancellation
from durabletask_aio.core.command_line import CommandError, json_option, write_json
from durabletask_aio.engine._upstream import TaskHubGrpcClient
from durabletask_aio.engine.bearer import with_token
from durabletask_aio.engine.dispatch import RECONNECT_PERIOD
from durabletask_aio.engine.embedded import Engine
from durabletask_aio.engine.exporting import silent_logger, write_history
from durabletask_aio.engine.management.client import EngineClient
from durabletask_aio.engine.server import Access, Server
from durabletask_aio.engine.serving import DEFAULT_PORT, DEFAULT_UI_PORT, Page, make_page, until_signal, wait_for
from durabletask_aio.engine.store import FileInUseError, StoreError

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])

STATUSES = {"pending": 6, "running": 0, "suspended": 7, "completed": 1, "failed": 3, "terminated": 5}
"""Names of statuses, with the numbers of upstream's `OrchestrationStatus`."""

_ENDED = {STATUSES[name] for name in ("completed", "failed", "terminated")}

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Age(click.ParamType):  # type: ignore[type-arg]
    """A duration as `90s`, `15m`, `12h`, `30d` or `4w`."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read it."""
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"(\d+)([smhdw])", str(value))
        if found is None:
            self.fail(f"{value!r} is not a duration such as 90s, 15m, 12h, 30d or 4w", param, ctx)
        return timedelta(**{_UNITS[found[2]]: int(found[1])})


_SERVE_EPILOG = """\
\b
examples:
  durabletask-aio serve --db orders.db                     for workers and clients on this machine
  durabletask-aio serve --db orders.db --ui                with the page on port 4002
  durabletask-aio serve --db orders.db --host 0.0.0.0 --tls-cert server.pem --tls-key server.key

What is acknowledged is on disk. Keep the file on a local disk, and back it up with `durabletask-aio backup`: a copy
of the file alone misses what is still in FILE-wal. Ctrl-C and SIGTERM end the engine with exit code 0; the exit code
is 2 if the port is taken or the file cannot be used.
"""


@click.command("serve", short_help="Run a durable engine on a file until Ctrl-C.", epilog=_SERVE_EPILOG)
@click.option("--db", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The database file.")
@click.option("--port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, show_default=True, help="0: a free one.")
@click.option("--host", default="localhost", show_default=True, help="Address to listen on.")
@click.option(
    "--durability",
    type=click.Choice(["fsync", "os"]),
    default="fsync",
    show_default=True,
    help="fsync: survives a power cut. os: survives kill -9, but a power cut can undo what was acknowledged last.",
)
@click.option("--wait", type=float, default=0.0, help="Seconds to wait for another engine to release the file.")
@click.option("--activity-lease", type=float, help="Seconds after which an unanswered activity runs again.")
@click.option(
    "--reconnect-period",
    type=click.FloatRange(min=0),
    default=RECONNECT_PERIOD,
    show_default=True,
    help="Seconds for which a worker of durabletask-aio keeps what it works on after its connection has broken.",
)
@click.option("--retention", type=Age(), help="Purge instances that ended so long ago, such as 30d.")
@click.option("--tls-cert", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="PEM certificate chain.")
@click.option("--tls-key", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="PEM private key.")
@click.option("--insecure", is_flag=True, help="Listen without TLS on an address that other machines can reach.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with a token that clients have to send as `authorization: Bearer TOKEN`.",
)
@click.option("--ui", is_flag=True, help="Serve the page.")
@click.option(
    "--ui-port", type=click.IntRange(0, 65535), help=f"Port of the page; implies --ui.  [default: {DEFAULT_UI_PORT}]"
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning"]), default="info", show_default=True)
@json_option
def serve(
    db: Path,
    port: int,
    host: str,
    durability: Any,
    wait: float,
    activity_lease: float | None,
    reconnect_period: float,
    retention: timedelta | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    insecure: bool,
    token_file: Path | None,
    ui: bool,
    ui_port: int | None,
    log_level: str,
    as_json: bool,
) -> None:
    """Run a durable engine on a file until Ctrl-C.

    With --json, the document is one line with the addresses, printed when the engine is ready.
    """
    token = None if token_file is None else token_file.read_text(encoding="utf-8").strip()
    try:
        access = Access(
            host,
            None if tls_cert is None else tls_cert.read_bytes(),
            None if tls_key is None else tls_key.read_bytes(),
            insecure,
            token,
        )
        engine = Engine(
            db,
            durability=durability,
            wait=wait,
            activity_lease=activity_lease,
            reconnect_period=reconnect_period,
        )
    except ValueError as error:
        raise CommandError(str(error)) from error
    logging.basicConfig(
        stream=sys.stderr, level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        engine.start()
    except StoreError as error:
        raise CommandError(str(error)) from error
    try:
        with until_signal() as stopped:
            tls = {"certificate": tls_cert, "key": tls_key, "insecure": insecure}
            server, page = _listen(engine, port, access, DEFAULT_UI_PORT if ui and ui_port is None else ui_port, tls)
            try:
                if retention is not None:
                    engine.management().set_retention(retention)
                _announce(engine, server, page, as_json=as_json)
                wait_for(stopped)
            finally:
                if page is not None:
                    page.stop()
    finally:
        engine.stop(grace=2.0)


def _listen(
    engine: Engine, port: int, access: Access, ui_port: int | None, tls: dict[str, Any]
) -> tuple[Server, Page | None]:
    try:
        server = engine.listen(port, access)
    except OSError as error:
        raise CommandError(f"{error.strerror}.\nFor example: durabletask-aio serve --port 0") from error
    if ui_port is None:
        return server, None
    try:
        page = make_page(engine, ui_port, address=server.address, host=access.host, token=access.token, **tls)
        page.start()
    except ImportError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.strerror}.\nFor example: durabletask-aio serve --ui-port 0") from error
    return server, page


def _announce(engine: Engine, server: Server, page: Page | None, *, as_json: bool) -> None:
    if as_json:
        document = {"address": server.address, "port": server.port, "ui": None if page is None else page.url}
        write_json(document, indent=None)
        return
    click.echo(f"Engine on {engine.path} (durability {engine.durability}), listening on {server.address}.")
    counts = engine.management().statistics().instances
    turns, activities, entities = engine.kernel.loaded
    click.echo(
        f"Holds {_count(sum(counts.values()), 'instance')}; continues with {_count(turns, 'turn')}, "
        f"{_count(activities, 'activity', 'activities')} and {_count(entities, 'entity', 'entities')}."
    )
    if page is not None:
        click.echo(f"Page: {page.url}")
    click.echo("Ctrl-C stops it; everything continues at the next start.")


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


# -- commands for an engine that runs, or for its file -------------------------------------------------------------


def _target_options(command: _Decorated) -> _Decorated:
    """Add the options that say which engine."""
    for option in (
        click.option("--token-file", type=click.Path(path_type=Path, exists=True), help="File with the bearer token."),
        click.option(
            "--tls-ca", type=click.Path(path_type=Path, exists=True), help="PEM file with the CA of the engine."
        ),
        click.option("--db", type=click.Path(path_type=Path, exists=True), help="A file that no engine uses now."),
        click.option("--address", help=f"A running engine.  [default: localhost:{DEFAULT_PORT}]"),
    ):
        command = option(command)
    return command


@contextmanager
def _connected(
    address: str | None, db: Path | None, tls_ca: Path | None, token_file: Path | None
) -> Iterator[grpc.Channel]:
    """Give a channel to a running engine, or to one that is started on a file for the moment."""
    if address is not None and db is not None:
        raise CommandError("give --address for a running engine or --db for a file that none uses, not both")
    try:
        if db is not None:
            with Engine(db) as engine:
                yield engine.channel
            return
        with _channel(address or f"localhost:{DEFAULT_PORT}", tls_ca, token_file) as channel:
            yield channel
    except FileInUseError as error:
        raise CommandError(
            f"{error}.\nWithout --db, the command asks a running engine: --address, by default localhost:{DEFAULT_PORT}"
        ) from error
    except StoreError as error:
        raise CommandError(str(error)) from error
    except grpc.RpcError as error:
        raise CommandError(_explain(error, address)) from error


@contextmanager
def _management(
    address: str | None, db: Path | None, tls_ca: Path | None, token_file: Path | None
) -> Iterator[EngineClient]:
    """Give a client of what the protocol has no call for."""
    with _connected(address, db, tls_ca, token_file) as channel:
        yield EngineClient(channel)


def _channel(address: str, tls_ca: Path | None, token_file: Path | None) -> grpc.Channel:
    if tls_ca is not None:
        credentials = grpc.ssl_channel_credentials(tls_ca.read_bytes())
        channel: grpc.Channel = grpc.secure_channel(address, credentials)
    else:
        channel = grpc.insecure_channel(address)
    if token_file is None:
        return channel
    return with_token(channel, token_file.read_text(encoding="utf-8").strip())


def _explain(error: grpc.RpcError, address: str | None) -> str:
    call = cast("Any", error)  # every error of a call is a `grpc.Call` too
    code, details = call.code(), call.details()
    if code is grpc.StatusCode.UNAVAILABLE:
        return f"no engine answers on {address or f'localhost:{DEFAULT_PORT}'}: {details}"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"the engine on {address} is not a durabletask-aio engine: it does not know this command"
    return str(details)


@click.command("cancel", short_help="Ask an instance to clean up and end.")
@click.argument("instance_id")
@click.option("--reason", help="Why; the workflow sees it, and its failure has it as the message.")
@_target_options
@json_option
def cancel(
    instance_id: str,
    reason: str | None,
    address: str | None,
    db: Path | None,
    tls_ca: Path | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Ask the instance INSTANCE_ID to cancel itself: its workflow can clean up, and then ends.

    Any engine can be asked. A generator orchestrator ignores the request.
    """
    with (
        _connected(address, db, tls_ca, token_file) as channel,
        TaskHubGrpcClient(channel=channel, logger=silent_logger) as client,
    ):
        state = client.get_orchestration_state(instance_id)
        if state is None:
            raise CommandError(f"there is no instance {instance_id!r}")
        if state.runtime_status.value in _ENDED:
            raise CommandError(f"the instance {instance_id!r} has ended already: {state.runtime_status.name.lower()}")
        request_cancellation(client, instance_id, reason)
    if as_json:
        write_json({"instance_id": instance_id, "reason": reason})
    else:
        click.echo(f"Asked {instance_id} to cancel itself.")


@click.command("backup", short_help="Copy a durable engine's database while it runs.")
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
@_target_options
@json_option
def backup(
    target: Path, address: str | None, db: Path | None, tls_ca: Path | None, token_file: Path | None, as_json: bool
) -> None:
    """Copy a durable engine's database into the new file TARGET while it runs.

    The file is written by the engine, on its machine. A copy of the database made by other means misses what is still
    in its write-ahead log.
    """
    with _management(address, db, tls_ca, token_file) as client:
        size = client.backup(str(target.absolute()))
    if as_json:
        write_json({"target": str(target), "bytes": size})
    else:
        click.echo(f"{target}: {size:,} bytes")


@click.command("purge", short_help="Delete instances that ended long ago.")
@click.option("--older-than", type=Age(), required=True, help="How long ago they ended at least, such as 30d.")
@click.option(
    "--status",
    "statuses",
    type=click.Choice(["completed", "failed", "terminated"]),
    multiple=True,
    help="Of this status only; may be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Only count them, without their children.")
@click.option("--vacuum", is_flag=True, help="Give the space back to the file system; everything waits meanwhile.")
@_target_options
@json_option
def purge(
    older_than: timedelta,
    statuses: tuple[str, ...],
    dry_run: bool,
    vacuum: bool,
    address: str | None,
    db: Path | None,
    tls_ca: Path | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Delete instances that ended long ago, with their children."""
    sizes: tuple[int, int] | None = None
    with _management(address, db, tls_ca, token_file) as client:
        count = client.purge_older(older_than, statuses=[STATUSES[each] for each in statuses], dry_run=dry_run)
        if vacuum and not dry_run:
            sizes = client.vacuum()
    if as_json:
        write_json({"count": count, "dry_run": dry_run, "bytes": None if sizes is None else sizes[1]})
        return
    click.echo(f"{count:,} instance{'' if count == 1 else 's'} {'would be ' if dry_run else ''}purged.")
    if sizes is not None:
        click.echo(f"The file had {sizes[0]:,} bytes and has {sizes[1]:,}.")


@click.command("retention", short_help="Set how long instances stay that have ended.")
@click.argument("age", metavar="AGE|off")
@_target_options
@json_option
def retention(
    age: str, address: str | None, db: Path | None, tls_ca: Path | None, token_file: Path | None, as_json: bool
) -> None:
    """Set how long instances stay that have ended: AGE is such as 30d, or off.

    It holds until it is changed, over restarts of the engine.
    """
    wanted = None if age == "off" else Age().convert(age, None, None)
    with _management(address, db, tls_ca, token_file) as client:
        client.set_retention(wanted)
    if as_json:
        write_json({"seconds": None if wanted is None else int(wanted.total_seconds())})
        return
    click.echo("Instances stay." if wanted is None else f"Instances are purged {age} after their end.")


@click.command("export", short_help="Write histories to files, for `durabletask-aio replay`.")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.argument("instance_ids", nargs=-1)
@click.option("--name", "names", multiple=True, help="Instances of this orchestrator; may be repeated.")
@click.option("--status", "statuses", type=click.Choice(list(STATUSES)), multiple=True, help="Of this status only.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most the newest of them.")
@_target_options
@json_option
def export(
    folder: Path,
    instance_ids: tuple[str, ...],
    names: tuple[str, ...],
    statuses: tuple[str, ...],
    limit: int,
    address: str | None,
    db: Path | None,
    tls_ca: Path | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Write the histories of instances to FOLDER, one JSON file each.

    `durabletask-aio replay FOLDER` then says whether today's code fits them. Histories hold inputs and results.
    """
    with _connected(address, db, tls_ca, token_file) as channel:
        found: Iterable[str] = instance_ids
        if not instance_ids:
            search = EngineClient(channel).search(
                names=names, statuses=[STATUSES[each] for each in statuses], page_size=min(limit, 1000)
            )
            found = (each.instance_id for each in itertools.islice(search, limit))
        with TaskHubGrpcClient(channel=channel, logger=silent_logger) as client:
            written = [str(write_history(folder, each, client.get_orchestration_history(each))) for each in found]
    if as_json:
        write_json({"files": written})
    else:
        click.echo(f"{len(written)} histor{'y' if len(written) == 1 else 'ies'} in {folder}")
