"""Run the programs in `benchmarks/`, all or those named: `hatch run benchmarks:run [name ...]`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


def main(names: list[str]) -> int:
    programs = {path.stem: path for path in sorted(FOLDER.glob("*.py")) if not path.stem.startswith("_")}
    unknown = [name for name in names if name not in programs]
    if unknown:
        print(f"No benchmark named {', '.join(unknown)}; there are: {', '.join(programs)}", file=sys.stderr)
        return 2
    failures = 0
    for name in names or programs:
        print(f"--- {name}", flush=True)
        failures += bool(subprocess.call([sys.executable, str(programs[name])]))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
