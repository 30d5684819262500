"""The sandbox of durabletask-aio: finding what makes a workflow non-deterministic.

Modes are chosen where a workflow is registered (``sandbox_mode="strict"``); what is here is for the rest: checking a
function from a test, and relaxing or extending what the sandbox objects to.
"""

from __future__ import annotations

# The core comes first, so that an environment in which only this distribution is left fails with the line to run.
try:
    import durabletask_aio.core as _core
except ModuleNotFoundError as error:
    if error.name not in ("durabletask_aio", "durabletask_aio.core"):
        raise  # the core is there, and has something of its own to say
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
