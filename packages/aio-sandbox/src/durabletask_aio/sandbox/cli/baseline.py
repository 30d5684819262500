"""A baseline: the findings that a project knows and has not fixed yet, which are not reported again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from durabletask_aio.core import WorkflowValidationError
from durabletask_aio.sandbox.cli.places import fingerprints, uri
from durabletask_aio.sandbox.rules.findings import Finding

_VERSION: Final = 1


@dataclass(frozen=True)
class Baseline:
    """The fingerprints of known findings. Paths in it are relative to the folder of its file."""

    path: Path
    known: frozenset[str]

    @classmethod
    def read(cls, path: Path) -> Baseline:
        """Read a baseline; raises `WorkflowValidationError` if it is not one."""
        if not path.is_file():
            msg = f"there is no baseline {path}; write it with: durabletask-aio check --write-baseline {path}"
            raise WorkflowValidationError(msg)
        try:
            document: Any = json.loads(path.read_bytes())
            version, known = document["version"], frozenset(str(each["fingerprint"]) for each in document["findings"])
        except (ValueError, KeyError, TypeError):
            msg = f"{path} is not a baseline; write it again with --write-baseline {path}"
            raise WorkflowValidationError(msg) from None
        if version != _VERSION:
            msg = f"{path} is a baseline of version {version}; this tool reads version {_VERSION}."
            raise WorkflowValidationError(msg)
        return cls(path, known)

    def split(self, findings: Sequence[Finding]) -> tuple[list[Finding], int]:
        """The findings that are not in the baseline, and how many are."""
        named = zip(findings, fingerprints(findings, self.path.parent), strict=True)
        new = [each for each, fingerprint in named if fingerprint not in self.known]
        return new, len(findings) - len(new)


def write_baseline(path: Path, findings: Sequence[Finding]) -> None:
    """Write a baseline with these findings; lines are kept out of it, so that it changes rarely."""
    found = [
        {"file": file, "code": each.rule.code, "function": each.function, "fingerprint": fingerprint}
        for each, file, fingerprint in zip(
            findings,
            (uri(each.file, path.parent) for each in findings),
            fingerprints(findings, path.parent),
            strict=True,
        )
    ]
    found.sort(key=lambda each: (each["file"], each["code"], each["function"], each["fingerprint"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": _VERSION, "findings": found}, indent=2) + "\n", encoding="utf-8")
