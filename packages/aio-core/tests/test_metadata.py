"""Metadata: small strings that travel with a workflow."""

import pytest
from durabletask.aio import WorkflowValidationError, as_orchestrator
from turns import CONTINUED, Instance
from workflows import finished, result_of, started

from durabletask_aio.core import metadata
from durabletask_aio.core.disposal import turn_scope


def tags(instance, kind, turn=0):
    return [dict(getattr(action, kind).tags) for action in instance.turns[turn] if action.HasField(kind)]


def test_there_is_none_before_any_was_set():
    async def workflow(ctx):
        return [ctx.get_metadata(), ctx.get_headers()]

    assert result_of(workflow) == [None, None]


def test_headers_are_the_same_two_methods():
    async def workflow(ctx):
        ctx.set_metadata({"tenant": "acme"})
        first = ctx.get_headers()
        ctx.set_headers({"region": "us-east"})
        return [first, ctx.get_metadata()]

    assert result_of(workflow) == [{"tenant": "acme"}, {"region": "us-east"}]


def test_what_is_returned_and_what_was_given_are_copies():
    async def workflow(ctx):
        given = {"tenant": "acme"}
        ctx.set_metadata(given)
        given["tenant"] = "changed"
        ctx.get_metadata()["tenant"] = "changed too"
        return ctx.get_metadata()

    assert result_of(workflow) == {"tenant": "acme"}


def test_it_travels_with_what_is_scheduled_from_then_on():
    async def workflow(ctx):
        ctx.call_activity("before")
        ctx.set_metadata({"tenant": "acme"})
        ctx.call_activity("after", tags={"mine": "kept"})
        ctx.call_sub_orchestrator("child")
        await ctx.wait_for_external_event("go")

    instance = started(workflow)
    before, after = tags(instance, "scheduleTask")
    assert before == {}
    assert after.pop("mine") == "kept"
    assert metadata.decode(after) == {"tenant": "acme"}
    assert metadata.decode(tags(instance, "createSubOrchestration")[0]) == {"tenant": "acme"}


def test_each_call_carries_what_was_set_at_that_moment():
    async def workflow(ctx):
        for tenant in ("a", "b"):
            ctx.set_metadata({"tenant": tenant})
            ctx.call_activity("work")
            ctx.call_sub_orchestrator("child")
        await ctx.wait_for_external_event("go")

    instance = started(workflow)
    for kind in ("scheduleTask", "createSubOrchestration"):
        assert [metadata.decode(found) for found in tags(instance, kind)] == [{"tenant": "a"}, {"tenant": "b"}]


def test_it_is_carried_on_by_continue_as_new():
    async def workflow(ctx):
        ctx.set_metadata({"tenant": "acme"})
        ctx.continue_as_new(1)

    instance = finished(workflow)
    assert instance.outcome.orchestrationStatus == CONTINUED
    assert metadata.decode(dict(instance.outcome.tags)) == {"tenant": "acme"}


@pytest.mark.not_replayed("the replay has no such host")
def test_a_host_seeds_it_by_the_turn_scope():
    async def workflow(ctx):
        return ctx.get_metadata()

    with turn_scope({"tenant": "acme"}):
        assert Instance(as_orchestrator(workflow), scoped=False).run().result == {"tenant": "acme"}
    assert result_of(workflow) is None


def test_without_metadata_no_tags_are_written():
    async def workflow(ctx):
        ctx.call_sub_orchestrator("child")
        await ctx.call_activity("work")

    instance = started(workflow)
    assert tags(instance, "scheduleTask") == tags(instance, "createSubOrchestration") == [{}]


@pytest.mark.parametrize("mapping", [{}, {"a": "1"}, {"a": "", "b": "\u00e4\u20ac"}, {"x-trace": "0" * 100}])
def test_what_is_encoded_comes_back(mapping):
    assert metadata.decode(metadata.encode(mapping)) == mapping
    assert metadata.decode({"theirs": "x", **metadata.encode(mapping)}) == mapping


@pytest.mark.parametrize("tags", [{}, {"theirs": "x"}, {"durabletask": "y"}])
def test_other_peoples_tags_are_no_metadata(tags):
    assert metadata.decode(tags) is None


def test_a_client_may_write_the_tags_by_hand():
    assert metadata.decode({metadata.TAG_PREFIX + "tenant": "acme"}) == {"tenant": "acme"}


@pytest.mark.parametrize("broken", ["", "{", "5", "null"])
def test_a_broken_list_of_keys_loses_nothing(broken):
    tags = {metadata.TAG_PREFIX + "tenant": "acme", metadata.KEYS_TAG: broken}
    assert metadata.decode(tags) == {"tenant": "acme"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n": 1}, r"metadata keys and values are strings, not {'n': 1}: write {'n': '1'}"),
        ({1: "n"}, r"metadata keys and values are strings, not {1: 'n'}: write {'1': 'n'}"),
        ({"": "x"}, r"metadata keys must not be empty"),
        (
            "tenant",
            r"metadata is a mapping of strings to strings, as in set_metadata\({'tenant': 'acme'}\), not 'tenant'",
        ),
        (None, r"metadata is a mapping of strings to strings"),
        ({"file": "\udcff"}, r"metadata travels as UTF-8, which cannot have '\\udcff': surrogates not allowed"),
        ({"\udcff": "file"}, r"metadata travels as UTF-8, which cannot have '\\udcff'"),
        ({"k" * 9000: "v", "w": "w" * 100}, r"of which 'k{199}\.\.\. \(9,002 characters\) takes 9,001, and"),
        (["x"] * 9000, r"metadata is a mapping .*, not \['x', .*\.\.\. \(45,000 characters\)"),
        (
            {"big": "x" * 9000, "small": "y"},
            r"metadata takes 9,009 bytes, of which 'big' takes 9,003, and at most 8,192",
        ),
    ],
)
def test_what_is_no_small_mapping_of_strings_is_refused(given, message):
    async def workflow(ctx):
        with pytest.raises(WorkflowValidationError, match=message):
            ctx.set_metadata(given)
        return ctx.get_metadata()

    assert result_of(workflow) is None


def test_the_limit_is_in_bytes():
    metadata.validated({"k": "x" * 8191})
    with pytest.raises(WorkflowValidationError, match="8,193 bytes"):
        metadata.validated({"k": "\u00e4" * 4096})
