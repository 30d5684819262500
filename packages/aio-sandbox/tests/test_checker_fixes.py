"""`durabletask-aio check --fix`: what is replaced, and that nothing else is."""

from __future__ import annotations

import ast
import io
import json
import sys
from pathlib import Path

import pytest

from durabletask_aio.core.command_line import run_command
from durabletask_aio.sandbox.cli.check import check as command
from durabletask_aio.sandbox.cli.imports import with_imports
from durabletask_aio.sandbox.static.analysis import check

HEAD = "from durabletask.aio import AsyncWorkflowContext\n"


def run(*arguments: str) -> int:
    return run_command(command, arguments, prog_name="durabletask-aio check")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "flow.py"


def body(expression: str) -> str:
    """A workflow that uses an expression, with its imports, which are used elsewhere too."""
    return (
        f"{HEAD}import datetime, random, time, uuid\nfrom datetime import datetime as dt, timezone\n\n"
        "KEPT = datetime, random, time, uuid, dt, timezone\n\n"
        f"async def workflow(ctx: AsyncWorkflowContext):\n    {expression}\n"
    )


def generator(expression: str, imports: str = "import datetime, random, time, uuid\n") -> str:
    return (
        f"from durabletask import task\n{imports}\n"
        f"def workflow(ctx: task.OrchestrationContext, _):\n    {expression}\n    yield ctx.call_activity('a')\n"
    )


class TestReplacements:
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("return time.time()", "return ctx.now().timestamp()"),
            ("return  time . time ( )  ", "return  ctx.now().timestamp()  "),
            ("return uuid.uuid4().hex", "return ctx.uuid4().hex"),
            ("return random.uniform( 1,\n\n      2 )  # why", "return ctx.random().uniform( 1,\n\n      2 )  # why"),
            ("return random.choice((a), b)[0]", "return ctx.random().choice((a), b)[0]"),
            ("return random.sample(*a, k = 1)", "return ctx.random().sample(*a, k = 1)"),
            ("return random.choice(x for x in a)", "return ctx.random().choice(x for x in a)"),
            ("return random.Random()", "return ctx.random()"),
            ("return dt.now(timezone.utc)", "return ctx.now(timezone.utc)"),
            ("return dt.now(tz=timezone.utc)", "return ctx.now(tz=timezone.utc)"),
            ("return datetime.datetime.utcnow()", "return ctx.now().replace(tzinfo=None)"),
            ("return datetime.date.today()", "return ctx.now().date()"),
            ('return "é", time.time(), time.monotonic()', 'return "é", ctx.now().timestamp(), ctx.now().timestamp()'),
            (
                "return random.uniform(time.time(), random.random())",
                "return ctx.random().uniform(ctx.now().timestamp(), ctx.random().random())",
            ),
        ],
    )
    def test_safe_ones_are_made_at_their_place(self, file: Path, before: str, after: str) -> None:
        file.write_text(body(before), encoding="utf-8")

        assert run("--fix", "flow.py") == 0
        assert file.read_text(encoding="utf-8") == body(after)

    def test_in_f_strings_where_python_knows_the_position(self, file: Path) -> None:
        expression = 'return f"""\n{1}: {uuid.uuid4()}, {time.time()!r:>20}"""'
        file.write_text(body(expression))

        # Before Python 3.12, positions in f-strings are sometimes wrong; the file then stays as it is.
        is_fixed = run("--fix", "flow.py") == 0
        assert is_fixed or sys.version_info < (3, 12)
        if is_fixed:
            expression = expression.replace("uuid.uuid4()", "ctx.uuid4()").replace(
                "time.time()", "ctx.now().timestamp()"
            )
        assert file.read_text() == body(expression)

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("time.sleep(60)", "await ctx.sleep(60)"),
            ("time.sleep(60); return 1", "await ctx.sleep(60); return 1"),
            ("return input().strip()", "return (await ctx.wait_for_external_event('input')).strip()"),
            ("return dt.now()", "return ctx.now()"),
        ],
    )
    def test_unsafe_ones_are_made_on_request(
        self, file: Path, capsys: pytest.CaptureFixture[str], before: str, after: str
    ) -> None:
        file.write_text(body(before))

        assert run("--fix", "flow.py") == 1
        assert file.read_text() == body(before)
        assert "1 can be fixed with --fix --unsafe-fixes" in capsys.readouterr().out
        assert run("--fix", "--unsafe-fixes", "flow.py") == 0
        assert file.read_text() == body(after)
        output = capsys.readouterr()
        assert "1 finding fixed" in output.out
        assert "are for new instances: running ones do not replay with them" in output.err

    @pytest.mark.parametrize(
        "expression",
        [
            "return (time.time)()",  # a parenthesis before that of the call
            "return time.time(  # when\n    )",  # the comment would be lost
            "return dt.now(None)",  # local time, which the workflow's clock does not have
            "clock = time.time\n    return clock()",  # a variable
            "return (lambda: time.sleep(1))()",  # no coroutine function
        ],
    )
    def test_what_is_not_certain_is_left_alone(self, file: Path, expression: str) -> None:
        file.write_text(body(expression))

        assert run("--fix", "--unsafe-fixes", "flow.py") == 1
        assert file.read_text() == body(expression)

    def test_a_parameter_that_is_a_clock_for_one_caller_is_left_alone(self, file: Path) -> None:
        text = (
            f"{HEAD}import time\n\ndef helper(ctx, time):\n    return time.time()\n\n"
            "async def workflow(ctx: AsyncWorkflowContext):\n    return helper(ctx, time)\n"
        )
        file.write_text(text)
        run("--fix", "flow.py")
        assert file.read_text() == text

    @pytest.mark.parametrize(
        ("before", "after", "options"),
        [
            ("now = datetime.datetime.utcnow()", "now = ctx.current_utc_datetime", ()),
            ("rng = random.Random()", "rng = random.Random(ctx.instance_id)", ()),
            ("key = uuid.uuid4()", "key = uuid.UUID(ctx.new_uuid())", ()),
            ("time.sleep(5)", "yield ctx.create_timer(timedelta(seconds=5))", ("--unsafe-fixes",)),
            ("x = [time.sleep(5)]", "x = [(yield ctx.create_timer(timedelta(seconds=5)))]", ("--unsafe-fixes",)),
        ],
    )
    def test_in_generators(self, file: Path, before: str, after: str, options: tuple[str, ...]) -> None:
        kept = (
            "import datetime, random, time, uuid\nfrom datetime import timedelta\nKEPT = datetime, random, time, uuid\n"
        )
        file.write_text(generator(before, kept))

        assert run("--fix", "flow.py", *options) == 0
        assert file.read_text() == generator(after, kept)

    def test_a_helper_of_a_generator_does_not_become_a_generator(self, file: Path) -> None:
        text = (
            "from durabletask import task\nimport time\n\ndef pause(ctx):\n    time.sleep(1)\n\n"
            "def workflow(ctx: task.OrchestrationContext, _):\n    pause(ctx)\n    yield ctx.call_activity('a')\n"
        )
        file.write_text(text)
        assert run("--fix", "--unsafe-fixes", "flow.py") == 1
        assert file.read_text() == text

    def test_only_files_that_are_checked_are_changed(self, file: Path, tmp_path: Path) -> None:
        helper = "import time\n\ndef stamp(ctx):\n    return time.time()\n"
        (tmp_path / "helper.py").write_text(helper)
        file.write_text(
            f"{HEAD}from helper import stamp\n\nasync def workflow(ctx: AsyncWorkflowContext):\n    return stamp(ctx)\n"
        )
        assert run("--fix", "flow.py") == 1
        assert (tmp_path / "helper.py").read_text() == helper
        assert run("--fix") == 0
        assert (tmp_path / "helper.py").read_text() == "\ndef stamp(ctx):\n    return ctx.now().timestamp()\n"


class TestImports:
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("import time\n", ""),
            ("import time  # the clock\n", ""),
            ("import os, time\n", "import os\n"),
            ("import time, os\n", "import os\n"),
            ("import time; import os\n", "import time; import os\n"),
            ("import time\n__all__ = ['time']\n", "import time\n__all__ = ['time']\n"),
            ("import time\nx: 'time.struct_time'\n", "import time\nx: 'time.struct_time'\n"),
            ("'''All about time.'''\nimport time\n", "'''All about time.'''\n"),
            ("try:\n    import time\nexcept ImportError:\n    raise\n", None),
            ("import time\nimport time\n", None),
        ],
    )
    def test_one_that_a_fix_leaves_unused_is_removed(self, file: Path, before: str, after: str | None) -> None:
        rest = f"{HEAD}async def workflow(ctx: AsyncWorkflowContext):\n    return {{}}\n"
        file.write_text(before + rest.format("time.time()"))

        assert run("--fix", "flow.py") == 0
        assert file.read_text() == (before if after is None else after) + rest.format("ctx.now().timestamp()")

    def test_members_of_modules(self, file: Path) -> None:
        imports = "from uuid import (\n    UUID,\n    uuid4,\n)\nfrom time import time\n"
        rest = f"{HEAD}async def workflow(ctx: AsyncWorkflowContext):\n    return {{}}\n"
        file.write_text(imports + rest.format("UUID, uuid4(), time()"))

        assert run("--fix", "flow.py") == 0
        assert file.read_text() == "from uuid import (\n    UUID,\n)\n" + rest.format(
            "UUID, ctx.uuid4(), ctx.now().timestamp()"
        )

    def test_one_that_was_unused_before_stays(self, file: Path) -> None:
        rest = f"{HEAD}async def workflow(ctx: AsyncWorkflowContext):\n    return {{}}\n"
        file.write_text("import random\nimport time\n" + rest.format("time.time()"))
        run("--fix", "flow.py")
        assert file.read_text() == "import random\n" + rest.format("ctx.now().timestamp()")

    def test_one_that_a_replacement_needs_is_added(self, file: Path) -> None:
        file.write_text(generator("now = time.time()", "import time\nimport os\nprint(os, time)\n"))
        assert run("--fix", "flow.py") == 0
        assert file.read_text() == generator(
            "now = ctx.current_utc_datetime.replace(tzinfo=timezone.utc).timestamp()",
            "import time\nimport os\nfrom datetime import timezone\nprint(os, time)\n",
        )

    def test_a_name_that_means_something_else_prevents_the_fix(self, file: Path) -> None:
        text = generator("now = time.time()", "import time\ntimezone = 'Europe/Berlin'\n")
        file.write_text(text)
        assert run("--fix", "flow.py") == 1
        assert file.read_text() == text

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("x = 1\n", "import a\nx = 1\n"),
            ("'''Doc.'''\nx = 1\n", "'''Doc.'''\nimport a\nx = 1\n"),
            ("'''Doc.'''", "'''Doc.'''\nimport a\n"),
            (
                "#!/usr/bin/python\n# coding: utf-8\n@d\ndef f(): pass\n",
                "#!/usr/bin/python\n# coding: utf-8\nimport a\n@d\ndef f(): pass\n",
            ),
            (
                "from __future__ import annotations\r\nx = 1\r\n",
                "from __future__ import annotations\r\nimport a\r\nx = 1\r\n",
            ),
            ("import b; x = '''\n'''\n", "import b; x = '''\n'''\nimport a\n"),
            ("import a\n", "import a\n"),
        ],
    )
    def test_the_place_of_a_new_one(self, before: str, after: str) -> None:
        assert with_imports(before, ["import a"]) == after


VARIANTS = {
    "plain": lambda text: text.encode(),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "CR": lambda text: text.replace("\n", "\r").encode(),
    "BOM": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "BOM and CRLF": lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
    "latin-1": lambda text: b"# -*- coding: latin-1 -*-\n" + text.replace("𝄞", "ü").encode("latin-1"),
    "cp1252": lambda text: b"# coding: cp1252\n" + text.replace("𝄞", "€").encode("cp1252"),
    "shift_jis": lambda text: b"# coding: shift_jis\n" + text.replace("𝄞", "表").replace("é", "日").encode("shift_jis"),
    "tabs": lambda text: text.replace("    ", "\t").encode(),
    "form feeds": lambda text: text.replace("\n\n", "\n\x0c\n").encode(),
    "no end of line": lambda text: text.rstrip("\n").encode(),
    "line separators": lambda text: text.replace("é", "\u2028\x85").encode(),
}
MARKED = f"""{HEAD}import time, uuid  # é


KEPT = (time, uuid)


async def workflow(ctx: AsyncWorkflowContext):
    '''Text: é 𝄞'''
    first = "𝄞é", <time.time()>, "é"  # é
    if first :
        pass ;  second = <uuid.uuid4()>   # trailing
    return  first,second , <time.monotonic( )>
"""
REPLACED = {b"time.time()": b"ctx.now().timestamp()", b"uuid.uuid4()": b"ctx.uuid4()"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_bytes_outside_of_a_fix_stay(file: Path, variant: str) -> None:
    encoded = VARIANTS[variant](MARKED)
    parts = encoded.replace(b"<", b">").split(b">")
    file.write_bytes(b"".join(parts))
    assert len([each for each in check(file) if each.fix is not None]) == 3

    assert run("--fix", "flow.py") == 0

    fixed = [REPLACED.get(part, b"ctx.now().timestamp()") if number % 2 else part for number, part in enumerate(parts)]
    content = b"".join(fixed)
    assert file.read_bytes() == content
    ast.parse(content)
    assert check(file) == []
    assert run("--fix", "flow.py") == 0
    assert file.read_bytes() == content


def test_bytes_that_cannot_be_decoded_leave_the_file_alone(file: Path) -> None:
    content = body("return time.time()  # \udcff").encode(errors="surrogateescape")
    file.write_bytes(content)
    assert run("--fix", "flow.py") == 1
    assert file.read_bytes() == content


class TestCommand:
    def test_a_diff_changes_nothing(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        text = body("return time.time()").replace("\n", "\r\n")
        file.write_bytes(text.encode())

        assert run("--diff", "flow.py") == 1
        output = capsys.readouterr()
        assert output.out.startswith("--- flow.py\n+++ flow.py\n@@")
        assert "-    return time.time()\n+    return ctx.now().timestamp()\n" in output.out
        assert output.err == "would fix 1 finding\n"
        assert file.read_bytes() == text.encode()

    def test_an_empty_diff(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file.write_text(body("time.sleep(1)"))

        assert run("--diff", "flow.py") == 0
        assert capsys.readouterr().out == ""
        assert run("--diff", "--unsafe-fixes", "flow.py") == 1
        output = capsys.readouterr()
        assert "+    await ctx.sleep(1)" in output.out
        assert "for new instances" in output.err

    def test_what_is_left_is_reported(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file.write_text(body("time.sleep(1); x = time.time(); y = open('a')"))

        assert run("--fix", "flow.py", "--output-format", "concise") == 1
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[1] for line in lines[:2]] == ["DET110", "DET501"]
        assert lines[2:] == [
            "2 findings in 1 orchestrator (1 file)",
            "1 finding fixed",
            "1 can be fixed with --fix --unsafe-fixes",
        ]

    def test_standard_input_is_written_to_standard_output(
        self, file: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content = body("return time.time()").replace("\n", "\r\n").encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

        assert run("--fix", "-", "--stdin-filename", "flow.py") == 0
        output = capfdbinary.readouterr()
        assert output.out == content.replace(b"time.time()", b"ctx.now().timestamp()")
        assert b"1 finding fixed" in output.err
        assert not file.exists()

    def test_programs_are_told_the_fix(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file.write_text(body("time.sleep(1)"))
        run("--json", "flow.py")
        (finding,) = json.loads(capsys.readouterr().out)["findings"]

        line = body("time.sleep(1)").splitlines()[finding["fix"]["line"] - 1]
        assert line[finding["fix"]["column"] : finding["fix"]["end_column"]] == "time.sleep(1)"
        assert finding["fix"]["replacement"] == "await ctx.sleep(1)"
        assert finding["fix"]["safe"] is False
        assert "new instances" in finding["fix"]["unsafe_because"]

    def test_a_suppressed_finding_is_not_fixed(self, file: Path) -> None:
        text = body("return time.time()  # noqa: DET101")
        file.write_text(text)
        assert run("--fix", "flow.py") == 0
        file.write_text(body("return time.time()"))
        assert run("--fix", "flow.py", "--ignore", "clock") == 0
        assert file.read_text() == body("return time.time()")
