"""Notes of eICU: the ticked boxes of each form as one short text."""

import polars as pl

from model.cohorts.eicu.database import Database

# Rows about the form itself, not about the patient.
_FORM_NOISE = (
    r"(?i)/(save options|view options|include |skip screen|source of patient|system unique"
    r"|billing|time-out|enter surgery|was the patient admitted|\S+ organ systems/organ system/)"
    r"|/(not )?performed\b|/gcs/score/scored$"
)


def exam_table(database: Database) -> pl.DataFrame:
    """[stay, minute, path, value, text] of the physical examinations.

    `minute` is the time of entry. The table itself has only the time of the examination; the other
    parts of the same form have both times. Rows of a form whose time of entry is unknown are left
    out, because their examination may precede the entry by hours (the demo has none).
    """
    forms = pl.concat(
        database.read(table, minutes=(f"{table}offset", f"{table}enteredoffset")).select(
            "stay", examined=f"{table}offset", entered=f"{table}enteredoffset"
        )
        for table in ("note", "pasthistory")
    )
    columns = {name: f"physicalexam{name}" for name in ("path", "value", "text")}
    rows = database.read("physicalexam", tuple(columns.values()), minutes=("physicalexamoffset",))
    return rows.join(
        forms.drop_nulls("entered").group_by("stay", "examined").agg(pl.col("entered").max()),
        left_on=["stay", "physicalexamoffset"],
        right_on=["stay", "examined"],
        how="inner",
    ).select("stay", minute="entered", **columns)


def notes_table(database: Database, exam: pl.DataFrame) -> pl.DataFrame:
    """[stay, minute, kind, text]: the ticked boxes of each form as one short text.

    A text that repeats an earlier note of the stay word for word is left out.
    """
    # A number is a measurement, not part of a text.
    examined = exam.filter(~pl.col("text").fill_null("").str.contains(r"^[+-]?[\d.]+$")).select(
        "stay", "minute", "path", "value", kind=pl.lit("physical_exam")
    )
    forms = [
        _past_history(database),
        examined,
        _admission_diagnoses(database),
        _written_notes(database),
        _treatment_plans(database),
    ]
    return (
        pl.concat(forms, how="diagonal")
        .filter(~pl.col("path").str.contains(_FORM_NOISE))
        .sort("stay", "minute", "kind", "path", "value")
        .group_by("stay", "minute", "kind", maintain_order=True)
        .agg(_phrase().unique(maintain_order=True).str.join("; ").alias("phrases"))
        .with_columns(text=pl.format("{}: {}.", _title(), "phrases"))
        .unique(["stay", "text"], keep="first", maintain_order=True)
        .select("stay", "minute", "kind", "text")
    )


def _past_history(database: Database) -> pl.DataFrame:
    return database.read(
        "pasthistory",
        text=("pasthistorypath", "pasthistoryvalue"),
        minutes=("pasthistoryenteredoffset",),
    ).select(
        "stay",
        kind=pl.lit("past_history"),
        minute="pasthistoryenteredoffset",
        path="pasthistorypath",
        value="pasthistoryvalue",
    )


def _admission_diagnoses(database: Database) -> pl.DataFrame:
    # "…|Operative|Diagnosis|Cardiovascular|CABG" becomes "Operative Cardiovascular CABG".
    path = pl.col("admitdxpath").str.replace_all("|", "/", literal=True)
    path = path.str.replace("(?i)(operative)/Diagnosis/", "$1 ").str.replace("/specified$", "")
    return database.read(
        "admissiondx", text=("admitdxpath", "admitdxtext"), minutes=("admitdxenteredoffset",)
    ).select(
        "stay",
        kind=pl.lit("admission_diagnosis"),
        minute="admitdxenteredoffset",
        path=path,
        value="admitdxtext",
    )


def _written_notes(database: Database) -> pl.DataFrame:
    kind = pl.col("notetype").str.to_lowercase().str.replace_all("[^a-z]+", "_")
    return database.read(
        "note", text=("notetype", "notepath", "notevalue"), minutes=("noteenteredoffset",)
    ).select("stay", kind=kind, minute="noteenteredoffset", path="notepath", value="notevalue")


def _treatment_plans(database: Database) -> pl.DataFrame:
    # "cardiovascular|shock|vasopressors" becomes "cardiovascular: shock: vasopressors".
    return database.read(
        "treatment", text=("treatmentstring",), minutes=("treatmentoffset",)
    ).select(
        "stay",
        kind=pl.lit("treatment_plan"),
        minute="treatmentoffset",
        path=pl.lit(""),
        value=pl.col("treatmentstring").str.replace_all("|", ": ", literal=True),
    )


def _phrase() -> pl.Expr:
    """A ticked box with its heading: "Bowel Sounds decreased".

    A box that repeats its heading stands alone: "hypertension requiring treatment".
    """
    value = pl.col("value")
    heading = (
        pl.col("path")
        .str.strip_suffix(pl.lit("/") + value)
        .str.strip_suffix(pl.lit("/") + value)  # many paths end in the value twice
        .str.replace(r'/(Print "within normal limits"|[^/]* Obtain Options|Normal)$', "")
        .str.extract(r"([^/]+/(?:L|R|Left|Right|\(\w+\))|[^/]+)$")
        .str.replace("/", " ")
        .fill_null("")
    )
    lower_value, lower_heading = value.str.to_lowercase(), heading.str.to_lowercase()
    repeats_heading = lower_value.str.contains(
        lower_heading, literal=True
    ) | lower_heading.str.contains(lower_value, literal=True)
    phrase = pl.when(repeats_heading).then(value).otherwise(pl.format("{} {}", heading, value))
    return phrase.str.replace_all(r"\s+", " ").str.strip_chars()


def _title() -> pl.Expr:
    return pl.col("kind").str.replace_all("_", " ").str.to_titlecase()
