"""Steps in place compared with Restate's `run` and with DBOS's steps on SQLite: CPU and wall time, and durability.

    python benchmarks/steps_peers.py [--rounds N] [--json FILE] [--peers FOLDER]

A workflow runs 500 steps, one after another; the function of a step is async, and returns its argument.  This project's
is `ctx.run` on the embedded engine with `durability="fsync"`: by default, each step is recorded before the function of
the next one begins, as by the peers; and with `recorded="lazily"`, there also with a function that is not async.  The
peers, and how they are installed and measured, are those of `engine_peers.py`.

Printed are medians for one step, and whether the goals are met.  Exits with 1 if one is not met in CPU time or
durability; wall time depends on the disk and on what else the machine does.  A chain that makes fewer `fsync` and
`fdatasync` than it has steps can lose acknowledged steps at a power cut.  Steps that are recorded lazily do: they are
recorded with the turn.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from _peer_systems import (
    Figures,
    Load,
    Workload,
    compare,
    install_peers,
    medians,
    option_parser,
    our_engine,
    print_table,
    select,
)

STEPS = 500
CHAIN = "chain of 500"

DEFAULT = our_engine("ctx.run", "embedded", "fsync")
LAZY = our_engine("ctx.run, lazily", "embedded", "fsync")
LAZY_SYNC = our_engine("ctx.run, lazily, sync", "embedded", "fsync")

RESTATE_RATIO = 1.0
"""How many times what `ctx.run` takes Restate's `run` takes at least."""

DBOS_RATIO = 2.5
"""How many times what `ctx.run` takes a step of DBOS takes at least."""

LAZY_LIMIT = 0.1
"""Milliseconds that a step which is recorded lazily takes at most."""


@dataclass(frozen=True)
class Goal:
    """A goal, and what was found.

    Attributes:
        title: for people.
        found: for people.
        is_met: whether it is.
        is_required: whether missing it is a failure of this program.
    """

    title: str
    found: str
    is_met: bool
    is_required: bool = True


def load(workload: str, repeat: int) -> Load:
    """Return the chain, by the name that the system's program has for it."""
    return Load((Workload(CHAIN, workload, STEPS, repeat, STEPS),), (Workload(CHAIN, workload, 100, 1, 100),))


def goals(found: dict[str, Figures], peers: dict[str, str]) -> list[Goal]:
    """Return the goals for which there are figures; `peers` has the titles of the peers by name."""
    reached = []
    for what in ("CPU", "wall time"):
        values = {title: medians(each.cpu if what == "CPU" else each.wall)[CHAIN] for title, each in found.items()}
        is_required = what == "CPU"
        for name, least in (("Restate", RESTATE_RATIO), ("DBOS", DBOS_RATIO)):
            if {DEFAULT.title, peers.get(name)} <= values.keys():
                ratio = values[peers[name]] / values[DEFAULT.title]
                title = f"{what}: {name} takes at least {least} times as much as {DEFAULT.title}"
                reached.append(Goal(title, f"{ratio:.2f} times", ratio >= least, is_required))
        for title in (each.title for each in (LAZY, LAZY_SYNC) if each.title in values):
            value = values[title]
            limit = f"{what}: {title}, takes at most {LAZY_LIMIT} ms"
            reached.append(Goal(limit, f"{value:.3f} ms", value <= LAZY_LIMIT, is_required))
    return reached + durability(found)


def durability(found: dict[str, Figures]) -> list[Goal]:
    """Return the goal that what is compared is equally durable, if flushes were counted."""
    lazy = (LAZY.title, LAZY_SYNC.title)
    least = {title: min(each.flushes.values()) for title, each in found.items() if each.flushes and title not in lazy}
    if not least:
        return []
    shown = ", ".join(f"{title} {count:.2f}" for title, count in least.items())
    return [Goal("equal durability: at least one flush for each step", shown, min(least.values()) >= 1)]


def report(found: dict[str, Figures]) -> None:
    rows = {}
    for title, figures in found.items():
        rows[title] = {"CPU, ms": medians(figures.cpu)[CHAIN], "wall time, ms": medians(figures.wall)[CHAIN]}
        if figures.flushes:
            (rows[title]["fsync and fdatasync"],) = figures.flushes.values()
    print_table(f"{CHAIN}, per step", rows, digits=3)


def main() -> int:
    parser = option_parser(__doc__)
    options = parser.parse_args()
    peers = install_peers(options.peers)
    # Short ones are repeated more often, since the system counts CPU time in ticks of 10 ms.
    loads = {DEFAULT: load("steps", 4), LAZY: load("lazy steps", 40), LAZY_SYNC: load("lazy sync steps", 40)}
    loads |= {system: load("chain", 4) for system in peers.values()}
    found = compare(select(loads, options.only, parser), options.rounds, options.json)
    report(found)
    print()
    reached = goals(found, {name: system.title for name, system in peers.items()})
    for goal in reached:
        print(f"{'met' if goal.is_met else 'NOT MET':8} {goal.title}: {goal.found}")
    return int(any(goal.is_required and not goal.is_met for goal in reached))


if __name__ == "__main__":
    sys.exit(main())
