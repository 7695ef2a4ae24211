"""The files of an export, and the resources of each patient."""

import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import orjson

from model.cohorts import DataError, DataMissing
from model.cohorts.json_lines import iter_lines
from schemas.fhir.document import Resource
from schemas.fhir.entries import PATIENT_DATA, objects

# Types that belong to no patient, and are read before those that name them.
_SHARED = ("Location", "Medication")
_OF_PATIENTS = PATIENT_DATA | {"Patient", "Condition"}
_PARTITION_BYTES = 32 * 2**20
_MAX_PARTITIONS = 256  # files that are open at one time
_GZIP_RATIO = 10


class Sent(NamedTuple):
    """A resource with the file and the number of its line."""

    resource: Resource
    file: Path
    line: int

    @property
    def place(self) -> str:
        return f"{self.file}, line {self.line}"


@dataclass
class Export:
    """The files of a folder. Raises DataMissing without NDJSON files, DataError: a line is invalid.

    `shared`: Locations and Medications by type and id, once the partitions are written.
    """

    data: Path
    shared: dict[str, Sent] = field(default_factory=dict)
    _binary_owners: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        paths = sorted([*self.data.glob("*.ndjson"), *self.data.glob("*.ndjson.gz")])
        if not paths:
            raise DataMissing(f"FHIR: no .ndjson or .ndjson.gz file in {self.data}")
        order = {kind: i for i, kind in enumerate((*_SHARED, "", "Binary"))}
        self._paths = sorted(paths, key=lambda path: order.get(_first_type(path), 2))
        if not any(_first_type(path) == "Patient" for path in paths):
            raise DataMissing(f"FHIR: no Patient.ndjson in {self.data}")

    def write_partitions(self, folder: Path) -> int:
        """Writes the resources of patients to files in `folder`; returns their number."""
        size = sum(
            path.stat().st_size * (_GZIP_RATIO if path.suffix == ".gz" else 1)
            for path in self._paths
        )
        count = min(1 + size // _PARTITION_BYTES, _MAX_PARTITIONS)
        with ExitStack() as stack:
            files = [
                stack.enter_context((folder / str(number)).open("wb")) for number in range(count)
            ]
            for index, path in enumerate(self._paths):
                for number, line in iter_lines(path):
                    patient = self._patient_of(Sent(_parse(line, path, number), path, number))
                    if patient is not None:
                        partition = files[zlib.crc32(patient.encode()) % count]
                        partition.write(b"%d %d " % (index, number))
                        partition.write(
                            orjson.dumps(patient) + b"\n" + line.rstrip(b"\r\n") + b"\n"
                        )
        return count

    def read_partition(self, path: Path) -> Mapping[str, list[Sent]]:
        """The resources of each patient, by the patient's id, in the order of the files."""
        patients: dict[str, list[Sent]] = {}
        with path.open("rb") as file:
            while head := file.readline():
                index, number, patient = head.split(b" ", 2)
                sent = Sent(orjson.loads(file.readline()), self._paths[int(index)], int(number))
                patients.setdefault(orjson.loads(patient), []).append(sent)
        return patients

    def _patient_of(self, sent: Sent) -> str | None:
        """The id of the patient of a resource; None if it is not read, or belongs to no patient."""
        resource, kind = sent.resource, sent.resource["resourceType"]
        identity = resource.get("id")
        if kind in _SHARED:
            self.shared[f"{kind}/{identity}"] = sent
            return None
        if kind == "Binary":
            return self._binary_owners.get(f"Binary/{identity}")
        if kind not in _OF_PATIENTS:
            return None
        if kind == "Patient":
            if not isinstance(identity, str):
                raise DataError(f"{sent.place}: id: is required")
            return identity
        subject = resource.get("subject")
        reference = subject.get("reference") if isinstance(subject, dict) else None
        if not isinstance(reference, str) or "Patient/" not in reference:
            raise DataError(f"{sent.place}: subject.reference: must reference a Patient")
        patient = type_and_id(reference).removeprefix("Patient/")
        for binary in _binaries(resource):
            self._binary_owners[binary] = patient
        return patient


def _first_type(path: Path) -> str:
    """The type of the first resource of a file."""
    for number, line in iter_lines(path):
        return str(_parse(line, path, number)["resourceType"])
    return ""


def _parse(line: bytes, path: Path, number: int) -> Resource:
    try:
        resource = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise DataError(f"{path}, line {number}: is not JSON") from None
    if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
        raise DataError(f"{path}, line {number}: resourceType: is required")
    return resource


def _binaries(resource: Resource) -> Iterator[str]:
    """The Binaries that the attachments of a resource name."""
    attachments = [
        *(content.get("attachment") for content in objects(resource, "content")),
        *objects(resource, "presentedForm"),
        resource.get("content"),
    ]
    for attachment in attachments:
        url = attachment.get("url") if isinstance(attachment, dict) else None
        if isinstance(url, str) and "Binary/" in url:
            yield type_and_id(url)


def type_and_id(reference: str) -> str:
    """`http://host/fhir/Patient/1/_history/2` becomes `Patient/1`."""
    return "/".join(reference.partition("/_history/")[0].split("/")[-2:])
