"""The JavaScript SDK, worker and client, on the engine: what its orchestrations return.

It is installed from npm, so this needs node and runs with the long tests.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from durabletask.aio.engine import Engine
from durabletask.client import OrchestrationStatus

SCRIPT = Path(__file__).with_name("sdk.js")
SDK = "@microsoft/durabletask-js@0.4.0"
COMPLETED, TERMINATED = OrchestrationStatus.COMPLETED.value, OrchestrationStatus.TERMINATED.value

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("DURABLETASK_AIO_TEST_LONG"), reason="a long test: DURABLETASK_AIO_TEST_LONG=1"
    ),
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed"),
]


@pytest.mark.parametrize("in_file", [True, False], ids=["file", "memory"])
def test_the_javascript_sdk(tmp_path: Path, in_file: bool) -> None:
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", SDK], cwd=tmp_path, check=True, capture_output=True)
    shutil.copy(SCRIPT, tmp_path)
    with Engine(tmp_path / "engine.db" if in_file else None) as engine:
        address = engine.listen().address
        done = subprocess.run(
            ["node", SCRIPT.name, address], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
        )
    assert done.returncode == 0, done.stderr

    assert json.loads(done.stdout) == {
        "chain": [COMPLETED, '["Hello, 0!","Hello, 1!","Hello, 2!"]'],
        "event": [COMPLETED, '{"x":1}'],
        "fanOut": [COMPLETED, "30"],
        "timer": [COMPLETED, '"woke"'],
        "parent": [COMPLETED, '["Hello, 0!","Hello, 1!"]'],
        "failure": [COMPLETED, '"caught Activity task #1 failed: boom"'],
        "again": [COMPLETED, "3"],
        "entity": [COMPLETED, "7"],
        "terminated": [TERMINATED, '"bye"'],
        "history": 16,
        "entities": [["@counter@k", {"n": 7}]],
        "purged": 1,
    }
