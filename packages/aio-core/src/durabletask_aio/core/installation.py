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

from durabletask_aio import families
from durabletask_aio.core import distributions

CORE = "durabletask-aio-core"

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
    """Check once per process that the SDK of this process is not replaced, and of a version this project works with.

    A version above `Family.last_tested` is accepted if all private names that the core needs are there, with a warning
    in the log. A failed check is not remembered: the next call checks again.

    Raises:
        ImportError: the SDK is missing, replaced by another distribution, out of range, or lacks a private name
            that the core needs. The message says what to install or uninstall.
    """
    with _lock:  # the cache alone would let two threads check, and warn, at the same time
        _verify_once()


@functools.cache  # exceptions are not cached
def _verify_once() -> None:
    family = families.chosen()
    sdk, own = family.distribution, family.required_by
    for conflicting in family.conflicting:
        if version(conflicting) is not None:
            msg = (
                f"{conflicting} is installed; it puts a '{sdk}' package of its own in the place of Microsoft's, "
                f"which {own} extends\n"
                f"  pip uninstall {conflicting}\n"
                f"  pip install --force-reinstall --no-deps {sdk} {own}"
            )
            raise ImportError(msg)
    found = version(sdk)
    if found is None:
        msg = f"{family.import_path} needs {family.title}, which is not installed\n  pip install {sdk}"
        raise ImportError(msg)
    requirement = _requirement(family)
    if requirement is not None and not _allows(requirement, sdk, found):
        wanted = _normalized(requirement)
        msg = f"{own} {version(own)} works with {wanted}, and {found} is installed\n  pip install '{wanted}'"
        raise ImportError(msg)
    problem = _find_problem()
    if problem is not None:
        raise ImportError(f"{problem} (found: {sdk} {found}, {own} {version(own)})")
    if _is_newer(found, family.last_tested):
        _logger.warning(
            "%s %s is newer than %d.%d, the last minor version that %s %s was tested with; all private names of it "
            "that the core needs are there",
            sdk,
            found,
            *family.last_tested,
            own,
            version(own),
        )


def version(name: str) -> str | None:
    """Return the version of the distribution `name`, or `None` if it is not installed."""
    return distributions.version(name)


def _find_problem() -> str | None:
    """Return the sentence about a private name of the SDK that is missing, or `None`."""
    try:
        from durabletask_aio.core import _upstream

        return _upstream.self_check()
    except (ImportError, AttributeError) as error:  # a version that lacks a module or a class that is needed
        family = families.chosen()
        return f"{family.required_by} cannot use the installed {family.distribution}: {error}"


def _has_conflicting_metadata() -> bool:
    """Look for the metadata folder of a conflicting distribution next to the SDK, which has been imported."""
    family = families.chosen()
    if not family.conflicting:
        return False
    patterns = [name.replace("-", "_") + "-*" for name in family.conflicting]
    folders = [os.path.dirname(folder) for folder in sys.modules[family.distribution].__path__]
    return any(glob.glob(pattern, root_dir=folder) for folder in folders for pattern in patterns)


def _requirement(family: families.Family) -> str | None:
    """Return the requirement on the SDK from our own metadata, its one home."""
    # There is none for a source tree that is not installed.
    lines = distributions.requires(family.required_by)
    return next((line for line in lines if re.match(rf"{family.distribution}\s*[(<>=!~;]", line)), None)


def _allows(requirement: str, sdk: str, found: str) -> bool:
    """Return whether `found` is in the range.

    Plain bounds and plain versions, as those of this project and of nearly all releases, are compared without
    `packaging`: importing it would double the time of the first registration of a process.
    """
    bounds = requirement.removeprefix(sdk).split(",")
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


def _is_newer(found: str, tested: tuple[int, int]) -> bool:
    """Return whether `found` is of a newer minor version than `tested`; pre-releases of one count as newer."""
    numbers = re.match(r"(\d+)\.(\d+)", found)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) > tested


def _normalized(requirement: str) -> str:
    from packaging.requirements import Requirement

    return str(Requirement(requirement))
