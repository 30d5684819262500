"""Access to the files in the directory `data`, which are installed with the package."""

from __future__ import annotations

from importlib.resources import files

_PACKAGE = "durabletask_aio.testing"


def read_data(name: str) -> str:
    """Return the text of a file in `data`."""
    return (files(_PACKAGE) / "data" / name).read_text(encoding="utf-8")
