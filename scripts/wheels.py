"""Build the distributions of all six packages, and check what was built.

`hatch run wheels:build` leaves an sdist and a wheel of each package in `dist/`; the wheel is built from the
sdist, so that what a user compiles from source is what was tested.  `hatch run wheels:check` builds and then
looks: metadata (twine), structure (check-wheel-contents), and the exact list of files.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
PACKAGES = {
    "core": ("__init__.py", "client.py", "data.py"),
    "sandbox": ("sandbox.py",),
    "worker": ("worker.py",),
    "testing": ("testing.py",),
    "engine": ("engine.py",),
    "dapr": (),
}
"""Each package with its facade, the files that it puts inside upstream's package; that for Dapr has none."""


def build(only: list[str]) -> None:
    for package in only or PACKAGES:
        for old in DIST.glob(f"durabletask_aio_{package}-*"):
            old.unlink()
        folder = ROOT / "packages" / f"aio-{package}"
        command = [sys.executable, "-m", "build", "--installer", "uv", "--outdir", str(DIST), str(folder)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            sys.exit(f"{result.stdout}{result.stderr}\nCould not build {folder.name}.")
    for path in sorted(DIST.glob("durabletask_aio_*")):
        print(path.relative_to(ROOT))


def check(only: list[str]) -> None:
    shutil.rmtree(DIST, ignore_errors=True)
    build(only)
    built = [str(path) for path in sorted(DIST.iterdir())]
    wheels = [path for path in built if path.endswith(".whl")]
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *built], check=True)
    for wheel in wheels:
        # Two top levels are the point: the implementation, and one file inside upstream's package.
        toplevel = "durabletask,durabletask_aio" if PACKAGES[package_of(Path(wheel))] else "durabletask_aio"
        subprocess.run([sys.executable, "-m", "check_wheel_contents", "--toplevel", toplevel, wheel], check=True)
    complaints = [complaint for wheel in wheels for complaint in surprises(Path(wheel))]
    if complaints:
        sys.exit("\n".join(complaints))


def package_of(wheel: Path) -> str:
    return wheel.name.removeprefix("durabletask_aio_").partition("-")[0]


def surprises(wheel: Path) -> list[str]:
    """What is in `wheel` and should not be, or should be and is not."""
    package = package_of(wheel)
    source = ROOT / "packages" / f"aio-{package}" / "src"
    expected = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*")
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in path.relative_to(source).parts)
    }
    expected |= {f"durabletask/aio/{name}" for name in PACKAGES[package]}
    info = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    expected |= {f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "licenses/LICENSE")}
    project = (source.parent / "pyproject.toml").read_text(encoding="utf-8")
    if "[project.entry-points." in project or "[project.scripts]" in project:
        expected.add(f"{info}/entry_points.txt")
    with zipfile.ZipFile(wheel) as archive:
        names = {str(PurePosixPath(name)) for name in archive.namelist() if not name.endswith("/")}
    for name in sorted(names):
        print(f"  {wheel.name}: {name}")
    return [f"{wheel.name} should not contain {name}" for name in sorted(names - expected)] + [
        f"{wheel.name} lacks {name}" for name in sorted(expected - names)
    ]


if __name__ == "__main__":
    duties = {"build": build, "check": check}
    if len(sys.argv) < 2 or sys.argv[1] not in duties:
        sys.exit("usage: wheels.py build|check [package ...]")
    duties[sys.argv[1]](sys.argv[2:])
