"""Checks that Dapr's SDK is installed with its workflows, and once; runs before anything of it is imported."""

from __future__ import annotations

from importlib import metadata, util

_PIP = 'pip install "dapr>=1.19,<1.20"'


def check() -> None:
    """Check what is installed.

    Raises:
        ImportError: if `dapr.ext.workflow` is missing, or two distributions have written it over each other; the
            message has the line to run.
    """
    versions = {name: _version(name) for name in ("dapr", "dapr-ext-workflow")}
    if versions["dapr"] is None or util.find_spec("dapr") is None or util.find_spec("dapr.ext.workflow") is None:
        raise ImportError(f"durabletask_aio.dapr needs Dapr's workflow SDK, which is not installed\n  {_PIP}")
    if versions["dapr-ext-workflow"] is not None and _minor(versions["dapr"]) >= (1, 19):
        raise ImportError(
            f"dapr {versions['dapr']} contains dapr.ext.workflow, and dapr-ext-workflow "
            f"{versions['dapr-ext-workflow']} is installed over it\n"
            f"  pip uninstall -y dapr-ext-workflow\n"
            f"  pip install --force-reinstall --no-deps dapr=={versions['dapr']}"
        )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
