"""`verify_deterministic`: replays a history several times under different conditions and compares the results.

It finds non-determinism that depends on the state of the process, which the rules of the sandbox cannot know.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from durabletask_aio.testing.divergence import ReplayError
from durabletask_aio.testing.history import History
from durabletask_aio.testing.replayer import ReplayReport, replay

MAX_CUTS = 100
"""The number of events at which a history is cut at most, evenly spread: each cut costs a whole replay."""

HASH_SEEDS = (1, 2)
"""The values of `PYTHONHASHSEED` of the other processes."""


class CutError(ReplayError):
    """The replay differs if the history is cut at one of its events, as by a restart of the worker.

    Attributes:
        cut: the position of the event.
    """

    def __init__(self, error: ReplayError, cut: int) -> None:
        Exception.__init__(
            self,
            f"as if the worker had been restarted before event {cut} of the history, so probably by looking at "
            f"is_replaying:\n{error}",
        )
        self.divergence = error.divergence
        self.cut = cut


class HashSeedError(ReplayError):
    """The replay differs in a process with another `PYTHONHASHSEED`; there is no `divergence` object of it.

    Attributes:
        seed: the hash seed of that process.
    """

    def __init__(self, message: str, seed: int) -> None:
        Exception.__init__(self, f"with PYTHONHASHSEED={seed}, so probably by the order of a set:\n{message}")
        self.seed = seed


class OtherProcessError(RuntimeError):
    """The other process could not replay; the message has its standard error."""


def verify_deterministic(
    history: History,
    orchestrator: Callable[..., Any],
    *,
    payloads: bool = True,
    hash_seeds: Sequence[int] = HASH_SEEDS,
    **options: Any,
) -> ReplayReport:
    """Replay a history under different conditions.

    First as [`replay`][durabletask.aio.testing.replay] does.  Then cut at each event, as if the worker had been
    restarted there, which finds code that behaves differently while replaying; a history of more than a hundred events
    is cut at a hundred of them, evenly spread.  Then in one new process for each hash seed, which finds code that
    depends on the iteration order of a set.

    Args:
        history: the history.
        orchestrator: the async workflow or generator orchestrator.  For other processes it must be importable, that is,
            a function of a module.
        payloads: whether to compare inputs, results and times too; `False` for redacted histories.
        hash_seeds: the values of `PYTHONHASHSEED`; an empty sequence starts no other process.
        **options: those of [`replay`][durabletask.aio.testing.replay] for the replays in this process.

    Returns:
        The report of the first replay.

    Raises:
        ReplayError: for the first replay that differs; the message says under which condition.
        ValueError: for a history without a start, and for an orchestrator that cannot be imported.
        RuntimeError: if another process could not replay.
    """
    report = replay(history, orchestrator, payloads=payloads, **options)
    for cut in _cut_positions(len(history)):
        try:
            replay(history, orchestrator, payloads=payloads, live_from=cut, **options)
        except ReplayError as difference:  # noqa: PERF203 - the first one ends the loop
            raise CutError(difference, cut) from None
    if hash_seeds:
        reference = f"{module_reference(orchestrator)}={history.workflow_name}"
        for error in replay_under_hash_seeds([history], [reference], payloads=payloads, hash_seeds=hash_seeds):
            if error is not None:
                raise error
    return report


def _cut_positions(length: int) -> list[int]:
    if length <= MAX_CUTS:
        return list(range(length))
    return sorted({round(n * (length - 1) / (MAX_CUTS - 1)) for n in range(MAX_CUTS)})


def module_reference(orchestrator: Any) -> str:
    """Return `module:function` for an orchestrator that another process can import; `ValueError` for another one."""
    name = getattr(orchestrator, "__qualname__", "<locals>")
    module = getattr(orchestrator, "__module__", "__main__")
    importable = getattr(sys.modules.get(module), name, None)
    if module == "__main__" or importable is None or importable is not orchestrator:
        raise ValueError(
            f"{name!r} of {module!r} cannot be imported by another process, which replaying under another hash seed "
            "needs: define it in a module, or pass hash_seeds=()"
        )
    return f"{module}:{name}"


def replay_under_hash_seeds(
    histories: Sequence[History],
    references: Sequence[str],
    *,
    payloads: bool = True,
    hash_seeds: Sequence[int] = HASH_SEEDS,
    options: Sequence[str] = (),
) -> list[HashSeedError | None]:
    """Replay all histories in one new process for each hash seed.

    Args:
        histories: the histories.
        references: the orchestrators, as for `load_orchestrators`.
        payloads: whether to compare payloads and times.
        hash_seeds: the values of `PYTHONHASHSEED`.
        options: more options for `durabletask-aio replay`.

    Returns:
        The first difference of each history, `None` for one without.

    Raises:
        OtherProcessError: if another process could not replay.
    """
    errors: list[HashSeedError | None] = [None] * len(histories)
    if not histories:
        return errors
    with tempfile.TemporaryDirectory(prefix="durabletask-aio-") as directory:
        for number, history in enumerate(histories):
            history.save(Path(directory) / f"{number:09}.json")
        if not payloads:
            options = [*options, "--structure-only"]
        for seed in hash_seeds:
            for number, message in enumerate(_replay_in_another_process(Path(directory), references, options, seed)):
                if message is not None and errors[number] is None:
                    errors[number] = HashSeedError(message, seed)
    return errors


def _replay_in_another_process(
    directory: Path, references: Sequence[str], options: Sequence[str], seed: int
) -> Sequence[str | None]:
    """Return the errors of the histories in the directory, in the order of their names."""
    # The report is a file, since modules may print to standard output while they are imported.
    report = directory / f"report-{seed}"
    orchestrators = [f"--orchestrators={reference}" for reference in references]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "durabletask_aio.testing.replay_command", *orchestrators),
            *options,
            *("--format", "json", "-o", str(report), str(directory)),
        ],
        env={
            **os.environ,
            "PYTHONHASHSEED": str(seed),
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if not report.exists():
        raise OtherProcessError(
            f"replaying {', '.join(references)} in another process failed, with PYTHONHASHSEED={seed}:\n"
            f"{done.stderr.strip()}"
        )
    return [each["error"] for each in json.loads(report.read_text(encoding="utf-8"))["histories"]]
