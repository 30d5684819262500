"""From a frame of running code to the finding about the call that it is making."""

from __future__ import annotations

import ast
import inspect
import types

from durabletask_aio.sandbox.code.sources import Position, Source, position_of, source_of
from durabletask_aio.sandbox.rules.catalogue import Call
from durabletask_aio.sandbox.rules.findings import Finding, column_of
from durabletask_aio.sandbox.rules.fixes import fix_of_call


def finding_for_frame(frame: types.FrameType, call: Call, context: str | None, reached: tuple[str, ...]) -> Finding:
    """The finding about `call`, which the code of `frame` is making.

    `context` is the name of the workflow's context parameter. A corrected line is offered only where a variable of that
    name is in scope.
    """
    code = frame.f_code
    position = position_of(frame, call.name.rpartition(".")[2])
    source = source_of(code.co_filename, frame.f_globals)
    in_scope = context if context in (*code.co_varnames, *code.co_freevars) else None
    line = source.line(position.line) if source is not None else ""
    new_line = None
    if source is not None and in_scope is not None:
        node = _node_at(source, position)
        is_async = bool(code.co_flags & inspect.CO_COROUTINE)
        fix = fix_of_call(source.lines, node, call, in_scope, generator=False, is_async=is_async)
        new_line = fix.applied_to(line) if fix is not None else None
    return Finding(
        rule=call.rule,
        file=code.co_filename,
        line=position.line,
        column=column_of(line, position.column - 1) if position.column is not None else None,
        function=code.co_name,
        reached=reached,
        call=call.name,
        advice=call.advice(),
        source_line=line,
        corrected_line=new_line,
        end_line=position.end_line,
    )


def _node_at(source: Source, position: Position) -> ast.Call | None:
    """The call at exactly this position, if a corrected line can be offered for it.

    Both ends are compared: `time.time().hex()` and `getattr(time, "time")()` each contain another call with the same
    start.
    """
    if source.tree is None or position.column is None or position.end_column is None:
        return None
    expected = (position.line, position.column - 1, position.end_line, position.end_column - 1)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and (
            (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset) == expected
        ):
            # A computed callee (the result of a call, a subscript) may be different each time, so it is not replaced.
            return node if isinstance(node.func, (ast.Name, ast.Attribute)) else None
    return None
