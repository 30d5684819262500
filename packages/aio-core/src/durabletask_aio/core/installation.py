"""Checks that the installed distributions fit together.

`quick_check` runs whenever `durabletask.aio` is imported and costs nearly nothing. `verify_installation` reads the
metadata of the distributions; it runs once per process, before the first workflow or async activity is registered.
"""

from __future__ import annotations

import functools
import glob
import logging
import os
import re
import sys
import threading

from durabletask_aio.core import distributions

CORE = "durabletask-aio-core"
UPSTREAM = "durabletask"
CONFLICTING = ("durabletask-dapr",)
"""Distributions that install a `durabletask` package of their own over Microsoft's."""

LAST_TESTED = (1, 12)
"""Newest minor version of `durabletask` that the tests of this version of the core have run on.

The range that the metadata of the package allows goes further; `verify_installation` decides about the rest of it.
"""

_logger = logging.getLogger("durabletask.aio")
_lock = threading.Lock()


def quick_check() -> None:
    """Call `verify_installation` if anything looks wrong at import.

    The metadata of distributions is read here only when there is a reason for it, and otherwise at the first
    registration.

    Raises:
        ImportError: As for `verify_installation`.
    """
    if _find_problem() is not None or _has_conflicting_metadata():
        verify_installation()


def verify_installation() -> None:
    """Check once per process that `durabletask` is Microsoft's, and a version this core works with.

    A version above `LAST_TESTED` is accepted if all private names that the core needs are there, with one warning in
    the log. A failed check is not remembered: the next call checks again.

    Raises:
        ImportError: `durabletask` is missing, replaced by another distribution, out of range, or lacks a private name
            that the core needs. The message says what to install or uninstall.
    """
    with _lock:  # the cache alone would let two threads check, and warn, at the same time
        _verify_once()


@functools.cache  # exceptions are not cached
def _verify_once() -> None:
    for conflicting in CONFLICTING:
        if version(conflicting) is not None:
            msg = (
                f"{conflicting} is installed; it puts a 'durabletask' package of its own in the place of Microsoft's, "
                f"which {CORE} extends\n"
                f"  pip uninstall {conflicting}\n"
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
    problem = _find_problem()
    if problem is not None:
        raise ImportError(f"{problem} (found: {UPSTREAM} {found}, {CORE} {version(CORE)})")
    if _is_untested(found):
        _logger.warning(
            "%s %s is newer than %d.%d, the last minor version that %s %s was tested with; all private names of it "
            "that the core needs are there",
            UPSTREAM,
            found,
            *LAST_TESTED,
            CORE,
            version(CORE),
        )


def version(name: str) -> str | None:
    """Return the version of the distribution `name`, or `None` if it is not installed."""
    return distributions.version(name)


def _find_problem() -> str | None:
    """Return the sentence about a private name of `durabletask` that is missing, or `None`."""
    try:
        from durabletask_aio.core import _upstream

        return _upstream.self_check()
    except (ImportError, AttributeError) as error:  # a version that lacks a module or a class that is needed
        return f"{CORE} cannot use the installed {UPSTREAM}: {error}"


def _has_conflicting_metadata() -> bool:
    """Look for the metadata folder of a conflicting distribution next to `durabletask`, which has been imported."""
    patterns = [name.replace("-", "_") + "-*" for name in CONFLICTING]
    folders = [os.path.dirname(folder) for folder in sys.modules[UPSTREAM].__path__]
    return any(glob.glob(pattern, root_dir=folder) for folder in folders for pattern in patterns)


def _requirement() -> str | None:
    """Return the requirement on `durabletask` from our own metadata, its one home."""
    # There is none for a source tree that is not installed.
    return next((line for line in distributions.requires(CORE) if re.match(rf"{UPSTREAM}\s*[(<>=!~;]", line)), None)


def _allows(requirement: str, found: str) -> bool:
    """Return whether `found` is in the range.

    Plain bounds and plain versions, as those of this project and of nearly all releases, are compared without
    `packaging`: importing it would double the time of the first registration of a process.
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
    while numbers and numbers[-1] == 0:  # 1.12 equals 1.12.0
        numbers.pop()
    return tuple(numbers)


def _is_untested(found: str) -> bool:
    """Return whether `found` is of a newer minor version than `LAST_TESTED`; pre-releases of one count as newer."""
    numbers = re.match(r"(\d+)\.(\d+)", found)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) > LAST_TESTED


def _normalized(requirement: str) -> str:
    from packaging.requirements import Requirement

    return str(Requirement(requirement))
