"""NIH ChestX-ray14: chest X-rays with findings that were text-mined from their reports.

The reader takes the folder `nih-cxr` of 512-pixel JPEG images, or the official release
(`Data_Entry_2017.csv` and PNG images in any folders). Three findings correspond to tasks; the other
tasks have no label. Half of the images in `nih-cxr` show pneumonia, by sampling: the share of a
finding is not its prevalence.

The set holds no dates: every image gets the date January 1, 2017, the year of the release, in UTC.
"""

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from model.cohorts import DataError, DataMissing, Record
from model.errors import wrap_file_errors
from schemas.payload import as_payload

SOURCE = (
    "ChestX-ray14 (Wang et al., CVPR 2017), provided by the NIH Clinical Center; no restrictions "
    "on use, attribution required"
)
_TASK_OF_FINDING = {
    "Effusion": "pleural_effusion",
    "Pneumonia": "pneumonia",
    "Emphysema": "copd",
}
_SEX = {"F": "female", "M": "male"}
_MEDIA_TYPE = {".jpg": "image/jpeg", ".png": "image/png"}
_TAKEN = datetime(2017, 1, 1, tzinfo=UTC)

_COLUMNS = (
    *("Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender"),
    "View Position",
)
_TABLES = ("nih-cxr/labels.csv", "labels.csv", "Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")


def read(data: Path) -> Iterator[Record]:
    """One record for each image. Rows without an image are skipped: a download may be partial.

    Raises DataMissing if the table or all images are missing, DataError if the table is damaged.
    """
    table = next((data / name for name in _TABLES if (data / name).is_file()), None)
    if table is None:
        raise DataMissing(f"{data / _TABLES[0]} is missing")
    # The table of `nih-cxr` names .png files; the files are .jpg.
    images = {path.stem: path for path in table.parent.rglob("*") if path.suffix in _MEDIA_TYPE}
    if not images:
        raise DataMissing(f"the images of {table} are missing: {table.parent} holds no image")
    for row in _rows(table):
        if image := images.get(Path(row["Image Index"]).stem):
            yield _record(row, image)


def _rows(table: Path) -> Iterator[dict[str, str]]:
    """The rows of the table. Raises DataError if it is damaged."""
    with (
        wrap_file_errors(table, DataError, (OSError, ValueError, csv.Error)),
        table.open(encoding="utf-8-sig", newline="") as file,
    ):
        reader = csv.DictReader(file)
        names = reader.fieldnames or ()
        if missing := [name for name in _COLUMNS if name not in names]:
            raise DataError(f"{table} has no column {', '.join(missing)}")
        for row in reader:
            if any(row[name] is None for name in _COLUMNS):
                raise DataError(f"{table}, line {reader.line_num}: too few columns")
            yield row


def _record(row: dict[str, str], image: Path) -> Record:
    age = row["Patient Age"].removesuffix("Y")
    findings = row["Finding Labels"].split("|")
    return Record(
        payload=as_payload(
            {
                "as_of": _TAKEN,
                "tabular": {
                    "age": float(age) if age.isdigit() else None,
                    "sex": _SEX.get(row["Patient Gender"]),
                },
                "images": [
                    {
                        "view": row["View Position"],
                        "time": _TAKEN,
                        "media_type": _MEDIA_TYPE[image.suffix],
                        "data": image.read_bytes(),
                    }
                ],
            }
        ),
        outcomes={task: finding in findings for finding, task in _TASK_OF_FINDING.items()},
        patient=row["Patient ID"],
        site="nih",
        stay=image.stem,
        landmark_hours=None,
        file=str(image),
    )
