"""Run the tests on every supported Python that is on this machine: `hatch run pythons:all [pytest arguments]`.

`hatch run pythons:slow` runs the slow ones, `hatch run pythons:dapr` those of the package for Dapr. `--except=VERSION`
leaves a Python out; `--coverage` measures the coverage on the oldest Python that is left, which saves a run of its own.
All other arguments are pytest's.
A Python that is missing is named, not downloaded, and is no failure.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

SUPPORTED = ("3.10", "3.11", "3.12", "3.13", "3.14")


def find(version: str) -> Path | None:
    """Find a working interpreter of `version` on PATH or in pyenv, whose shims can exist and not work."""
    candidates = [shutil.which(f"python{version}")]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += [str(path) for path in sorted(pyenv.glob(f"{version}.*/bin/python{version}"), reverse=True)]
    probe = "import sys; print('%d.%d' % sys.version_info[:2])"
    for candidate in filter(None, candidates):
        result = subprocess.run([candidate, "-c", probe], capture_output=True, text=True, check=False)
        if result.returncode == 0 and result.stdout.strip() == version:
            return Path(candidate)
    return None


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--environment", default="matrix")
    parser.add_argument("--script", default="all")
    parser.add_argument("--except", dest="skipped")
    parser.add_argument("--coverage", action="store_true")
    options, arguments = parser.parse_known_args(arguments)
    wanted = [version for version in SUPPORTED if version != options.skipped]
    found = {version: path for version in wanted if (path := find(version))}
    environment = dict(os.environ)
    # Behind everything else on PATH, so that nothing but the missing names is found there.
    environment["PATH"] = os.pathsep.join([environment["PATH"], *(str(path.parent) for path in found.values())])
    environment.pop("HATCH_ENV_ACTIVE", None)
    failed: list[str] = []
    for number, version in enumerate(found):
        script = "measure" if options.coverage and number == 0 else options.script
        print(f"\n--- Python {version}", flush=True)
        command = ["hatch", "run", f"+py={version}", f"{options.environment}:{script}", *arguments]
        if subprocess.call(command, env=environment):
            failed.append(version)
    print(f"\nPythons tested: {', '.join(found) or 'none'}.", end=" ")
    print(f"Not on this machine: {', '.join(version for version in wanted if version not in found) or 'none'}.")
    if failed:
        print(f"Failed on: {', '.join(failed)}.")
    return 1 if failed or not found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
