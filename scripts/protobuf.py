"""Generates the messages of the engine's second service: `hatch run protobuf:generate`, after its .proto has changed.

With `--check`, only says whether the generated files are those of the .proto file.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "packages" / "aio-engine" / "src"
PROTO = Path("durabletask_aio/engine/management/management.proto")


def generate(target: Path) -> list[Path]:
    """Write the Python module and its stub under `target`; returns their paths below it."""
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-I{SOURCE}",
        f"--python_out={target}",
        f"--pyi_out={target}",
    ]
    subprocess.run([*command, str(SOURCE / PROTO)], check=True)
    stub = target / PROTO.with_name("management_pb2.pyi")
    # The generator leaves the arguments of `Mapping` out, which strict type checkers report.
    text = re.sub(r"(?<!as )\b_Mapping\b(?!\[)", "_Mapping[str, _Any]", stub.read_text(encoding="utf-8"))
    text = text.replace("from typing import ", "from typing import Any as _Any, ", 1)
    stub.write_text(text, encoding="utf-8")
    return [PROTO.with_name("management_pb2.py"), PROTO.with_name("management_pb2.pyi")]


def main() -> int:
    """Generate, or check."""
    if "--check" not in sys.argv[1:]:
        generate(SOURCE)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        stale = [
            path for path in generate(Path(folder)) if (Path(folder, path).read_text() != (SOURCE / path).read_text())
        ]
    for path in stale:
        print(f"{path} is not what {PROTO.name} says; run `hatch run protobuf:generate`")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
