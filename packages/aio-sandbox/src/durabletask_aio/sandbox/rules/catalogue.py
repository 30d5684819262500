"""The shape of the catalogue: rules, the calls that break them, and the alternatives.

The static analysis, the guard of running workflows, the checker and the generated documentation all read the catalogue.
Its data is in `definitions` (one entry per rule) and `calls` (one entry per call).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace


class Category(str, enum.Enum):
    """The kinds of things that a workflow must not depend on; a value can be given to `allow`."""

    CLOCK = "clock"
    SLEEP = "sleep"
    RANDOM = "random"
    UUID = "uuid"
    ENTROPY = "entropy"
    ENVIRONMENT = "environment"
    IDENTITY = "identity"
    FILE = "file"
    NETWORK = "network"
    PROCESS = "process"
    THREAD = "thread"
    ASYNCIO = "asyncio"
    BUILTINS = "builtins"
    ORDER = "order"
    DYNAMIC = "dynamic"
    STATE = "state"
    STRUCTURE = "structure"
    CHECKER = "checker"


REPLACED_CATEGORIES = frozenset({Category.CLOCK, Category.RANDOM, Category.UUID})
"""Categories whose calls return deterministic values in best_effort mode.

Entropy is not among them: a predictable token would be a security hole.
"""

IO_RULES = frozenset({"DET501", "DET502", "DET503", "DET601"})
"""Rules about files, network, processes and threads: those that `follow_io` applies to installed packages.

Packages read clocks and use locks for reasons that rarely affect a workflow's result; with files and the network it is
different.
"""


class Severity(str, enum.Enum):
    """How severe a violation of a rule is.

    An `ERROR` refuses the workflow in strict mode. A `WARNING` only warns, in every mode. A `NOTE` is about correct
    code; only the checker reports it, and only when notes are asked for.
    """

    ERROR = "error"
    """Refuses the workflow in strict mode, or fails its instance."""
    WARNING = "warning"
    """Warns in every mode."""
    NOTE = "note"
    """Reported by the checker only, on request."""


@dataclass(frozen=True, repr=False)
class Rule:
    """A kind of mistake. Its code is stable and never reused for another meaning."""

    code: str
    """Stable code, such as `"DET101"`."""
    slug: str
    """Readable name, such as `"wall-clock"`; accepted wherever the code is."""
    category: Category
    severity: Severity
    title: str
    """What is wrong, as one sentence without the final period."""
    why: str
    """One paragraph for the documentation and `--explain`."""
    alternative: str
    """What to write in an async workflow; completes the sentence "Use ..."."""
    generator_alternative: str
    """The same for a generator orchestrator, where `ctx` is an `OrchestrationContext`."""
    bad: str
    """Example of code that breaks the rule."""
    good: str
    """The same example, corrected."""

    def __repr__(self) -> str:
        return f"<Rule {self.code} {self.slug}>"


@dataclass(frozen=True)
class Call:
    """A callable (or mapping) that breaks a rule when workflow code uses it."""

    name: str
    """Full name, as users write it: `datetime.datetime.now`."""
    rule: Rule
    condition: str | None = None
    """A key of `conditions.CONDITIONS`; the call breaks the rule only if that condition holds."""
    fix: str | None = None
    """Template of the expression to write in an async workflow, with `{ctx}` and `{args}`.

    With `{call}` and `{more}`, it gives the function and its arguments to another one, which calls it.

    `None` if there is no mechanical replacement.
    """
    generator_fix: str | None = None
    alternative: str | None = None
    """Used where the rule's alternative does not fit this call."""

    @property
    def category(self) -> Category:
        return self.rule.category

    @property
    def is_watched(self) -> bool:
        """Whether the guard of running workflows checks the call; it ignores notes."""
        return self.rule.severity is not Severity.NOTE

    def advice(self, *, generator: bool = False) -> str:
        """The alternative to this call, as the end of a sentence that starts with "Use"."""
        if generator:
            return self.rule.generator_alternative
        return self.alternative or self.rule.alternative


@dataclass
class Catalogue:
    """Rules and calls. `default.default_catalogue()` is the one in force; the checker extends a copy of it."""

    rules: dict[str, Rule] = field(default_factory=dict[str, Rule])
    calls: dict[str, Call] = field(default_factory=dict[str, Call])
    version: int = 0
    """Increased by every change, so that an index built from the catalogue can tell that it is out of date."""
    methods: dict[str, Call] = field(default_factory=dict[str, Call])
    """By full name of a class: the entry for all its public methods."""
    pure: frozenset[str] = frozenset()
    """Methods of those classes that do no harm."""
    results: dict[str, str] = field(default_factory=dict[str, str])
    """By full name of a function: the full name of the class of what it returns."""
    generators: frozenset[str] = frozenset({"random.Random"})
    """Functions and classes that make a random generator."""
    creators: frozenset[str] = frozenset()
    """Class methods that create an object of the class they are called on, such as `BaseModel.model_validate`."""
    inherited: dict[str, Call] = field(default_factory=dict[str, Call])
    """By full name of a base class: the entry for creating an object of a class of the user that is based on it."""
    _owners: tuple[int, frozenset[str]] = (-1, frozenset())

    def add(self, calls: Iterable[Call]) -> None:
        for call in calls:
            self.calls[call.name] = call
        self.version += 1

    def find(self, name: str) -> Call | None:
        """The entry for a full name: its own, or that of a class of which it is a method."""
        call = self.calls.get(name)
        if call is not None:
            return call
        owner, _, last = name.rpartition(".")
        is_public = not last.startswith("_")
        while owner and is_public:
            call = self.methods.get(owner)
            if call is not None:
                return None if name in self.pure else replace(call, name=name)
            owner = owner.rpartition(".")[0]
        return None

    @property
    def owners(self) -> frozenset[str]:
        """The full names of the modules and classes to which a call belongs."""
        if self._owners[0] != self.version:
            self._owners = (self.version, frozenset(name.rpartition(".")[0] for name in self.calls))
        return self._owners[1]

    def forbid(self, name: str, *, code: str, alternative: str | None = None) -> Call:
        """Add the call `name` (`package.module.function`) under the rule `code`, and return the new entry.

        Raises `ValueError` for an unknown code, with the known ones in the message, and for a name without a module.
        """
        if "." not in name:
            msg = f"{name!r} is not a full name: write it with its module, as in 'package.module.function'."
            raise ValueError(msg)
        call = Call(name, self.rule(code), alternative=alternative)
        self.add([call])
        return call

    def rule(self, code_or_slug: str) -> Rule:
        """The rule with this code or slug; raises `ValueError` that lists the known rules if there is none."""
        wanted = code_or_slug.strip()
        for rule in self.rules.values():
            if wanted.upper() == rule.code or wanted.lower() == rule.slug:
                return rule
        known = ", ".join(f"{rule.code} ({rule.slug})" for rule in self.rules.values())
        msg = f"There is no rule {code_or_slug!r}. The rules are: {known}."
        raise ValueError(msg)

    def modules(self) -> Iterator[str]:
        """The first segment of each call's name, without repetition."""
        yield from dict.fromkeys(name.partition(".")[0] for name in self.calls)

    def is_known_name(self, name: str) -> bool:
        """Whether `allow` accepts `name`: a rule code, a slug, a category, a call, or the module of a call."""
        return (
            name.upper() in self.rules
            or any(name == rule.slug or name == rule.category.value for rule in self.rules.values())
            or name in self.calls
            or any(call.startswith(f"{name}.") for call in self.calls)
            or self.find(name) is not None
            or any(f"{owner}.".startswith(f"{name}.") for owner in self.methods)
        )

    def copy(self) -> Catalogue:
        return replace(self, rules=dict(self.rules), calls=dict(self.calls))


def allows(allowed: Iterable[str], rule: Rule, call_name: str | None) -> bool:
    """Whether a name in `allowed` covers a finding of `rule` about the call `call_name`.

    A name is `"*"`, a rule code, a slug, a category, a full call name, or the module or class before the call.
    """
    for name in allowed:
        if name == "*" or name.upper() == rule.code or name in {rule.slug, rule.category.value}:
            return True
        if call_name is not None and (name == call_name or call_name.startswith(f"{name}.")):
            return True
    return False
