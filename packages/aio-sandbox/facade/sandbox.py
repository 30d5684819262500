"""The sandbox of durabletask-aio: detection of non-deterministic code in workflows.

The mode of a workflow is chosen where it is registered (`sandbox_mode="strict"`). This module is for everything else:
checking a function or a file from a test, and allowing or forbidding calls.
"""

from __future__ import annotations

# The core is imported first, so that an environment without it fails with the command that installs it.
try:
    import durabletask_aio.core as _core
except ModuleNotFoundError as error:
    if error.name not in ("durabletask_aio", "durabletask_aio.core"):
        raise  # the core is installed; the error is about something else
    msg = (
        "durabletask.aio.sandbox needs the core of durabletask-aio, which is not installed (or not completely). Run:\n"
        '    pip install --force-reinstall "durabletask-aio-core[sandbox]"'
    )
    raise ImportError(msg) from error

from durabletask_aio.sandbox.rules.allowance import allow, configure
from durabletask_aio.sandbox.rules.catalogue import Category, Rule, Severity
from durabletask_aio.sandbox.rules.findings import Finding
from durabletask_aio.sandbox.runtime.sandbox import SANDBOX
from durabletask_aio.sandbox.static.analysis import check

__all__ = ["SANDBOX", "Category", "Finding", "Rule", "Severity", "allow", "check", "configure"]
