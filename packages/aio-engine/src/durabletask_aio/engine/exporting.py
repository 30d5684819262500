"""Histories as JSON documents, in the format of `durabletask-aio replay`."""

from __future__ import annotations

import json
import logging
import os
import urllib.parse
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from durabletask_aio.engine._upstream import HistoryEvent, to_dict

silent_logger = logging.getLogger("durabletask.aio.engine.silent")
"""For upstream's client, which logs each call."""

silent_logger.disabled = True


def history_json(instance_id: str, history: Iterable[HistoryEvent]) -> str:
    """Return a history as a JSON document, which `durabletask-aio replay` reads.

    Args:
        instance_id: of the history.
        history: the events.

    Returns:
        The document, one field per line.
    """
    document = {
        "format": "durabletask-history",
        "version": 1,
        "instance_id": instance_id,
        "events": [{"event_type": type(event).__name__, **_without_nones(to_dict(event))} for event in history],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def file_name(instance_id: str) -> str:
    """Return the name of the file for a history; characters that it cannot have are written as `%2F`."""
    # Colons are common in the ids of children, and no name of a file on Windows.
    safe = " @" if os.name == "nt" else " @:"
    return f"{urllib.parse.quote(instance_id, safe=safe)}.json"


def write_history(folder: Path, instance_id: str, history: Iterable[HistoryEvent]) -> Path:
    """Write a history as JSON, in the format of `durabletask-aio replay`.

    Args:
        folder: where; it is made if it does not exist.
        instance_id: of the history.
        history: the events.

    Returns:
        The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(instance_id)
    path.write_text(history_json(instance_id, history), encoding="utf-8", newline="\n")
    return path


def _without_nones(value: Any) -> Any:
    if isinstance(value, dict):
        plain = cast("dict[str, Any]", value)
        return {key: _without_nones(item) for key, item in plain.items() if item is not None}
    return value
