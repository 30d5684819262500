"""Values that are the same on every replay: random streams and uuids."""

from __future__ import annotations

import hashlib
import random
import uuid
from datetime import datetime


class Streams:
    """The random streams of one execution, one for each purpose, independent of one another.

    Seeded from the instance and the time at which the execution started, to the microsecond, so that instances differ
    and so do the executions of one instance after ``continue_as_new``.  Not from anything of the process: neither
    ``PYTHONHASHSEED`` nor the time zone nor the Python version changes what ``random()``, ``getrandbits`` and
    :meth:`uuid4` give.  (The other methods of :class:`random.Random` may change with Python, as its documentation
    says.)
    """

    __slots__ = ("_seed", "_streams")

    def __init__(self, instance_id: str, started_at: datetime) -> None:
        self._seed = (instance_id, started_at)
        self._streams: dict[str, random.Random] = {}

    def stream(self, purpose: str) -> random.Random:
        """The stream for ``purpose``: the same object each time."""
        found = self._streams.get(purpose)
        if found is None:
            instance_id, started_at = self._seed
            # The clock is naive UTC, and isoformat() of it involves no time zone.
            text = "\0".join((purpose, started_at.isoformat(timespec="microseconds"), instance_id))
            seed = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest(), "big")
            found = self._streams[purpose] = random.Random(seed)
        return found

    def uuid4(self) -> uuid.UUID:
        """The next uuid of the execution, of version 4 by form."""
        return uuid.UUID(int=self.stream("uuid4").getrandbits(128), version=4)
