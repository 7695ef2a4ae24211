"""JSON Lines files, gzipped if their name ends in `.gz`, read line by line."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from model.cohorts import DataError
from model.errors import MAX_FAULTS, wrap_file_errors
from schemas.payload import InvalidPayload

# The longest line; a payload of a request has at most 32 MiB by default.
MAX_LINE_BYTES = 64 * 2**20


def iter_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their number from 1.

    Raises DataError that names the file, if it is damaged or a line is too long.
    """
    # A damaged gzip file raises EOFError or zlib.error.
    with wrap_file_errors(path, DataError, (OSError, EOFError, zlib.error)), _open(path) as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                megabytes = MAX_LINE_BYTES // 2**20
                raise DataError(f"{path}, line {number}: is longer than {megabytes} MiB")
            if line.strip():
                yield number, line


def _open(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def first_faults(error: InvalidPayload) -> str:
    """The pointers and details of the first errors."""
    texts = [f"{e.pointer or 'the whole record'}: {e.detail}" for e in error.errors[:MAX_FAULTS]]
    more = len(error.errors) - MAX_FAULTS
    return "; ".join(texts) + (f"; and {more} more" if more > 0 else "")
