"""`durabletask-aio check`: the checker of source files, and its command."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest

from durabletask_aio.core import WorkflowValidationError
from durabletask_aio.core.cli import main
from durabletask_aio.core.command_line import run_command
from durabletask_aio.sandbox.cli.check import check as command
from durabletask_aio.sandbox.code.sources import Source, parse
from durabletask_aio.sandbox.rules.default import default_catalogue
from durabletask_aio.sandbox.static import source_modules
from durabletask_aio.sandbox.static.analysis import check
from durabletask_aio.sandbox.static.checker import Settings, check_sources

FLOWS = """
import time, random
from datetime import datetime as Clock
from durabletask import task
from durabletask.aio import AsyncWorkflowContext, as_orchestrator
from shop.helpers import price, pause
import shop.helpers as tools

RNG = random.Random(7)
SEEN = {}
TABLE = {"price": price}

class Moment(Clock):
    pass

async def annotated(ctx: AsyncWorkflowContext, order):
    total = price(order)
    SEEN[order] = total
    await ctx.call_activity(charge, input=total)
    return Moment.now(), RNG.random()

@as_orchestrator
async def decorated(ctx):
    tools.pause()

def generator(context: task.OrchestrationContext, _):
    started = Clock.utcnow()
    yield context.call_activity(charge)

def charge(ctx, order):
    return time.time()

async def registered(c, x):
    return TABLE["price"](x)

class Flow:
    async def method(self, ctx: "AsyncWorkflowContext"):
        return self.helper()

    def helper(self):
        return random.random()

def build(worker):
    async def nested(ctx):
        time.sleep(1)
    worker.add_orchestrator(registered)
    worker.add_orchestrator(nested)
    worker.add_activity(charge)

async def unrelated(session):
    time.sleep(1)
"""
HELPERS = """
import time

def price(order):
    return time.time()

def pause():
    time.sleep(1)

def registered():
    time.sleep(2)
"""


MANY = """
async def workflow_{0}(ctx: AsyncWorkflowContext):
    return time.time(), random.random()
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "flows.py").write_text(FLOWS)
    (package / "helpers.py").write_text(HELPERS)
    monkeypatch.chdir(tmp_path)
    return package


def run(*arguments: str) -> int:
    return run_command(command, arguments, prog_name="durabletask-aio check")


def found(report: Any) -> set[tuple[str, str, str | None]]:
    return {(each.reached[0] if each.reached else "", each.rule.code, each.call) for each in report.findings}


class TestDiscovery:
    def test_every_kind_of_orchestrator_is_found_and_nothing_else(self, shop: Path) -> None:
        report = check_sources([shop])

        assert {each.name: each.found_by for each in report.orchestrators} == {
            "annotated": "annotated",
            "decorated": "decorated",
            "generator": "annotated",
            "registered": "registered",
            "nested": "registered",
            "method": "annotated",
        }

    def test_findings_are_followed_across_modules_and_bindings(self, shop: Path) -> None:
        assert {
            ("annotated", "DET101", "time.time"),
            ("annotated", "DET801", None),
            ("annotated", "DET101", "datetime.datetime.now"),
            ("annotated", "DET203", None),
            ("decorated", "DET110", "time.sleep"),
            ("generator", "DET101", "datetime.datetime.utcnow"),
            ("method", "DET201", "random.random"),
            ("nested", "DET110", "time.sleep"),
        } == found(check_sources([shop]))

    def test_a_module_of_the_current_folder_is_found_by_name(self, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # As for an installed command, whose search path starts with the folder of the script.
        monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", str(shop.parent))])

        assert len(check("shop.flows")) == len(check(shop / "flows.py"))

    def test_state_and_order_are_followed_too(self, tmp_path: Path) -> None:
        (tmp_path / "helpers.py").write_text("def unique(items):\n    return list(set(items))\n")
        text = """
        import asyncio, contextlib, itertools
        from durabletask.aio import AsyncWorkflowContext
        from helpers import unique

        NUMBERS = itertools.count()

        class Tally:
            count = 0

        async def flow(ctx: AsyncWorkflowContext, items):
            await ctx.call_activity("x", input=unique(items))
            todo = {"a", "b"}
            await ctx.call_activity("x", input=todo.pop())
            Tally.count += 1
            next(NUMBERS)
            with contextlib.suppress(BaseException):
                await ctx.sleep(1)
            await asyncio.get_running_loop().run_in_executor(None, sum, [1])

        async def fine(ctx: AsyncWorkflowContext, items):
            class Local:
                count = 0
            Local.count += 1
            next(iter(items))
            await ctx.call_activity("x", input=sorted(unique(items)))
        """
        (tmp_path / "flow.py").write_text(textwrap.dedent(text))

        found = [each.rule.code for each in check(tmp_path / "flow.py")]

        assert found == ["DET703", "DET703", "DET801", "DET801", "DET803", "DET601"]

    def test_decorators_and_default_factories_are_followed(self, tmp_path: Path) -> None:
        text = """
        import dataclasses, functools, time, uuid
        from datetime import datetime
        from durabletask.aio import AsyncWorkflowContext

        def timed(function):
            @functools.wraps(function)
            def wrapper(*args):
                time.monotonic()
                return function(*args)
            return wrapper

        def repeated(times):
            def decorate(function):
                def wrapper(*args):
                    time.sleep(1)
                    return function(*args)
                def unused():
                    return time.time()
                return wrapper
            return decorate

        @timed
        @repeated(3)
        def total(items):
            return sum(items)

        @dataclasses.dataclass
        class Message:
            text: str
            key: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)
            at: datetime = dataclasses.field(default_factory=datetime.now)
            parts: list = dataclasses.field(default_factory=list)

        async def flow(ctx: AsyncWorkflowContext, items):
            return Message(str(total(items)))
        """
        (tmp_path / "flow.py").write_text(textwrap.dedent(text))

        found = sorted(str(each.call) for each in check(tmp_path / "flow.py"))

        assert found == ["datetime.datetime.now", "time.monotonic", "time.sleep", "uuid.uuid4"]

    def test_attributes_provided_by_getattr_and_metaclasses_are_followed(self, tmp_path: Path) -> None:
        (tmp_path / "lazy.py").write_text(
            "import socket\nknown = 1\ndef __getattr__(name):\n    return socket.gethostname()\n"
        )
        text = """
        import os, time
        import lazy
        from durabletask.aio import AsyncWorkflowContext

        class Settings:
            def __init__(self):
                self.given = 1
            def __getattr__(self, name):
                return os.environ[name]

        class Stamped(type):
            def __call__(cls):
                made = super().__call__()
                made.stamp = time.time()
                return made

        class Letter(metaclass=Stamped):
            pass

        settings = Settings()

        async def flow(ctx: AsyncWorkflowContext):
            return settings.given, lazy.known

        async def late(ctx: AsyncWorkflowContext):
            return settings.region, Letter(), lazy.host
        """
        (tmp_path / "flow.py").write_text(textwrap.dedent(text))

        found = [(each.call, each.reached) for each in check(tmp_path / "flow.py")]

        assert sorted(found) == [
            ("os.environ", ("late", "__getattr__")),
            ("socket.gethostname", ("late", "__getattr__")),
            ("time.time", ("late", "__call__")),
        ]

    def test_a_function_can_be_named(self, shop: Path) -> None:
        report = check_sources([shop], Settings(orchestrators=frozenset({"shop.flows:unrelated"})))

        assert ("unrelated", "DET110", "time.sleep") in found(report)

    def test_a_module_is_found_by_name_without_importing_it(self, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(str(shop.parent))

        assert check("shop.flows") == check(shop / "flows.py") != []
        assert "shop.flows" not in sys.modules
        assert "shop" not in sys.modules

    def test_what_is_neither_a_path_nor_a_module_is_refused(self, shop: Path) -> None:
        with pytest.raises(WorkflowValidationError, match="'nothing/here' is neither a file or folder nor a module"):
            check_sources(["nothing/here"])

    def test_folders_can_be_excluded(self, shop: Path) -> None:
        assert len(check_sources([shop], Settings(exclude=("flows.py",))).orchestrators) == 0


class TestFiles:
    def test_a_file_that_does_not_parse_is_a_finding(self, tmp_path: Path) -> None:
        (tmp_path / "broken.py").write_text("async def workflow(ctx)\n    ...\n")

        (finding,) = check(tmp_path / "broken.py")

        assert finding.rule.code == "DET902"
        assert "The file does not parse: expected ':' (line 1)" in finding.message

    def test_a_function_that_is_nested_too_deeply_does_not_end_the_check(self, tmp_path: Path) -> None:
        head = "from durabletask.aio import AsyncWorkflowContext\nimport time\n"
        flow = "async def {}(ctx: AsyncWorkflowContext):\n    return {}\n"
        deep = flow.format("deep", " + ".join(["1"] * 2000)) + flow.format("other", "time.time()")
        (tmp_path / "deep.py").write_text(head + deep)

        codes = [each.rule.code for each in check(tmp_path / "deep.py")]

        assert "DET101" in codes
        assert set(codes) <= {"DET101", "DET902"}

    def test_what_no_workflow_reaches_is_not_parsed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        parsed: set[str] = set()

        def watched_parse(filename: str, text: str) -> Source:
            parsed.add(Path(filename).name)
            return parse(filename, text)

        monkeypatch.setattr(source_modules, "parse", watched_parse)
        for number in range(20):
            (tmp_path / f"plain_{number:02}.py").write_text(f"import time\n\ndef moment():\n    return {number}\n")
        (tmp_path / "plain_07.py").write_text("import time\n\ndef moment():\n    return time.time()\n")
        (tmp_path / "plain_08.py").write_text("def f(:\n")
        (tmp_path / "plain_09.py").write_text("x = 1  # determinism: allow[DET101]\n")
        (tmp_path / "flow.py").write_text(
            "from durabletask.aio import AsyncWorkflowContext\nfrom plain_07 import moment\n"
            "from plain_10 import other\n\n"
            "async def workflow(ctx: AsyncWorkflowContext):\n    return moment(), other()\n"
        )
        (tmp_path / "plain_10.py").write_text("def other(:\n")

        report = check_sources([tmp_path])

        assert [(Path(each.file).name, each.rule.code) for each in report.findings] == [
            ("plain_07.py", "DET101"),
            ("plain_09.py", "DET901"),
            ("plain_10.py", "DET902"),
        ]
        assert report.files == 21
        assert parsed == {"flow.py", "plain_07.py", "plain_10.py"}

    def test_a_file_that_is_named_is_always_parsed(self, tmp_path: Path) -> None:
        (tmp_path / "plain.py").write_text("def f(:\n")

        assert check(tmp_path) == []
        assert [each.rule.code for each in check(tmp_path / "plain.py")] == ["DET902"]

    def test_lines_are_counted_as_the_parser_counts_them(self, tmp_path: Path) -> None:
        (tmp_path / "flow.py").write_bytes(
            b"from durabletask.aio import AsyncWorkflowContext\r\nimport time\r\n\x0c\r\n"
            b"async def workflow(ctx: AsyncWorkflowContext):\r\n    return time.time()\r\n"
        )

        (finding,) = check(tmp_path / "flow.py")

        assert (finding.line, finding.source_line) == (5, "    return time.time()")

    def test_a_pragma_needs_a_reason(self, tmp_path: Path) -> None:
        text = """
        import time
        from durabletask.aio import AsyncWorkflowContext

        async def workflow(ctx: AsyncWorkflowContext):
            time.time()  # determinism: allow[DET101]
            time.time()  # determinism: allow[DET101] only logged
        """
        (tmp_path / "flow.py").write_text(textwrap.dedent(text))

        (finding,) = check(tmp_path / "flow.py")

        assert (finding.rule.code, finding.line) == ("DET901", 6)

    def test_a_pragma_that_allows_nothing_is_reported(self, tmp_path: Path) -> None:
        text = """
        import time
        from durabletask.aio import AsyncWorkflowContext

        async def workflow(ctx: AsyncWorkflowContext):
            time.time()  # determinism: allow[clok] only logged
        """
        (tmp_path / "flow.py").write_text(textwrap.dedent(text))

        found = [each.summary for each in check(tmp_path / "flow.py")]

        assert found[0].startswith("`time.time()` is not deterministic")
        assert found[1] == "The pragma allows `clok`, which is not a rule, category or call (DET901)."

    def test_columns_count_characters(self, tmp_path: Path) -> None:
        text = """
        import time
        from durabletask.aio import AsyncWorkflowContext

        async def workflow(ctx: AsyncWorkflowContext):
            return "ÄÖÜ", time.time()
        """
        (tmp_path / "flow.py").write_text(textwrap.dedent(text), encoding="utf-8")

        (finding,) = check(tmp_path / "flow.py")

        assert finding.column == finding.source_line.index("time.time()") + 1
        assert finding.corrected_line == '    return "ÄÖÜ", ctx.now().timestamp()'

    def test_an_invalid_escape_does_not_make_a_file_unreadable(self, tmp_path: Path) -> None:
        (tmp_path / "flow.py").write_text('PATTERN = "\\d+"\n')

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert check(tmp_path / "flow.py") == []


HOOKS = Path(__file__).resolve().parents[3] / ".pre-commit-hooks.yaml"


class TestCommand:
    @pytest.mark.skipif(not HOOKS.is_file(), reason="not in a checkout of the repository")
    def test_the_hook_for_pre_commit_checks_the_project(self, shop: Path) -> None:
        pairs = (line.strip().partition(": ") for line in HOOKS.read_text().splitlines())
        hook = {key: value for key, _, value in pairs}
        command, *arguments = hook["entry"].split()

        # A commit of a helper alone: the hook is given no files, and finds what the workflow that calls it does.
        assert hook["pass_filenames"] == "false"
        assert command == "durabletask-aio"
        assert main(arguments) == 1

    def test_text_has_place_message_path_and_correction(self, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("shop") == 1

        text = capsys.readouterr().out
        place = str(Path("shop", "flows.py"))
        assert f"{place}:20:12: DET101 `datetime.datetime.now()` is not deterministic" in text
        assert "    return ctx.now(), RNG.random()" in text
        assert "  reached by annotated() -> price()" in text
        assert text.splitlines()[-2:] == [
            "8 findings in 6 orchestrators (3 files)",
            "1 can be fixed with --fix, 1 more with --fix --unsafe-fixes",
        ]

    def test_json_has_stable_keys(self, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("shop", "--format", "json") == 1

        report = json.loads(capsys.readouterr().out)
        assert {
            "code",
            "rule",
            "severity",
            "file",
            "line",
            "column",
            "function",
            "reached",
            "call",
            "message",
            "corrected_line",
            "fix",
            "inside",
            "url",
        } == set(report["findings"][0])
        assert len(report["orchestrators"]) == 6

    def test_github_annotations_are_one_line_each(self, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run("shop", "--format", "github")

        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 8
        assert all(line.startswith(("::error file=", "::warning file=")) for line in lines)

    def test_sarif_names_rules_and_places(self, shop: Path, tmp_path: Path) -> None:
        assert run("shop", "--format", "sarif", "--output", "report.sarif") == 1

        log = json.loads((tmp_path / "report.sarif").read_text())
        (result, *_) = log["runs"][0]["results"]
        rules = log["runs"][0]["tool"]["driver"]["rules"]
        assert log["version"] == "2.1.0"
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "shop/flows.py"

    def test_notes_are_reported_on_request_and_do_not_fail(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        text = """
        import asyncio
        from durabletask.aio import AsyncWorkflowContext

        async def flow(ctx: AsyncWorkflowContext):
            await asyncio.wait_for(ctx.sleep(5), 1)
        """
        file = tmp_path / "flow.py"
        file.write_text(textwrap.dedent(text))

        assert run(str(file), "--format", "github") == 0
        assert capsys.readouterr().out.strip() == ""
        assert run(str(file), "--format", "github", "--notes") == 0
        assert capsys.readouterr().out.startswith("::notice file=")

    def test_nothing_found_is_status_zero(self, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(str(shop / "helpers.py")) == 0
        assert capsys.readouterr().out.strip() == "no findings in 0 orchestrators (1 file)"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nothing_here"], "neither a file or folder nor a module"),
            (["--explain", "DET999"], "There is no rule 'DET999'. The rules are: DET101"),
            (["shop", "--allow", "clok"], "'clok' is not a name that can be allowed"),
        ],
    )
    def test_misuse_is_status_two_with_a_sentence(
        self, shop: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
    ) -> None:
        assert run(*arguments) == 2
        output = capsys.readouterr()
        assert output.err.startswith("error: ")
        assert message in output.err
        assert output.out == ""

    def test_json_is_short_for_its_format(self, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("shop", "--format", "json") == 1
        report = capsys.readouterr().out
        assert run("shop", "--json") == 1
        assert capsys.readouterr().out == report
        assert run("shop", "--json", "--format", "sarif") == 2
        assert "--json and --format sarif exclude each other" in capsys.readouterr().err

    def test_json_about_rules(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--rules", "--json") == 0
        rules = json.loads(capsys.readouterr().out)["rules"]
        assert [each["code"] for each in rules] == list(default_catalogue().rules)

        assert run("--explain", "wall-clock", "--json") == 0
        rule = json.loads(capsys.readouterr().out)
        assert rule in rules
        assert (rule["code"], rule["slug"], rule["severity"]) == ("DET101", "wall-clock", "error")
        assert "time.time" in rule["calls"]

    def test_a_report_that_cannot_be_written_is_status_two(
        self, shop: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("shop", "-o", str(shop)) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {shop}: ")
        assert error.count("\n") == 1

    def test_statistics_do_not_get_into_the_report(self, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("shop", "--json", "--statistics") == 1
        output = capsys.readouterr()
        assert len(json.loads(output.out)["findings"]) == 8
        assert "3 files, 6 orchestrators, " in output.err

    @pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
    @pytest.mark.parametrize("report_format", ["sarif", "text"])
    def test_as_a_program_whose_output_is_not_read_to_its_end(self, shop: Path, report_format: str) -> None:
        (shop / "flows.py").write_text(FLOWS + "".join(MANY.format(number) for number in range(200)))
        command = [sys.executable, "-m", "durabletask_aio.sandbox", "shop", "--format", report_format]
        with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == ""
        assert process.returncode == 1

    @pytest.mark.parametrize("code", list(default_catalogue().rules))
    def test_every_rule_explains_itself(self, code: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--explain", code.lower()) == 0

        rule = default_catalogue().rules[code]
        text = capsys.readouterr().out
        assert text.startswith(f"{code} ({rule.slug})")
        assert rule.why in text
        assert rule.good in text

    def test_rules_can_be_listed_and_allowed(self, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--rules") == 0
        assert len(default_catalogue().rules) == len(capsys.readouterr().out.splitlines())
        assert run("shop", "--allow", "clock", "--allow", "sleep", "--allow", "random", "--allow", "DET801") == 0


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
class TestConfiguration:
    def write(self, folder: Path, text: str) -> None:
        (folder / "pyproject.toml").write_text(f"[tool.durabletask-aio.check]\n{text}\n")

    def test_settings_are_read_from_the_nearest_file(self, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.write(shop.parent, 'allow = ["clock", "random", "DET801"]\norchestrators = ["unrelated"]')

        assert run("shop", "--format", "json") == 1
        report = json.loads(capsys.readouterr().out)
        assert {"time.sleep"} == {each["call"] for each in report["findings"]}
        assert "unrelated" in {each["name"] for each in report["orchestrators"]}

    def test_calls_can_be_added(self, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (shop / "flows.py").write_text(
            "from durabletask.aio import AsyncWorkflowContext\nimport vendor\n"
            "async def flow(ctx: AsyncWorkflowContext):\n    vendor.clock.read()\n"
        )
        self.write(shop.parent, '[tool.durabletask-aio.check.forbid]\n"vendor.clock.read" = "wall-clock"')

        assert run("shop") == 1
        assert "`vendor.clock.read()` is not deterministic" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "alow = []",
                "has no key 'alow'; the keys are allow, exclude, orchestrators, follow, follow-io, select, ignore,",
            ),
            ('allow = "clock"', "allow must be a list of strings, not 'clock'"),
            ("errors-only = 1", "errors-only must be true or false, not 1"),
            ('forbid = {"a.b" = "DET999"}', "There is no rule 'DET999'"),
            ("allow = [", "is not valid TOML"),
        ],
    )
    def test_errors_name_the_mistake(
        self, shop: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
    ) -> None:
        self.write(shop.parent, text)

        assert run("shop") == 2
        assert message in capsys.readouterr().err
