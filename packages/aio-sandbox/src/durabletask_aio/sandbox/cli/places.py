"""How reports name things: paths as the user knows them, the pages of rules, and a finding that has moved."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path

from durabletask_aio.sandbox.rules.catalogue import Rule
from durabletask_aio.sandbox.rules.findings import Finding

_DISTRIBUTION = "durabletask-aio-sandbox"


def relative(path: str) -> str:
    """The path from the current folder, for files below it."""
    try:
        found = os.path.relpath(path)
    except ValueError:
        # The file is on another drive (Windows).
        return path
    return path if found.startswith("..") else found


def uri(path: str, folder: Path | None = None) -> str:
    """The path from `folder`, or from the current one, with slashes."""
    if folder is None:
        return relative(path).replace(os.sep, "/")
    with contextlib.suppress(ValueError):
        return os.path.relpath(path, folder).replace(os.sep, "/")
    return path


def tool_version() -> str | None:
    """The version of this distribution; a checkout on the search path has none."""
    with contextlib.suppress(PackageNotFoundError):
        return version(_DISTRIBUTION)
    return None


def published_docs() -> str | None:
    """The address of the documentation in the metadata of the distribution, if it has one."""
    with contextlib.suppress(PackageNotFoundError):
        for entry in metadata(_DISTRIBUTION).get_all("Project-URL") or ():
            label, _, address = str(entry).partition(",")
            if label.strip().lower() == "documentation":
                return address.strip()
    return None


def page_of(rule: Rule, docs_url: str | None) -> str | None:
    """The section of a rule on the page of rules; `None` if the address of the documentation is not known."""
    return f"{docs_url.rstrip('/')}/reference/rules/#{rule.code.lower()}" if docs_url else None


def fingerprints(findings: Iterable[Finding], folder: Path | None = None) -> list[str]:
    """A text for each finding that stays the same when the lines before it change.

    It is made of the path from `folder`, the rule, the call, the function and the text of the line; equal ones are
    numbered.
    """
    seen: Counter[str] = Counter()
    found: list[str] = []
    for each in findings:
        parts = (
            uri(each.file, folder),
            each.rule.code,
            each.call or each.detail,
            each.function,
            each.source_line.strip(),
        )
        key = "\0".join(parts)
        found.append(hashlib.sha256(f"{key}\0{seen[key]}".encode(errors="surrogatepass")).hexdigest()[:32])
        seen[key] += 1
    return found
