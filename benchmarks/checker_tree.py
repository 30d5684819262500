"""Seconds of `durabletask-aio check` on a large tree with few workflows, next to those of ruff if it is installed.

The tree is made of the sources of what is installed: the standard library and the packages of this environment, without
those of this project, until it has enough lines. A few workflows with a helper are added. Both tools run as programs,
first without a cache and then with a warm one, with ruff's default rules. The best of several samples counts.

ruff is looked for on the `PATH`. With it, the benchmark fails if the checker takes more than five times its time
without a cache, or more than twice its time with one. ruff keeps nothing about files with findings in its cache.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

LIMITS = {"cold": 5.0, "warm": 2.0}
"""How many times ruff's time the checker may take."""
FLOW = """
import time
from durabletask.aio import AsyncWorkflowContext
from helper import stamp


async def flow_{number}(ctx: AsyncWorkflowContext, order: str) -> float:
    await ctx.call_activity("charge", input=order)
    return stamp() + time.time()
"""
HELPER = "import time\n\n\ndef stamp():\n    return time.time()\n"


def main() -> int:
    """Make the tree, run the tools and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=400_000, help="lines of the tree; default: 400,000")
    parser.add_argument("--flows", type=int, default=5, help="number of workflows; default: 5")
    parser.add_argument("--samples", type=int, default=5, help="runs of each kind; default: 5")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary, "tree")
        files, lines = make_tree(tree, options.lines, options.flows)
        print(f"{files} files, {lines:,} lines, {options.flows} workflows")
        tools = {"checker": checker(Path(temporary, "cache"))}
        ruff = shutil.which("ruff")
        if ruff is not None:
            tools["ruff"] = ruff_commands(ruff, Path(temporary, "ruff"))
        seconds = {
            name: {kind: best(command, tree, options.samples) for kind, command in commands.items()}
            for name, commands in tools.items()
        }
    return report(seconds)


def checker(cache: Path) -> dict[str, list[str]]:
    command = [sys.executable, "-m", "durabletask_aio", "check", "--exit-zero", "--output-format", "concise"]
    return {"cold": [*command, "--no-cache"], "warm": [*command, "--cache-dir", str(cache)]}


def ruff_commands(ruff: str, cache: Path) -> dict[str, list[str]]:
    command = [ruff, "check", "--isolated", "--exit-zero", "--silent"]
    return {"cold": [*command, "--no-cache"], "warm": [*command, "--cache-dir", str(cache)]}


def make_tree(tree: Path, wanted: int, flows: int) -> tuple[int, int]:
    """Copy installed sources until the tree has `wanted` lines, and add workflows; the numbers of files and lines."""
    files = lines = 0
    tree.mkdir()
    for source, name in installed_sources():
        if lines >= wanted:
            break
        content = source.read_bytes()
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        files, lines = files + 1, lines + content.count(b"\n")
    (tree / "helper.py").write_text(HELPER)
    for number in range(flows):
        (tree / f"flow_{number}.py").write_text(FLOW.format(number=number))
    return files + flows + 1, lines


def installed_sources() -> Iterator[tuple[Path, Path]]:
    """The Python files of the standard library and of installed packages, each with its name in the tree."""
    paths = sysconfig.get_paths()
    for root, name in ((Path(paths["stdlib"]), "stdlib"), (Path(paths["purelib"]), "packages")):
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).parts
            if not {"site-packages", "durabletask", "durabletask_aio", "__pycache__"} & set(parts):
                yield path, Path(name, *parts)


def best(command: Sequence[str], tree: Path, samples: int) -> float:
    """The seconds of the fastest run, after one that is not counted and fills the cache."""
    found: list[float] = []
    for _ in range(samples + 1):
        start = time.perf_counter()
        subprocess.run(command, cwd=tree, check=True, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - start)
    return min(found[1:])


def report(seconds: dict[str, dict[str, float]]) -> int:
    """Print the seconds; 1 if a limit is exceeded."""
    exceeded = False
    for kind, limit in LIMITS.items():
        ours = seconds["checker"][kind]
        line = f"{kind}: checker {ours:.2f} s"
        if "ruff" in seconds:
            ratio = ours / seconds["ruff"][kind]
            line += f", ruff {seconds['ruff'][kind]:.2f} s, ratio {ratio:.1f} (limit {limit:.0f})"
            exceeded = exceeded or ratio > limit
        print(line)
    return int(exceeded)


if __name__ == "__main__":
    sys.exit(main())
