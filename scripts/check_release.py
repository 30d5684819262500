"""Refuse a release whose tag, version and changelog disagree: `check_release.py core core-v0.1.0`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def complaint(package: str, tag: str, *, root: Path = ROOT) -> str | None:
    """What is wrong with releasing `package` as `tag`, or None."""
    folder = root / "packages" / f"aio-{package}"
    metadata = (folder / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "(.+)"$', metadata, re.MULTILINE)
    if not found:
        return f"{folder.name}/pyproject.toml states no version."
    version = found[1]
    if tag != f"{package}-v{version}":
        return f"The tag is {tag}, but {folder.name}/pyproject.toml says version {version}: tag {package}-v{version}."
    changelog = (folder / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## \[{re.escape(version)}\]", changelog, re.MULTILINE):
        return f"{folder.name}/CHANGELOG.md has no section '## [{version}]': say what users get."
    return None


if __name__ == "__main__":
    sys.exit(complaint(sys.argv[1], sys.argv[2]))
