"""eICU Collaborative Research Database: ICU stays in many hospitals (demo 2.0.1, ODbL 1.0).

The tables of the database are joined with the YAIB hourly grid, which holds what the demo's own
folder lacks: vital signs and laboratory values. Only the grid made for length of stay is read. It
alone has every stay; the others exclude stays by what happened later, and count the hour before
admission in their first row: reading them too would let the input tell the future.

Nothing is known before it was: a row of the grid sums up an hour and is stamped with the hour's
end; a note counts from when it was entered. `diagnosis` is the source of labels and never an input.
Past history, admission diagnosis and notes may well name a disease: they are what was known at the
bedside, so part of what is learnt from them is recognition, not prediction.

The database holds no dates, only minutes since admission to the unit. Here every stay begins on
January 1 of the year of discharge, at its hour of admission, in UTC.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from model.cohorts import LANDMARKS_HOURS, DataError, DataMissing, Outcomes, Record
from model.cohorts.labels import diseases_of
from model.cohorts.tables import check_columns, naming_table
from schemas.payload import as_payload
from schemas.variables import load_spellings, load_treatments, load_variables

# An infusion is charted about once an hour. After this long without a word it counts as ended.
SOURCE = (
    "eICU Collaborative Research Database Demo 2.0.1 (PhysioNet) and its hourly grid, as made by "
    "YAIB; Open Database License 1.0 (ODbL)"
)
INFUSION_CHARTED_WITHIN_MINUTES = 120

_GRID = "los/dyn.parquet"
_AGE_OVER_89 = 90.0  # "> 89" in the source, so that nobody can be recognised by age

_SEX = {"Female": "female", "Male": "male"}
_ADMISSION_SOURCE = {
    "Emergency Department": "emergency",
    "Operating Room": "operating_room",
    "Recovery Room": "operating_room",
    "PACU": "operating_room",
    "Floor": "ward",
    "Acute Care/Floor": "ward",
    "Step-Down Unit (SDU)": "step_down_unit",
    "ICU": "other_icu",
    "Other ICU": "other_icu",
    "ICU to SDU": "other_icu",
    "Other Hospital": "other_hospital",
    "Direct Admit": "direct",
}
_UNIT_TYPE = {
    "Med-Surg ICU": "mixed_icu",
    "MICU": "medical_icu",
    "SICU": "surgical_icu",
    "Cardiac ICU": "cardiac_icu",
    "CCU-CTICU": "cardiac_icu",
    "CSICU": "cardiac_surgery_icu",
    "CTICU": "cardiac_surgery_icu",
    "Neuro ICU": "neuro_icu",
}
_DIED = {"Alive": False, "Expired": True}
_DISPOSITION = {
    "Home": "home",
    "Skilled Nursing Facility": "post_acute",
    "Nursing Home": "post_acute",
    "Rehabilitation": "post_acute",
    "Other Hospital": "other_facility",
    "Other External": "other_facility",
    "Other": "other_facility",
    "Death": "died",
}
_ETHNICITY = {
    "African American": "Black",
    "Asian": "Asian",
    "Caucasian": "White",
    "Hispanic": "Hispanic",
    "Native American": "Native American",
    "Other/Unknown": "other or unknown",
}
# Heading in `physicalexam`, variable, unit.
_GLASGOW_COMA_SCALE = [
    ("Eyes Score", "gcs_eye", "{score}"),
    ("Verbal Score", "gcs_verbal", "{score}"),
    ("Motor Score", "gcs_motor", "{score}"),
]

# What a form says of itself, not of the patient.
_FORM_NOISE = (
    r"(?i)/(save options|view options|include |skip screen|source of patient|system unique"
    r"|billing|time-out|enter surgery|was the patient admitted|\S+ organ systems/organ system/)"
    r"|/(not )?performed\b|/gcs/score/scored$"
)

# One stay's rows of one kind: in the order of their time.
_Rows = dict[int, list[tuple[Any, ...]]]


def read(data: Path) -> Iterator[Record]:
    """One record for each stay in the grid and each landmark that it was still in the unit.

    Reads the eICU tables of the first folder below `data` that has them, as `.csv.gz` or `.csv`.
    Raises DataMissing for the first file that is not there, DataError for one that is damaged.
    """
    tables = _Tables(data)
    grid = _read_grid(_grid(data))
    stays = tables.read(
        "patient",
        text=(
            *("gender", "age", "unittype", "unitadmitsource", "unitadmittime24", "uniquepid"),
            *("hospitalid", "hospitaldischargestatus", "hospitaldischargelocation", "ethnicity"),
        ),
        minutes=("hospitaldischargeyear", "hospitaldischargeoffset", "unitdischargeoffset"),
        numbers=("admissionheight", "admissionweight"),
    ).join(
        grid.select(pl.col("stay_id").cast(pl.Int64).alias("stay")).unique(), on="stay", how="semi"
    )
    _check_stays(tables.path("patient"), stays)
    first_charted = _first_charted(tables)
    exam = _exam(tables)
    series = _by_stay(_series(tables, grid, exam))
    notes = _by_stay(_notes(tables, exam))
    orders = _by_stay(_orders(tables))
    infusions = _by_stay(_infusions(tables))

    for stay in stays.sort("stay").iter_rows(named=True):
        key = stay["stay"]
        admitted = datetime.combine(
            date(stay["hospitaldischargeyear"], 1, 1),
            time.fromisoformat(stay["unitadmittime24"]),
            UTC,
        )
        at = _clock(admitted)
        tabular = _tabular(stay, admitted)
        for landmark in LANDMARKS_HOURS:
            now = landmark * 60
            if stay["unitdischargeoffset"] < now:
                break
            payload = as_payload(
                {
                    "as_of": at(now),
                    "tabular": tabular,
                    "series": list(_series_until(now, at, series.get(key, ()))),
                    "treatments": [
                        *_orders_until(now, at, orders.get(key, ())),
                        *_infusions_until(now, at, infusions.get(key, ())),
                    ],
                    "notes": [
                        {"kind": kind, "time": at(minute), "text": text}
                        for minute, kind, text in notes.get(key, ())
                        if minute <= now
                    ],
                }
            )
            yield Record(
                payload=payload,
                outcomes=_outcomes(stay, first_charted.get(key, {}), now),
                patient=stay["uniquepid"],
                site=stay["hospitalid"],
                stay=str(key),
                landmark_hours=float(landmark),
                groups={
                    "ethnicity": _ETHNICITY.get(stay["ethnicity"], "other or unknown"),
                    "years": str(stay["hospitaldischargeyear"]),
                },
                charted={
                    disease: (minute - now) / 60
                    for disease, minute in first_charted.get(key, {}).items()
                    if minute is not None
                },
            )


def note_texts(data: Path, landmark_hours: float = 24) -> Iterator[str]:
    """The notes that `read` gives by this landmark, without anything else: for the tokenizer."""
    tables = _Tables(data)
    notes = _notes(tables, _exam(tables))
    yield from notes.filter(pl.col("minute") <= landmark_hours * 60)["text"]


class _Tables:
    """The database's tables, wherever below a folder they lie."""

    def __init__(self, data: Path) -> None:
        for patient in sorted(data.rglob("patient.csv*")):
            # Names differ in case between releases.
            self._files = {path.name.lower(): path for path in patient.parent.iterdir()}
            if self._find("diagnosis"):
                self._folder = patient.parent
                return
        raise DataMissing(f"no folder in {data} has both patient.csv.gz and diagnosis.csv.gz")

    def _find(self, name: str) -> Path | None:
        return self._files.get(f"{name}.csv.gz") or self._files.get(f"{name}.csv")

    def path(self, name: str) -> Path:
        """Raises DataMissing."""
        path = self._find(name)
        if path is None:
            raise DataMissing(f"{self._folder / name}.csv.gz is missing")
        return path

    def read(
        self,
        name: str,
        text: Sequence[str] = (),
        minutes: Sequence[str] = (),
        numbers: Sequence[str] = (),
    ) -> pl.DataFrame:
        """These columns of a table, with the stay. What is no number where one is due is null.

        Raises DataMissing or DataError.
        """
        path = self.path(name)
        columns = ["patientunitstayid", *text, *minutes, *numbers]
        check_columns(path, columns)
        with naming_table(path):
            return pl.read_csv(path, columns=columns, infer_schema=False).select(
                pl.col("patientunitstayid").cast(pl.Int64).alias("stay"),
                pl.col(text),
                pl.col(minutes).cast(pl.Int64, strict=False),
                pl.col(numbers).cast(pl.Float64, strict=False),
            )


def _grid(data: Path) -> Path:
    found = sorted(data.rglob(f"yaib-eicu*/{_GRID}"))
    if not found:
        raise DataMissing(f"{data / 'yaib-eicu-demo' / _GRID} is missing")
    return found[0]


def _read_grid(path: Path) -> pl.DataFrame:
    with naming_table(path):
        grid = pl.read_parquet(path)
        # Raises where the columns are of other types.
        numbers = [column for v in load_variables() for column in v.eicu if column in grid.columns]
        grid.clear().select(
            pl.col("stay_id").cast(pl.Int64),
            pl.col("time").dt.total_hours(),
            *(pl.col(column).cast(pl.Float64) for column in numbers),
        )
    return grid


def _check_stays(path: Path, stays: pl.DataFrame) -> None:
    """Raises DataError for a stay without what every stay has."""
    age = pl.col("age")
    valid = {
        "hospitaldischargeyear": pl.col("hospitaldischargeyear").is_between(1, 9998),
        "unitadmittime24": pl.col("unitadmittime24").str.to_time("%H:%M:%S", strict=False),
        "unitdischargeoffset": pl.col("unitdischargeoffset"),
        "hospitaldischargeoffset": pl.col("hospitaldischargeoffset"),
        "age": age.is_null() | (age == "> 89") | age.cast(pl.Float64, strict=False).is_not_null(),
        "uniquepid": pl.col("uniquepid").fill_null("") != "",
        "hospitalid": pl.col("hospitalid").fill_null("") != "",
    }
    for column, is_valid in valid.items():
        told = stays.select(is_valid).to_series()
        wrong = len(told) - (told.sum() if told.dtype == pl.Boolean else told.count())
        if wrong:
            raise DataError(f"{path}: the column {column} of {wrong} stays holds no such value")


def _by_stay(frame: pl.DataFrame) -> _Rows:
    return dict(frame.rows_by_key("stay"))


def _clock(admitted: datetime) -> Callable[[int], datetime]:
    return lambda minute: admitted + timedelta(minutes=minute)


# ---- tabular and outcomes -----------------------------------------------------------------------


def _tabular(stay: dict[str, Any], admitted: datetime) -> dict[str, Any]:
    age = stay["age"]
    return {
        "age": _AGE_OVER_89 if age == "> 89" else age and float(age),
        "sex": _SEX.get(stay["gender"]),
        "height_cm": stay["admissionheight"],
        "weight_kg": stay["admissionweight"],
        "admission_source": _ADMISSION_SOURCE.get(stay["unitadmitsource"]),
        "unit_type": _UNIT_TYPE.get(stay["unittype"]),
        "admitted_at": admitted,
    }


def _first_charted(tables: _Tables) -> dict[int, dict[str, int | None]]:
    """The minute at which each disease of a stay was first charted; None: never.

    Only of stays that have a diagnosis. The others have no label: not "healthy".
    """
    text = ("icd9code", "diagnosisstring")
    rows = tables.read("diagnosis", text=text, minutes=("diagnosisoffset",)).sort("diagnosisoffset")

    @cache
    def named(codes: str | None, string: str) -> list[str]:
        found = diseases_of(codes.split(",")) if codes else diseases_of((), [string])
        return [disease for disease, there in found.items() if there]

    found: dict[int, dict[str, int | None]] = {}
    for stay, of_stay in _by_stay(rows).items():
        first = found[stay] = dict.fromkeys(diseases_of(()))
        for codes, string, minute in of_stay:
            for disease in named(codes, string):
                if first[disease] is None:
                    first[disease] = minute
    return found


def _outcomes(stay: dict[str, Any], charted: dict[str, int | None], now: int) -> Outcomes:
    outcomes: dict[str, bool | float | str] = {d: m is not None for d, m in charted.items()}
    remaining = (stay["hospitaldischargeoffset"] - now) / 1440
    if remaining <= 0:  # a few units discharge later than their hospital: nothing is left to come
        return outcomes
    outcomes["length_of_stay"] = remaining
    if (died := _DIED.get(stay["hospitaldischargestatus"])) is not None:
        outcomes["in_hospital_mortality"] = died
    if (place := _DISPOSITION.get(stay["hospitaldischargelocation"])) is not None:
        outcomes["discharge_disposition"] = place
    return outcomes


# ---- series -------------------------------------------------------------------------------------


def _series(tables: _Tables, grid: pl.DataFrame, exam: pl.DataFrame) -> pl.DataFrame:
    """[stay, variable, unit, minutes, values], a row for each series of a stay, in time's order."""
    declared = [(column, v.name, unit) for v in load_variables() for column, unit in v.eicu.items()]
    hourly = [column for column, *_ in declared if column in grid.columns]
    aperiodic = [column for column, *_ in declared if column not in grid.columns]
    frames = [
        grid.select(
            pl.col("stay_id").cast(pl.Int64).alias("stay"),
            # The row of hour k holds [k, k + 1): it is known at the end.
            ((pl.col("time").dt.total_hours() + 1) * 60).alias("minute"),
            pl.col(hourly).cast(pl.Float64),
        ),
        tables.read("vitalaperiodic", minutes=("observationoffset",), numbers=aperiodic).rename(
            {"observationoffset": "minute"}
        ),
    ]
    measured = pl.concat(
        f.unpivot(index=["stay", "minute"], variable_name="column") for f in frames
    )
    scored = exam.select(
        "stay",
        "minute",
        pl.col("path").str.extract(r"/GCS/(\w+ Score)/\d$").alias("column"),
        pl.col("value").cast(pl.Float64, strict=False),
    )
    names = pl.DataFrame(
        declared + _GLASGOW_COMA_SCALE, ["column", "variable", "unit"], orient="row"
    )
    return (
        pl.concat([measured, scored])
        .drop_nulls("value")
        .join(names, on="column")
        .sort("stay", "variable", "minute", "value")
        .group_by("stay", "variable", "unit", maintain_order=True)
        .agg(minutes="minute", values="value")
    )


def _series_until(
    now: int, at: Callable[[int], datetime], series: Iterable[tuple[Any, ...]]
) -> Iterator[dict[str, Any]]:
    for variable, unit, minutes, values in series:
        if known := bisect_right(minutes, now):
            yield {
                "variable": variable,
                "unit": unit,
                "times": [at(minute) for minute in minutes[:known]],
                "values": values[:known],
            }


# ---- treatments ---------------------------------------------------------------------------------


def _named(frame: pl.DataFrame, text: str) -> pl.DataFrame:
    """The rows whose text names a treatment, with its `name`; once for each that it names."""
    distinct = frame.select(pl.col(text).unique()).drop_nulls()
    names = pl.concat(
        distinct.filter(pl.col(text).str.contains(f"(?i){treatment.pattern}")).with_columns(
            name=pl.lit(treatment.name)
        )
        for treatment in load_treatments()
    )
    return frame.join(names, on=text)


def _orders(tables: _Tables) -> pl.DataFrame:
    """[stay, known, name, start, stop]: what was ordered or done, `known` from that minute on.

    `stop` is null if it is not known. A treatment of the table `treatment` has a moment only.
    """
    done = tables.read("treatment", text=("treatmentstring",), minutes=("treatmentoffset",))
    ordered = tables.read(
        "medication",
        text=("drugname", "drughiclseqno", "drugordercancelled", "prn"),
        minutes=("drugorderoffset", "drugstartoffset", "drugstopoffset"),
    )
    moments = _named(done, "treatmentstring").select(
        "stay", "name", start="treatmentoffset", stop="treatmentoffset", known="treatmentoffset"
    )
    # Some hospitals give no name but the HICL code of the ingredients, which others name.
    same_ingredients = pl.col("drugname").drop_nulls().mode().min().over("drughiclseqno")
    name = pl.when(pl.col("drughiclseqno").is_not_null()).then(
        pl.col("drugname").fill_null(same_ingredients)
    )
    medication = (
        _named(ordered.with_columns(drugname=name.otherwise("drugname")), "drugname")
        # What is ordered as needed is not yet given.
        .filter(drugordercancelled="No", prn="No")
        .with_columns(stop=pl.col("drugstopoffset").replace(0, None))  # 0: not filled in
        # Stopped before it began: never given.
        .filter(pl.col("stop").is_null() | (pl.col("stop") >= pl.col("drugstartoffset")))
        .select(
            "stay",
            "name",
            "stop",
            start="drugstartoffset",
            known=pl.max_horizontal("drugstartoffset", "drugorderoffset"),
        )
    )
    columns = ["stay", "known", "name", "start", "stop"]
    return pl.concat([moments.select(columns), medication.select(columns)]).unique().sort(columns)


def _orders_until(
    now: int, at: Callable[[int], datetime], orders: Iterable[tuple[Any, ...]]
) -> Iterator[dict[str, Any]]:
    for known, name, start, stop in orders:
        if known <= now:
            running = stop is None or stop > now
            yield {"name": name, "start": at(start), "end": None if running else at(stop)}


def _infusions(tables: _Tables) -> pl.DataFrame:
    """[stay, name, unit, minutes, rates], a row for each infusion of a stay, in time's order.

    `unit` is null where the treatment accepts none such: then only its times are used.
    """
    accepted = {t.name: set(t.accepted) for t in load_treatments()}
    spellings = load_spellings()

    def unit(row: dict[str, str]) -> str | None:
        found = re.search(r"\(([^()]+)\)\s*$", row["drugname"])  # "Norepinephrine (mcg/min)"
        ucum = found and spellings.get(found[1].strip(), found[1].strip())
        return ucum if ucum in accepted[row["name"]] else None

    charted = tables.read(
        "infusiondrug", text=("drugname",), minutes=("infusionoffset",), numbers=("drugrate",)
    ).drop_nulls()
    named = _named(charted, "drugname")
    return (
        named.with_columns(
            unit=pl.struct("drugname", "name").map_elements(unit, return_dtype=pl.String)
        )
        # Two bags of one drug at one time: the larger rate, so that a spent bag does not end it.
        .group_by("stay", "name", "drugname", "unit", "infusionoffset")
        .agg(pl.col("drugrate").max())
        .sort("stay", "name", "drugname", "infusionoffset")
        .group_by("stay", "name", "drugname", "unit", maintain_order=True)
        .agg(minutes="infusionoffset", rates="drugrate")
        .drop("drugname")
    )


def _infusions_until(
    now: int, at: Callable[[int], datetime], infusions: Iterable[tuple[Any, ...]]
) -> Iterator[dict[str, Any]]:
    """Chartings in a row become one treatment; one that still runs has the latest rate."""
    for name, unit, minutes, rates in infusions:
        start: int | None = None
        last, rate = 0, 0.0
        for minute, charted in zip(minutes, rates, strict=True):
            if minute > now:
                break
            lapsed = minute - last > INFUSION_CHARTED_WITHIN_MINUTES
            if start is not None and (lapsed or charted <= 0):
                yield {"name": name, "start": at(start), "end": at(last if lapsed else minute)}
                start = None
            if charted > 0:
                start = minute if start is None else start
                last, rate = minute, charted
        if start is None:
            continue
        if now - last > INFUSION_CHARTED_WITHIN_MINUTES:
            yield {"name": name, "start": at(start), "end": at(last)}
        elif unit is None:
            yield {"name": name, "start": at(start)}
        else:
            yield {"name": name, "start": at(start), "rate": rate, "unit": unit}


# ---- notes --------------------------------------------------------------------------------------


def _exam(tables: _Tables) -> pl.DataFrame:
    """[stay, minute, path, value, text] of the physical examinations.

    `minute` is when it was entered. The table itself has the time of examination only; the other
    parts of the same form, which come with it, have both.
    """
    forms = pl.concat(
        tables.read(table, minutes=(f"{table}offset", f"{table}enteredoffset")).select(
            "stay", examined=f"{table}offset", entered=f"{table}enteredoffset"
        )
        for table in ("note", "pasthistory")
    )
    columns = {name: f"physicalexam{name}" for name in ("path", "value", "text")}
    rows = tables.read("physicalexam", tuple(columns.values()), minutes=("physicalexamoffset",))
    return rows.join(
        forms.group_by("stay", examined="examined").agg(pl.col("entered").max()),
        left_on=["stay", "physicalexamoffset"],
        right_on=["stay", "examined"],
        how="left",
    ).select("stay", minute=pl.coalesce("entered", "physicalexamoffset"), **columns)


def _notes(tables: _Tables, exam: pl.DataFrame) -> pl.DataFrame:
    """[stay, minute, kind, text]: what was ticked on each form, as one short text.

    What repeats an earlier note of the stay word for word is left out.
    """
    history = tables.read(
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
    # Numbers are measurements: no words.
    examined = exam.filter(~pl.col("text").fill_null("").str.contains(r"^[+-]?[\d.]+$")).select(
        "stay", "minute", "path", "value", kind=pl.lit("physical_exam")
    )
    # "…|Operative|Diagnosis|Cardiovascular|CABG" reads "Operative Cardiovascular CABG".
    path = pl.col("admitdxpath").str.replace_all("|", "/", literal=True)
    path = path.str.replace("(?i)(operative)/Diagnosis/", "$1 ").str.replace("/specified$", "")
    admitted = tables.read(
        "admissiondx", text=("admitdxpath", "admitdxtext"), minutes=("admitdxenteredoffset",)
    ).select(
        "stay",
        kind=pl.lit("admission_diagnosis"),
        minute="admitdxenteredoffset",
        path=path,
        value="admitdxtext",
    )
    kind = pl.col("notetype").str.to_lowercase().str.replace_all("[^a-z]+", "_")
    written = tables.read(
        "note", text=("notetype", "notepath", "notevalue"), minutes=("noteenteredoffset",)
    ).select("stay", kind=kind, minute="noteenteredoffset", path="notepath", value="notevalue")
    # "cardiovascular|shock|vasopressors" reads "cardiovascular: shock: vasopressors".
    planned = tables.read(
        "treatment", text=("treatmentstring",), minutes=("treatmentoffset",)
    ).select(
        "stay",
        kind=pl.lit("treatment_plan"),
        minute="treatmentoffset",
        path=pl.lit(""),
        value=pl.col("treatmentstring").str.replace_all("|", ": ", literal=True),
    )
    return (
        pl.concat([history, examined, admitted, written, planned], how="diagonal")
        .filter(~pl.col("path").str.contains(_FORM_NOISE))
        .sort("stay", "minute", "kind", "path", "value")
        .group_by("stay", "minute", "kind", maintain_order=True)
        .agg(_phrase().unique(maintain_order=True).str.join("; ").alias("phrases"))
        .with_columns(text=pl.format("{}: {}.", _title(), "phrases"))
        .unique(["stay", "text"], keep="first", maintain_order=True)
        .select("stay", "minute", "kind", "text")
    )


def _phrase() -> pl.Expr:
    """A ticked box with the heading that it stands under: "Bowel Sounds decreased".

    A box that says its heading stands alone: "hypertension requiring treatment".
    """
    value = pl.col("value")
    heading = (
        pl.col("path")
        .str.strip_suffix(pl.lit("/") + value)
        .str.strip_suffix(pl.lit("/") + value)  # many paths end in it twice
        .str.replace(r'/(Print "within normal limits"|[^/]* Obtain Options|Normal)$', "")
        .str.extract(r"([^/]+/(?:L|R|Left|Right|\(\w+\))|[^/]+)$")
        .str.replace("/", " ")
        .fill_null("")
    )
    small, small_heading = value.str.to_lowercase(), heading.str.to_lowercase()
    says_it = small.str.contains(small_heading, literal=True) | small_heading.str.contains(
        small, literal=True
    )
    phrase = pl.when(says_it).then(value).otherwise(pl.format("{} {}", heading, value))
    return phrase.str.replace_all(r"\s+", " ").str.strip_chars()


def _title() -> pl.Expr:
    return pl.col("kind").str.replace_all("_", " ").str.to_titlecase()
