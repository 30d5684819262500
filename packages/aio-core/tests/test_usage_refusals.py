"""Mistakes that fail an instance where they are made, and after which instances of older releases have continued."""

import asyncio
import dataclasses
import logging

import pytest
from durabletask.aio import as_orchestrator
from turns import Instance
from workflows import line_in, result_of

from durabletask_aio.core import operations, usage_refusals

VALIDATION = "durabletask.aio.WorkflowValidationError"


@dataclasses.dataclass
class Receipt:
    total: int


async def formats(ctx):
    receipt = ctx.call_activity("charge", input=3)
    text = f"receipt: {receipt}"  # <-
    await receipt
    await ctx.sleep(60)
    return text


async def formats_again(ctx):
    receipt = ctx.call_activity("charge", input=3)
    text = f"receipt: {receipt}"
    await receipt
    return text + str(receipt)  # <-


async def compares(ctx):
    receipt = ctx.call_activity("charge", input=3)
    is_seven = receipt == Receipt(7)  # <-
    await receipt
    await ctx.sleep(60)
    return is_seven


async def catches(ctx):
    receipt = ctx.call_activity("charge", input=3)
    try:
        return f"{receipt}"  # <-
    except Exception:
        await receipt
        await ctx.sleep(60)
        return "caught"


async def catches_in_a_task(ctx):
    receipt = ctx.call_activity("charge", input=3)

    async def show():
        return f"{receipt}"  # <-

    await asyncio.gather(show(), return_exceptions=True)
    await receipt
    return "caught"


OLDER = pytest.mark.not_replayed("the first turn is that of an older release")


@pytest.fixture
def old_release(monkeypatch):
    """Run the instances in it as a release that lets these mistakes pass."""

    def start(workflow):
        with monkeypatch.context() as patch:
            patch.setattr(operations, "refuse_unless_recorded", lambda execution, error: None)
            return Instance(as_orchestrator(workflow)).start()

    usage_refusals._warn.cache_clear()
    return start


@pytest.mark.parametrize("workflow", [formats, compares, catches, catches_in_a_task], ids=lambda each: each.__name__)
def test_one_that_is_made_now_fails_the_instance_in_its_turn_even_if_it_is_caught(workflow):
    instance = Instance(as_orchestrator(workflow)).start()

    assert len(instance.turns) == 1
    assert instance.failure.errorType == VALIDATION
    assert f"was used {'in a comp' if workflow is compares else 'as text'}" in instance.failure.errorMessage
    assert f"({line_in(workflow)})" in instance.failure.errorMessage


@OLDER
def test_one_that_was_recorded_continues_as_before_with_one_warning(old_release, caplog):
    instance = old_release(formats)
    assert instance.outcome is None
    instance.run()

    pending = "<Operation activity 'charge' step=1 pending>"
    assert instance.result == f"receipt: {pending}"
    (warning,) = [each.getMessage() for each in caplog.records if "after this mistake" in each.getMessage()]
    assert warning.startswith(
        "An instance that has continued after this mistake is replayed as it was recorded: activity 'charge' ("
    )
    assert f"was used as text without being awaited ({line_in(formats)})" in warning


@OLDER
def test_one_that_is_made_after_the_recorded_part_is_refused(old_release):
    instance = old_release(formats_again).run()

    assert instance.failure.errorType == VALIDATION
    assert f"was used as text without being awaited ({line_in(formats_again)})" in instance.failure.errorMessage


@OLDER
def test_a_comparison_that_was_recorded_is_false_as_before(old_release):
    assert old_release(compares).run().result is False


def test_what_logging_formats_fails_nothing(capsys):
    """Its handlers report their own errors, so the workflow does not see them."""
    logger = logging.Logger("shop")  # noqa: LOG001 - not to be found by name
    logger.addHandler(logging.StreamHandler())

    async def workflow(ctx):
        receipt = ctx.call_activity("charge", input=3)
        logger.warning("receipt: %s", receipt)
        return await receipt

    assert result_of(workflow) == 3
    assert "was used as text without being awaited" in capsys.readouterr().err
