"""The workflows in `examples/portable`, which run on an engine of Microsoft's family too, on a real sidecar."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dapr_cluster import Cluster

FOLDER = Path(__file__).resolve().parents[3] / "examples" / "portable"


def test_portable_workflows_run_on_dapr(cluster: Cluster) -> None:
    """The same file on an engine: `test_portable_workflows_run_on_an_engine` in tests/test_examples.py."""
    done = subprocess.run(
        [sys.executable, FOLDER / "on_dapr.py"],
        env={**os.environ, **cluster.environment()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (FOLDER / "expected.txt").read_text(encoding="utf-8")
