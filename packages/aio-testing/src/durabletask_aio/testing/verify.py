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


class HashSeedError(ReplayError):
    """Another process, with another ``PYTHONHASHSEED``, replayed the history differently."""

    def __init__(self, message: str, seed: int) -> None:
        Exception.__init__(self, f"with PYTHONHASHSEED={seed}, so probably by the order of a set:\n{message}")
        self.seed = seed


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

    ``options`` are those of :func:`replay`.
    """
    report = replay(history, orchestrator, payloads=payloads, **options)
    for cut in _cuts(len(history)):
        replay(history, orchestrator, payloads=payloads, live_from=cut, **options)
    if hash_seeds:
        reference = f"{_reference(orchestrator)}={history.workflow_name}"
        replay_under_hash_seeds(history, reference, payloads=payloads, hash_seeds=hash_seeds)
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
    history: History, reference: str, *, payloads: bool = True, hash_seeds: Sequence[int] = HASH_SEEDS
) -> None:
    """Replay in one new process for each seed; raises :class:`ReplayError` if one differs.

    ``reference`` is one of :func:`~.orchestrators.load_orchestrators`.  Raises ``RuntimeError`` if the other process
    could not replay at all.
    """
    with tempfile.TemporaryDirectory(prefix="durabletask-aio-") as directory:
        path = history.save(Path(directory) / "history.json")
        arguments = ["--orchestrators", reference, "--format", "json", str(path)]
        if not payloads:
            arguments.insert(0, "--structure-only")
        for seed in hash_seeds:
            environment = {
                **os.environ,
                "PYTHONHASHSEED": str(seed),
                "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
            }
            done = subprocess.run(
                [sys.executable, "-m", "durabletask_aio.testing.replay_command", *arguments],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode not in (0, 1):
                raise RuntimeError(f"replaying {reference} in another process failed:\n{done.stderr.strip()}")
            result = json.loads(done.stdout)["histories"][0]
            if result["error"] is not None:
                raise HashSeedError(result["error"], seed)
