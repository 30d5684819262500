"""Which engine a command is for: one that runs, or the file of one that does not."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click
import grpc

from durabletask_aio.core.command_line import CommandError
from durabletask_aio.engine._upstream import TaskHubGrpcClient
from durabletask_aio.engine.bearer import with_token
from durabletask_aio.engine.embedded import Engine
from durabletask_aio.engine.exporting import silent_logger
from durabletask_aio.engine.management.client import EngineClient
from durabletask_aio.engine.serving import DEFAULT_PORT
from durabletask_aio.engine.store import FileInUseError, StoreError

STATUSES = {"pending": 6, "running": 0, "suspended": 7, "completed": 1, "failed": 3, "terminated": 5}
"""Names of statuses, with the numbers of upstream's `OrchestrationStatus`."""

ENDED = frozenset(STATUSES[name] for name in ("completed", "failed", "terminated"))
"""The statuses of instances that have ended."""

_DEFAULT_ADDRESS = f"localhost:{DEFAULT_PORT}"


@dataclass(frozen=True)
class Target:
    """The engine that the options of a command name."""

    address: str | None
    db: Path | None
    tls_ca: Path | None
    token_file: Path | None

    @contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """Give a channel to a running engine, or to one that is started on a file for the moment."""
        if self.address is not None and self.db is not None:
            raise CommandError("give --address for a running engine or --db for a file that none uses, not both")
        try:
            if self.db is not None:
                with Engine(self.db) as engine:
                    yield engine.channel
                return
            with self._remote_channel() as channel:
                yield channel
        except FileInUseError as error:
            raise CommandError(
                f"{error}.\nWithout --db, the command asks a running engine: --address, by default {_DEFAULT_ADDRESS}"
            ) from error
        except StoreError as error:
            raise CommandError(str(error)) from error
        except grpc.RpcError as error:
            raise CommandError(self._explain(error)) from error

    @contextmanager
    def client(self) -> Iterator[TaskHubGrpcClient]:
        """Give upstream's client: any engine of the protocol will do."""
        with self.channel() as channel, TaskHubGrpcClient(channel=channel, logger=silent_logger) as client:
            yield client

    @contextmanager
    def management(self) -> Iterator[EngineClient]:
        """Give a client of what the protocol has no call for."""
        with self.channel() as channel:
            yield EngineClient(channel)

    def _remote_channel(self) -> grpc.Channel:
        address = self.address or _DEFAULT_ADDRESS
        if self.tls_ca is not None:
            credentials = grpc.ssl_channel_credentials(self.tls_ca.read_bytes())
            channel: grpc.Channel = grpc.secure_channel(address, credentials)
        else:
            channel = grpc.insecure_channel(address)
        if self.token_file is None:
            return channel
        return with_token(channel, self.token_file.read_text(encoding="utf-8").strip())

    def _explain(self, error: grpc.RpcError) -> str:
        call = cast("Any", error)  # every error of a call is a `grpc.Call` too
        code, details, address = call.code(), call.details(), self.address or _DEFAULT_ADDRESS
        if code is grpc.StatusCode.UNAVAILABLE:
            return f"no engine answers on {address}: {details}"
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return f"the engine on {address} is not a durabletask-aio engine: it does not know this command"
        return str(details)


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which engine; the command gets a `Target` as `target`."""

    @functools.wraps(command)
    def with_target(
        *args: Any, address: str | None, db: Path | None, tls_ca: Path | None, token_file: Path | None, **kwargs: Any
    ) -> Any:
        return command(*args, target=Target(address, db, tls_ca, token_file), **kwargs)

    existing = click.Path(path_type=Path, exists=True)
    decorated: Callable[..., Any] = with_target
    for option in (
        click.option("--token-file", type=existing, help="File with the bearer token."),
        click.option("--tls-ca", type=existing, help="PEM file with the CA of the engine."),
        click.option("--db", type=existing, help="A file that no engine uses now."),
        click.option("--address", help=f"A running engine.  [default: {_DEFAULT_ADDRESS}]"),
    ):
        decorated = option(decorated)
    return decorated
