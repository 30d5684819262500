"""The rules about how workflows are written, apart from single calls, and about comments and files."""

from __future__ import annotations

from typing import Final

from durabletask_aio.sandbox.rules.catalogue import Category, Rule, Severity

_ERROR, _WARNING, _NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE

STRUCTURE_RULES: Final = (
    Rule(
        "DET801",
        "shared-state",
        Category.STATE,
        _ERROR,
        "State outside the workflow is written",
        "A module's variables live as long as the process: each replay writes them again, executions see one another's"
        " values, and another worker has none of them.",
        "a local variable, the workflow's input and result, or an entity",
        "a local variable, the orchestrator's input and result, or an entity",
        "SEEN = []\n\nasync def workflow(ctx, order):\n    SEEN.append(order)",
        "async def workflow(ctx, order):\n    await ctx.call_activity(remember, input=order)",
    ),
    Rule(
        "DET802",
        "not-awaited",
        Category.STRUCTURE,
        _WARNING,
        "An operation is started and its result never awaited",
        "The operation is scheduled at the call, but it is not awaited and a failure passes unnoticed; the workflow"
        " may end before it does. A coroutine that is not awaited does not run at all.",
        "`await`, or keep it in a variable and await it later",
        "`yield`, or keep it in a variable and yield it later",
        "ctx.call_activity(notify)",
        "await ctx.call_activity(notify)",
    ),
    Rule(
        "DET803",
        "swallowed-cancellation",
        Category.STRUCTURE,
        _WARNING,
        "Cancellation is swallowed",
        "`except:`, `except BaseException:` and `except asyncio.CancelledError:` around an `await` catch the"
        " cancellation by which a timeout, a task group or the end of the instance stops this code. Without `raise`, it"
        " continues.",
        "`except Exception:`, or end the handler with `raise`",
        "`except Exception:`, or end the handler with `raise`",
        "try:\n    await ctx.call_activity(pay)\nexcept BaseException:\n    log()",
        "try:\n    await ctx.call_activity(pay)\nexcept Exception:\n    log()",
    ),
    Rule(
        "DET804",
        "blocking",
        Category.THREAD,
        _ERROR,
        "The thread is blocked until another thread does something",
        "A workflow runs on one thread of the worker. Waiting there for a lock, a queue or a future of another thread"
        " stops all workflows, and the wait is not recorded.",
        "`await`, with `asyncio.Event`, `asyncio.Queue` or `ctx.wait_for_external_event` where one is needed",
        "`ctx.wait_for_external_event`",
        "value = jobs.get()  # a queue.Queue",
        "value = await ctx.wait_for_external_event('job')",
    ),
    Rule(
        "DET805",
        "import-time-value",
        Category.STATE,
        _WARNING,
        "A value that was computed when a module was imported is used",
        "Each process computes it anew when it imports the module: a clock, a random value or a file read at the top of"
        " a module, or in the body of a class, gives each worker, and each restart, another value.",
        "the workflow's input, `ctx.now()`, `ctx.uuid4()`, or an activity that returns the value",
        "the orchestrator's input, or an activity that returns the value",
        "RUN = uuid.uuid4()  # at the top of the module\n\nasync def workflow(ctx):\n    return str(RUN)",
        "async def workflow(ctx):\n    return str(ctx.uuid4())",
    ),
    Rule(
        "DET806",
        "replaying-branch",
        Category.STRUCTURE,
        _ERROR,
        "An operation depends on whether the workflow is replayed",
        "On replay `ctx.is_replaying` is true, and the operation that the history has is not scheduled, or one is"
        " scheduled that it does not have. It is there to keep side effects, such as a line of a log, from being"
        " repeated.",
        "the operation without the condition; on replay it returns its recorded result and does not run again",
        "the operation without the condition; on replay it returns its recorded result and does not run again",
        "if not ctx.is_replaying:\n    await ctx.call_activity(notify)",
        "await ctx.call_activity(notify)",
    ),
    Rule(
        "DET807",
        "endless-loop",
        Category.STRUCTURE,
        _NOTE,
        "A loop without an end does not continue as new",
        "Every round adds to the history, which is read and replayed as a whole. `ctx.continue_as_new(...)` starts"
        " again with an empty one and keeps the instance's id.",
        "`ctx.continue_as_new(state)` after a number of rounds",
        "`ctx.continue_as_new(state)` after a number of rounds",
        "while True:\n    await ctx.sleep(60)\n    await ctx.call_activity(poll)",
        "await ctx.sleep(60)\nawait ctx.call_activity(poll)\nctx.continue_as_new(None)",
    ),
    Rule(
        "DET808",
        "unknown-name",
        Category.STRUCTURE,
        _WARNING,
        "An activity or workflow is called by a name that nothing is registered under",
        "A name in quotes is looked up when the call is made, on the worker that takes it. One that resembles a"
        " registered name, or that is registered as the other kind, is probably misspelt; other names may belong to"
        " another program and are not reported.",
        "the registered name, or the function itself in place of its name",
        "the registered name, or the function itself in place of its name",
        "def charge(ctx, order): ...\n\nworker.add_activity(charge)\n\nasync def workflow(ctx, order):\n"
        "    await ctx.call_activity('chrage', input=order)",
        "def charge(ctx, order): ...\n\nworker.add_activity(charge)\n\nasync def workflow(ctx, order):\n"
        "    await ctx.call_activity('charge', input=order)",
    ),
    Rule(
        "DET809",
        "duplicate-name",
        Category.STRUCTURE,
        _ERROR,
        "A name is registered twice",
        "A worker has one activity and one workflow of a name. Registering a second one raises an error when the"
        " program starts.",
        "another name, as in `add_activity(function, name=...)`",
        "another name, as in `add_named_activity(name, function)`",
        "def charge(ctx, order): ...\n\nworker.add_activity(charge)\n"
        "worker.add_activity(refund, name='charge')\n\nasync def workflow(ctx, order): ...",
        "def charge(ctx, order): ...\n\nworker.add_activity(charge)\n"
        "worker.add_activity(refund, name='refund')\n\nasync def workflow(ctx, order): ...",
    ),
    Rule(
        "DET810",
        "workflow-context-in-activity",
        Category.STRUCTURE,
        _WARNING,
        "An activity gets the context of a workflow",
        "An activity runs elsewhere, perhaps on another machine, with an `ActivityContext`, which starts no operations."
        " The workflow's context cannot be written to the history as an input.",
        "the values that the activity needs as its input, and `ActivityContext` as its annotation",
        "the values that the activity needs as its input, and `ActivityContext` as its annotation",
        "await ctx.call_activity(charge, input=ctx)",
        "await ctx.call_activity(charge, input=ctx.instance_id)",
    ),
    Rule(
        "DET811",
        "unmatched-except",
        Category.STRUCTURE,
        _WARNING,
        "An exception is caught that the call cannot raise",
        "A failed activity or workflow raises `ActivityFailedError` or `SubOrchestrationFailedError`, since the one who"
        " waits may be another process. `raises=` makes the failure an instance of the types that it lists. Adding it"
        " changes the branch that a recorded failure takes; see [upgrading running workflows](../upgrading.md).",
        "`raises=(...)` in the call, or `except ActivityFailedError`",
        "`except task.TaskFailedError`",
        "class Declined(Exception): ...\n\nasync def workflow(ctx, order):\n    try:\n"
        "        await ctx.call_activity('charge', input=order)\n    except Declined:\n        return 'declined'",
        "class Declined(Exception): ...\n\nasync def workflow(ctx, order):\n    try:\n"
        "        await ctx.call_activity('charge', input=order, raises=(Declined,))\n    except Declined:\n"
        "        return 'declined'",
    ),
    Rule(
        "DET812",
        "repeated-log",
        Category.STRUCTURE,
        _NOTE,
        "A line of a log is written again on each replay",
        "The code before an `await` runs again whenever the workflow continues from its history, and what it logs is"
        " written again.",
        "`ctx.logger`, or `ctx.create_replay_safe_logger(logger)`",
        "`ctx.create_replay_safe_logger(logger)`",
        "import logging\nlogger = logging.getLogger(__name__)\n\nasync def workflow(ctx, order):\n"
        "    logger.info('started')",
        "import logging\nlogger = logging.getLogger(__name__)\n\nasync def workflow(ctx, order):\n"
        "    ctx.create_replay_safe_logger(logger).info('started')",
    ),
    Rule(
        "DET813",
        "call-type",
        Category.STRUCTURE,
        _WARNING,
        "A call by name has an input or result of another type than the function",
        "A type checker sees nothing of a call by name, and values are converted to JSON. The activity or workflow"
        " fails, or goes on with a value of the wrong type.",
        "a value of the annotated type, or the function itself in place of its name",
        "a value of the annotated type, or the function itself in place of its name",
        "def charge(ctx, amount: int): ...\n\nworker.add_activity(charge)\n\nasync def workflow(ctx, order):\n"
        "    await ctx.call_activity('charge', input='3')",
        "def charge(ctx, amount: int): ...\n\nworker.add_activity(charge)\n\nasync def workflow(ctx, order):\n"
        "    await ctx.call_activity('charge', input=3)",
    ),
    Rule(
        "DET814",
        "direct-activity",
        Category.STRUCTURE,
        _WARNING,
        "An activity is called like any function",
        "It runs as a part of the workflow, and again on each replay. Nothing is recorded of it, and no policy retries"
        " it.",
        "`await ctx.call_activity(...)`",
        "`yield ctx.call_activity(...)`",
        "def charge(ctx, amount): ...\n\nworker.add_activity(charge)\n\nasync def workflow(ctx, order):\n"
        "    charge(ctx, 3)",
        "def charge(ctx, amount): ...\n\nworker.add_activity(charge)\n\nasync def workflow(ctx, order):\n"
        "    await ctx.call_activity(charge, input=3)",
    ),
    Rule(
        "DET815",
        "step-changes-state",
        Category.STATE,
        _WARNING,
        "A step changes a variable of its workflow",
        "The function of a step does not run on replay: its result is taken from the history. A list that it appends"
        " to, or a variable that it assigns, is then without the change, and the workflow may decide otherwise.",
        "the result of the step, which is recorded",
        "the result of the step, which is recorded",
        "found = []\nawait ctx.run(lambda: found.append(search(query)))",
        "found = []\nfound.append(await ctx.run(search, query))",
    ),
    Rule(
        "DET901",
        "allowance-without-reason",
        Category.CHECKER,
        _WARNING,
        "A pragma does not say why, or allows nothing",
        "`# determinism: allow[DET101]` silences a rule for a line. The next reader needs to know why that is safe."
        " A name in it that is no rule, category or call silences nothing.",
        "`# determinism: allow[DET101] because ...`",
        "`# determinism: allow[DET101] because ...`",
        "started = time.time()  # determinism: allow[DET101]",
        "started = time.time()  # determinism: allow[DET101] only for a log line",
    ),
    Rule(
        "DET902",
        "unreadable",
        Category.CHECKER,
        _ERROR,
        "A file could not be read as Python",
        "What cannot be parsed cannot be checked, so it counts against the exit status.",
        "Python that the interpreter running the checker understands",
        "Python that the interpreter running the checker understands",
        "async def workflow(ctx)\n    ...",
        "async def workflow(ctx):\n    ...",
    ),
    Rule(
        "DET903",
        "unused-allowance",
        Category.CHECKER,
        _NOTE,
        "A pragma allows nothing that the checker finds",
        "The line may have been corrected since, or the name may be another rule's. A pragma may still be needed for"
        " what the sandbox finds while a workflow runs.",
        "the line without the comment",
        "the line without the comment",
        "started = ctx.now()  # determinism: allow[DET101] only for a log line",
        "started = ctx.now()",
    ),
)
