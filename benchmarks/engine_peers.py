"""The engine compared with DBOS on SQLite and with Restate: CPU and wall time of the same workloads, and durability.

    python benchmarks/engine_peers.py [--rounds N] [--json FILE] [--plot FILE.svg] [--peers FOLDER]

DBOS and Restate are installed into FOLDER with pip and npm, each in an environment of its own; one that cannot be had
is left out, with a line that gives the reason.  Each round starts each system in turn, with an empty database.  Counted
is the CPU time, user and system, of all processes of a system: engine, worker and client.  Printed are medians, in
milliseconds per step.

`fsync` and `fdatasync` are counted in a shorter run under `strace`, if there is one: a system that makes fewer of them
than it acknowledges steps, one after the other, can lose acknowledged steps at a power cut.
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
from collections.abc import Callable, Iterator
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


WORKLOADS = (
    Workload("chain of 500", "chain", 500, 2, 500),
    Workload("500 instances x 4", "many", 500, 1, 2000),
    Workload("fan-out of 500", "fan-out", 500, 2, 500),
    Workload("200 waits for an event", "waits", 200, 2, 200),
    Workload("chain of 50", "chain", 50, 20, 50),
    Workload("chain of 5,000", "chain", 5000, 1, 5000),
)

TRACED = (
    Workload("chain", "chain", 100, 1, 100),
    Workload("many", "many", 25, 1, 100),
    Workload("fan-out", "fan-out", 100, 1, 100),
    Workload("waits", "waits", 100, 1, 100),
)
"""What runs under `strace`."""

CHAINS = ("chain of 50", "chain of 500", "chain of 5,000")


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


def our_systems() -> list[System]:
    program = (sys.executable, str(PROGRAMS / "engine_program.py"))
    file = "{folder}/engine.db"
    return [
        System("embedded, fsync", (*program, "embedded", file, "fsync")),
        System("embedded, os", (*program, "embedded", file, "os")),
        System("server, fsync", (*program, "server", file, "fsync")),
    ]


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


def all_systems(folder: Path) -> list[System]:
    peers = (install_or_explain(title, install, folder) for title, install in PEERS.items())
    return [*our_systems(), *(each for each in peers if each is not None)]


def install_or_explain(title: str, install: Callable[[Path], System], folder: Path) -> System | None:
    try:
        return install(folder)
    except UnavailableError as error:
        print(f"{title} is left out: {error}", flush=True)
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


def measure(system: System, figures: Figures) -> None:
    """Run all workloads once, and add what they cost."""
    with running(system) as program:
        for workload in WORKLOADS:
            before = program.cpu()
            times = program.run(workload)
            steps = workload.steps * workload.repeat / 1000
            figures.cpu.setdefault(workload.title, []).append((program.cpu() - before) / steps)
            figures.wall.setdefault(workload.title, []).append((times["end"] - times["begin"]) / steps)


def count_flushes(system: System, figures: Figures) -> None:
    """Count `fsync` and `fdatasync` per step, in a run under `strace`."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "trace")
        trace = ("strace", "-f", "-ttt", "-e", "trace=fsync,fdatasync", "-e", "signal=none", "-o", str(log))
        with running(system, *trace) as program:
            spans = {workload: program.run(workload) for workload in TRACED}
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


# -- reporting -----------------------------------------------------------------------------------------------------


def medians(values: dict[str, list[float]]) -> dict[str, float]:
    return {title: statistics.median(each) for title, each in values.items()}


def print_table(head: str, rows: dict[str, dict[str, float]]) -> None:
    columns = list(next(iter(rows.values())))
    print(f"\n{head}\n{'':22}" + "".join(f"{each:>24}" for each in columns))
    for title, row in rows.items():
        print(f"{title:22}" + "".join(f"{row[each]:24.2f}" for each in columns))


def report(found: dict[str, Figures]) -> None:
    print_table("CPU, ms per step", {title: medians(each.cpu) for title, each in found.items()})
    print_table("wall time, ms per step", {title: medians(each.wall) for title, each in found.items()})
    counted = {title: each.flushes for title, each in found.items() if each.flushes}
    if counted:
        print_table("fsync and fdatasync, per step", counted)


def plot(found: dict[str, Figures], path: str) -> None:
    """Draw two charts into one picture: CPU by workload, and CPU by the length of a chain."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "peers"
    figure, (bars, lines) = plt.subplots(1, 2, figsize=(13, 4.6), width_ratios=(2, 1), layout="constrained")
    titles = [each.title for each in WORKLOADS[:4]]
    width = 0.85 / len(found)
    for index, (system, figures) in enumerate(found.items()):
        cpu = medians(figures.cpu)
        places = [position + (index - (len(found) - 1) / 2) * width for position in range(len(titles))]
        drawn = bars.bar(places, [cpu[each] for each in titles], width, label=system)
        bars.bar_label(drawn, fmt="%.1f", fontsize=7, padding=1)
        lines.plot([50, 500, 5000], [cpu[each] for each in CHAINS], marker="o", label=system)
    bars.set_xticks(range(len(titles)), titles)
    bars.set_title("CPU of all processes, ms per step")
    bars.legend(fontsize=8)
    lines.set_xscale("log")
    lines.set_xticks([50, 500, 5000], ["50", "500", "5,000"])
    lines.set_ylim(bottom=0)
    lines.set_title("CPU by length of the chain, ms per step")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write all figures into this file, after each round")
    parser.add_argument("--plot", help="draw the medians into this SVG file; needs matplotlib")
    parser.add_argument("--peers", type=Path, default=Path.home() / ".cache/durabletask-aio-peers")
    parser.add_argument("--only", help="comma-separated beginnings of the systems' names")
    options = parser.parse_args()
    if options.plot:
        import matplotlib as mpl  # noqa: F401 - to fail now if it is not there
    systems = all_systems(options.peers)
    if options.only:
        titles = ", ".join(repr(each.title) for each in systems)
        systems = [each for each in systems if each.title.startswith(tuple(options.only.split(",")))]
        if not systems:
            parser.error(f"--only {options.only}: there are {titles}")
    found = {system.title: Figures() for system in systems}
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, one fsync takes {time_of_flush():.2f} ms")
    if shutil.which("strace") is None:
        print("There is no strace: fsync and fdatasync are not counted")
    else:
        for system in systems:
            count_flushes(system, found[system.title])
    for number in range(options.rounds):
        for system in systems:
            print(f"round {number + 1}: {system.title}", file=sys.stderr, flush=True)
            measure(system, found[system.title])
        if options.json:
            options.json.write_text(json.dumps({title: vars(each) for title, each in found.items()}, indent=1))
    report(found)
    if options.plot:
        plot(found, options.plot)


if __name__ == "__main__":
    main()
