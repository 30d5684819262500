"""What is known about libraries: the data that is shipped, and data of other distributions."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

import pytest

from durabletask_aio.core import WorkflowValidationError
from durabletask_aio.sandbox.rules import libraries
from durabletask_aio.sandbox.rules.catalogue import Catalogue
from durabletask_aio.sandbox.rules.default import default_catalogue
from durabletask_aio.sandbox.rules.definitions import RULES
from durabletask_aio.sandbox.rules.libraries import add_libraries, add_library_data, shipped_libraries
from durabletask_aio.sandbox.static.call_index import CallIndex


def empty() -> Catalogue:
    return Catalogue({rule.code: rule for rule in RULES})


class TestShippedData:
    def test_it_is_in_the_catalogue(self) -> None:
        found = {name: default_catalogue().find(name) for name in ("arrow.utcnow", "redis.Redis.get", "ulid.ULID")}

        assert {name: call.rule.code for name, call in found.items() if call is not None} == {
            "arrow.utcnow": "DET101",
            "redis.Redis.get": "DET502",
            "ulid.ULID": "DET301",
        }

    def test_libraries_and_names_are_sorted_and_unique(self) -> None:
        data = shipped_libraries()

        assert list(data) == sorted(data)
        for library in data.values():
            names = [name for names in library.get("calls", {}).values() for name in names]
            assert len(names) == len(set(names))

    @pytest.mark.parametrize("library", ["httpx", "pydantic", "sqlite3"])
    def test_the_names_of_an_installed_library_exist(self, library: str) -> None:
        module = pytest.importorskip(library)
        described = shipped_libraries()[library]
        names = [name for names in described.get("calls", {}).values() for name in names]

        for name in [*names, *described.get("creators", ()), *described.get("pure", ())]:
            value: Any = module
            for part in name.partition("?")[0].removesuffix(".*").split(".")[:2]:
                value = getattr(value, part)
            assert value is not None


class TestMethods:
    def test_all_public_methods_of_a_class_are_found_by_identity(self) -> None:
        catalogue = empty()
        add_library_data(catalogue, {"email": {"calls": {"DET502": ["message.Message.*"]}}}, "data")
        message = importlib.import_module("email.message")

        index = CallIndex(catalogue)

        call = index.find(message.Message.as_string)
        assert call is not None
        assert call.name == "email.message.Message.as_string"
        assert index.find(message.Message.__init__) is None

    def test_a_pure_method_is_none(self) -> None:
        catalogue = empty()
        add_library_data(catalogue, {"shop": {"calls": {"DET502": ["Client.*"]}, "pure": ["Client.build"]}}, "data")

        assert catalogue.find("shop.Client.build") is None
        assert catalogue.find("shop.Client._private") is None
        assert catalogue.find("shop.Other.send") is None
        deeper = catalogue.find("shop.Client.orders.send")
        assert deeper is not None
        assert deeper.name == "shop.Client.orders.send"

    def test_methods_can_be_allowed_by_name(self) -> None:
        assert default_catalogue().is_known_name("redis.Redis.get")
        assert default_catalogue().is_known_name("botocore.client.BaseClient")


class Point:
    name = "shop"
    value = "shop:LIBRARIES"

    def __init__(self, loaded: object) -> None:
        self.loaded = loaded

    def load(self) -> object:
        return self.loaded


class TestEntryPoints:
    DATA = {"shop": {"calls": {"DET101": ["now"]}, "results": {"connect": "shop.Client"}, "generators": ["Dice"]}}

    @pytest.mark.parametrize("loaded", [DATA, lambda: TestEntryPoints.DATA], ids=["a mapping", "a function"])
    def test_other_distributions_add_libraries(self, loaded: object, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[str] = []

        def entry_points(*, group: str) -> list[Point]:
            asked.append(group)
            return [Point(loaded)]

        monkeypatch.setattr(libraries, "entry_points", entry_points)
        catalogue = empty()
        add_libraries(catalogue)

        assert asked == ["durabletask.aio.sandbox.libraries"]
        assert catalogue.calls["shop.now"].rule.code == "DET101"
        assert catalogue.results["shop.connect"] == "shop.Client"
        assert "shop.Dice" in catalogue.generators

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ([], r"the entry point 'shop' of the group .* \(shop:LIBRARIES\) must be a mapping, not \[\]"),
            ({"shop": []}, r": shop must be a mapping, not \[\]"),
            ({"shop": {"call": {}}}, r": shop has no key 'call'; the keys are calls, bases, "),
            ({"shop": {"calls": {"DET999": ["now"]}}}, r": shop: There is no rule 'DET999'"),
            ({"shop": {"calls": {"DET101": "now"}}}, r": shop: calls: DET101 must be a list of names, not 'now'"),
            ({"shop": {"calls": {"DET101": ["now?if"]}}}, r": shop: 'shop.now\?if' has an unknown condition 'if'"),
        ],
    )
    def test_data_of_another_shape_is_refused(
        self, data: object, message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(libraries, "entry_points", lambda group: [Point(data)])

        with pytest.raises(WorkflowValidationError, match=message):
            add_libraries(empty())
