"""Whether what is installed fits together: checked once, when ``durabletask.aio`` is imported."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution, requires, version

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CORE = "durabletask-aio-core"
UPSTREAM = "durabletask"
IMPOSTORS = ("durabletask-dapr",)
"""Distributions that install a ``durabletask`` package of their own over Microsoft's."""


def check() -> None:
    """Raise :class:`ImportError`, saying what to uninstall or install, unless ``durabletask`` is one we work with."""
    for impostor in IMPOSTORS:
        if _is_installed(impostor):
            msg = (
                f"{impostor} is installed; it puts a 'durabletask' package of its own in the place of Microsoft's, "
                f"which {CORE} extends\n"
                f"  pip uninstall {impostor}\n"
                f"  pip install --force-reinstall --no-deps {UPSTREAM} {CORE}"
            )
            raise ImportError(msg)
    requirement = _requirement()
    try:
        found = version(UPSTREAM)
    except PackageNotFoundError:
        msg = f"durabletask.aio needs Microsoft's {UPSTREAM}, which is not installed\n  pip install {UPSTREAM}"
        raise ImportError(msg) from None
    if requirement is not None and not requirement.specifier.contains(found, prereleases=True):
        msg = (
            f"{CORE} {version(CORE)} works with {requirement}, and {found} is installed\n  pip install '{requirement}'"
        )
        raise ImportError(msg)
    from durabletask_aio.core import _upstream

    problem = _upstream.self_check()
    if problem is not None:
        raise ImportError(f"{problem} (found: {UPSTREAM} {found})")


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _requirement() -> Requirement | None:
    """The range of versions we were built for; its one home is the project's own metadata."""
    try:
        lines = requires(CORE) or []
    except PackageNotFoundError:  # run from a source tree that nobody installed
        return None
    for line in lines:
        requirement = Requirement(line)
        if canonicalize_name(requirement.name) == UPSTREAM:
            return requirement
    return None
