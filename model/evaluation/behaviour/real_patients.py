"""Real base patients: records of the MIMIC-IV and eICU readers, 24 h after admission."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from model.cohorts import DataMissing, Record, eicu, mimic_iv
from schemas.payload import Payload

HOURS = 24.0
READERS = {"mimic_iv": mimic_iv.read, "eicu": eicu.read}


def real_patients(data: Path, count: int) -> dict[str, Payload]:
    """`count` patients by name, half from each database if the folder has both.

    One stay of each patient. Fewer if the databases have fewer. Raises DataMissing if the folder
    has neither database, DataError if a file is damaged.
    """
    found: dict[str, list[Payload]] = {}
    missing: list[DataMissing] = []
    for name, read in READERS.items():
        try:
            found[name] = [*islice(_first_stays(read(data)), count)]
        except DataMissing as error:
            missing.append(error)
    if not found:
        raise missing[0]
    share = count // len(found)
    counts = {name: min(share, len(payloads)) for name, payloads in found.items()}
    for name, payloads in found.items():  # the rest, from the databases that have more
        counts[name] += min(count - sum(counts.values()), len(payloads) - counts[name])
    return {
        f"{name} {number}": payload
        for name, payloads in found.items()
        for number, payload in enumerate(payloads[: counts[name]], 1)
    }


def _first_stays(records: Iterable[Record]) -> Iterator[Payload]:
    patients: set[str] = set()
    for record in records:
        if record.landmark_hours == HOURS and record.patient not in patients:
            patients.add(record.patient)
            yield record.payload
