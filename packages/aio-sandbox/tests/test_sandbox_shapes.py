"""Shapes of programs that the checker follows: classes, decorators, collections, sets, imports and clients."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from durabletask_aio.core import NonDeterminismWarning, as_orchestrator
from durabletask_aio.sandbox.static.analysis import check
from durabletask_aio.sandbox.static.checker import Settings, check_sources

HEAD = "from durabletask.aio import AsyncWorkflowContext\n"
WORKFLOW = "async def workflow(ctx: AsyncWorkflowContext, order):\n"

FOUND: dict[str, tuple[str, str]] = {
    # Followed once for each depth of the data, this would not end.
    "functions that call themselves with parts of their arguments": (
        "DET201",
        """
        import random
        def merged(first, second):
            result = dict(first)
            for key, value in second.items():
                if isinstance(value, dict):
                    result[key] = merged(result.get(key, {}), value)
                else:
                    result[key] = [merged(each, value) for each in value]
            return result
        def expanded(part, root):
            name = part.pop("ref", None)
            if name:
                return expanded({**root[name], **{key: value for key, value in part.items()}}, root)
            for key, value in part["properties"].items():
                part["properties"][key] = expanded(value, root)
            for key in ("any", "all"):
                part[key] = [expanded(each, root) for each in part[key]]
            part["items"] = expanded(part["items"], merged(part, root))
            if not part:
                random.shuffle(part["items"])
            return merged(part, expanded(root, part))
        async def workflow(ctx: AsyncWorkflowContext, order):
            tables = {"a": {"b": [1, {"c": 2}]}, "d": [{"e": 3}, {"f": [4]}]}
            return expanded(merged(order, tables), tables)
        """,
    ),
    # Attributes of objects
    "a client in an attribute": (
        "DET502",
        """
        import requests
        class Api:
            def __init__(self, base):
                self.session = requests.Session()
            def status(self, number):
                return self.session.get(str(number))
        api = Api("https://orders.test")
        async def workflow(ctx: AsyncWorkflowContext, order):
            return api.status(order)
        """,
    ),
    "a dependency that is made unless it is given": (
        "DET101",
        """
        import time
        class Clock:
            def now(self):
                return time.time()
        class Service:
            def __init__(self, clock=None):
                self.clock = clock or Clock()
        async def workflow(ctx: AsyncWorkflowContext, order):
            return Service().clock.now()
        """,
    ),
    "a dependency that is given": (
        "DET101",
        """
        import time
        class Clock:
            def now(self):
                return time.time()
        class Service:
            def __init__(self, clock):
                self.clock = clock
            def stamp(self):
                return self.clock.now()
        async def workflow(ctx: AsyncWorkflowContext, order):
            return Service(Clock()).stamp()
        """,
    ),
    "a field of a dataclass that is given": (
        "DET101",
        """
        import time
        from dataclasses import dataclass
        class Clock:
            def now(self):
                return time.time()
        @dataclass
        class Service:
            clock: object
            def stamp(self):
                return self.clock.now()
        async def workflow(ctx: AsyncWorkflowContext, order):
            return Service(clock=Clock()).stamp()
        """,
    ),
    "an object that a property returns": (
        "DET101",
        """
        import time
        class Clock:
            def now(self):
                return time.time()
        class Service:
            @property
            def clock(self):
                return Clock()
        async def workflow(ctx: AsyncWorkflowContext, order):
            return Service().clock.now()
        """,
    ),
    "an object that a function returns": (
        "DET101",
        """
        import time
        class Clock:
            def now(self):
                return time.time()
        def make_clock():
            return Clock()
        async def workflow(ctx: AsyncWorkflowContext, order):
            return make_clock().now()
        """,
    ),
    "an object that a coroutine returns": (
        "DET101",
        """
        import time
        class Clock:
            def now(self):
                return time.time()
        async def make_clock():
            return Clock()
        async def workflow(ctx: AsyncWorkflowContext, order):
            clock = await make_clock()
            return clock.now()
        """,
    ),
    "a descriptor": (
        "DET101",
        """
        import time
        class Now:
            def __get__(self, instance, owner):
                return time.time()
        class Order:
            at = Now()
        async def workflow(ctx: AsyncWorkflowContext, order):
            return Order().at
        """,
    ),
    # Base classes
    "a template method": (
        "DET402",
        """
        import os
        class Step:
            def run(self, data):
                return {"data": data, "meta": self.meta()}
        class Billing(Step):
            def meta(self):
                return os.getpid()
        STEPS: list[Step] = [Billing()]
        async def workflow(ctx: AsyncWorkflowContext, order):
            return [step.run(order) for step in STEPS]
        """,
    ),
    "a method of a base class, by super()": (
        "DET101",
        """
        import time
        class Base:
            def stamp(self):
                return time.time()
        class Step(Base):
            pass
        class Billing(Step):
            def stamp(self):
                return round(super().stamp())
        async def workflow(ctx: AsyncWorkflowContext, order):
            return Billing().stamp()
        """,
    ),
    "a class method of a base class, by super(Class, cls)": (
        "DET201",
        """
        import random
        class Step:
            @classmethod
            def make(cls):
                return random.random()
        class Billing(Step):
            @classmethod
            def make(cls):
                return super(Billing, cls).make()
        async def workflow(ctx: AsyncWorkflowContext, order):
            return Billing.make()
        """,
    ),
    "a default factory of a base class": (
        "DET301",
        """
        import uuid
        from dataclasses import dataclass, field
        @dataclass
        class Entity:
            id: str = field(default_factory=lambda: str(uuid.uuid4()))
        @dataclass
        class Invoice(Entity):
            amount: int = 0
        async def workflow(ctx: AsyncWorkflowContext, order):
            return Invoice(amount=3)
        """,
    ),
    "a model that is read from data": (
        "DET101",
        """
        from datetime import datetime
        from pydantic import BaseModel, Field, model_validator
        class Message(BaseModel):
            text: str
            @model_validator(mode="after")
            def stamp(self):
                self.seen = datetime.now()
                return self
        async def workflow(ctx: AsyncWorkflowContext, order):
            return Message.model_validate(order)
        """,
    ),
    "a model inside of a model that is read from data": (
        "DET301",
        """
        from uuid import uuid4
        from pydantic import BaseModel, Field
        class Meta(BaseModel):
            trace: str = Field(default_factory=lambda: uuid4().hex)
        class Message(BaseModel):
            metas: list[Meta]
        async def workflow(ctx: AsyncWorkflowContext, order):
            return Message.model_validate_json(order)
        """,
    ),
    "a converter of a field": (
        "DET101",
        """
        import time
        import attrs
        @attrs.define
        class Order:
            at: float = attrs.field(converter=lambda value: time.time())
        async def workflow(ctx: AsyncWorkflowContext, order):
            return Order(0)
        """,
    ),
    # Decorators
    "a decorator on the workflow": (
        "DET101",
        """
        import functools, time
        def traced(function):
            @functools.wraps(function)
            async def wrapper(ctx, *args):
                await ctx.call_activity("record", input=time.time())
                return await function(ctx, *args)
            return wrapper
        @traced
        async def workflow(ctx: AsyncWorkflowContext, order):
            return 1
        """,
    ),
    "the function behind a decorator with arguments": (
        "DET101",
        """
        import functools, time
        def traced(name):
            def decorate(function):
                @functools.wraps(function)
                async def wrapper(ctx):
                    return await function(ctx)
                return wrapper
            return decorate
        async def helper(ctx):
            return time.time()
        wrapped = traced("helper")(helper)
        async def workflow(ctx: AsyncWorkflowContext, order):
            return await wrapped(ctx)
        """,
    ),
    # Sets
    "a set in an attribute": (
        "DET703",
        """
        class Tracker:
            def __init__(self):
                self.open: set[str] = set()
            async def close(self, ctx):
                for name in self.open:
                    await ctx.call_activity("close", input=name)
        async def workflow(ctx: AsyncWorkflowContext, order):
            await Tracker().close(ctx)
        """,
    ),
    "a set in a field": (
        "DET703",
        """
        from dataclasses import dataclass, field
        @dataclass
        class Plan:
            tags: set[str] = field(default_factory=set)
        async def workflow(ctx: AsyncWorkflowContext, order):
            for tag in Plan(set(order)).tags:
                await ctx.call_activity("tag", input=tag)
        """,
    ),
    "a parameter that is annotated as a set": (
        "DET703",
        """
        async def close(ctx, names: "set[str] | None"):
            for name in names:
                await ctx.call_activity("close", input=name)
        async def workflow(ctx: AsyncWorkflowContext, order):
            await close(ctx, order)
        """,
    ),
    "the first element of a list of a set": (
        "DET703",
        """
        async def workflow(ctx: AsyncWorkflowContext, order):
            await ctx.call_activity("lead", input=list(set(order))[0])
        """,
    ),
    "an unpacked set": (
        "DET703",
        """
        async def workflow(ctx: AsyncWorkflowContext, order):
            first, *rest = list(set(order))
            await ctx.call_activity("lead", input=first)
        """,
    ),
    "an element of a set that a helper chooses": (
        "DET703",
        """
        def elect(names):
            return next(iter(names))
        async def workflow(ctx: AsyncWorkflowContext, order):
            await ctx.call_activity("lead", input=elect(set(order)))
        """,
    ),
    "the text of a set": (
        "DET703",
        """
        async def workflow(ctx: AsyncWorkflowContext, order):
            await ctx.call_activity("save", input=f"names: {set(order)}")
        """,
    ),
    "a set in JSON": (
        "DET703",
        """
        import json
        async def workflow(ctx: AsyncWorkflowContext, order):
            await ctx.call_activity("save", input=json.dumps({"names": set(order)}, default=list))
        """,
    ),
    "the keys of a dictionary made from a set": (
        "DET703",
        """
        async def workflow(ctx: AsyncWorkflowContext, order):
            for name in dict.fromkeys(set(order)):
                await ctx.call_activity("save", input=name)
        """,
    ),
    "the largest element of a set by a key": (
        "DET703",
        """
        async def workflow(ctx: AsyncWorkflowContext, order):
            await ctx.call_activity("lead", input=max(set(order), key=len))
        """,
    ),
    "a set in a dictionary": (
        "DET703",
        """
        async def workflow(ctx: AsyncWorkflowContext, order):
            groups = {}
            for name in order:
                groups.setdefault(name[0], set()).add(name)
            for group in groups.values():
                for name in group:
                    await ctx.call_activity("save", input=name)
        """,
    ),
    "a default dictionary of sets": (
        "DET703",
        """
        from collections import defaultdict
        async def workflow(ctx: AsyncWorkflowContext, order):
            groups = defaultdict(set)
            for key in groups:
                for name in groups[key]:
                    await ctx.call_activity("save", input=name)
        """,
    ),
    "a list that is filled in the order of a set": (
        "DET703",
        """
        async def workflow(ctx: AsyncWorkflowContext, order):
            names = []
            for name in set(order):
                names.append(name.upper())
            await ctx.call_activity("save", input={"names": names})
        """,
    ),
    # Paths, modules, clients
    "a path below one that is a constant": (
        "DET501",
        """
        from pathlib import Path
        HERE = Path(__file__).parent
        def load(name):
            return (HERE / f"{name}.json").read_text()
        async def workflow(ctx: AsyncWorkflowContext, order):
            return load(order)
        """,
    ),
    "a pool that is a constant": (
        "DET601",
        """
        from concurrent.futures import ThreadPoolExecutor
        POOL = ThreadPoolExecutor(2)
        async def workflow(ctx: AsyncWorkflowContext, order):
            return list(POOL.map(len, order))
        """,
    ),
    "a client that is a constant": (
        "DET502",
        """
        import redis
        client = redis.Redis.from_url("redis://orders.test")
        async def workflow(ctx: AsyncWorkflowContext, order):
            return client.hgetall(order)
        """,
    ),
    "a session of a factory that is a constant": (
        "DET502",
        """
        from sqlalchemy import create_engine, text
        from sqlalchemy.orm import sessionmaker
        Session = sessionmaker(create_engine("sqlite://"))
        async def workflow(ctx: AsyncWorkflowContext, order):
            with Session() as session:
                return session.execute(text("select 1"))
        """,
    ),
    "a generator of numpy that is a constant": (
        "DET203",
        """
        import numpy as np
        rng = np.random.default_rng(7)
        async def workflow(ctx: AsyncWorkflowContext, order):
            return rng.integers(10)
        """,
    ),
    "a column of a frame": (
        "DET201",
        """
        import pandas as pd
        async def workflow(ctx: AsyncWorkflowContext, order):
            return pd.DataFrame(order)["item"].sample(5)
        """,
    ),
    "settings that are read from the environment": (
        "DET401",
        """
        from pydantic_settings import BaseSettings
        class Settings(BaseSettings):
            region: str
        async def workflow(ctx: AsyncWorkflowContext, order):
            return Settings().region
        """,
    ),
    "a log file": (
        "DET501",
        """
        import logging
        async def workflow(ctx: AsyncWorkflowContext, order):
            logging.getLogger("orders").addHandler(logging.FileHandler("orders.log"))
        """,
    ),
    # Values computed at import
    "a random value of a class": (
        "DET805",
        """
        import uuid
        class Run:
            id = uuid.uuid4().hex
        async def workflow(ctx: AsyncWorkflowContext, order):
            return Run.id
        """,
    ),
    "a file that is read at import": (
        "DET805",
        """
        import json
        from pathlib import Path
        RATES = json.loads(Path(__file__).with_name("rates.json").read_text())
        async def workflow(ctx: AsyncWorkflowContext, order):
            return RATES["eur"]
        """,
    ),
    # Replays
    "an operation that is left out on replay": (
        "DET806",
        """
        async def workflow(ctx: AsyncWorkflowContext, order):
            if not ctx.is_replaying:
                await ctx.call_activity("notify", input=order)
        """,
    ),
    "an operation that is left out on replay by a variable": (
        "DET806",
        """
        async def notify(ctx, first):
            if first and ctx.instance_id:
                return await ctx.call_activity("notify")
        async def workflow(ctx: AsyncWorkflowContext, order):
            first = not ctx.is_replaying
            return await ctx.call_activity("first") if first else None
        """,
    ),
    "a replay that returns early": (
        "DET806",
        """
        async def workflow(ctx: AsyncWorkflowContext, order):
            if ctx.is_replaying:
                return
            await ctx.call_activity("notify", input=order)
        """,
    ),
    "a hash of something unknown": (
        "DET702",
        """
        async def workflow(ctx: AsyncWorkflowContext, order):
            return hash(order["number"]) % 16
        """,
    ),
}

RIGHT: dict[str, str] = {
    "an object given for a parameter that is annotated with its base class": """
        import random
        class Executor:
            def run(self):
                return random.random()
        class Replayed(Executor):
            def run(self):
                return 1
        class Agent:
            def __init__(self, executor: Executor):
                self.executor = executor
        async def workflow(ctx: AsyncWorkflowContext, order):
            return Agent(Replayed()).executor.run()
    """,
    "sorted sets": """
        from dataclasses import dataclass, field
        @dataclass
        class Plan:
            tags: set[str] = field(default_factory=set)
        async def workflow(ctx: AsyncWorkflowContext, order):
            plan = Plan(set(order))
            for tag in sorted(plan.tags):
                await ctx.call_activity("tag", input=tag)
            await ctx.call_activity("save", input={"tags": sorted(plan.tags), "count": len(plan.tags)})
    """,
    "membership of sets": """
        SEEN = frozenset({"pear"})
        async def workflow(ctx: AsyncWorkflowContext, order):
            done = set()
            for item in order:
                if item in SEEN or item in done:
                    continue
                done.add(item)
                await ctx.call_activity("save", input=item)
            return len(done)
    """,
    "hashes of numbers": """
        async def workflow(ctx: AsyncWorkflowContext, number: int):
            return hash(number) + hash((1, 2)) + hash(len("text"))
    """,
    "a seeded generator of numpy": """
        import numpy as np
        async def workflow(ctx: AsyncWorkflowContext, seed: int):
            return np.random.default_rng(seed).integers(10)
    """,
    "a sample with a seed": """
        import pandas as pd
        async def workflow(ctx: AsyncWorkflowContext, order):
            return pd.DataFrame(order).sample(5, random_state=3)
    """,
    "a client in an activity": """
        import redis
        client = redis.Redis()
        def cached(ctx, key):
            return client.get(key)
        async def workflow(ctx: AsyncWorkflowContext, order):
            return await ctx.call_activity(cached, input=order)
    """,
    "requests that are built and not sent": """
        import httpx
        client = httpx.Client()
        async def workflow(ctx: AsyncWorkflowContext, order):
            return str(client.build_request("GET", "https://orders.test").url)
    """,
    "constants": """
        import logging
        from datetime import timedelta
        from pathlib import Path
        LIMIT = timedelta(days=3)
        HERE = Path(__file__).resolve().parent
        log = logging.getLogger(__name__)
        async def workflow(ctx: AsyncWorkflowContext, order):
            log.info("started in %s", HERE.name)
            await ctx.sleep(LIMIT)
    """,
    "a field that is given": """
        import uuid
        from dataclasses import dataclass, field
        @dataclass
        class Entity:
            number: int
            id: str = field(default_factory=lambda: str(uuid.uuid4()))
        @dataclass
        class Invoice(Entity):
            amount: int = 0
        async def workflow(ctx: AsyncWorkflowContext, order):
            return Invoice(3, str(ctx.uuid4())), Invoice(number=3, id="fixed")
    """,
    "a line of a log that is not repeated": """
        async def workflow(ctx: AsyncWorkflowContext, order):
            if not ctx.is_replaying:
                print("started", order)
            await ctx.call_activity("notify", input=order)
    """,
    "state of the workflow's own": """
        from collections import deque
        class Talk:
            def __init__(self, ctx: AsyncWorkflowContext):
                self.ctx = ctx
                self.history = []
                self.queue = deque()
            async def ask(self, text):
                self.history.append(await self.ctx.call_activity("ask", input=text))
        async def workflow(ctx: AsyncWorkflowContext, order):
            talk = Talk(ctx)
            talk.queue.append(order)
            while talk.queue:
                await talk.ask(talk.queue.popleft())
            return talk.history
    """,
}


def codes(text: str, folder: Path) -> set[str]:
    (folder / "flows.py").write_text(HEAD + textwrap.dedent(text))
    return {finding.rule.code for finding in check_sources([folder]).findings}


@pytest.mark.parametrize("name", FOUND)
def test_it_is_found(name: str, tmp_path: Path) -> None:
    code, text = FOUND[name]

    assert codes(text, tmp_path) == {code}


@pytest.mark.parametrize("name", RIGHT)
def test_nothing_is_found(name: str, tmp_path: Path) -> None:
    assert codes(RIGHT[name], tmp_path) == set()


class TestEndlessLoops:
    LOOP = "async def workflow(ctx: AsyncWorkflowContext, order):\n    while True:\n        await ctx.sleep(60)\n"

    def notes(self, text: str, folder: Path) -> list[str]:
        (folder / "flows.py").write_text(HEAD + text)
        return [finding.rule.code for finding in check_sources([folder], Settings(notes=True)).findings]

    def test_one_that_never_continues_as_new_is_noted(self, tmp_path: Path) -> None:
        assert self.notes(self.LOOP, tmp_path) == ["DET807"]

    @pytest.mark.parametrize("end", ["break", "return 1", "raise ValueError", "ctx.continue_as_new(order)"])
    def test_one_that_ends_is_not(self, end: str, tmp_path: Path) -> None:
        assert self.notes(f"{self.LOOP}        if order:\n            {end}\n", tmp_path) == []


NOT_INSTALLED = ("requests", "redis", "pandas", "numpy", "sqlalchemy", "pydantic_settings", "attrs")
"""Libraries that the tests do without; only the checker can follow a module that imports them."""
LOADABLE = [name for name, (_code, text) in FOUND.items() if not any(each in text for each in NOT_INSTALLED)]


class TestRegistration:
    """Registration reports what the checker finds in the files of a workflow."""

    @pytest.fixture
    def load(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
        monkeypatch.syspath_prepend(str(tmp_path))
        (tmp_path / "rates.json").write_text('{"eur": 1}')

        def load_module(text: str) -> ModuleType:
            (tmp_path / "loaded_flows.py").write_text(HEAD + textwrap.dedent(text))
            return importlib.import_module("loaded_flows")

        yield load_module
        sys.modules.pop("loaded_flows", None)

    @pytest.mark.parametrize("name", LOADABLE)
    def test_it_is_found(self, name: str, load: Callable[[str], ModuleType]) -> None:
        code, text = FOUND[name]
        if "pydantic" in text:
            pytest.importorskip("pydantic")
        workflow = load(text).workflow

        assert code in {finding.rule.code for finding in check(workflow)}

    @pytest.mark.parametrize("name", ["sorted sets", "membership of sets", "state of the workflow's own", "constants"])
    def test_nothing_is_found(self, name: str, load: Callable[[str], ModuleType]) -> None:
        assert check(load(RIGHT[name]).workflow) == []

    def test_a_place_is_reported_once(self, load: Callable[[str], ModuleType]) -> None:
        text = "import time\nasync def workflow(ctx: AsyncWorkflowContext, order):\n    return time.time()\n"

        assert [finding.call for finding in check(load(text).workflow)] == ["time.time"]

    def test_what_only_the_file_shows_does_not_refuse_a_workflow(self, load: Callable[[str], ModuleType]) -> None:
        workflow = load(FOUND["a set in an attribute"][1]).workflow

        with pytest.warns(NonDeterminismWarning, match="DET703"):
            as_orchestrator(workflow, sandbox_mode="strict")

    def test_what_an_object_holds_now_is_followed(self, load: Callable[[str], ModuleType]) -> None:
        module = load(
            """
            import time
            class Service:
                pass
            service = Service()
            setattr(service, "read", time.time)
            async def workflow(ctx: AsyncWorkflowContext, order):
                return service.read()
            """
        )

        assert [(finding.call, finding.certain) for finding in check(module.workflow)] == [("time.time", True)]
        assert check(str(module.__file__)) == []

    def test_a_name_that_the_program_has_replaced_is_taken_from_the_file_too(
        self, load: Callable[[str], ModuleType]
    ) -> None:
        module = load(
            """
            import time
            def stamp():
                return time.time()
            async def workflow(ctx: AsyncWorkflowContext, order):
                return stamp()
            """
        )
        module.stamp = lambda: 1  # type: ignore[attr-defined]

        found = check(module.workflow)

        assert [(finding.call, finding.certain) for finding in found] == [("time.time", False)]


class TestImports:
    def write(self, folder: Path, **files: str) -> None:
        for name, text in files.items():
            path = folder / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def test_a_star_import_is_followed(self, tmp_path: Path) -> None:
        self.write(
            tmp_path,
            tools="import random\ndef jitter():\n    return random.random()\n",
            flows=f"from tools import *\n{HEAD}{WORKFLOW}    await ctx.sleep(jitter())\n",
        )

        assert [Path(each.file).name for each in check_sources([tmp_path]).findings] == ["tools.py"]

    def test_a_star_import_binds_what_the_module_exports(self, tmp_path: Path) -> None:
        self.write(
            tmp_path,
            tools="import time\n__all__ = ['jitter']\ndef jitter():\n    return 1\ndef pause():\n    time.sleep(1)\n",
            flows=f"from tools import *\n{HEAD}{WORKFLOW}    return pause(), jitter()\n",
        )

        assert check_sources([tmp_path]).findings == []

    def test_a_star_import_of_the_standard_library_is_followed(self, tmp_path: Path) -> None:
        self.write(tmp_path, flows=f"from random import *\n{HEAD}{WORKFLOW}    return randint(1, 6)\n")

        assert [each.call for each in check_sources([tmp_path]).findings] == ["random.randint"]

    def test_each_file_imports_from_its_own_project(self, tmp_path: Path) -> None:
        flow = f"from helpers import ident\n{HEAD}{WORKFLOW}    return ident()\n"
        self.write(
            tmp_path,
            billing__flows=flow,
            billing__helpers="import uuid\ndef ident():\n    return str(uuid.uuid4())\n",
            shipping__flows=flow,
            shipping__helpers="def ident():\n    return 'fixed'\n",
        )

        for targets in ([tmp_path], [tmp_path / "shipping", tmp_path / "billing"]):
            files = [Path(each.file).relative_to(tmp_path).as_posix() for each in check_sources(targets).findings]
            assert files == ["billing/helpers.py"]
