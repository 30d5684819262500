"""Replays the histories of a pytest session at its end, in one process for each hash seed; see `pytest_plugin`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from typing import Any

from durabletask_aio.testing.history import History
from durabletask_aio.testing.verify import OtherProcessError, module_reference, replay_under_hash_seeds


@dataclass
class Recorded:
    """A history that a test has produced, with what its replay needs."""

    test: str
    history: History
    orchestrator: Callable[..., Any] | None
    sandbox_mode: str | None
    has_own_settings: bool = False


@dataclass
class Verification:
    """What became of the histories of a session."""

    replayed: int = 0
    differences: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """For each history that did not replay: the test, and the difference."""
    unverified: dict[str, str] = field(default_factory=dict[str, str])
    """The workflows that could not be replayed in another process, with the reason."""

    def add(self, other: Verification) -> None:
        """Add what another process has found."""
        self.replayed += other.replayed
        self.differences += other.differences
        self.unverified.update(other.unverified)

    def lines(self) -> list[str]:
        """Return the lines of a report."""
        lines = [f"{self.replayed} histories replayed, {len(self.differences)} of them with a difference"]
        for test, difference in self.differences:
            lines += [f"DIFFERS {test}", *(f"    {line}" for line in difference.splitlines())]
        lines += [f"not verified: {name}: {reason}" for name, reason in sorted(self.unverified.items())]
        return lines


def verify_session(recorded: Iterable[Recorded]) -> Verification:
    """Replay the histories whose workflows can be imported.

    Args:
        recorded: the histories of a session.

    Returns:
        What became of them.
    """
    result = Verification()
    groups: list[_Group] = []
    for each in recorded:
        name = each.history.workflow_name
        if name is None:  # nothing has run
            continue
        reference = _reference(each)
        if isinstance(reference, _Unverified):
            result.unverified[name] = reference.reason
            continue
        # One process for all, unless two tests have given one name to different workflows.
        fitting = (
            group
            for group in groups
            if group.sandbox_mode == each.sandbox_mode and group.references.get(name, reference.text) == reference.text
        )
        group = next(fitting, None)
        if group is None:
            group = _Group(each.sandbox_mode)
            groups.append(group)
        group.references[name] = reference.text
        group.members.append(each)
    for group in groups:
        _replay(group, result)
    return result


@dataclass
class _Group:
    """Histories that one process can replay: each name of a workflow is that of one function."""

    sandbox_mode: str | None
    references: dict[str, str] = field(default_factory=dict[str, str])
    members: list[Recorded] = field(default_factory=list[Recorded])


def _replay(group: _Group, result: Verification) -> None:
    options = () if group.sandbox_mode is None else ("--sandbox-mode", group.sandbox_mode)
    histories = [each.history for each in group.members]
    try:
        errors = replay_under_hash_seeds(histories, list(group.references.values()), options=options)
    except OtherProcessError as error:
        if len(group.references) == 1:
            result.unverified[next(iter(group.references))] = str(error)
            return
        for name, reference in group.references.items():  # to find out which one it is
            members = [each for each in group.members if each.history.workflow_name == name]
            _replay(_Group(group.sandbox_mode, {name: reference}, members), result)
        return
    result.replayed += len(histories)
    result.differences += [
        (each.test, str(error)) for each, error in zip(group.members, errors, strict=True) if error is not None
    ]


@dataclass(frozen=True)
class _Reference:
    text: str


@dataclass(frozen=True)
class _Unverified:
    reason: str


def _reference(recorded: Recorded) -> _Reference | _Unverified:
    function: Any = recorded.orchestrator
    if function is None:
        return _Unverified("the test has registered it without a fixture of this plugin")
    if recorded.has_own_settings:
        return _Unverified("its data converter or its timers are those of the test")
    try:
        reference = module_reference(function)
    except ValueError:
        return _Unverified(f"{getattr(function, '__qualname__', function)!r} is not a function of a module")
    if not _can_be_imported(function.__module__):
        return _Unverified(f"another process cannot import the module {function.__module__!r}")
    return _Reference(f"{reference}={recorded.history.workflow_name}")


def _can_be_imported(name: str) -> bool:
    """Whether a new process with this one's path finds the file that the module has been loaded from."""
    path: Sequence[str] | None = None
    spec = None
    parts = name.split(".")
    for number in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:number]), path)
        if spec is None:
            return False
        path = spec.submodule_search_locations
    return spec is not None and spec.origin == getattr(sys.modules.get(name), "__file__", None)
