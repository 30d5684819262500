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
    parser = option_parser(__doc__)
    parser.add_argument("--plot", help="draw the medians into this SVG file; needs matplotlib")
    options = parser.parse_args()
    if options.plot:
        import matplotlib as mpl  # noqa: F401 - to fail now if it is not there
    ours = [
        our_engine("embedded, fsync", "embedded", "fsync"),
        our_engine("embedded, os", "embedded", "os"),
        our_engine("server, fsync", "server", "fsync"),
    ]
    load = Load(WORKLOADS, TRACED)
    loads = dict.fromkeys([*ours, *install_peers(options.peers).values()], load)
    found = compare(select(loads, options.only, parser), options.rounds, options.json)
    report(found)
    if options.plot:
        plot(found, options.plot)


if __name__ == "__main__":
    main()
