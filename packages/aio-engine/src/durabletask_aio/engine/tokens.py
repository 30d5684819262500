"""Completion tokens: all that the engine needs to judge an answer, since what is handed out is not written.

A token names the hand-out (for the bookkeeping of who works on what), and what the answer counts for: a turn by the
random id of the commit before it, an activity by the random nonce of its task, a batch by the entity's random revision.
These change whenever something else has happened instead, also in another life of the engine.
"""

from __future__ import annotations

from dataclasses import dataclass


class InvalidTokenError(ValueError):
    """The token is not one of this engine's kind."""


@dataclass(frozen=True)
class TurnToken:
    """A turn of an instance that was given its inbox up to a row.

    Attributes:
        handout: random, of this hand-out.
        turn_id: of the commit that the turn follows.
        upto: the last row of the inbox that it was given.
        count: how many rows that were.
        time: the time of the turn.
        instance_id: whose turn it is.
    """

    handout: str
    turn_id: str
    upto: int
    count: int
    time: int
    instance_id: str

    def __str__(self) -> str:
        return f"t:{self.handout}:{self.turn_id}:{self.upto}:{self.count}:{self.time}:{self.instance_id}"


@dataclass(frozen=True)
class TaskToken:
    """An activity.

    Attributes:
        handout: random, of this hand-out.
        seq: the task's number.
        nonce: the task's nonce.
    """

    handout: str
    seq: int
    nonce: str

    def __str__(self) -> str:
        return f"a:{self.handout}:{self.seq}:{self.nonce}"


@dataclass(frozen=True)
class BatchToken:
    """A batch of operations of an entity.

    Attributes:
        handout: random, of this hand-out.
        revision: of the entity before the batch.
        upto: the last operation that it was given.
        count: how many operations that were.
        holder: the execution that held the entity, empty if none did.
        entity_id: the entity.
    """

    handout: str
    revision: str
    upto: int
    count: int
    holder: str
    entity_id: str

    def __str__(self) -> str:
        return f"e:{self.handout}:{self.revision}:{self.upto}:{self.count}:{self.holder}:{self.entity_id}"


Token = TurnToken | TaskToken | BatchToken


def parse(text: str) -> Token:
    """Read a token.

    Raises:
        InvalidTokenError: if it is none of ours.
    """
    kind, *parts = text.split(":", 6)
    try:
        if kind == "t":
            handout, turn_id, upto, count, time, instance_id = parts
            return TurnToken(handout, turn_id, int(upto), int(count), int(time), instance_id)
        if kind == "a":
            handout, seq, nonce = parts
            return TaskToken(handout, int(seq), nonce)
        if kind == "e":
            handout, revision, upto, count, holder, entity_id = parts
            return BatchToken(handout, revision, int(upto), int(count), holder, entity_id)
    except ValueError:
        pass
    raise InvalidTokenError(f"{text!r} is not a completion token of this engine")
