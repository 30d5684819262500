"""Values that are the same on every replay: random streams and uuids."""

from __future__ import annotations

import hashlib
import random
import uuid
from datetime import datetime


class Streams:
    """The random streams of one execution, one for each purpose, independent of one another.

    Seeded from the instance id and the start of the execution in microseconds, so that instances differ, and so do the
    executions of one instance after `continue_as_new`.  `PYTHONHASHSEED`, time zone and Python version do not change
    what `random()`, `getrandbits` and `uuid4` return.  (The other methods of `random.Random` may change with Python, as
    its documentation says.)
    """

    __slots__ = ("_seed", "_streams")

    def __init__(self, instance_id: str, started_at: datetime) -> None:
        self._seed = (instance_id, started_at)
        self._streams: dict[str, random.Random] = {}

    def stream(self, purpose: str) -> random.Random:
        """Return the stream for `purpose`: the same object each time."""
        found = self._streams.get(purpose)
        if found is None:
            instance_id, started_at = self._seed
            # The clock is naive UTC, so that isoformat() involves no time zone.
            text = "\0".join((purpose, started_at.isoformat(timespec="microseconds"), instance_id))
            seed = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest(), "big")
            found = self._streams[purpose] = random.Random(seed)
        return found

    def uuid4(self) -> uuid.UUID:
        """Return the next uuid of the execution, in the form of version 4."""
        return uuid.UUID(int=self.stream("uuid4").getrandbits(128), version=4)
