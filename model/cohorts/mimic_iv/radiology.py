"""Radiology reports of MIMIC-IV-Note and X-rays of MIMIC-CXR-JPG, if the user has them."""

from collections.abc import Iterator

import polars as pl

from model.cohorts.mimic_iv.database import TIME, Database
from model.cohorts.mimic_iv.observations import stored_time
from model.cohorts.stay_events.columns import ID, TEXT


def radiology_reports(database: Database) -> Iterator[pl.LazyFrame]:
    """The reports, known from the time at which they were stored."""
    path = database.find("note/radiology.csv.gz", "note/radiology.csv")
    if path is not None:
        columns = {"subject_id": ID, "charttime": TIME, "storetime": TIME, "text": TEXT}
        yield (
            database.scan_file(path, columns)
            .filter(pl.col("text").str.strip_chars() != "")
            .with_columns(stored_time("charttime", "storetime"), kind=pl.lit("radiology"))
            .rename({"charttime": "time"})
        )


def x_rays(database: Database) -> Iterator[pl.LazyFrame]:
    """Frontal X-rays.

    The model uses the latest image. A lateral view, often the last of a study, would replace the
    frontal view, so lateral views are dropped.
    """
    name = "mimic-cxr-2.0.0-metadata.csv"
    path = database.find(f"{name}.gz", name)
    if path is None:
        return
    subject, study = pl.col("subject_id"), pl.col("study_id")
    file = pl.concat_str(
        pl.lit(f"{path.parent}/files/p"),
        subject.cast(TEXT).str.slice(0, 2),
        pl.lit("/p"),
        subject,
        pl.lit("/s"),
        study,
        pl.lit("/"),
        "dicom_id",
        pl.lit(".jpg"),
    )
    # The table writes a time of day as 93014.531, without the leading zero.
    time_of_day = pl.col("StudyTime").str.split(".").list.first().str.zfill(6)
    time = (pl.col("StudyDate") + time_of_day).str.to_datetime(
        "%Y%m%d%H%M%S", time_unit="us", time_zone="UTC", strict=False
    )
    columns = {
        "dicom_id": TEXT,
        "subject_id": ID,
        "study_id": ID,
        "StudyDate": TEXT,
        "StudyTime": TEXT,
        "ViewPosition": TEXT,
    }
    yield (
        database.scan_file(path, columns)
        .filter(pl.col("ViewPosition").is_in(["AP", "PA"]))
        .select("subject_id", path=file, view="ViewPosition", time=time)
    )
