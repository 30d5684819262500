"""What is non-deterministic, as data: rules, the calls that break them, and what to write in place of each.

Everything else in this package reads this table: the static analysis, the layers that watch running workflows, the
checker, and the documentation, which is generated from it.  The data itself is in :mod:`.rules` (one entry per rule
code) and :mod:`.calls` (one entry per call); this module holds the shapes and the look-up.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


class Category(str, enum.Enum):
    """The kinds of things a workflow must not depend on; usable in ``allow``."""

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
"""Categories whose calls give deterministic values in best_effort mode; never entropy: predictable tokens harm."""

IO_RULES = frozenset({"DET501", "DET502", "DET503", "DET601"})
"""Files, network, processes and threads: what a third-party package can be followed for without looking at the rest.

Packages read clocks and take locks for reasons of their own, and mostly no result depends on it; with a file, it does.
"""


class Severity(str, enum.Enum):
    """How sure a rule is.

    Only an ``ERROR`` refuses a workflow in strict mode.  A ``WARNING`` just warns, in every mode.  A ``NOTE`` is about
    code that is right as it stands: only the checker tells of it, and only when it is asked for notes.
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, repr=False)
class Rule:
    """One kind of mistake.  The code is stable: it is never reused for another meaning."""

    code: str
    slug: str
    category: Category
    severity: Severity
    title: str
    why: str
    """One paragraph for the documentation and ``--explain``."""
    alternative: str
    """What to write in an async workflow; completes the sentence "Use ..."."""
    generator_alternative: str
    """The same for a generator orchestrator, where ``ctx`` is upstream's context."""
    bad: str
    good: str

    def __repr__(self) -> str:
        return f"<Rule {self.code} {self.slug}>"


@dataclass(frozen=True)
class Call:
    """One callable (or mapping) that breaks a rule when workflow code uses it."""

    name: str
    """Fully qualified, as users write it: ``datetime.datetime.now``."""
    rule: Rule
    condition: str | None = None
    """A name in :data:`.conditions.CONDITIONS`; the call is harmless unless the condition holds."""
    fix: str | None = None
    """The expression to write in an async workflow, where it is mechanical: ``{ctx}`` and ``{args}`` are filled in."""
    generator_fix: str | None = None
    alternative: str | None = None
    """Where the rule's alternative does not fit this one call."""

    @property
    def category(self) -> Category:
        return self.rule.category

    @property
    def is_watched(self) -> bool:
        """Whether the layers that work while a workflow runs are to notice the call."""
        return self.rule.severity is not Severity.NOTE

    def advice(self, *, generator: bool = False) -> str:
        """The alternative that fits, as the end of a sentence that starts with "Use"."""
        if generator:
            return self.rule.generator_alternative
        return self.alternative or self.rule.alternative


@dataclass
class Catalogue:
    """The rules and calls in force.  The shipped one is :func:`default`; users extend copies of it."""

    rules: dict[str, Rule] = field(default_factory=dict[str, Rule])
    calls: dict[str, Call] = field(default_factory=dict[str, Call])
    version: int = 0
    """Raised by every change, so that indexes built from the catalogue know when they are stale."""

    def add(self, calls: Iterable[Call]) -> None:
        for call in calls:
            self.calls[call.name] = call
        self.version += 1

    def forbid(self, name: str, *, code: str, alternative: str | None = None) -> Call:
        """Add the call ``name`` (``package.module.function``) under the rule ``code``; return the new entry.

        Raises :class:`ValueError` for an unknown code, naming the known ones, or for a name without a module.
        """
        if "." not in name:
            msg = f"{name!r} is not a full name: write it with its module, as in 'package.module.function'."
            raise ValueError(msg)
        call = Call(name, self.rule(code), alternative=alternative)
        self.add([call])
        return call

    def rule(self, code_or_slug: str) -> Rule:
        """The rule with this code or slug.  Raises :class:`ValueError` that names the known ones."""
        wanted = code_or_slug.strip()
        for rule in self.rules.values():
            if wanted.upper() == rule.code or wanted.lower() == rule.slug:
                return rule
        known = ", ".join(f"{rule.code} ({rule.slug})" for rule in self.rules.values())
        msg = f"There is no rule {code_or_slug!r}. The rules are: {known}."
        raise ValueError(msg)

    def modules(self) -> Iterator[str]:
        """Every first segment of a call's name, each once."""
        yield from dict.fromkeys(name.partition(".")[0] for name in self.calls)

    def is_known_name(self, name: str) -> bool:
        """Whether ``allow`` may be given ``name``: a rule code, a slug, a category, a call or a module of calls."""
        return (
            name.upper() in self.rules
            or any(name == rule.slug or name == rule.category.value for rule in self.rules.values())
            or name in self.calls
            or any(call.startswith(f"{name}.") for call in self.calls)
        )

    def copy(self) -> Catalogue:
        return Catalogue(dict(self.rules), dict(self.calls), self.version)


def allows(allowed: Iterable[str], rule: Rule, call_name: str | None) -> bool:
    """Whether one of the names in ``allowed`` covers a finding of ``rule`` about ``call_name``.

    A name is ``"*"``, a rule code, a slug, a category, a full call name, or the module or class before the call.
    """
    for name in allowed:
        if name == "*" or name.upper() == rule.code or name in {rule.slug, rule.category.value}:
            return True
        if call_name is not None and (name == call_name or call_name.startswith(f"{name}.")):
            return True
    return False
