"""The sandbox detects no fewer of the held-out snippets than when they were measured, with no more false positives."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
MEASURED = json.loads((HERE / "measured.json").read_text())["present"]
"""Python -> column -> counts, as on the documentation page about held-out snippets."""


@pytest.mark.slow
@pytest.mark.timeout(3600)  # some 260 processes, one after the other
def test_detection_on_the_held_out_snippets_is_no_worse_than_measured() -> None:
    specification = importlib.util.spec_from_file_location("run_held_out", HERE / "run_held_out.py")
    assert specification is not None
    assert specification.loader is not None
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    measured = MEASURED.get(f"3.{sys.version_info.minor}", MEASURED["3.13"])

    now = script.counts(script.measure())

    assert set(now) == set(measured)
    for column, row in now.items():
        assert (row["bad"], row["innocent"]) == (measured[column]["bad"], measured[column]["innocent"]), column
        assert row["caught"] >= measured[column]["caught"], column
        assert row["false positives"] <= measured[column]["false positives"], column
        assert row["innocent stopped"] <= measured[column]["innocent stopped"], column
