"""The program with Dapr's placement, scheduler and sidecar that the tests run: built by Go from `tests/sidecar`.

    python packages/aio-dapr/tests/support/dapr_binary.py

builds it, unless the one of the present sources is there already. The first build downloads about 600 modules.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[1] / "sidecar"
CACHE = SOURCES / "build"
"""Where the binaries are, one folder for each state of the sources. Git ignores it."""

COMMAND = "python packages/aio-dapr/tests/support/dapr_binary.py"
REQUIRED = "DURABLETASK_AIO_TEST_DAPR"
"""The environment variable that makes tests fail, if set to 1, rather than be skipped when there is no binary."""


class BuildError(Exception):
    """The binary could not be built; the message says why, and what to do."""


def path() -> Path:
    """Return where the binary of the present sources is, or will be."""
    digest = hashlib.sha256()
    for source in sorted([*SOURCES.glob("*.go"), SOURCES / "go.mod", SOURCES / "go.sum"]):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return CACHE / digest.hexdigest()[:16] / "dapr"


def build() -> Path:
    """Build the binary of the present sources, unless it is there.

    Returns:
        Its path.

    Raises:
        BuildError: There is no Go, or it could not build the binary.
    """
    target = path()
    if target.exists():
        return target
    if shutil.which("go") is None:
        raise BuildError(f"There is no Go on PATH. Install Go {required_go()} or newer, then run: {COMMAND}")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Built next to its place, so that a build that is killed leaves nothing that looks complete.
    unfinished = target.with_name(f"dapr-{os.getpid()}")
    flags = f"-s -w -X github.com/dapr/dapr/pkg/buildinfo.version={dapr_version()}"
    command = ["go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", str(unfinished), "."]
    try:
        if subprocess.run(command, cwd=SOURCES).returncode:
            raise BuildError(f"Go could not build Dapr's sidecar, which needs Go {required_go()} or newer; see above.")
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    for old in CACHE.iterdir():
        if old != target.parent:
            shutil.rmtree(old, ignore_errors=True)
    return target


def required_go() -> str:
    """Return the oldest version of Go that can build it."""
    return _in_go_mod(r"^go (\S+)$")


def dapr_version() -> str:
    """Return the version of Dapr that it is built from."""
    return _in_go_mod(r"^\s*github\.com/dapr/dapr v(\S+)$")


def _in_go_mod(pattern: str) -> str:
    found = re.search(pattern, (SOURCES / "go.mod").read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise BuildError(f"{SOURCES / 'go.mod'} has no line like {pattern!r}")
    return found.group(1)


if __name__ == "__main__":
    started = time.monotonic()
    try:
        print(f"{build()}: Dapr {dapr_version()}, {time.monotonic() - started:.0f} seconds")
    except BuildError as error:
        sys.exit(str(error))
