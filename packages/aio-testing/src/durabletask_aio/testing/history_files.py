"""Reads the files of histories, which may come from anywhere: bounded in size, with errors that say what is wrong."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from pathlib import Path
from typing import IO, Any, cast

from durabletask_aio.testing.history_codec import HistoryFormatError

MAX_SIZE = 256 * 2**20
"""Bytes of a history at most, decompressed, unless the caller says otherwise."""

_CHUNK = 2**20

_ENCODINGS = {  # UTF-32 first: its byte order mark begins with that of UTF-16.
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_text(path: Path, max_size: int = MAX_SIZE) -> str:
    """Return the text of a file, which is decompressed if its name ends in `.gz`.

    Args:
        path: the file.
        max_size: the number of bytes that the text may have.

    Raises:
        HistoryFormatError: if the file has more, cannot be decompressed, or is not text in UTF-8.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        if path.suffix != ".gz":
            return _decode(_read(file, max_size, "it"))
        try:
            with gzip.open(file) as decompressed:
                return _decode(_read(cast("IO[bytes]", decompressed), max_size, "decompressed, it"))
        except EOFError:
            raise HistoryFormatError("this is not a history: its compressed data are cut off") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise HistoryFormatError(f"this is not a history: not compressed with gzip ({error})") from error


def _read(file: IO[bytes], max_size: int, subject: str) -> bytearray:
    data = bytearray()
    while chunk := file.read(_CHUNK):
        data += chunk
        if len(data) > max_size:
            raise HistoryFormatError(
                f"this is too large for a history: {subject} has more than {max_size:,} bytes; if it is one, raise the "
                "limit with --max-size, or History.load(path, max_size=BYTES)"
            )
    return data


def _decode(data: bytearray) -> str:
    try:
        return data.decode("utf-8-sig")  # Editors on Windows write a byte order mark.
    except UnicodeDecodeError as error:
        encoding = next((name for mark, name in _ENCODINGS.items() if data.startswith(mark)), None)
        reason = f"byte {error.start} is {data[error.start]:#04x}" if encoding is None else f"it looks like {encoding}"
        raise HistoryFormatError(f"this is not a history: not text in UTF-8 ({reason})") from None


def parse(text: str, what: str) -> Any:
    """Return the value of a JSON document.

    Args:
        text: the document.
        what: what it should be, for the message: `"JSON"`, for example.

    Raises:
        HistoryFormatError: if it is none, or is nested so deeply that it cannot be read.
    """
    if not text or text.isspace():
        raise HistoryFormatError("this is not a history: it is empty")
    try:
        return json.loads(text)
    except ValueError as error:
        raise HistoryFormatError(f"this is not a history: not {what} ({error})") from error
    except RecursionError:
        raise HistoryFormatError(f"this is not a history: not {what} that can be read (nested too deeply)") from None
