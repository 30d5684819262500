"""What the programs that compare the engine with DBOS and Restate have in common: installing, running and measuring.

DBOS and Restate are installed into a folder with pip and npm, each in an environment of its own; one that cannot be had
is left out, with a line that gives the reason.  Each round starts each system in turn, with an empty database.  Counted
is the CPU time, user and system, of all processes of a system: engine, worker and client.

`fsync` and `fdatasync` are counted in a shorter run under `strace`, if there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

PROGRAMS = Path(__file__).resolve().parent / "_peers"


@dataclass(frozen=True)
class Workload:
    """What is measured.

    Attributes:
        title: for people.
        name: what the programs call it.
        size: of the workload.
        repeat: how often it is run; short ones more than once, since the system counts CPU time in ticks of 10 ms.
        steps: of one run.
    """

    title: str
    name: str
    size: int
    repeat: int
    steps: int


@dataclass(frozen=True)
class Load:
    """What a system is given to do.

    Attributes:
        measured: in each round.
        traced: under `strace`, once.
    """

    measured: tuple[Workload, ...]
    traced: tuple[Workload, ...]


@dataclass(frozen=True)
class System:
    """What runs the workloads.

    Attributes:
        title: for people.
        command: of its program, with `{folder}` for an empty folder.
    """

    title: str
    command: tuple[str, ...]


@dataclass
class Figures:
    """What was measured of one system: by workload, one value for each round."""

    cpu: dict[str, list[float]] = field(default_factory=dict)
    wall: dict[str, list[float]] = field(default_factory=dict)
    flushes: dict[str, float] = field(default_factory=dict)


def our_engine(title: str, mode: str, durability: str) -> System:
    """Return this project's engine on a file, `embedded` or as a `server`."""
    program = str(PROGRAMS / "engine_program.py")
    return System(title, (sys.executable, program, mode, "{folder}/engine.db", durability))


# -- the peers -----------------------------------------------------------------------------------------------------


class UnavailableError(Exception):
    """A peer cannot be had on this machine."""


def install_dbos(folder: Path) -> System:
    python = environment(folder / "dbos", "dbos")
    return System(f"DBOS {version(python, 'dbos')}", (str(python), str(PROGRAMS / "dbos_program.py"), "{folder}/db"))


def install_restate(folder: Path) -> System:
    server = restate_server(folder / "restate-server")
    python = environment(folder / "restate", "restate-sdk", "hypercorn", "aiohttp")
    number = run_tool(str(server), "--version").split()[-1]
    program = str(PROGRAMS / "restate_program.py")
    return System(f"Restate {number}", (str(python), program, str(server), "{folder}/restate"))


def environment(folder: Path, *packages: str) -> Path:
    """Make a virtual environment with some packages, if there is none yet; returns its Python."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        run_tool(sys.executable, "-m", "venv", str(folder))
    run_tool(str(python), "-m", "pip", "install", "--quiet", *packages)
    return python


def restate_server(folder: Path) -> Path:
    """Install the server from npm, if it is not there yet; returns its program."""
    if shutil.which("npm") is None:
        raise UnavailableError("its server comes from npm, and there is no npm")
    folder.mkdir(parents=True, exist_ok=True)
    found = list(folder.glob("node_modules/@restatedev/restate-server-*/bin/restate-server"))
    if not found:
        run_tool("npm", "install", "--silent", "--prefix", str(folder), "@restatedev/restate-server")
        found = list(folder.glob("node_modules/@restatedev/restate-server-*/bin/restate-server"))
    if not found:
        raise UnavailableError("its npm package has no server for this machine")
    return found[0]


def version(python: Path, package: str) -> str:
    return run_tool(str(python), "-c", f"import importlib.metadata as m; print(m.version({package!r}))").strip()


def run_tool(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise UnavailableError(f"{' '.join(command[:4])} ... ends with {done.returncode}: {''.join(last)}")
    return done.stdout


def install_peers(folder: Path) -> dict[str, System]:
    """Return the peers that can be had, by name."""
    found = {name: install_or_explain(name, install, folder) for name, install in PEERS.items()}
    return {name: system for name, system in found.items() if system is not None}


def install_or_explain(name: str, install: Callable[[Path], System], folder: Path) -> System | None:
    try:
        return install(folder)
    except UnavailableError as error:
        print(f"{name} is left out: {error}", flush=True)
        return None


PEERS = {"DBOS": install_dbos, "Restate": install_restate}


# -- measuring -----------------------------------------------------------------------------------------------------


class Running:
    """A program that runs workloads."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._commands: IO[str] = process.stdin
        self._answers: IO[str] = process.stdout
        self._read()

    def _read(self) -> dict[str, float]:
        line = self._answers.readline()
        if not line:
            raise SystemExit(f"{self._process.args!r} has ended with {self._process.wait()}; what it said is above")
        answer: dict[str, float] = json.loads(line)
        return answer

    def run(self, workload: Workload) -> dict[str, float]:
        """Run a workload; returns the times of its begin and its end."""
        command = {"workload": workload.name, "size": workload.size, "repeat": workload.repeat}
        self._commands.write(json.dumps(command) + "\n")
        self._commands.flush()
        return self._read()

    def cpu(self) -> float:
        """Return the CPU time of all processes so far, in seconds."""
        parent = psutil.Process(self._process.pid)
        times = [each.cpu_times() for each in (parent, *parent.children(recursive=True))]
        return sum(each.user + each.system for each in times)


@contextmanager
def running(system: System, *prefix: str) -> Iterator[Running]:
    """Start a system on an empty database, and stop it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [*prefix, *(part.format(folder=folder) for part in system.command)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            yield Running(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            end(process)


def end(process: subprocess.Popen[str]) -> None:
    """Wait for a program that has been told to end; end it, and what it has started, if it does not."""
    children = psutil.Process(process.pid).children(recursive=True)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in children:
        if child.is_running():
            child.kill()


def measure(system: System, workloads: tuple[Workload, ...], figures: Figures) -> None:
    """Run all workloads once, and add what they cost."""
    with running(system) as program:
        for workload in workloads:
            before = program.cpu()
            times = program.run(workload)
            steps = workload.steps * workload.repeat / 1000
            figures.cpu.setdefault(workload.title, []).append((program.cpu() - before) / steps)
            figures.wall.setdefault(workload.title, []).append((times["end"] - times["begin"]) / steps)


def count_flushes(system: System, workloads: tuple[Workload, ...], figures: Figures) -> None:
    """Count `fsync` and `fdatasync` per step, in a run under `strace`."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "trace")
        trace = ("strace", "-f", "-ttt", "-e", "trace=fsync,fdatasync", "-e", "signal=none", "-o", str(log))
        with running(system, *trace) as program:
            spans = {workload: program.run(workload) for workload in workloads}
        calls = [float(each) for each in re.findall(r"^\d+ +([\d.]+) f(?:data)?sync\(", log.read_text(), re.MULTILINE)]
    for workload, span in spans.items():
        count = sum(span["begin"] <= each <= span["end"] for each in calls)
        figures.flushes[workload.name] = count / workload.steps


def time_of_flush() -> float:
    """Return how long one `fsync` of a small write takes here, in milliseconds."""
    with tempfile.NamedTemporaryFile() as file:
        took = []
        for _ in range(50):
            file.write(b"x" * 4096)
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000


def compare(loads: Mapping[System, Load], rounds: int, file: Path | None) -> dict[str, Figures]:
    """Measure systems in turn; returns the figures by the system's title.

    Args:
        loads: what each system is given.
        rounds: how often each is measured.
        file: gets all figures as JSON, after each round.
    """
    found = {system.title: Figures() for system in loads}
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, one fsync takes {time_of_flush():.2f} ms")
    if shutil.which("strace") is None:
        print("There is no strace: fsync and fdatasync are not counted")
    else:
        for system, load in loads.items():
            count_flushes(system, load.traced, found[system.title])
    for number in range(rounds):
        for system, load in loads.items():
            print(f"round {number + 1}: {system.title}", file=sys.stderr, flush=True)
            measure(system, load.measured, found[system.title])
        if file:
            file.write_text(json.dumps({title: vars(each) for title, each in found.items()}, indent=1))
    return found


# -- reporting -----------------------------------------------------------------------------------------------------


def medians(values: dict[str, list[float]]) -> dict[str, float]:
    return {title: statistics.median(each) for title, each in values.items()}


def print_table(head: str, rows: Mapping[str, Mapping[str, float]], digits: int = 2) -> None:
    columns = list(next(iter(rows.values())))
    print(f"\n{head}\n{'':22}" + "".join(f"{each:>24}" for each in columns))
    for title, row in rows.items():
        print(f"{title:22}" + "".join(f"{row[each]:24.{digits}f}" for each in columns))


# -- the command line ----------------------------------------------------------------------------------------------


def option_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all comparisons have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write all figures into this file, after each round")
    parser.add_argument("--peers", type=Path, default=Path.home() / ".cache/durabletask-aio-peers")
    parser.add_argument("--only", help="comma-separated beginnings of the systems' names")
    return parser


def select(loads: Mapping[System, Load], only: str | None, parser: argparse.ArgumentParser) -> dict[System, Load]:
    """Return the systems that `--only` names; all of them without it."""
    beginnings = tuple(only.split(",")) if only else ("",)
    found = {system: load for system, load in loads.items() if system.title.startswith(beginnings)}
    if not found:
        parser.error(f"--only {only}: there are {', '.join(repr(each.title) for each in loads)}")
    return found
