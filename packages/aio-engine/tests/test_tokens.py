"""Completion tokens are read as they were written, and others are refused."""

from __future__ import annotations

import pytest

from durabletask_aio.engine.tokens import BatchToken, InvalidTokenError, TaskToken, Token, TurnToken, parse

TOKENS: list[Token] = [
    TurnToken("0" * 16, "1" * 16, 12, 3, 1_700_000_000_000_000, "order"),
    TurnToken("0" * 16, "1" * 16, 12, 3, 0, "an:id:with:colons: and spaces"),
    TurnToken("0" * 16, "1" * 16, 12, 3, 0, ""),
    TaskToken("0" * 16, 5, "2" * 16),
    BatchToken("0" * 16, "3" * 16, 7, 2, "", "@counter@a"),
    BatchToken("0" * 16, "3" * 16, 7, 2, "4" * 16, "@counter@key:with:colons"),
]


@pytest.mark.parametrize("token", TOKENS, ids=str)
def test_a_token_is_read_as_it_was_written(token: Token):
    assert parse(str(token)) == token


@pytest.mark.parametrize(
    "text",
    ["", "t", "x:1:2", "a:lease:five:nonce", "a:lease:5", "a:lease:5:nonce:more", "t:lease:turn:1:2:x", "e:1:2:3:4:5"],
)
def test_what_is_no_token_is_refused(text: str):
    with pytest.raises(InvalidTokenError, match="is not a completion token of this engine"):
        parse(text)
