"""The data converters: round trips of random values, the documented forms, and histories recorded before."""

from __future__ import annotations

import enum
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Dict, Generic, List, Literal, NamedTuple, Optional, TypeVar, Union  # noqa: UP035
from uuid import UUID

import pytest
from durabletask.serialization import JsonDataConverter

from durabletask_aio.core import data

if TYPE_CHECKING:
    import attrs
    import hypothesis
    import pydantic
    import typing_extensions
    from hypothesis import strategies as st
else:
    attrs = pytest.importorskip("attrs")
    pytest.importorskip("cattrs")
    pydantic = pytest.importorskip("pydantic")
    typing_extensions = pytest.importorskip("typing_extensions")
    hypothesis = pytest.importorskip("hypothesis")
    st = pytest.importorskip("hypothesis.strategies")

CONVERTERS = [data.load(name, "data")() for name in data.CONVERTERS]
T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2
    PAIR = ("red", 2)


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Right(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Point(NamedTuple):
    x: int
    due: date


class Options(typing_extensions.TypedDict, total=False):
    limit: Decimal


@dataclass(frozen=True)
class Item:
    name: str
    price: Decimal
    id: UUID
    tags: frozenset[str] = frozenset()


@dataclass
class Order:
    items: list[Item]
    due: Optional[datetime] = None  # noqa: UP045
    by_name: dict[str, Item] = field(default_factory=dict)
    parent: Optional[Order] = None  # noqa: UP045
    blob: bytes = b""
    wait: timedelta = timedelta(0)
    at: Union[int, Item, None] = None  # noqa: UP007


@dataclass
class Page(Generic[T]):
    content: T
    more: bool = False


@attrs.define
class Shelf:
    place: pathlib.PurePosixPath
    size: Size


class Model(pydantic.BaseModel):
    id: UUID
    due: datetime
    names: set[str] = set()
    inner: Optional[Model] = None  # noqa: UP045
    aliased: int = pydantic.Field(default=0, alias="theAlias")
    paths: tuple[pathlib.PurePosixPath, ...] = ()
    by_name: dict[str, frozenset[int]] = {}
    item: Union[Item, None] = None  # noqa: UP007


texts = st.text(max_size=8)
zones = st.none() | st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
datetimes = st.datetimes(timezones=zones)
items = st.builds(
    Item, texts, st.decimals(allow_nan=False, allow_infinity=False), st.uuids(), st.frozensets(texts, max_size=4)
)
paths = st.lists(st.from_regex("[a-z.]{1,3}", fullmatch=True), max_size=3).map(
    lambda parts: pathlib.PurePosixPath("/", *parts)
)
orders: st.SearchStrategy[Order] = st.deferred(
    lambda: st.builds(
        Order,
        st.lists(items, max_size=2),
        st.none() | datetimes,
        st.dictionaries(texts, items, max_size=2),
        st.none() | orders,
        st.binary(max_size=5),
        st.timedeltas(),
        st.none() | st.integers(-9, 9) | items,
    )
)
models: st.SearchStrategy[Any] = st.deferred(
    lambda: st.builds(
        Model,
        id=st.uuids(),
        due=datetimes,
        names=st.sets(texts, max_size=4),
        inner=st.none() | models,
        theAlias=st.integers(-9, 9),
        paths=st.lists(paths, max_size=2).map(tuple),
        by_name=st.dictionaries(texts, st.frozensets(st.integers(-9, 9), max_size=4), max_size=2),
        item=st.none() | items,
    )
)
ROUND_TRIPS: dict[Any, Any] = {
    datetime: datetimes,
    date: st.dates(),
    time: st.times(timezones=zones),
    timedelta: st.timedeltas(),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    UUID: st.uuids(),
    bytes: st.binary(),
    pathlib.PurePosixPath: paths,
    set[int]: st.sets(st.integers()),
    frozenset[str]: st.frozensets(texts),
    set[tuple[int, date]]: st.sets(st.tuples(st.integers(), st.dates())),
    tuple[int, UUID]: st.tuples(st.integers(), st.uuids()),
    tuple[datetime, ...]: st.lists(datetimes).map(tuple),
    Size: st.sampled_from(Size),
    dict[int, date]: st.dictionaries(st.integers(), st.dates()),
    dict[str, list[set[date]]]: st.dictionaries(texts, st.lists(st.sets(st.dates()))),
    Item: items,
    list[Item]: st.lists(items, max_size=3),
    Optional[Item]: items,  # noqa: UP045
    List[Item]: st.lists(items, max_size=3),  # noqa: UP006
    Dict[str, Item]: st.dictionaries(texts, items, max_size=2),  # noqa: UP006
    Order: orders,
    dict[str, Order]: st.dictionaries(texts, orders, max_size=2),
    Page[Item]: st.builds(Page, items, st.booleans()),
    Point: st.builds(Point, st.integers(), st.dates()),
    Options: st.fixed_dictionaries({}, optional={"limit": st.decimals(allow_nan=False, allow_infinity=False)}),
    Union[Item, list[date]]: items | st.lists(st.dates()),  # noqa: UP007
    Union[int, str, Item]: st.integers() | texts | items,  # noqa: UP007
}


@pytest.mark.parametrize("converter", CONVERTERS, ids=lambda converter: type(converter).__name__)
@pytest.mark.parametrize("kind", ROUND_TRIPS, ids=str)
def test_a_value_is_read_as_it_was_written(converter: Any, kind: Any) -> None:
    @hypothesis.settings(max_examples=40, deadline=None, database=None)
    @hypothesis.given(ROUND_TRIPS[kind])
    def check(value: Any) -> None:
        text = converter.serialize(value)
        json.loads(text)
        read = converter.deserialize(text, kind)
        assert read == value
        assert type(read) is type(value)
        assert converter.serialize(read) == text
        assert converter.coerce(value, kind) == value
        assert converter.coerce(json.loads(text), kind) == value

    assert converter.can_reconstruct(kind)
    check()


@pytest.mark.parametrize("kind", [Model, list[Model], dict[str, Model], Page[Model], Optional[Model]], ids=str)  # noqa: UP045
def test_a_model_is_read_as_it_was_written(kind: Any) -> None:
    converter = data.load("PydanticDataConverter", "data")()

    @hypothesis.settings(max_examples=40, deadline=None, database=None)
    @hypothesis.given(models)
    def check(model: Any) -> None:
        value = {list[Model]: [model], dict[str, Model]: {"a": model}, Page[Model]: Page(model)}.get(kind, model)
        text = converter.serialize(value)
        assert converter.deserialize(text, kind) == value
        assert converter.serialize(converter.deserialize(text, kind)) == text
        assert converter.coerce(value, kind) == value

    check()
    assert converter.can_reconstruct(kind)


def test_attrs_classes_are_read_with_cattrs() -> None:
    converter = data.load("CattrsDataConverter", "data")()
    shelves = {"a": Shelf(pathlib.PurePosixPath("/x"), Size.LARGE)}

    assert converter.serialize(shelves) == '{"a": {"place": "/x", "size": 2}}'
    assert converter.deserialize(converter.serialize(shelves), dict[str, Shelf]) == shelves


FORMS: list[tuple[Any, Any]] = [
    (datetime(2024, 2, 29, 12, 30), "2024-02-29T12:30:00"),
    (datetime(2024, 2, 29, 12, 30, 0, 5, tzinfo=timezone.utc), "2024-02-29T12:30:00.000005+00:00"),
    (date(2024, 2, 29), "2024-02-29"),
    (time(12, 30, tzinfo=timezone.utc), "12:30:00+00:00"),
    (timedelta(days=1, seconds=5), "P1DT5S"),
    (timedelta(milliseconds=-500), "-P0DT0.5S"),
    (Decimal("1.50"), "1.50"),
    (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    (b"\xff\xfe", "__4="),
    (pathlib.PurePosixPath("/a/b"), "/a/b"),
    (Colour.RED, "red"),
    (Colour.PAIR, ["red", 2]),
    (Right.READ | Right.WRITE, 3),
    ({3, 20}, [20, 3]),
    (frozenset({"b", "a"}), ["a", "b"]),
    ((1, date(2024, 1, 1)), [1, "2024-01-01"]),
    (Point(1, date(2024, 1, 1)), [1, "2024-01-01"]),
    (Item("tea", Decimal("1.5"), UUID(int=0)), {"name": "tea", "price": "1.5", "id": str(UUID(int=0)), "tags": []}),
]


@pytest.mark.parametrize("converter", CONVERTERS, ids=lambda converter: type(converter).__name__)
@pytest.mark.parametrize(("value", "form"), FORMS, ids=lambda value: type(value).__name__)
def test_the_documented_form(converter: Any, value: Any, form: Any) -> None:
    assert converter.serialize(value) == json.dumps(form)


@pytest.mark.parametrize("value", [*Colour, *Size, *Right, Right.READ | Right.WRITE])
def test_members_of_enums_are_found_by_the_json_of_their_value(value: Any) -> None:
    converter = data.load("CattrsDataConverter", "data")()

    assert converter.deserialize(converter.serialize(value), type(value)) is value
    assert converter.deserialize(converter.serialize([value]), list[type(value)]) == [value]  # type: ignore[misc]


def test_sets_are_written_in_one_order_by_every_process() -> None:
    program = (
        "import json, pydantic\n"
        "from durabletask.aio.data import CattrsDataConverter, PydanticDataConverter\n"
        "class Model(pydantic.BaseModel):\n    names: set[str]; inner: dict[str, list[frozenset[str]]]\n"
        "words = 'one two three four five six seven'.split()\n"
        "print(CattrsDataConverter().serialize({'a': set(words), 'b': [frozenset({frozenset(words)})]}))\n"
        "print(PydanticDataConverter().serialize([Model(names=words, inner={'x': [frozenset(words)]})]))\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    (output,) = outputs
    assert '"five", "four", "one", "seven", "six", "three", "two"' in output.splitlines()[1]


class Hooked:
    """A type that reads and writes itself in upstream's way."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"Hooked({self.text!r})"

    def to_json(self) -> str:
        return self.text

    @classmethod
    def from_json(cls, value: str) -> Hooked:
        return cls(value)


@dataclass
class Before:
    """What upstream's converter writes and reads."""

    name: str
    size: Size
    inner: Optional[Before] = None  # noqa: UP045
    several: list[Before] = field(default_factory=list)


PLAIN = [
    *(None, True, 0, 1.5, "é\u2028", [1, "a", None], {"b": 1, "a": {"c": [2]}}, {1: 2, None: 3}, (1, 2)),
    *(float("inf"), Colour.RED, Size.SMALL, Before("a", Size.LARGE, Before("b", Size.SMALL)), SimpleNamespace(a=1)),
    *(Hooked("x"), [Hooked("y")]),
]


@pytest.mark.parametrize("converter", CONVERTERS, ids=lambda converter: type(converter).__name__)
class TestHistoriesRecordedBefore:
    @pytest.mark.parametrize("value", PLAIN, ids=repr)
    def test_what_upstream_can_write_is_written_the_same(self, converter: Any, value: Any) -> None:
        assert converter.serialize(value) == JsonDataConverter().serialize(value)

    @pytest.mark.parametrize("kind", [None, Any, object, str, int, list[int], dict[str, Any], Optional[str]])  # noqa: UP045
    def test_what_json_has_itself_is_read_the_same(self, converter: Any, kind: Any) -> None:
        for text in (
            "null",
            "5",
            '"5"',
            "[1, 2]",
            '{"a": 1}',
            '{"__durabletask_autoobject__": true, "a": 1}',
            "",
            None,
        ):
            assert converter.deserialize(text, kind) == JsonDataConverter().deserialize(text, kind)
            assert not converter.can_reconstruct(kind)

    def test_dataclasses_are_read_the_same(self, converter: Any) -> None:
        value = Before("a", Size.LARGE, Before("b", Size.SMALL), [Before("c", Size.SMALL)])
        text = JsonDataConverter().serialize(value)

        assert text is not None
        assert converter.deserialize(text, Before) == value
        assert converter.deserialize(f"[{text}]", list[Before]) == [value]

    def test_the_marker_of_early_versions_is_left_out(self, converter: Any) -> None:
        text = '{"__durabletask_autoobject__": true, "name": "a", "size": 1}'
        assert converter.deserialize(text, Before) == Before("a", Size.SMALL)

    def test_types_that_read_themselves_still_do(self, converter: Any) -> None:
        assert converter.deserialize('"x"', Hooked).text == "x"
        assert converter.can_reconstruct(Hooked)
        assert converter.coerce("x", Hooked).text == "x"

    def test_fields_that_were_added_or_removed_since(self, converter: Any) -> None:
        assert converter.deserialize('{"name": "a", "size": 1, "removed": 2}', Before) == Before("a", Size.SMALL)

    @pytest.mark.parametrize("kind", [SimpleNamespace, Callable[..., Any], TypeVar("Anything"), "Before"], ids=str)
    def test_types_that_no_library_knows_are_left_to_upstream(self, converter: Any, kind: Any) -> None:
        assert not converter.can_reconstruct(kind)
        assert converter.deserialize('{"a": 1}', kind) == JsonDataConverter().deserialize('{"a": 1}', kind)


@pytest.mark.parametrize("name", data.CONVERTERS)
class TestWhatDoesNotFit:
    def test_names_the_type_and_the_payload(self, name: str) -> None:
        converter = data.load(name, "data")()
        with pytest.raises(data.PayloadTypeError, match=r"^a payload cannot be read as Item: ") as caught:
            converter.deserialize('{"name": "tea"}', Item)
        assert str(caught.value).endswith('\n  payload: \'{"name": "tea"}\'')
        assert (caught.value.expected_type, caught.value.payload) == (Item, '{"name": "tea"}')
        assert caught.value.__cause__ is not None
        with pytest.raises(data.PayloadTypeError, match=r"as list\[.*Item\]"):
            converter.coerce([5], list[Item])

    def test_is_left_as_it_is_if_the_converter_is_lenient(self, name: str) -> None:
        converter = data.load(name, "data")(lenient=True)
        assert converter.deserialize('{"name": "tea"}', Item) == {"name": "tea"}
        assert converter.coerce({"name": "tea"}, Item) == {"name": "tea"}

    def test_cannot_be_written(self, name: str) -> None:
        converter = data.load(name, "data")()
        with pytest.raises(TypeError, match=r"Failed to serialize object of type 'list' to JSON: .*'object'"):
            converter.serialize([object()])


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ('"2024-01-01T00:00:00Z"', datetime, datetime(2024, 1, 1, tzinfo=timezone.utc)),
        ("1.5", timedelta, timedelta(seconds=1.5)),
        ("1.5", Decimal, Decimal("1.5")),
        ("null", Item, None),
        ("5", Union[float, Decimal, None], 5.0),  # noqa: UP007
        ("true", Union[int, bool, date], True),  # noqa: UP007
        ("[1]", Union[date, Sequence[int]], [1]),  # noqa: UP007
        ('"a"', Literal["a"], "a"),
    ],
    ids=str,
)
@pytest.mark.parametrize("converter", CONVERTERS, ids=lambda converter: type(converter).__name__)
def test_what_others_write_is_read_too(converter: Any, text: str, kind: Any, expected: Any) -> None:
    read = converter.deserialize(text, kind)
    assert list(read) == expected if isinstance(expected, list) else read == expected


def test_an_ambiguous_union_that_fits_nothing_is_refused() -> None:
    converter = data.load("CattrsDataConverter", "data")()
    with pytest.raises(data.PayloadTypeError, match="is none of"):
        converter.deserialize('{"a": 1}', Union[date, UUID])  # noqa: UP007


class TestNames:
    def test_are_imported_from_the_public_path(self) -> None:
        from durabletask.aio import data as facade

        assert facade.__all__ == ["PayloadTypeError"]
        for name in (*facade.__all__, *data.CONVERTERS):
            assert getattr(facade, name).__module__ == "durabletask.aio.data"
        assert facade.PydanticDataConverter is data.load("PydanticDataConverter", "data")

    def test_that_do_not_exist_are_attribute_errors(self) -> None:
        from durabletask.aio import data as facade

        with pytest.raises(AttributeError, match=r"module 'durabletask.aio.data' has no attribute 'Nothing'"):
            facade.Nothing  # noqa: B018

    @pytest.mark.parametrize(("name", "library"), data.CONVERTERS.items())
    def test_name_the_extra_if_the_library_is_missing(self, name: str, library: str) -> None:
        program = f"import sys\nsys.modules[{library!r}] = None\nfrom durabletask.aio.data import {name}\n"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        line = f'{name} needs {library}, which is not installed: pip install "durabletask-aio-core[{library}]"'
        assert done.stderr.splitlines()[-1] == f"ImportError: {line}"

    def test_cost_nothing_until_they_are_used(self) -> None:
        program = (
            "import sys, durabletask.aio.data\nprint([m for m in ('cattrs', 'attrs', 'pydantic') if m in sys.modules])"
        )
        assert (
            subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
        )
