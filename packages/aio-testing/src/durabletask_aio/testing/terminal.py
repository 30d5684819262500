"""What the commands write: text that every terminal can show, and problems in one line."""

from __future__ import annotations

import re
import sys

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def write(text: str) -> None:
    """Write to standard output; a console without some of the characters gets question marks, not a traceback.

    Payloads and messages of failures are whatever programs put there: what would move the cursor or change its colour
    is shown, not sent.
    """
    text = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, errors="replace").decode(encoding))


def complain(command: str, error: Exception) -> None:
    """Say on standard error what kept a command from doing its work."""
    text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    sys.stderr.write(f"durabletask-aio {command}: {text}\n")
