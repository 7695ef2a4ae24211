"""Records of your own hospital: a JSON Lines file of payloads with their outcomes.

Each line is a `schemas.record.TrainingRecord`. The file is read line by line, so that memory does
not grow with it. A file whose name ends in `.gz` is decompressed.
"""

from collections.abc import Iterator
from pathlib import Path

from model.cohorts import DataError, DataMissing, Record
from model.cohorts.json_lines import first_faults, iter_lines
from model.cohorts.labels import outcomes_of
from schemas.payload import InvalidPayload
from schemas.record import parse_record

SOURCE = "records of the hospital's own (m3h-model cohort records)"


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
    for number, line in iter_lines(data):
        yield _record(line, f"{data}, line {number}")


def _record(line: bytes, position: str) -> Record:
    try:
        parsed = parse_record(line)
    except InvalidPayload as error:
        raise DataError(f"{position}: {first_faults(error)}") from None
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
