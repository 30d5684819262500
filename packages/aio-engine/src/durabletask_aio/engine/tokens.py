"""Completion tokens: all that the engine needs to judge an answer, since leases are not written.

A token names the lease (for the bookkeeping of who works on what), and what the answer counts for: a turn by the
random id of the commit before it, an activity by the random nonce of its task, a batch by the entity's random revision.
These change whenever something else has happened instead, also in another life of the engine.
"""

from __future__ import annotations

from typing import NamedTuple


class InvalidTokenError(ValueError):
    """The token is not one of this engine's kind."""


class TurnToken(NamedTuple):
    """A turn of an instance that was given its inbox up to a row.

    Attributes:
        lease: random, of this lease.
        turn_id: of the commit that the turn follows.
        upto: the last row of the inbox that it was given.
        row_count: how many rows that were.
        time: the time of the turn.
        instance_id: whose turn it is.
    """

    lease: str
    turn_id: str
    upto: int
    row_count: int
    time: int
    instance_id: str

    def __str__(self) -> str:
        return f"t:{self.lease}:{self.turn_id}:{self.upto}:{self.row_count}:{self.time}:{self.instance_id}"


class TaskToken(NamedTuple):
    """An activity.

    Attributes:
        lease: random, of this lease.
        seq: the task's number.
        nonce: the task's nonce.
    """

    lease: str
    seq: int
    nonce: str

    def __str__(self) -> str:
        return f"a:{self.lease}:{self.seq}:{self.nonce}"


class BatchToken(NamedTuple):
    """A batch of operations of an entity.

    Attributes:
        lease: random, of this lease.
        revision: of the entity before the batch.
        upto: the last operation that it was given.
        row_count: how many operations that were.
        holder: the execution that held the entity, empty if none did.
        entity_id: the entity.
    """

    lease: str
    revision: str
    upto: int
    row_count: int
    holder: str
    entity_id: str

    def __str__(self) -> str:
        return f"e:{self.lease}:{self.revision}:{self.upto}:{self.row_count}:{self.holder}:{self.entity_id}"


Token = TurnToken | TaskToken | BatchToken


def parse(text: str) -> Token:
    """Read a token.

    Raises:
        InvalidTokenError: if it is not one of an engine's.
    """
    kind, *parts = text.split(":", 6)
    try:
        if kind == "t":
            lease, turn_id, upto, count, time, instance_id = parts
            return TurnToken(lease, turn_id, int(upto), int(count), int(time), instance_id)
        if kind == "a":
            lease, seq, nonce = parts
            return TaskToken(lease, int(seq), nonce)
        if kind == "e":
            lease, revision, upto, count, holder, entity_id = parts
            return BatchToken(lease, revision, int(upto), int(count), holder, entity_id)
    except ValueError:
        pass
    raise InvalidTokenError(f"{text!r} is not a completion token of this engine")
