"""What the processes of a run have to know."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from durabletask.client import TaskHubGrpcClient
from durabletask.grpc_options import GrpcChannelOptions


@dataclass(frozen=True)
class Settings:
    """The settings of a run; they are passed to other processes as JSON."""

    address: str
    """Where the engine listens."""

    run_id: str
    """Ids of instances and names of functions of this run begin with it."""

    timeout: float = 60.0
    """Seconds after which a scenario is ended."""

    wait_timeout: float = 20.0
    """Seconds that a scenario waits for something that should happen at once."""

    long_activity: float = 150.0
    """Seconds that a long activity takes."""

    tls: bool = False
    """Whether to connect with TLS."""

    metadata: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Headers that are sent with every call."""

    filters: bool = False
    """Whether workers ask for their own work items only, which they must if several scenarios run at a time."""

    def limited(self, factor: float, *, long_activity: bool) -> Settings:
        """Return the settings of a scenario with a time limit of its own.

        Args:
            factor: Multiplies `timeout`.
            long_activity: Whether the time that the long activity takes is added to `timeout`.

        Returns:
            A copy.
        """
        limit = self.timeout * factor
        extra = self.long_activity if long_activity else 0.0
        return replace(self, timeout=limit + extra, wait_timeout=limit / 3)

    def connection(self) -> dict[str, Any]:
        """Return the keywords of upstream's workers and clients that say how to connect.

        Messages may have any size, so that only the engine has a limit.
        """
        return {
            "host_address": self.address,
            "secure_channel": self.tls,
            "metadata": self.metadata or None,
            "channel_options": GrpcChannelOptions(max_receive_message_length=-1, max_send_message_length=-1),
        }

    def new_client(self) -> TaskHubGrpcClient:
        """Return a client of the engine, which the caller closes."""
        return TaskHubGrpcClient(**self.connection())

    def to_json(self) -> str:
        """Return the settings as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Return the settings that `to_json` has written.

        Args:
            text: The line.
        """
        document = json.loads(text)
        document["metadata"] = [(key, value) for key, value in document["metadata"]]
        return cls(**document)
