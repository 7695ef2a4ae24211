"""Records of your own hospital: a JSON Lines file of payloads with their outcomes.

Each line is a `schemas.record.TrainingRecord`. The file is read line by line, so that memory does
not grow with it. A file whose name ends in `.gz` is decompressed.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from model.cohorts import DataError, DataMissing, Record
from model.cohorts.labels import outcomes_of
from model.errors import MAX_FAULTS, wrap_file_errors
from schemas.payload import InvalidPayload
from schemas.record import parse_record

SOURCE = "records of the hospital's own (m3h-model cohort records)"
# The longest line; a payload of a request has at most 32 MiB by default.
MAX_LINE_BYTES = 64 * 2**20


def read(data: Path) -> Iterator[Record]:
    """One record for each line that is not blank.

    Raises DataMissing if there is no such file, DataError that names the line and the JSON Pointers
    if a line is invalid or the file is damaged.
    """
    if not data.is_file():
        raise DataMissing(
            f"{data} is not a file; --data names the JSON Lines file of the records (.jsonl or "
            ".jsonl.gz)"
        )
    # A damaged gzip file raises EOFError or zlib.error.
    with wrap_file_errors(data, DataError, (OSError, EOFError, zlib.error)), _open(data) as f:
        for number, line in enumerate(_lines(f, data), 1):
            if line.strip():
                yield _record(line, f"{data}, line {number}")


def _open(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _lines(file: BinaryIO | gzip.GzipFile, path: Path) -> Iterator[bytes]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            megabytes = MAX_LINE_BYTES // 2**20
            raise DataError(f"{path}, line {number}: is longer than {megabytes} MiB")
        yield line


def _record(line: bytes, position: str) -> Record:
    try:
        parsed = parse_record(line)
    except InvalidPayload as error:
        raise DataError(f"{position}: {_faults(error)}") from None
    return Record(
        payload=parsed.payload,
        outcomes=outcomes_of(
            parsed.diagnosis_codes, parsed.outcomes, coding_complete=parsed.coding_complete
        ),
        patient=parsed.patient,
        site=parsed.group or "",
        stay=parsed.stay_id or parsed.patient,
        landmark_hours=parsed.hours,
        file=position,
        pointer="/payload",
    )


def _faults(error: InvalidPayload) -> str:
    """The pointers and details of the first errors."""
    texts = [f"{e.pointer or 'the whole record'}: {e.detail}" for e in error.errors[:MAX_FAULTS]]
    more = len(error.errors) - MAX_FAULTS
    return "; ".join(texts) + (f"; and {more} more" if more > 0 else "")
