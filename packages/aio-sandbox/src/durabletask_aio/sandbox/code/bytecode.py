"""Reading bytecode: which globals a function calls, and which instruction loads the callee of a call.

Where the bytecode is not fully understood, the answer is `None` and never a guess.
"""

from __future__ import annotations

import dis
import functools
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from durabletask_aio.sandbox.code import _interpreter

_OLD: Final = sys.version_info < (3, 11)
_ATTRIBUTE: Final = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_JUMPS: Final = frozenset(dis.hasjrel) | frozenset(dis.hasjabs)
_IMPORT_NAME: Final = dis.opmap["IMPORT_NAME"]
_IGNORED: Final = frozenset({"EXTENDED_ARG", "CACHE"})
_CALLS: Final = frozenset(
    {"CALL", "PRECALL", "CALL_KW", "CALL_FUNCTION_EX", "CALL_FUNCTION", "CALL_FUNCTION_KW", "CALL_METHOD"}
)


def instructions(code: types.CodeType) -> list[dis.Instruction]:
    """The instructions of `code` as compiled, without `EXTENDED_ARG` prefixes and inline caches."""
    return [each for each in dis.get_instructions(code) if each.opname not in _IGNORED]


@dataclass(frozen=True)
class Chain:
    """A global name and the attributes taken from it: `datetime`, `.datetime`, `.now`."""

    index: int
    """Index of the instruction that loads the global."""
    offset: int
    argument: int
    name: str
    attributes: tuple[str, ...]
    called: tuple[bool, ...]
    """For the global itself and after each attribute: whether the value at that point is called directly."""


@functools.lru_cache(maxsize=512)  # both reachability and redirection ask for each function
def global_chains(code: types.CodeType) -> tuple[Chain, ...]:
    """Every load of a global in `code`, with the attributes that follow it."""
    return tuple(_global_chains(code))


def _global_chains(code: types.CodeType) -> Iterator[Chain]:
    found = instructions(code)
    callees = {
        callee
        for index, each in enumerate(found)
        if each.opname in _CALLS and (callee := callee_index(found, index)) is not None
    }
    for index, each in enumerate(found):
        if each.opname != "LOAD_GLOBAL" or each.arg is None:
            continue
        attributes: list[str] = []
        called = [index in callees]
        for follower in found[index + 1 :]:
            if follower.opname not in _ATTRIBUTE:
                break
            attributes.append(str(follower.argval))
            called.append(index + len(attributes) in callees)
        yield Chain(index, each.offset, each.arg, str(each.argval), tuple(attributes), tuple(called))


@dataclass(frozen=True)
class LocalImport:
    """An import statement inside a function: the module, and the names taken from it (none for `import m`)."""

    offset: int
    argument: int
    module: str
    members: tuple[str, ...]


def local_imports(code: types.CodeType) -> Iterator[LocalImport]:
    """The absolute imports in `code`; none if it also defines a class, which might be a subclass of an import."""
    if _IMPORT_NAME not in code.co_code[::2]:  # disassembling takes most of the time of a registration
        return
    found = instructions(code)
    if any(each.opname == "LOAD_BUILD_CLASS" for each in found):
        return
    for index, each in enumerate(found):
        if each.opname != "IMPORT_NAME" or each.arg is None or index < 2:
            continue
        level: Any = found[index - 2].argval
        members: Any = found[index - 1].argval
        if level == 0 and (members is None or isinstance(members, tuple)):
            yield LocalImport(each.offset, each.arg, str(each.argval), _interpreter.strings(members or ()))


def callee_index(found: list[dis.Instruction], index: int) -> int | None:
    """The index of the instruction that pushed the callee of the call at `index`.

    `None` if the arguments contain a branch. The stack is simulated backwards from the call until the depth of the
    callee is reached.
    """
    call = found[index]
    if call.opname == "CALL" and index > 0 and found[index - 1].opname == "PRECALL":
        # Python 3.11 splits a call into PRECALL and CALL; the first one pops the arguments.
        return callee_index(found, index - 1)
    wanted = _depth_of_callee(call)
    if wanted is None:
        return None
    depth = 0
    for position in range(index - 1, -1, -1):
        each = found[position]
        if depth <= wanted:
            while position > 0 and found[position].opname == "PUSH_NULL":
                position -= 1
            return position
        if each.opcode in _JUMPS or found[position + 1].is_jump_target:
            return None
        try:
            depth -= dis.stack_effect(each.opcode, each.arg, jump=False)
        except ValueError:
            return None
    return None


def _depth_of_callee(call: dis.Instruction) -> int | None:
    """The stack depth relative to the call, once the callee is on the stack and no argument is."""
    count = call.arg or 0
    if call.opname in {"CALL", "PRECALL", "CALL_METHOD", "CALL_FUNCTION"}:
        return -count
    if call.opname in {"CALL_KW", "CALL_FUNCTION_KW"}:
        return -count - 1
    if call.opname == "CALL_FUNCTION_EX":
        return -1 - (count & 1)
    return None


def argument_count(code: types.CodeType, offset: int) -> int | None:
    """The number of arguments that the call at `offset` passes; `None` for `f(*args)` and for other instructions."""
    raw = code.co_code
    if not 0 <= offset < len(raw):
        return None
    name = dis.opname[raw[offset]]
    if name not in _CALLS or name == "CALL_FUNCTION_EX":
        return None
    return raw[offset + 1]


def is_old_layout() -> bool:
    """Whether the argument of LOAD_GLOBAL is a plain index (3.10), not shifted for the NULL bit (3.11 and later)."""
    return _OLD
