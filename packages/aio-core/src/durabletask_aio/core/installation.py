"""Whether what is installed fits together.

:func:`glance` looks at what can be seen for nothing, whenever ``durabletask.aio`` is imported; :func:`check` reads the
metadata of the distributions, before the first workflow or async activity is registered.
"""

from __future__ import annotations

import functools
import glob
import os
import re

CORE = "durabletask-aio-core"
UPSTREAM = "durabletask"
IMPOSTORS = ("durabletask-dapr",)
"""Distributions that install a ``durabletask`` package of their own over Microsoft's."""


def glance() -> None:
    """Raise what :func:`check` raises, if anything looks wrong.

    Importing ``importlib.metadata`` takes longer than importing all of the core, and what it has to say is the same for
    as long as the process lives; so it waits for whoever registers something, or for a reason to ask.
    """
    try:
        from durabletask_aio.core import _upstream

        looks_right = _upstream.self_check() is None and not _has_impostor_beside_it()
    except (ImportError, AttributeError):  # so it goes with one that is too old, or another's
        looks_right = False
    if not looks_right:
        check()


def _has_impostor_beside_it() -> bool:
    import durabletask

    patterns = [name.replace("-", "_") + "-*" for name in IMPOSTORS]
    folders = [os.path.dirname(folder) for folder in durabletask.__path__]
    return any(glob.glob(pattern, root_dir=folder) for folder in folders for pattern in patterns)


@functools.cache  # what it raises is not kept
def check() -> None:
    """Raise :class:`ImportError`, saying what to uninstall or install, unless ``durabletask`` is one we work with."""
    for impostor in IMPOSTORS:
        if version(impostor) is not None:
            msg = (
                f"{impostor} is installed; it puts a 'durabletask' package of its own in the place of Microsoft's, "
                f"which {CORE} extends\n"
                f"  pip uninstall {impostor}\n"
                f"  pip install --force-reinstall --no-deps {UPSTREAM} {CORE}"
            )
            raise ImportError(msg)
    found = version(UPSTREAM)
    if found is None:
        msg = f"durabletask.aio needs Microsoft's {UPSTREAM}, which is not installed\n  pip install {UPSTREAM}"
        raise ImportError(msg)
    requirement = _requirement()
    if requirement is not None and not _allows(requirement, found):
        wanted = _normalized(requirement)
        msg = f"{CORE} {version(CORE)} works with {wanted}, and {found} is installed\n  pip install '{wanted}'"
        raise ImportError(msg)
    from durabletask_aio.core import _upstream

    problem = _upstream.self_check()
    if problem is not None:
        raise ImportError(f"{problem} (found: {UPSTREAM} {found})")


def version(name: str) -> str | None:
    """The version of that distribution; ``None`` if it is not installed."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _requirement() -> str | None:
    """The range of versions we were built for; its one home is the project's own metadata."""
    from importlib import metadata

    try:
        lines = metadata.requires(CORE) or []
    except metadata.PackageNotFoundError:  # run from a source tree that nobody installed
        return None
    return next((line for line in lines if re.match(rf"{UPSTREAM}\s*[(<>=!~;]", line)), None)


def _allows(requirement: str, found: str) -> bool:
    """Whether ``found`` is in the range; without ``packaging`` if both are plain, as ours and nearly all releases are.

    Importing it would double what the first registration of a process takes.
    """
    bounds = requirement.removeprefix(UPSTREAM).split(",")
    plain = [re.fullmatch(r"(>=|<)([\d.]+)", bound.strip()) for bound in bounds]
    if re.fullmatch(r"[\d.]+", found) and all(plain):
        release = _release(found)
        return all(
            release >= _release(bound[2]) if bound[1] == ">=" else release < _release(bound[2])
            for bound in plain
            if bound is not None
        )
    from packaging.requirements import Requirement

    return Requirement(requirement).specifier.contains(found, prereleases=True)


def _release(version: str) -> tuple[int, ...]:
    numbers = [int(number) for number in version.split(".") if number]
    while numbers and numbers[-1] == 0:  # 1.12 is 1.12.0
        numbers.pop()
    return tuple(numbers)


def _normalized(requirement: str) -> str:
    from packaging.requirements import Requirement

    return str(Requirement(requirement))
