"""The catalogue: consistency of the data, and the documentation generated from it."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from durabletask_aio.core import WorkflowValidationError
from durabletask_aio.sandbox.rules.allowance import configure
from durabletask_aio.sandbox.rules.catalogue import REPLACED_CATEGORIES, Severity
from durabletask_aio.sandbox.rules.conditions import is_condition
from durabletask_aio.sandbox.rules.default import default_catalogue
from durabletask_aio.sandbox.rules.libraries import shipped_libraries
from durabletask_aio.sandbox.runtime.substitutes import SUBSTITUTES
from durabletask_aio.sandbox.static.analysis import check
from durabletask_aio.sandbox.static.call_index import CallIndex

RULES = list(default_catalogue().rules.values())
CALLS = list(default_catalogue().calls.values())


class TestData:
    def test_codes_and_slugs_are_unique(self) -> None:
        assert len(RULES) == len({rule.code for rule in RULES}) == len({rule.slug for rule in RULES})

    def test_every_condition_exists(self) -> None:
        assert all(call.condition is None or is_condition(call.condition) for call in CALLS)

    def test_every_rule_with_a_call_can_be_reached_by_category_and_slug(self) -> None:
        known = default_catalogue()

        assert all(known.is_known_name(rule.slug) and known.is_known_name(rule.category.value) for rule in RULES)

    def test_clock_random_and_uuid_calls_have_substitutes_and_nothing_else_has(self) -> None:
        libraries = {f"{name}." for name in shipped_libraries()}
        replaced = {
            call.name
            for call in CALLS
            if call.category in REPLACED_CATEGORIES
            and call.rule.severity is Severity.ERROR
            and not call.name.startswith(tuple(libraries))
        }

        assert replaced == set(SUBSTITUTES)

    def test_secrets_are_never_replaced(self) -> None:
        assert not [name for name in SUBSTITUTES if name.startswith(("secrets.", "os.")) or "System" in name]

    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
    def test_the_good_example_of_a_rule_is_free_of_it(self, rule: Any, tmp_path: Path) -> None:
        head = (
            "import time, random, uuid, asyncio, subprocess, socket, threading, gc, sys, requests, os, json, secrets\n"
        )
        head += "from datetime import datetime, timezone\nfrom pathlib import Path\n"
        head += "async def step(ctx, n):\n    await ctx.sleep(n)\n"
        if rule.code == "DET902":
            return
        for name, example in (("good", rule.good), ("bad", rule.bad)):
            body = "\n".join(f"    {line}" for line in example.splitlines())
            text = f"{head}{example}\n" if "async def" in example else f"{head}async def workflow(ctx, x):\n{body}\n"
            (tmp_path / f"{name}.py").write_text(text)

        def codes(name: str) -> set[str]:
            from durabletask_aio.sandbox.static.checker import Settings, check_sources

            settings = Settings(orchestrators=frozenset({"workflow"}), notes=True)
            return {each.rule.code for each in check_sources([tmp_path / f"{name}.py"], settings).findings}

        assert rule.code not in codes("good")
        # Nothing is found where the example uses names that it does not define.
        assert rule.code in codes("bad") or rule.code in {"DET102", "DET804"}


class TestRecognition:
    def test_every_standard_call_that_exists_is_recognised_as_itself(self) -> None:
        names = [
            call.name for call in CALLS if call.name.partition(".")[0] in {"time", "random", "uuid", "os", "secrets"}
        ]
        index = CallIndex(default_catalogue())
        wrong: list[str] = []
        for name in names:
            value: Any = importlib.import_module(name.partition(".")[0])
            for part in name.split(".")[1:]:
                value = getattr(value, part, None)
            found = index.find(value) if value is not None else default_catalogue().calls[name]
            # secrets re-exports functions of other modules; both names are correct.
            if found is None or found.name.rpartition(".")[2] != name.rpartition(".")[2]:
                wrong.append(name)

        assert wrong == []


class TestExtension:
    def test_calls_are_added_until_undone(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "vendor_clock.py").write_text("def read():\n    return 1\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        vendor = importlib.import_module("vendor_clock")

        async def workflow(ctx: Any) -> int:
            return vendor.read()

        undo = configure(forbid={"vendor_clock.read": "DET101"})
        try:
            assert [each.call for each in check(workflow)] == ["vendor_clock.read"]
        finally:
            undo()
            sys.modules.pop("vendor_clock")
        assert check(workflow) == []

    def test_names_are_allowed_for_the_process_until_undone(self) -> None:
        async def workflow(ctx: Any) -> float:
            return time.time()

        undo = configure(allow=["wall-clock"])
        try:
            assert check(workflow) == []
        finally:
            undo()
        assert len(check(workflow)) == 1

    def test_errors_name_the_mistake(self) -> None:
        with pytest.raises(WorkflowValidationError, match="There is no rule 'DET999'"):
            configure(forbid={"a.b": "DET999"})
        with pytest.raises(WorkflowValidationError, match="'read' is not a full name: write it with its module"):
            configure(forbid={"read": "DET101"})
        with pytest.raises(WorkflowValidationError, match="'clok' is not a name that can be allowed"):
            configure(allow=["clok"])
