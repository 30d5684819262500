"""`durabletask-aio serve`, and the commands for a durable engine's file."""

from __future__ import annotations

import itertools
import logging
import re
import sys
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from durabletask_aio.core.command_line import CommandError, json_option, write_json
from durabletask_aio.engine._upstream import TaskHubGrpcClient
from durabletask_aio.engine.command_targets import STATUSES, Target, target_options
from durabletask_aio.engine.dispatch import RECONNECT_PERIOD
from durabletask_aio.engine.embedded import Engine
from durabletask_aio.engine.exporting import silent_logger, write_history
from durabletask_aio.engine.management.client import EngineClient
from durabletask_aio.engine.server import Access, Server
from durabletask_aio.engine.serving import DEFAULT_PORT, DEFAULT_UI_PORT, Page, make_page, until_signal, wait_for
from durabletask_aio.engine.store import StoreError

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


@click.command("fork", short_help="Start an instance from the beginning of another one's history.")
@click.argument("instance_id")
@click.option(
    "--after",
    help="The last to keep: the end of a step, by the name of the activity, child or event or by #ACTION; or an event, "
    "by its number.",
)
@click.option("--turns", type=click.IntRange(1), help="The number of turns to keep.  [default: all but the last]")
@click.option("--id", "new_id", default="", help="The id of the new instance.  [default: a random one]")
@target_options
@json_option
def fork(instance_id: str, after: str | None, turns: int | None, new_id: str, target: Target, as_json: bool) -> None:
    """Start an instance with the history of INSTANCE_ID up to a place, from where the code of today continues.

    INSTANCE_ID stays as it is. What is kept is not run again.
    """
    if after is not None and turns is not None:
        raise CommandError("give --after or --turns, not both")
    place = int(after) if after is not None and after.isdecimal() else after
    with target.management() as client:
        started = client.fork(instance_id, new_id, turns=turns or 0, after=place)
    if as_json:
        write_json({"instance_id": started})
    else:
        click.echo(f"Started {started} from {instance_id}.")


@click.command("backup", short_help="Copy a durable engine's database while it runs.")
@click.argument("destination", metavar="TARGET", type=click.Path(path_type=Path, dir_okay=False))
@target_options
@json_option
def backup(destination: Path, target: Target, as_json: bool) -> None:
    """Copy a durable engine's database into the new file TARGET while it runs.

    The file is written by the engine, on its machine. A copy of the database made by other means misses what is still
    in its write-ahead log.
    """
    with target.management() as client:
        size = client.backup(str(destination.absolute()))
    if as_json:
        write_json({"target": str(destination), "bytes": size})
    else:
        click.echo(f"{destination}: {size:,} bytes")


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
@target_options
@json_option
def purge(
    older_than: timedelta,
    statuses: tuple[str, ...],
    dry_run: bool,
    vacuum: bool,
    target: Target,
    as_json: bool,
) -> None:
    """Delete instances that ended long ago, with their children."""
    sizes: tuple[int, int] | None = None
    with target.management() as client:
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
@target_options
@json_option
def retention(age: str, target: Target, as_json: bool) -> None:
    """Set how long instances stay that have ended: AGE is such as 30d, or off.

    It holds until it is changed, over restarts of the engine.
    """
    wanted = None if age == "off" else Age().convert(age, None, None)
    with target.management() as client:
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
@target_options
@json_option
def export(
    folder: Path,
    instance_ids: tuple[str, ...],
    names: tuple[str, ...],
    statuses: tuple[str, ...],
    limit: int,
    target: Target,
    as_json: bool,
) -> None:
    """Write the histories of instances to FOLDER, one JSON file each.

    `durabletask-aio replay FOLDER` then says whether today's code fits them. Histories hold inputs and results.
    """
    with target.channel() as channel:
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
