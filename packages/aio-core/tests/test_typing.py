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
ACCEPTED = [HERE / "accepted.py", HERE / "client_accepted.py", HERE / "steps_accepted.py"]
REJECTED = [HERE / "rejected.py", HERE / "client_rejected.py", HERE / "steps_rejected.py"]

pytestmark = pytest.mark.slow


def mypy(files, python, tmp_path):
    """The files and lines in which mypy finds an error, with what it says."""
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
            *map(str, files),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode in (0, 1), done.stderr
    found = re.findall(r"(\w+\.py):(\d+): error: (.*)", done.stdout)
    return [(name, int(line), text) for name, line, text in found]


def pyright(files, python, tmp_path):
    """The same, of pyright."""
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is not installed")
    for file in files:
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
    assert report["summary"]["filesAnalyzed"] == len(files)
    found = [each for each in report["generalDiagnostics"] if each["severity"] == "error"]
    return [(Path(each["file"]).name, each["range"]["start"]["line"] + 1, each["message"]) for each in found]


@pytest.mark.parametrize("python", ["3.10", "3.14"])
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_right_uses_have_the_right_types(checker, python, tmp_path):
    found = checker(ACCEPTED, python, tmp_path)

    assert not found, "\n".join(f"{name}:{line}: {text}" for name, line, text in found)


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_wrong_uses_are_rejected_line_by_line(checker, tmp_path):
    lines = [(file, n, line) for file in REJECTED for n, line in enumerate(file.read_text().splitlines(), 1)]
    wrong = sorted((file.name, n) for file, n, line in lines if line.endswith("# wrong"))
    found = checker(REJECTED, "3.10", tmp_path)

    said = "\n".join(f"{name}:{line}: {text}" for name, line, text in found)
    assert sorted({(name, line) for name, line, _ in found}) == wrong, said
