"""`replay`, `verify_deterministic` and `durabletask-aio replay`: relevant changes of code are found and explained."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import random
import re
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from durabletask.aio.testing import History, ReplayError, WorkflowEnvironment, replay, verify_deterministic

from durabletask_aio.core.command_line import run_command
from durabletask_aio.testing.orchestrators import OrchestratorLookupError, load_orchestrators
from durabletask_aio.testing.replay_command import replay as command
from durabletask_aio.testing.verify import CutError, HashSeedError

HERE = Path(__file__).parent


def _load_workflows():
    spec = importlib.util.spec_from_file_location("replayed_workflows", HERE / "replayed_workflows.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["replayed_workflows"] = module
    spec.loader.exec_module(module)
    return module


flows = _load_workflows()
ACTIVITIES = ["reserve", "charge", "ship", "collect", "mail", "pack", "wrap", "label"]


def deliver(ctx, value):
    return value
    yield


def counter(context, value):
    return value


async def record(orchestrator, value=None, *, approve=True, failures=1, days=0):
    """The history of a run in which `charge` fails first, an hour passes, and the approval arrives."""
    async with WorkflowEnvironment(orchestrators=[orchestrator, deliver], entities=[counter], verify=False) as env:
        for name in ACTIVITIES:
            env.stub(name, calls=lambda value: value)
        env.stub("charge", sequence=[*[ValueError("busy")] * failures, "receipt 7", "receipt 8"])
        handle = await env.start(orchestrator, input=value, instance_id="order-7")
        if approve:
            await env.advance(3600)
            await handle.raise_event("approve", "by Ada")
            await handle.result()
        else:
            await env.advance(timedelta(days=days, seconds=30))
        return handle.history


@pytest.fixture
async def history():
    return await record(flows.order, 5)


def changed(source, *replacements):
    """The workflow `order`, with parts of its text replaced."""
    text = (HERE / "replayed_workflows.py").read_text()
    body = text[text.index(f"async def {source}") :].split("\n\n\n")[0]
    for old, new in replacements:
        assert old in body, f"{old!r} is not in the workflow"
        body = body.replace(old, new)
    names = {**vars(flows), "random": random, "time": time, "asyncio": asyncio}
    exec(body, names)
    return names[source]


RESERVE = 'reserved = await ctx.call_activity("reserve", input=amount)\n'
SLEEP = "await ctx.sleep(60)\n"
SHIP = 'await ctx.call_activity("ship", input=approved)\n'
CHARGE = 'ctx.call_activity("charge", input={"amount": reserved}, retry_policy=PATIENT),'
MAIL = 'ctx.call_activity("mail", input="thanks"),'
DELIVER = 'await ctx.call_sub_orchestrator("deliver", input=charged, instance_id="delivery")\n'

CHANGES = {
    "activity renamed": (
        [('"reserve"', '"reserve_stock"')],
        "history:  call_activity('reserve', 5)",
        "code:     call_activity('reserve_stock', 5)",
        "'reserve' was renamed to 'reserve_stock'; register the new code under the old name",
    ),
    "activity replaced": (
        [('"ship"', '"collect"')],
        "history:  call_activity('ship', \"by Ada\")",
        "code:     call_activity('collect', \"by Ada\")",
        "'ship' was replaced by 'collect', or another branch is taken",
    ),
    "calls in another order": (
        [(CHARGE, ""), (MAIL, MAIL + CHARGE), ("charged, mailed", "mailed, charged")],
        "history:  call_activity('charge', {\"amount\": 5})",
        "code:     call_activity('mail', \"thanks\")",
        "the same calls are made in another order; keep the order, or iterate over a list and not a set",
    ),
    "sequence swapped": (
        [(RESERVE, "await ctx.sleep(60)\n    " + RESERVE), ("    await ctx.sleep(60)\n    charged", "    charged")],
        "history:  call_activity('reserve', 5)",
        "code:     create_timer(until 2024-01-01T00:01:00)",
        "the call of 'reserve' was removed, or comes later now",
    ),
    "first step removed": (
        [(RESERVE, "reserved = amount\n")],
        "history:  call_activity('reserve', 5)",
        "code:     create_timer(until 2024-01-01T00:01:00)",
        "the call of 'reserve' was removed, or comes later now",
    ),
    "timer removed": (
        [(SLEEP, "pass\n")],
        "history:  create_timer(until 2024-01-01T00:01:00)",
        "code:     call_activity('charge', {\"amount\": 5})",
        "the call of create_timer was removed, or comes later now",
    ),
    "last step removed": (
        [(SHIP, "pass\n")],
        "history:  call_activity('ship', \"by Ada\")",
        'code:     returned {"charged": "receipt 7"}',
        "'ship' and what follows were removed, or the code returns earlier",
    ),
    "one of several removed": (
        [(MAIL, "asyncio.sleep(0),")],
        "history:  call_activity('mail', \"thanks\")",
        "code:     nothing",
        "the call of 'mail' was removed, or a branch that led to it is not taken",
    ),
    "step added at the start": (
        [(RESERVE, 'await ctx.call_activity("log")\n    ' + RESERVE)],
        "history:  call_activity('reserve', 5)",
        "code:     call_activity('log')",
        "'reserve' was replaced by 'log', or another branch is taken",
    ),
    "step added to several": (
        [(CHARGE, 'ctx.call_activity("log"),' + CHARGE), ("charged, mailed", "_, charged, mailed")],
        "history:  call_activity('charge', {\"amount\": 5})",
        "code:     call_activity('log')",
        "a call of 'log' was added before the one of 'charge'",
    ),
    "step added at the end": (
        [(SHIP, SHIP + '    await ctx.call_activity("survey")\n')],
        "history:  nothing",
        "code:     call_activity('survey')",
        "a call of 'survey' was added, or a branch is taken that was not taken then",
    ),
    "fire and forget added": (
        [(SLEEP, 'ctx.send_event("log", "slept")\n    ' + SLEEP)],
        "history:  create_timer(until 2024-01-01T00:01:00)",
        "code:     send_event('slept', log)",
        "a call of 'slept' was added before the one of create_timer",
    ),
    "input changed": (
        [("input=approved", "input=approved.upper()")],
        "history:  call_activity('ship', \"by Ada\")",
        "code:     call_activity('ship', \"BY ADA\")",
        "the input of 'ship' has changed, or is computed from something that is not in the history",
    ),
    "random in an input": (
        [("input=approved", "input=random.random()")],
        "history:  call_activity('ship', \"by Ada\")",
        "code:     call_activity('ship', 0.",
        "is computed from something that is not in the history: a clock, random",
    ),
    "a clock in a branch": (
        [(SLEEP, 'if time.time() > 1_700_000_000:\n        await ctx.call_activity("late")\n    ' + SLEEP)],
        "history:  create_timer(until 2024-01-01T00:01:00)",
        "code:     call_activity('late')",
        "if the code has not changed, it decides by something that is not in the history: a clock",
    ),
    "wait changed": (
        [("sleep(60)", "sleep(90)")],
        "history:  create_timer(until 2024-01-01T00:01:00)",
        "code:     create_timer(until 2024-01-01T00:01:30)",
        "the length of the wait has changed",
    ),
    "retry policy changed": (
        [("retry_policy=PATIENT", "retry_policy=None")],
        "history:  create_timer(until 2024-01-01T00:01:05)",
        "code:     failed with durabletask.task.TaskFailedError",
        "the code raises",
    ),
    "sub-orchestration's id changed": (
        [('instance_id="delivery"', 'instance_id="delivery-2"')],
        "history:  call_sub_orchestrator('deliver', delivery, \"receipt 7\")",
        "code:     call_sub_orchestrator('deliver', delivery-2, \"receipt 7\")",
        "'deliver' goes to 'delivery-2' and not to 'delivery'",
    ),
    "activity became sub-orchestration": (
        [('ctx.call_activity("mail", input="thanks")', 'ctx.call_sub_orchestrator("mail", instance_id="m")')],
        "history:  call_activity('mail', \"thanks\")",
        "code:     call_sub_orchestrator('mail', m)",
        "'mail' was replaced by 'mail', or another branch is taken",
    ),
    "event sent to another instance": (
        [('"warehouse"', '"depot"')],
        "history:  send_event('sold', warehouse, 5)",
        "code:     send_event('sold', depot, 5)",
        "'sold' goes to 'depot' and not to 'warehouse'",
    ),
    "entity operation changed": (
        [('COUNTER, "add"', 'COUNTER, "increase"')],
        "history:  call_entity('add', @counter@orders, 1)",
        "code:     call_entity('increase', @counter@orders, 1)",
        "'add' was replaced by 'increase'",
    ),
    "waits for another event": (
        [('"approve"', '"approval"')],
        "history:  call_activity('ship', \"by Ada\")",
        "code:     nothing",
        "the call of 'ship' was removed, or a branch that led to it is not taken",
    ),
    "raises": (
        [(SHIP, 'raise ValueError("not today")\n')],
        "history:  call_activity('ship', \"by Ada\")",
        "code:     failed with builtins.ValueError: not today",
        "the code raises ValueError where it continued then: not today",
    ),
    "result changed": (
        [('{"charged": charged}', "charged")],
        'history:  returned {"charged": "receipt 7"}',
        'code:     returned "receipt 7"',
        "what the workflow returns or raises has changed",
    ),
    "fails at the end": (
        [('return {"charged": charged}', 'raise ValueError("x")')],
        'history:  returned {"charged": "receipt 7"}',
        "code:     failed with builtins.ValueError: x",
        "the code raises ValueError where it did not then",
    ),
    "does not end": (
        [('return {"charged": charged}', 'return await ctx.wait_for_external_event("more")')],
        'history:  returned {"charged": "receipt 7"}',
        "code:     nothing",
        "the code waits for something where it had ended then",
    ),
}


class TestReplay:
    async def test_unchanged_code_passes(self, history):
        report = replay(history, flows.order)
        assert (report.instance_id, report.workflow_name, report.steps) == ("order-7", "order", 11)

    async def test_refactored_code_with_the_same_steps_passes(self, history):
        rewritten = changed(
            "order", ("reserved = await ctx", "task = asyncio.create_task(asyncio.sleep(0)); reserved = await ctx")
        )
        assert replay(history, rewritten).steps == 11

    async def test_generator_orchestrators(self):
        history = await record(flows.generated, 5, failures=0)
        assert replay(history, flows.generated).steps == 3

    async def test_an_instance_in_flight(self):
        history = await record(flows.order, 5, approve=False)
        assert replay(history, flows.order).steps == 2

    async def test_a_history_from_the_local_engine(self, local_backend, grpc_worker, client):
        from durabletask.worker import TaskHubGrpcWorker

        assert TaskHubGrpcWorker

        def charge(context, value):
            return value

        def reserve(context, value):
            return value

        async def quick(ctx, value):
            first = await ctx.call_activity(reserve, input=value)
            await ctx.sleep(timedelta(milliseconds=20))
            return await ctx.call_activity(charge, input=first)

        grpc_worker(orchestrators=[quick], activities=[charge, reserve])
        instance_id = client.schedule_new_orchestration("quick", input=3)
        client.wait_for_orchestration_completion(instance_id, timeout=60)
        assert replay(local_backend.history(instance_id), quick).steps == 3

    @pytest.mark.parametrize("change", CHANGES)
    async def test_a_change_is_found_and_explained(self, history, change):
        replacements, recorded, actual, cause = CHANGES[change]
        with pytest.raises(ReplayError) as caught:
            replay(history, changed("order", *replacements))
        message = str(caught.value)
        assert recorded in message
        assert actual in message
        assert cause in message.split("likely cause: ")[1]

    async def test_the_whole_message(self, history, tmp_path):
        path = tmp_path / "shop.py"
        text = (HERE / "replayed_workflows.py").read_text().replace('"ship"', '"dispatch"')
        path.write_text(text)
        names = {}
        exec(compile(text, str(path), "exec"), names)
        with pytest.raises(ReplayError) as caught:
            replay(history, names["order"])
        line = text[: text.index('"dispatch"')].count("\n") + 1
        lines = str(caught.value).splitlines()
        assert lines[:6] == [
            "workflow 'order' no longer does what the history of instance 'order-7' records",
            "  at step #10, in turn 9:",
            "    history:  call_activity('ship', \"by Ada\")",
            "    code:     call_activity('dispatch', \"by Ada\")",
            f"              at {path}:{line} in order",
            '                await ctx.call_activity("dispatch", input=approved)',
        ]
        assert lines[6] == "  after:"
        assert lines[11].startswith(f"    #9 signal_entity('note', @counter@orders, \"thanks\")   {path}:")
        assert caught.value.divergence.number == 10

    @pytest.mark.parametrize(
        ("then", "now", "cause"),
        [
            (30, 31, "a wait of many days, which is recorded as several timers, takes longer than it did then"),
            (30, 27, "a wait of many days, which is recorded as several timers, takes less long than it did then"),
            (30, 29, "the length of the wait has changed"),
            (1, 2, "the length of the wait has changed"),
        ],
    )
    async def test_a_changed_long_wait_is_named_as_the_cause(self, then, now, cause):
        wait = "await ctx.sleep(60)"
        history = await record(changed("order", (wait, f"await ctx.sleep({then} * 86400)")), 5, approve=False, days=31)
        with pytest.raises(ReplayError) as caught:
            replay(history, changed("order", (wait, f"await ctx.sleep({now} * 86400)")))
        assert f"likely cause: {cause}" in str(caught.value)

    async def test_a_redacted_history_is_compared_without_payloads(self, history):
        redacted = history.redacted()
        with pytest.raises(ReplayError):
            replay(redacted, flows.order)
        replay(redacted, flows.order, payloads=False)
        with pytest.raises(ReplayError):
            replay(redacted, changed("order", ('"ship"', '"collect"')), payloads=False)

    def test_a_history_without_its_start(self):
        with pytest.raises(ValueError, match="does not say which workflow was started; is it the whole history"):
            replay(History([]), flows.order)

    async def test_metadata_of_the_start_is_available(self):
        async def tagged(ctx):
            await ctx.call_activity("charge", input=ctx.get_metadata())

        async def outer(ctx):
            ctx.set_metadata({"tenant": "acme"})
            await ctx.call_sub_orchestrator(tagged, instance_id="inner")

        async with WorkflowEnvironment(orchestrators=[tagged, outer]) as env:
            env.stub("charge", returns=1)
            await env.execute(outer)
            assert replay(env.handle("inner").history, tagged).steps == 1


class TestVerifyDeterministic:
    async def test_deterministic_code_passes(self, history):
        assert verify_deterministic(history, flows.order, hash_seeds=()).steps == 11

    async def test_code_that_uses_is_replaying_is_found(self):
        history = await record(flows.by_replay_flag, failures=0)
        with pytest.raises(ReplayError):
            verify_deterministic(history, flows.by_replay_flag, hash_seeds=())

    async def test_code_that_behaves_differently_when_live_is_found_by_a_cut(self):
        flag = "if ctx.is_replaying:"
        history = await record(changed("by_replay_flag", (flag, "if False:")), failures=0)
        live = changed("by_replay_flag", (flag, "if not ctx.is_replaying:"))
        replay(history, live)
        with pytest.raises(CutError, match="restarted before event 0 of the history, so probably by looking at is_rep"):
            verify_deterministic(history, live, hash_seeds=())

    @pytest.mark.slow
    async def test_code_that_depends_on_the_order_of_a_set_is_found(self, monkeypatch):
        monkeypatch.syspath_prepend(str(HERE))
        history = await record(flows.by_set, failures=0)
        replay(history, flows.by_set)
        with pytest.raises(HashSeedError, match=r"with PYTHONHASHSEED=[12], so probably by the order of a set"):
            verify_deterministic(history, flows.by_set)

    @pytest.mark.slow
    async def test_deterministic_code_passes_under_other_hash_seeds(self, history, monkeypatch):
        monkeypatch.syspath_prepend(str(HERE))
        assert verify_deterministic(history, flows.order).steps == 11

    async def test_a_function_that_another_process_cannot_import(self, history):
        with pytest.raises(ValueError, match=r"cannot be imported by another process.*or pass hash_seeds=\(\)"):
            verify_deterministic(history, changed("order", ("reserved", "held")))


class TestCommand:
    @pytest.fixture(autouse=True)
    def _importable(self, monkeypatch):
        monkeypatch.syspath_prepend(str(HERE))

    def run(self, *arguments):
        return run_command(command, [str(each) for each in arguments], prog_name="durabletask-aio replay")

    async def test_histories_that_replay(self, history, tmp_path, capsys):
        for number in range(3):
            history.save(tmp_path / f"{number}.json")
        assert self.run("--orchestrators", "replayed_workflows", tmp_path / "*.json") == 0
        output = capsys.readouterr().out.splitlines()
        assert output[0] == f"ok    {tmp_path / '0.json'}   order, 11 steps"
        assert output[3].startswith("3 replayed, 0 failed in ")

    async def test_a_directory_is_all_json_files_in_it(self, history, tmp_path, capsys):
        history.save(tmp_path / "deep" / "one.json")
        assert self.run("--orchestrators", "replayed_workflows", tmp_path) == 0
        assert "1 replayed" in capsys.readouterr().out

    async def test_a_history_that_does_not_replay(self, tmp_path, capsys):
        broken = await record(changed("order", ('"ship"', '"collect"')), 5)
        broken.save(tmp_path / "broken.json")
        assert self.run("--orchestrators", "replayed_workflows:order", tmp_path / "broken.json") == 1
        output = capsys.readouterr().out
        assert f"FAIL  {tmp_path / 'broken.json'}\n      workflow 'order' no longer does" in output
        assert "1 replayed, 1 failed" in output

    async def test_json(self, history, tmp_path, capsys):
        history.save(tmp_path / "one.json")
        assert self.run("--orchestrators", "replayed_workflows", "--format", "json", tmp_path / "one.json") == 0
        document = json.loads(capsys.readouterr().out)
        assert document["failed"] == 0
        assert document["histories"][0]["workflow"] == "order"

    async def test_json_is_short_for_its_format(self, history, tmp_path, capsys):
        history.save(tmp_path / "one.json")
        assert self.run("--orchestrators", "replayed_workflows", "--json", tmp_path) == 0
        document = json.loads(capsys.readouterr().out)
        assert [each["workflow"] for each in document["histories"]] == ["order"]
        assert self.run("--orchestrators", "replayed_workflows", "--json", "--format", "junit", tmp_path) == 2
        assert "--json and --format junit exclude each other" in capsys.readouterr().err

    async def test_what_modules_and_workflows_print_stays_out_of_json(self, history, tmp_path, monkeypatch, capsys):
        source = (HERE / "replayed_workflows.py").read_text(encoding="utf-8")
        (tmp_path / "talkative.py").write_text(f"{source}\n\nprint('imported')\n", encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        history.save(tmp_path / "histories" / "one.json")
        arguments = ["--orchestrators", "talkative:order", tmp_path / "histories"]
        assert self.run("--json", *arguments) == 0
        output = capsys.readouterr()
        assert json.loads(output.out)["failed"] == 0
        assert output.err == "imported\n"

    @pytest.mark.skipif(sys.platform == "win32", reason="a process of its own cannot be sent Ctrl-C there")
    @pytest.mark.parametrize("place", ["module", "workflow"])
    async def test_ctrl_c_is_not_taken_for_a_difference(self, history, tmp_path, place):
        wait = "print('ready', flush=True); import time; time.sleep(60)"
        module, workflow = (wait, "pass") if place == "module" else ("pass", wait)
        (tmp_path / "slow.py").write_text(f"{module}\nasync def order(ctx, value):\n    {workflow}\n", encoding="utf-8")
        history.save(tmp_path / "one.json")
        arguments = ["replay", "--orchestrators", "slow", str(tmp_path / "one.json")]
        with subprocess.Popen(
            [sys.executable, "-m", "durabletask_aio", *arguments],
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            output, error = process.communicate(timeout=60)
        assert (process.returncode, output, error) == (130, "", "\n")

    async def test_junit_into_a_file(self, history, tmp_path):
        history.save(tmp_path / "good.json")
        (await record(changed("order", ('"ship"', '"collect"')), 5)).save(tmp_path / "bad.json")
        output = tmp_path / "report.xml"
        status = self.run("--orchestrators", "replayed_workflows", "--format", "junit", "-o", output, tmp_path)
        assert status == 1
        suite = ET.parse(output).getroot()
        assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
        assert "no longer does" in suite.find("testcase/failure").get("message")

    async def test_redacted_histories(self, history, tmp_path):
        history.redacted().save(tmp_path / "one.json")
        arguments = ["--orchestrators", "replayed_workflows", tmp_path / "one.json"]
        assert self.run(*arguments) == 1
        assert self.run("--structure-only", *arguments) == 0

    async def test_a_name_other_than_the_functions(self, tmp_path):
        (await record(flows.renamed, 5)).save(tmp_path / "one.json")
        assert self.run("--orchestrators", "replayed_workflows", tmp_path) == 0
        assert self.run("--orchestrators", "replayed_workflows:order=an order", tmp_path) == 0

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--orchestrators", "no_such_module", "x.json"], "cannot import 'no_such_module': No module named"),
            (
                ["--orchestrators", "my/flows.py", "x.json"],
                "'my/flows.py' is not the name of a module; to import it, write 'my.flows'",
            ),
            (["--orchestrators", "json", "x.json"], "module 'json' has no orchestrators: no async function, no gen"),
            (["--orchestrators", "replayed_workflows:nothing", "x.json"], "has no function 'nothing'"),
            (["--orchestrators", "replayed_workflows:ordr", "x.json"], "did you mean 'order'?"),
            (["--orchestrators", "replayed_workflows", "no/such/*.json"], "no file matches 'no/such/*.json'"),
            (["--orchestrators", "replayed_workflows", "no-such.json"], "no-such.json: No such file"),
        ],
    )
    def test_what_cannot_be_found_is_status_two(self, arguments, message, capsys):
        assert self.run(*arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error

    async def test_a_history_of_another_workflow_is_status_two(self, history, tmp_path, capsys):
        history.save(tmp_path / "one.json")
        assert self.run("--orchestrators", "replayed_workflows:generated", tmp_path) == 2
        error = capsys.readouterr().err
        assert "is a history of 'order'; the orchestrators found are: generated" in error
        assert "registered under another name than its own: --orchestrators module:function=order" in error

    def test_a_folder_without_a_history_is_status_two(self, tmp_path, capsys):
        assert self.run("--orchestrators", "replayed_workflows", tmp_path) == 2
        assert f"there is no history in the folder {str(tmp_path)!r}" in capsys.readouterr().err

    def test_a_history_without_its_start_is_status_two(self, tmp_path, capsys):
        (tmp_path / "one.json").write_text('{"events": []}')
        assert self.run("--orchestrators", "replayed_workflows", tmp_path) == 2
        assert "one.json does not say which workflow was started" in capsys.readouterr().err

    async def test_a_report_that_cannot_be_written_is_status_two(self, history, tmp_path, capsys):
        history.save(tmp_path / "one.json")
        assert self.run("--orchestrators", "replayed_workflows", "-o", tmp_path, tmp_path) == 2
        assert "Is a directory" in capsys.readouterr().err

    async def test_the_folder_of_the_report_is_made(self, history, tmp_path):
        history.save(tmp_path / "one.json")
        report = tmp_path / "new" / "report.txt"
        assert self.run("--orchestrators", "replayed_workflows", "-o", report, tmp_path) == 0
        assert "1 replayed, 0 failed" in report.read_text()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "x = 1 / 0",
                r"cannot import 'broken_module': ZeroDivisionError: division by zero \(.*broken_module.py:1\)",
            ),
            ("def f(:", r"cannot import 'broken_module': SyntaxError: .*\(broken_module.py, line 1\)"),
            ("import sys; sys.exit(3)", r"cannot import 'broken_module': SystemExit: 3 \(.*broken_module.py:1\)"),
            ("import absent_module", "cannot import 'broken_module': No module named 'absent_module'"),
        ],
    )
    def test_a_module_that_cannot_be_imported_is_one_sentence(self, tmp_path, monkeypatch, capsys, text, message):
        (tmp_path / "broken_module.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        assert self.run("--orchestrators", "broken_module", "x.json") == 2
        assert re.fullmatch(f"error: {message}\n", capsys.readouterr().err)

    async def test_a_long_run_shows_its_progress(self, history, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr("durabletask_aio.testing.replay_command._SECONDS_BETWEEN_PROGRESS_LINES", 0)
        for number in range(3):
            history.save(tmp_path / f"{number}.json")
        assert self.run("--orchestrators", "replayed_workflows", tmp_path) == 0
        assert capsys.readouterr().err.splitlines() == [f"{n} of 3 histories replayed" for n in (1, 2, 3)]

    async def test_junit_is_valid_xml_for_any_text_of_a_workflow(self, history, tmp_path):
        events = history.to_dicts()
        for event in events:
            if event["event_type"] == "ExecutionCompletedEvent":
                event["result"] = "\x1b[31mred"
        History.from_dicts(events).save(tmp_path / "red.json")
        output = tmp_path / "report.xml"
        arguments = ["--orchestrators", "replayed_workflows", "--format", "junit", "-o", output, tmp_path]
        assert self.run(*arguments) == 1
        assert "\N{REPLACEMENT CHARACTER}[31mred" in ET.parse(output).getroot().find("testcase/failure").text

    @pytest.mark.slow
    async def test_twice(self, tmp_path, capsys):
        (await record(flows.by_set, failures=0)).save(tmp_path / "1.json")
        (await record(flows.generated, 5, failures=0)).save(tmp_path / "2.json")
        assert self.run("--orchestrators", "replayed_workflows", tmp_path) == 0
        capsys.readouterr()
        assert self.run("--twice", "--orchestrators", "replayed_workflows", tmp_path) == 1
        failed, *_, passed, _ = capsys.readouterr().out.splitlines()
        assert failed == f"FAIL  {tmp_path / '1.json'}"
        assert passed.startswith(f"ok    {tmp_path / '2.json'}   generated, 3 steps")

    @pytest.mark.slow
    async def test_twice_needs_one_process_for_each_hash_seed(self, history, tmp_path, monkeypatch):
        runs = []
        real = subprocess.run
        monkeypatch.setattr(subprocess, "run", lambda *args, **options: runs.append(args) or real(*args, **options))
        for number in range(4):
            history.save(tmp_path / f"{number}.json")
        assert self.run("--twice", "--orchestrators", "replayed_workflows", tmp_path) == 0
        assert len(runs) == 2

    @pytest.mark.slow
    async def test_a_module_that_only_this_process_can_import_is_status_two(
        self, history, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.setitem(sys.modules, "only_here", flows)
        history.save(tmp_path / "one.json")
        assert self.run("--twice", "--orchestrators", "only_here", tmp_path) == 2
        error = capsys.readouterr().err
        assert "replaying only_here in another process failed, with PYTHONHASHSEED=1:" in error
        assert "No module named 'only_here'" in error


class TestLookup:
    def test_a_module_means_every_orchestrator_in_it(self, monkeypatch):
        monkeypatch.syspath_prepend(str(HERE))
        assert set(load_orchestrators(["replayed_workflows"])) == {
            "order",
            "generated",
            "by_set",
            "by_replay_flag",
            "an order",
        }

    def test_a_module_that_is_not_there(self):
        with pytest.raises(OrchestratorLookupError, match="cannot import 'nowhere'"):
            load_orchestrators(["nowhere"])
