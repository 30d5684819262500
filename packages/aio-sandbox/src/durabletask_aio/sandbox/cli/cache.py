"""A cache of the findings in a tree, keyed by the contents of the files they depend on.

The entry of a run names each file with a digest of its content. It is used if every file that the analysis has
consulted is unchanged, and every other file that was changed, added or removed has nothing to do with workflows. Times
of files play no part, so that a cache can be kept between checkouts in CI.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from durabletask_aio.sandbox.cli.places import tool_version
from durabletask_aio.sandbox.code.sources import decoded
from durabletask_aio.sandbox.rules.default import default_catalogue
from durabletask_aio.sandbox.rules.findings import Finding
from durabletask_aio.sandbox.rules.fixes import Fix
from durabletask_aio.sandbox.static.checker import RecognisedOrchestrator, Report, Settings
from durabletask_aio.sandbox.static.discovery import is_unrelated

FOLDER: Final = ".durabletask_cache"
_FORMAT: Final = 1
_ENTRIES: Final = 100
_UNRELATED: Final = "unrelated"
_RELATED: Final = "related"


@dataclass(frozen=True)
class Cache:
    """Entries in a folder, one for each combination of settings and targets."""

    folder: Path

    def find(self, key: str, contents: Mapping[Path, bytes], settings: Settings) -> Report | None:
        """The report on files with these contents, if it is known."""
        try:
            entry: dict[str, Any] = json.loads((self.folder / f"{key}.json").read_bytes())
            if entry["format"] != _FORMAT or not _is_valid(entry, contents, settings):
                return None
            return _report(entry, len(contents))
        except (OSError, ValueError, KeyError, TypeError):
            # No entry, or one that is damaged.
            return None

    def store(self, key: str, report: Report, contents: Mapping[Path, bytes], settings: Settings) -> None:
        """Keep a report; a folder that cannot be written to is left as it is."""
        with contextlib.suppress(OSError):
            entry = _entry(report, contents, settings)
            self._prepare()
            handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=key)
            with open(handle, "w", encoding="utf-8") as file:
                json.dump(entry, file)
            os.replace(temporary, self.folder / f"{key}.json")
            self._remove_old()

    def _prepare(self) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True)
            (self.folder / ".gitignore").write_text("*\n", encoding="utf-8")

    def _remove_old(self) -> None:
        entries = sorted(self.folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in entries[_ENTRIES:]:
            path.unlink()


def default_folder() -> Path:
    """The folder of the cache: next to the nearest `pyproject.toml`, or in the current folder."""
    current = Path.cwd()
    found = (folder for folder in (current, *current.parents) if (folder / "pyproject.toml").is_file())
    return next(found, current) / FOLDER


def key_of(settings: Settings, targets: frozenset[str], files: Sequence[Path]) -> str | None:
    """The key of a run: the version of the tool, of Python and of the catalogue, the settings and the targets.

    `None` if the run is not to be cached, since installed packages are followed.
    """
    if settings.follow or settings.follow_io:
        return None
    named = sorted(targets.intersection(map(str, files)))
    values = {name: value for name, value in asdict(settings).items() if name not in {"exclude", "errors_only"}}
    values["orchestrators"] = sorted(settings.orchestrators)
    parts = [_tool(), os.getcwd(), values, sorted(targets), named]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@lru_cache(maxsize=1)
def _tool() -> list[Any]:
    """What findings depend on apart from files: the versions, the sources of this tool, and the catalogue."""
    package = Path(__file__).parent.parent
    sources = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        sources.update(path.read_bytes())
    catalogue = default_catalogue()
    calls = sorted(repr(call) for call in catalogue.calls.values())
    sources.update("\n".join(calls).encode())
    return [tool_version(), sys.version, sources.hexdigest()]


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _entry(report: Report, contents: Mapping[Path, bytes], settings: Settings) -> dict[str, Any]:
    files = {
        str(path): [
            _digest(content),
            _RELATED
            if str(path) in report.consulted or not is_unrelated(decoded(content), settings.orchestrators)
            else _UNRELATED,
        ]
        for path, content in contents.items()
    }
    outside = {name: _digest(Path(name).read_bytes()) for name in report.consulted if name not in files}
    return {
        "format": _FORMAT,
        "files": files,
        "outside": outside,
        "missing": report.missing,
        "findings": [_finding_to_dict(each) for each in report.findings],
        "orchestrators": [asdict(each) for each in report.orchestrators],
        "importing": report.importing,
    }


def _is_valid(entry: dict[str, Any], contents: Mapping[Path, bytes], settings: Settings) -> bool:
    files: dict[str, list[str]] = entry["files"]
    outside: dict[str, str] = entry["outside"]
    for path, content in contents.items():
        digest, kind = files.pop(str(path), (None, _UNRELATED))
        if digest != _digest(content) and (
            kind == _RELATED or not is_unrelated(decoded(content), settings.orchestrators)
        ):
            return False
    # What is left has been removed.
    if any(kind == _RELATED for _digest_, kind in files.values()):
        return False
    if any(_digest(Path(name).read_bytes()) != digest for name, digest in outside.items()):
        return False
    return not _is_found(entry["missing"], {path.parent.resolve() for path in contents})


def _is_found(missing: Sequence[Sequence[str | None]], folders: set[Path]) -> bool:
    """Whether a module that was looked for in vain exists now, below its root or one of the folders of the files."""
    listings: dict[Path, frozenset[str]] = {}
    folders = {*folders, *(parent for folder in folders for parent in folder.parents), Path.cwd()}
    for root, name in missing:
        assert name is not None
        parts = name.split(".")
        for folder in [*([] if root is None else [Path(root)]), *folders]:
            if folder not in listings:
                listings[folder] = _names_in(folder)
            if (parts[0] in listings[folder] or f"{parts[0]}.py" in listings[folder]) and _is_module(folder, parts):
                return True
    return False


def _names_in(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()


def _is_module(folder: Path, parts: Sequence[str]) -> bool:
    base = folder.joinpath(*parts)
    return base.with_suffix(".py").is_file() or (base / "__init__.py").is_file()


def _finding_to_dict(finding: Finding) -> dict[str, Any]:
    values = {each.name: getattr(finding, each.name) for each in fields(finding)}
    values["rule"] = finding.rule.code
    values["fix"] = None if finding.fix is None else asdict(finding.fix)
    return values


def _report(entry: dict[str, Any], files: int) -> Report:
    findings = [_finding(values) for values in entry["findings"]]
    orchestrators = [RecognisedOrchestrator(**each) for each in entry["orchestrators"]]
    return Report(findings, files, orchestrators, 0.0, entry["importing"])


def _finding(values: dict[str, Any]) -> Finding:
    fix: dict[str, Any] | None = values["fix"]
    if fix is not None:
        fix["imports"] = tuple(fix["imports"])
    rule = default_catalogue().rules[values["rule"]]
    restored: dict[str, Any] = {**values, "rule": rule, "reached": tuple(values["reached"])}
    restored["fix"] = None if fix is None else Fix(**fix)
    return Finding(**restored)
