"""What type checkers find in code that uses the package: run as its users run them, in their strictest mode."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "typing"
ACCEPTED = [HERE / "accepted.py", HERE / "client_accepted.py"]
REJECTED = [HERE / "rejected.py", HERE / "client_rejected.py"]

pytestmark = pytest.mark.slow


def mypy(file, python, tmp_path):
    """The lines of `file` in which mypy finds an error, with what it says."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\n")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--config-file",
            str(config),
            "--python-version",
            python,
            "--cache-dir",
            str(tmp_path / "cache"),
            "--no-error-summary",
            "--hide-error-context",
            str(file),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode in (0, 1), done.stderr
    return [(int(line), text) for line, text in re.findall(rf"{file.name}:(\d+): error: (.*)", done.stdout)]


def pyright(file, python, tmp_path):
    """The same, of pyright."""
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is not installed")
    shutil.copy(file, tmp_path)
    options = {"typeCheckingMode": "strict", "pythonVersion": python, "reportMissingTypeStubs": False}
    # Upstream's own functions are partly untyped, which is not what this is about.
    options |= {"reportUnknownMemberType": False, "reportUnusedCoroutine": False, "enableTypeIgnoreComments": False}
    config = tmp_path / "pyrightconfig.json"
    config.write_text(json.dumps(options))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(config)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == 1
    found = report["generalDiagnostics"]
    return [(each["range"]["start"]["line"] + 1, each["message"]) for each in found if each["severity"] == "error"]


@pytest.mark.parametrize("python", ["3.10", "3.14"])
@pytest.mark.parametrize("checker", [mypy, pyright])
@pytest.mark.parametrize("file", ACCEPTED, ids=lambda file: file.stem)
def test_right_uses_have_the_right_types(file, checker, python, tmp_path):
    found = checker(file, python, tmp_path)

    assert not found, "\n".join(f"{line}: {text}" for line, text in found)


@pytest.mark.parametrize("checker", [mypy, pyright])
@pytest.mark.parametrize("file", REJECTED, ids=lambda file: file.stem)
def test_wrong_uses_are_rejected_line_by_line(file, checker, tmp_path):
    wrong = [n for n, line in enumerate(file.read_text().splitlines(), 1) if line.endswith("# wrong")]
    found = checker(file, "3.10", tmp_path)

    assert sorted({line for line, _ in found}) == wrong, "\n".join(f"{line}: {text}" for line, text in found)
