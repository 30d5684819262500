"""The table of a run: as text, as Markdown, as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from durabletask_aio.testing.conformance.outcomes import Outcome
from durabletask_aio.testing.conformance.supervisor import Result

_WIDTH = max(len(each.value) for each in Outcome)


def text_line(result: Result) -> str:
    """Return the line of a result, and a second one with the detail if there is one.

    Args:
        result: The result.
    """
    line = f"{result.outcome.value:{_WIDTH}}  {result.scenario.name}  {result.scenario.description}\n"
    return line + (f"{'':{_WIDTH}}  {result.detail}\n" if result.detail else "")


def summary(results: Sequence[Result], seconds: float) -> str:
    """Return the last line of the table.

    Args:
        results: All results.
        seconds: How long they took.
    """
    counts = _counts(results)
    others = "".join(f", {number} {name}" for name, number in counts.items() if name != Outcome.WORKS.value)
    run = len(results) - counts.get(Outcome.NOT_RUN.value, 0)
    return f"{counts.get(Outcome.WORKS.value, 0)} of {run} work{others}; {seconds:.0f} s\n"


def to_markdown(results: Sequence[Result], seconds: float) -> str:
    """Return the results as a Markdown table.

    Args:
        results: All results.
        seconds: How long they took.
    """
    lines = ["| Scenario | | Outcome |", "| --- | --- | --- |"]
    for each in results:
        detail = f": {_cell(each.detail)}" if each.detail else ""
        lines.append(f"| `{each.scenario.name}` | {_cell(each.scenario.description)} | {each.outcome.value}{detail} |")
    return "\n".join([*lines, "", summary(results, seconds)])


def to_json(results: Sequence[Result], seconds: float, address: str) -> str:
    """Return the results as a JSON document.

    Args:
        results: All results.
        seconds: How long they took.
        address: Where the engine listens.
    """
    document = {
        "address": address,
        "scenarios": [
            {
                "name": each.scenario.name,
                "description": each.scenario.description,
                "outcome": each.outcome.value,
                "detail": each.detail,
                "seconds": round(each.seconds, 3),
            }
            for each in results
        ],
        "counts": _counts(results),
        "seconds": round(seconds, 3),
    }
    return json.dumps(document, indent=2) + "\n"


def _counts(results: Sequence[Result]) -> dict[str, int]:
    counts = Counter(each.outcome for each in results)
    return {outcome.value: counts[outcome] for outcome in Outcome if counts[outcome]}


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
