"""Finding non-determinism that no catalogue of calls knows: the same history, replayed in other circumstances."""

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
"""Of a longer history, this many places to cut at, evenly spread: each one costs a whole replay."""

HASH_SEEDS = (1, 2)


class CutError(ReplayError):
    """Cut at one of its events, as if the worker had been restarted there, the history is replayed differently."""

    def __init__(self, error: ReplayError, cut: int) -> None:
        Exception.__init__(
            self,
            f"as if the worker had been restarted before event {cut} of the history, so probably by looking at "
            f"is_replaying:\n{error}",
        )
        self.divergence = error.divergence
        self.cut = cut


class HashSeedError(ReplayError):
    """Another process, with another ``PYTHONHASHSEED``, replayed the history differently."""

    def __init__(self, message: str, seed: int) -> None:
        Exception.__init__(self, f"with PYTHONHASHSEED={seed}, so probably by the order of a set:\n{message}")
        self.seed = seed


class OtherProcessError(RuntimeError):
    """Another process could not replay at all."""


def verify_deterministic(
    history: History,
    orchestrator: Callable[..., Any],
    *,
    payloads: bool = True,
    hash_seeds: Sequence[int] = HASH_SEEDS,
    **options: Any,
) -> ReplayReport:
    """Replay a history again and again, and raise :class:`ReplayError` if one replay differs.

    Once as :func:`replay` does; then cut at every event, as if the worker had been restarted there, which tells code
    that behaves differently while replaying; then in processes of their own under other hash seeds, which tells code
    that depends on the order of a set.  The latter import the orchestrator, so it has to be a function of a module:
    with ``hash_seeds=()`` it need not be.

    A history of more than a hundred events is cut at a hundred of them, evenly spread.

    ``options`` are those of :func:`replay`.
    """
    report = replay(history, orchestrator, payloads=payloads, **options)
    for cut in _cuts(len(history)):
        try:
            replay(history, orchestrator, payloads=payloads, live_from=cut, **options)
        except ReplayError as found:  # noqa: PERF203 - the first one ends it
            raise CutError(found, cut) from None
    if hash_seeds:
        reference = f"{_reference(orchestrator)}={history.workflow_name}"
        for error in replay_under_hash_seeds([history], [reference], payloads=payloads, hash_seeds=hash_seeds):
            if error is not None:
                raise error
    return report


def _cuts(length: int) -> list[int]:
    if length <= MAX_CUTS:
        return list(range(length))
    return sorted({round(n * (length - 1) / (MAX_CUTS - 1)) for n in range(MAX_CUTS)})


def _reference(orchestrator: Any) -> str:
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
) -> list[HashSeedError | None]:
    """Replay them all in one new process for each seed; says of each how it differs there, if it does.

    ``references`` are those of :func:`~.orchestrators.load_orchestrators`.  Raises :class:`OtherProcessError` if the
    other process could not replay at all.
    """
    errors: list[HashSeedError | None] = [None] * len(histories)
    if not histories:
        return errors
    with tempfile.TemporaryDirectory(prefix="durabletask-aio-") as directory:
        for number, history in enumerate(histories):
            history.save(Path(directory) / f"{number:09}.json")
        for seed in hash_seeds:
            for number, message in enumerate(_replay_in_another_process(Path(directory), references, payloads, seed)):
                if message is not None and errors[number] is None:
                    errors[number] = HashSeedError(message, seed)
    return errors


def _replay_in_another_process(
    directory: Path, references: Sequence[str], payloads: bool, seed: int
) -> Sequence[str | None]:
    """The errors of the histories in the folder, in the order of their names."""
    # Not by standard output, where the module may write what it likes while it is imported.
    report = directory / f"report-{seed}"
    orchestrators = [f"--orchestrators={reference}" for reference in references]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "durabletask_aio.testing.replay_command", *orchestrators),
            *(() if payloads else ("--structure-only",)),
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
