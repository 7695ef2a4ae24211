"""MIMIC-IV: the intensive care units of Beth Israel Deaconess, Boston (Johnson et al., 2023).

Reads the official layout, `hosp/` and `icu/` (CSV, gzipped or not), at the folder or below it, and
where they are there `note/radiology` (MIMIC-IV-Note) and the X-rays of MIMIC-CXR-JPG. The open demo
has no `icu/chartevents` and `icu/inputevents`: these come from its edition in MEDS.

Times are the database's shifted wall times, taken as UTC. What a payload holds was known at its
`as_of`: a result is known when it was stored, not when the blood was drawn. Discharge summaries and
diagnosis codes are written after the stay and are never an input.

Three hundred million chart events do not fit in memory. Each large table is streamed once, and what
belongs to a stay is kept in a temporary folder (`TMPDIR`), some hundred stays to a part; then the
records are made part by part.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import polars.selectors as cs

from model.cohorts import LANDMARKS_HOURS, DataError, DataMissing, Outcomes, Record
from model.cohorts.labels import diseases_of
from model.cohorts.tables import FAULTS, check_columns, first_fault
from schemas.features import FeatureSpec
from schemas.payload import as_payload
from schemas.variables import load_spellings, load_treatments, load_variables

log = logging.getLogger(__name__)

SOURCE = (
    "MIMIC-IV (PhysioNet); the demo 2.2 (doi:10.13026/07hj-2a80) under the Open Database License "
    "1.0 (ODbL), the whole under the PhysioNet credentialed data use agreement"
)
_WINDOW = pl.duration(hours=FeatureSpec.model_fields["window_hours"].default)
_YEAR = pl.duration(days=365)  # how long a height or a weight from a clinic is believed
_STAYS_AT_ONCE = 500
_DEEPEST = 4  # data/physionet.org/files/mimiciv/3.1/

ID, NUMBER, TEXT, DATE, TIME = pl.Int64(), pl.Float64(), pl.String(), pl.Date(), pl.Datetime("us")
UTC = pl.Datetime("us", "UTC")
MOMENT = ("stay_id", "landmark")

_TABLES = (
    "hosp/admissions",
    "hosp/diagnoses_icd",
    "hosp/labevents",
    "hosp/omr",
    "hosp/patients",
    "hosp/prescriptions",
    "hosp/transfers",
    "icu/icustays",
    "icu/outputevents",
    "icu/procedureevents",
)
_TABLES_IN_MEDS = ("icu/chartevents", "icu/inputevents")

# What is kept of each kind of event, per stay. `known`: from when on it could be known.
_KEPT = {
    "observations": {
        "stay_id": ID,
        "variable": TEXT,
        "unit": TEXT,
        "value": NUMBER,
        "time": UTC,
        "known": UTC,
        "itemid": ID,
        "uom": TEXT,
    },
    "treatments": {
        "stay_id": ID,
        "name": TEXT,
        "time": UTC,
        "end": UTC,
        "rate": NUMBER,
        "unit": TEXT,
    },
    "notes": {"stay_id": ID, "time": UTC, "known": UTC, "text": TEXT},
    "images": {"stay_id": ID, "time": UTC, "path": TEXT, "view": TEXT},
}

_UNIT_TYPES = {
    "Medical Intensive Care Unit (MICU)": "medical_icu",
    "Surgical Intensive Care Unit (SICU)": "surgical_icu",
    "Medical/Surgical Intensive Care Unit (MICU/SICU)": "mixed_icu",
    "Coronary Care Unit (CCU)": "cardiac_icu",
    "Cardiac Vascular Intensive Care Unit (CVICU)": "cardiac_surgery_icu",
    "Neuro Surgical Intensive Care Unit (Neuro SICU)": "neuro_icu",
    "Neuro Intermediate": "neuro_icu",
    "Neuro Stepdown": "neuro_icu",
    "Trauma SICU (TSICU)": "trauma_icu",
}

_ADMITTED_FROM = {
    "EMERGENCY ROOM": "emergency",
    "PACU": "operating_room",
    "PROCEDURE SITE": "operating_room",
    "AMBULATORY SURGERY TRANSFER": "operating_room",
    "INTERNAL TRANSFER TO OR FROM PSYCH": "ward",
    "TRANSFER FROM HOSPITAL": "other_hospital",
    "TRANSFER FROM SKILLED NURSING FACILITY": "direct",
    "PHYSICIAN REFERRAL": "direct",
    "CLINIC REFERRAL": "direct",
    "WALK-IN/SELF REFERRAL": "direct",
}

# What is not here (hospice, against advice, none) means another thing than the classes do.
_DISPOSITIONS = {
    "HOME": "home",
    "HOME HEALTH CARE": "home",
    "SKILLED NURSING FACILITY": "post_acute",
    "CHRONIC/LONG TERM ACUTE CARE": "post_acute",
    "REHAB": "post_acute",
    "ACUTE HOSPITAL": "other_facility",
    "PSYCH FACILITY": "other_facility",
    "DIED": "died",
}

# How `race` begins, and the group. Anything else, and what nobody knows, is the rest.
_ETHNICITY = {
    "WHITE": "White",
    "PORTUGUESE": "White",
    "BLACK": "Black",
    "HISPANIC": "Hispanic",
    "SOUTH AMERICAN": "Hispanic",
    "ASIAN": "Asian",
    "AMERICAN INDIAN": "Native American",
}
_OTHER_ETHNICITY = "other or unknown"

# Height is no variable of the model but part of the tabular input.
_HEIGHT = "height"
_HEIGHT_ITEMS = {226730: ("cm", "cm"), 226707: ("Inch", "[in_i]")}
_CENTIMETRES = {"cm": 1.0, "[in_i]": 2.54}

# "units" is what MIMIC writes where there is none (pH).
_NO_UNIT = ("", "UNK", "units")

_FIRST_ICU_ITEM = 220_000


def read(data: Path) -> Iterator[Record]:
    """Each stay in intensive care at each landmark at which the patient is still in the unit.

    Raises DataMissing for files that are not there, DataError for one that is damaged.
    """
    source = _Source(data)
    try:
        yield from _records(source)
    except FAULTS as error:
        # polars does not tell in which of the tables, and quotes values.
        if fault := first_fault(source.scanned):
            raise fault from None
        raise DataError(f"{data} cannot be read: {type(error).__name__}") from None


def _records(source: "_Source") -> Iterator[Record]:
    stays = _stays(source)
    moments = _moments(stays)
    contradicting: Counter[tuple[int, str]] = Counter()
    with TemporaryDirectory(prefix="m3h-mimic-iv-") as folder:
        kept = Path(folder)
        _keep(source, stays, kept)
        for chunk, rows in moments.group_by("chunk", maintain_order=True):
            parts = {kind: _part(kept / kind, str(chunk[0]), kind) for kind in _KEPT}
            contradicting += _contradicting(parts["observations"])
            for row in _with_inputs(rows, parts).iter_rows(named=True):
                yield _record(row)
    if contradicting:
        detail = ", ".join(f"{n} of item {i} in {u}" for (i, u), n in contradicting.most_common())
        log.warning("dropped for a unit that contradicts the declared one: %s", detail)


class _Source:
    """Where the tables lie. Raises DataMissing for all that are not there."""

    def __init__(self, data: Path) -> None:
        self.data = data
        # The tables that were scanned, for when one of them turns out to be damaged.
        self.scanned: dict[Path, Mapping[str, pl.DataType]] = {}
        stays = self.find("icu/icustays.csv.gz", "icu/icustays.csv")
        if stays is None:
            raise DataMissing(f"MIMIC-IV: no icu/icustays.csv.gz in {data} or below")
        self.root = stays.parents[1]
        # The demo's MEDS edition must never stand in for what the full database lacks.
        demo = (self.root / "demo_subject_id.csv").exists()
        self._meds = self.find("mimic-iv*meds*/*.parquet") if demo else None
        missing = [table for table in _TABLES if not self.has(table)]
        if self._meds is None:
            missing += [table for table in _TABLES_IN_MEDS if not self.has(table)]
        if missing:
            names = ", ".join(f"{table}.csv.gz" for table in missing)
            instead = f", nor mimic-iv-demo-meds-*/*.parquet in {data} or below" if demo else ""
            raise DataMissing(f"MIMIC-IV: no {names} in {self.root}{instead}")

    def find(self, *names: str) -> Path | None:
        """The last match of the least depth: of two releases side by side, the newer one."""
        for depth in range(_DEEPEST + 1):
            for name in names:
                if found := sorted(self.data.glob("*/" * depth + name)):
                    return found[-1]
        return None

    def has(self, table: str) -> bool:
        return self._path(table).exists()

    def scan(self, table: str, columns: Mapping[str, pl.DataType]) -> pl.LazyFrame:
        """The named columns of a table of `hosp` or `icu`."""
        return self.scan_file(self._path(table), columns)

    def scan_file(self, path: Path, columns: Mapping[str, pl.DataType]) -> pl.LazyFrame:
        """The named columns of a table. Raises DataError if it has others."""
        check_columns(path, columns)
        self.scanned[path] = columns
        table = pl.scan_csv(path, infer_schema=False, schema_overrides=columns).select(*columns)
        return table.with_columns(cs.datetime().dt.replace_time_zone("UTC"))

    def meds(self) -> pl.LazyFrame:
        """The events of the demo's MEDS edition. It does not say when an event was stored."""
        assert self._meds is not None
        columns = {"subject_id": ID, "code": TEXT, "time": TIME, "value": NUMBER}
        self.scanned |= dict.fromkeys(self._meds.parent.glob("*.parquet"), columns)
        part = pl.col("code").str.split("//").list
        return pl.scan_parquet(self._meds.parent / "*.parquet").select(
            "subject_id",
            pl.col("value").cast(NUMBER),
            pl.col("time").cast(TIME).dt.replace_time_zone("UTC"),
            kind=part.get(0),
            itemid=part.get(1, null_on_oob=True).cast(ID, strict=False),
            uom=part.get(2, null_on_oob=True),
        )

    def _path(self, table: str) -> Path:
        packed = self.root / f"{table}.csv.gz"
        return packed if packed.exists() else self.root / f"{table}.csv"


# --- Stays


def _stays(source: _Source) -> pl.DataFrame:
    """One row for each stay that reaches the first landmark, with all that is known of it."""
    first, last = LANDMARKS_HOURS[0], LANDMARKS_HOURS[-1]
    stays = source.scan(
        "icu/icustays",
        {
            "subject_id": ID,
            "hadm_id": ID,
            "stay_id": ID,
            "first_careunit": TEXT,
            "intime": TIME,
            "outtime": TIME,
        },
    )
    admissions = source.scan(
        "hosp/admissions",
        {
            "hadm_id": ID,
            "dischtime": TIME,
            "deathtime": TIME,
            "admission_type": TEXT,
            "admission_location": TEXT,
            "discharge_location": TEXT,
            "hospital_expire_flag": TEXT,
            "race": TEXT,
        },
    )
    patients = source.scan(
        "hosp/patients",
        {
            "subject_id": ID,
            "gender": TEXT,
            "anchor_age": NUMBER,
            "anchor_year": NUMBER,
            "anchor_year_group": TEXT,
        },
    )
    # Now and then the dead are signed out of the unit hours later: nothing is predicted for them.
    here_until = pl.min_horizontal("outtime", "deathtime")
    stayed = (
        stays.join(admissions, on="hadm_id")
        .join(patients, on="subject_id")
        .filter(pl.col("outtime").is_not_null())
        .with_columns(here_until=here_until)
        .filter(pl.col("here_until") >= pl.col("intime") + pl.duration(hours=first))
        .sort("subject_id", "intime", "stay_id")
        .with_row_index("chunk")
        .collect(engine="streaming")
    )
    age = pl.col("anchor_age") + pl.col("intime").dt.year() - pl.col("anchor_year")
    return (
        stayed.join(_unit_before(source, stayed), on="stay_id", how="left")
        .join(_codes(source, stayed), on="hadm_id", how="left", maintain_order="left")
        .with_columns(
            chunk=pl.col("chunk") // _STAYS_AT_ONCE,
            since=pl.col("intime") + pl.duration(hours=first) - _WINDOW,
            until=pl.min_horizontal("here_until", pl.col("intime") + pl.duration(hours=last)),
            age=age.clip(upper_bound=91),  # the oldest are one group, for privacy
            sex=pl.col("gender").replace_strict({"F": "female", "M": "male"}, default=None),
            admission_source=_admission_source(),
            unit_type=pl.col("first_careunit").replace_strict(_UNIT_TYPES, default=None),
            disposition=pl.col("discharge_location").replace_strict(_DISPOSITIONS, default=None),
        )
    )


def _unit_before(source: _Source, stays: pl.DataFrame) -> pl.DataFrame:
    """Where in the hospital each stay's patient was just before: `stay_id`, `before`."""
    transfers = source.scan("hosp/transfers", {"hadm_id": ID, "careunit": TEXT, "intime": TIME})
    return (
        transfers.drop_nulls()
        .rename({"intime": "moved"})
        .join(stays.lazy().select("hadm_id", "stay_id", "intime"), on="hadm_id")
        .filter(pl.col("moved") < pl.col("intime"))
        .group_by("stay_id")
        .agg(before=pl.col("careunit").sort_by("moved", "careunit").last())
        .collect(engine="streaming")
    )


def _admission_source() -> pl.Expr:
    """The unit before, and for those who came straight in, the door they came through."""
    before = pl.col("before")
    no_place = before.is_in(["Discharge Lounge", "Unknown"])  # a lounge to wait in for surgery
    same_day = pl.col("admission_type") == "SURGICAL SAME DAY ADMISSION"
    return (
        pl.when(before.str.starts_with("Emergency Department"))
        .then(pl.lit("emergency"))
        .when(before == "PACU")
        .then(pl.lit("operating_room"))
        .when(before.str.contains("Intermediate|Stepdown"))
        .then(pl.lit("step_down_unit"))
        .when(before.str.contains("Intensive Care|Coronary Care|ICU"))
        .then(pl.lit("other_icu"))
        .when(before.is_not_null() & ~no_place)
        .then(pl.lit("ward"))
        .when(same_day)
        .then(pl.lit("operating_room"))
        .otherwise(pl.col("admission_location").replace_strict(_ADMITTED_FROM, default=None))
    )


def _codes(source: _Source, stays: pl.DataFrame) -> pl.DataFrame:
    """Diagnosis codes of each hospital stay: `hadm_id`, `codes`.

    Codes are told apart by their first letter afterwards, so the external causes go, which no task
    uses: E of ICD-9 would be taken for ICD-10's endocrine chapter, V of ICD-10 for ICD-9.
    """
    version, code = pl.col("icd_version"), pl.col("icd_code")
    external = ((version == 9) & code.str.starts_with("E")) | (
        (version == 10) & code.str.starts_with("V")
    )
    return (
        source.scan("hosp/diagnoses_icd", {"hadm_id": ID, "icd_code": TEXT, "icd_version": ID})
        .join(stays.lazy().select("hadm_id").unique(), on="hadm_id", how="semi")
        .group_by("hadm_id")
        .agg(codes=code.filter(~external))
        .collect(engine="streaming")
    )


def _moments(stays: pl.DataFrame) -> pl.DataFrame:
    """One row for each record: the stays' columns, `landmark`, `as_of`."""
    landmarks = pl.DataFrame({"landmark": LANDMARKS_HOURS}, schema={"landmark": ID})
    return (
        stays.join(landmarks, how="cross", maintain_order="left_right")
        .with_columns(as_of=pl.col("intime") + pl.duration(hours="landmark"))
        .filter(pl.col("as_of") <= pl.col("here_until"))
    )


# --- From the tables to the stays' parts


def _keep(source: _Source, stays: pl.DataFrame, folder: Path) -> None:
    """Stream each table once and write what belongs to a stay, by kind and part."""
    spans = stays.select("subject_id", "stay_id", "chunk", "since", "until")
    before = spans.with_columns(since=pl.col("since") - _YEAR)
    tables = [
        *(("observations", spans, table, "time") for table in _observations(source)),
        ("observations", before, _clinic(source), "time"),
        *(("treatments", spans, table, "end") for table in _treatments(source)),
        *(("notes", spans, table, "time") for table in _radiology(source)),
        *(("images", spans, table, "time") for table in _images(source)),
    ]
    for number, (kind, span, events, last) in enumerate(tables):
        of_stays = events.join(span.lazy(), on="subject_id").filter(
            pl.col("time") <= pl.col("until"), pl.col(last) > pl.col("since")
        )
        of_stays.select(*_KEPT[kind], "chunk").sink_parquet(
            pl.PartitionBy(folder / kind / str(number), key="chunk", include_key=False),
            mkdir=True,
        )


def _part(folder: Path, chunk: str, kind: str) -> pl.DataFrame:
    paths = sorted(folder.glob(f"*/chunk={chunk}/*.parquet"))
    return pl.read_parquet(paths) if paths else pl.DataFrame(schema=_KEPT[kind])


def _known(*times: str) -> pl.Expr:
    return pl.max_horizontal(*times).alias("known")


def _observations(source: _Source) -> Iterator[pl.LazyFrame]:
    columns = {"subject_id": ID, "itemid": ID, "charttime": TIME, "storetime": TIME}
    for table, value in (
        ("hosp/labevents", "valuenum"),
        ("icu/outputevents", "value"),
        ("icu/chartevents", "valuenum"),
    ):
        if table == "icu/chartevents" and not source.has(table):
            # MEDS holds the laboratory's results too, under lower item ids.
            events = source.meds().filter(
                pl.col("kind") == "LAB", pl.col("itemid") >= _FIRST_ICU_ITEM
            )
            yield _declared(events.with_columns(known="time"))
        else:
            events = source.scan(table, columns | {value: NUMBER, "valueuom": TEXT})
            yield _declared(
                events.with_columns(_known("charttime", "storetime")).rename(
                    {"charttime": "time", value: "value", "valueuom": "uom"}
                )
            )


def _declared(events: pl.LazyFrame) -> pl.LazyFrame:
    """Events of the declared items, with variable and unit: the row's own unit, if the variable
    takes it; else none (the row will be dropped and counted).
    """
    units, items = _accepted_units()
    uom = pl.col("uom").str.strip_chars().fill_null("")
    return (
        events.filter(pl.col("itemid").is_in(items), pl.col("value").is_not_null())
        .with_columns(uom=pl.when(uom.is_in(_NO_UNIT)).then(pl.lit("")).otherwise(uom))
        .join(units.lazy(), on=["itemid", "uom"], how="left")
    )


def _accepted_units() -> tuple[pl.DataFrame, list[int]]:
    """`itemid`, `uom` as it may be spelled, `variable`, `unit` in UCUM; and the item ids."""
    spellings = load_spellings()
    rows = []
    for variable in load_variables():
        taken = {s: u for s, u in spellings.items() if u in variable.accepted}
        taken |= {unit: unit for unit in variable.accepted}
        for item, declared in variable.mimic_iv.items():
            unit = spellings.get(declared, declared)
            rows += [(item, spelled, variable.name, u) for spelled, u in taken.items()]
            rows += [(item, "", variable.name, unit)]
    for item, (spelled, unit) in _HEIGHT_ITEMS.items():
        rows += [(item, spelled, _HEIGHT, unit), (item, "", _HEIGHT, unit)]
    schema = {"itemid": ID, "uom": TEXT, "variable": TEXT, "unit": TEXT}
    units = pl.DataFrame(rows, schema=schema, orient="row")
    return units, units["itemid"].unique().to_list()


def _clinic(source: _Source) -> pl.LazyFrame:
    """Heights and weights from outpatient visits. They have a date only: known the day after."""
    measured = {"Height (Inches)": (_HEIGHT, "[in_i]"), "Weight (Lbs)": ("body_weight", "[lb_av]")}
    name = pl.col("result_name")
    day = pl.col("chartdate").cast(TIME).dt.replace_time_zone("UTC")
    columns = {"subject_id": ID, "chartdate": DATE, "result_name": TEXT, "result_value": TEXT}
    return (
        source.scan("hosp/omr", columns)
        .filter(name.is_in(list(measured)))
        .select(
            "subject_id",
            variable=name.replace_strict({k: v for k, (v, _) in measured.items()}),
            unit=name.replace_strict({k: u for k, (_, u) in measured.items()}),
            value=pl.col("result_value").cast(NUMBER, strict=False),
            time=day,
            known=day + pl.duration(days=1),
            itemid=pl.lit(None, ID),
            uom=pl.lit(None, TEXT),
        )
        .drop_nulls("value")
    )


def _treatments(source: _Source) -> Iterator[pl.LazyFrame]:
    names = pl.LazyFrame(
        [(item, t.name) for t in load_treatments() for item in t.mimic_iv],
        schema={"itemid": ID, "name": TEXT},
        orient="row",
    )
    # Known from its start on: what is stored last of an infusion or a procedure is its end.
    charted = {"subject_id": ID, "itemid": ID, "starttime": TIME, "endtime": TIME}
    spelled = {"starttime": "time", "endtime": "end"}
    if source.has("icu/inputevents"):
        rates = charted | {"rate": NUMBER, "rateuom": TEXT}
        infusions = source.scan("icu/inputevents", rates).rename(spelled)
    else:
        infusions = _infusions(source.meds())
    # A rate that the model cannot take is left out; that the drug runs is known all the same.
    rate = pl.when(pl.col("unit").is_not_null()).then(pl.col("rate"))
    yield (
        infusions.join(names, on="itemid")
        .with_columns(pl.col("rateuom").str.strip_chars())
        .join(_accepted_rates(), on=["name", "rateuom"], how="left")
        .with_columns(rate=rate)
    )
    no_rate = {"rate": pl.lit(None, NUMBER), "unit": pl.lit(None, TEXT)}
    procedures = source.scan("icu/procedureevents", charted).rename(spelled)
    yield procedures.join(names, on="itemid").with_columns(**no_rate)
    yield _prescriptions(source).with_columns(**no_rate)


def _accepted_rates() -> pl.LazyFrame:
    """`name` of a treatment, `rateuom` as it may be spelled, `unit` in UCUM."""
    spellings = load_spellings()
    rows = [
        (treatment.name, spelled, unit)
        for treatment in load_treatments()
        for spelled, unit in (spellings | {u: u for u in treatment.accepted}).items()
        if unit in treatment.accepted
    ]
    return pl.LazyFrame(rows, schema={"name": TEXT, "rateuom": TEXT, "unit": TEXT}, orient="row")


def _infusions(events: pl.LazyFrame) -> pl.LazyFrame:
    """Starts and ends of MEDS, paired: the first start of an item with its first end, and so on.

    Where infusions of one item overlap, this may pair others than the chart does; how many run at
    any moment is the same. MEDS says a rate's number without its unit, so rates are not used.
    """
    same = ["subject_id", "itemid"]

    def numbered(kind: str, name: str) -> pl.LazyFrame:
        return (
            events.filter(pl.col("kind") == kind)
            .select(*same, pl.col("time").alias(name))
            .sort(*same, name)
            .with_columns(number=pl.int_range(pl.len()).over(same))
        )

    return (
        numbered("INFUSION_START", "time")
        .join(numbered("INFUSION_END", "end"), on=[*same, "number"])
        .with_columns(rate=pl.lit(None, NUMBER), rateuom=pl.lit(None, TEXT))
    )


def _prescriptions(source: _Source) -> pl.LazyFrame:
    """Orders, by the name of the drug, in whole hours. One that stops before it starts was
    never given.

    An order for a drip is a permission that stands for days (phenylephrine: ordered for 31 of the
    demo's stays at 24 h, running in 9). Where the unit charts the drip itself, only that counts.
    """
    columns = {"subject_id": ID, "starttime": TIME, "stoptime": TIME, "drug": TEXT, "route": TEXT}
    orders = source.scan("hosp/prescriptions", columns)
    drugs = orders.select("drug").unique().drop_nulls().collect(engine="streaming")["drug"]
    names = [
        (drug, treatment.name, bool(treatment.mimic_iv))
        for treatment in load_treatments()
        for drug in drugs
        if re.search(treatment.pattern, drug, re.IGNORECASE)
    ]
    named = pl.LazyFrame(
        names, schema={"drug": TEXT, "name": TEXT, "charted": pl.Boolean()}, orient="row"
    )
    drip = pl.col("route").eq_missing("IV DRIP")
    return (
        orders.filter(pl.col("stoptime") >= pl.col("starttime"))
        .join(named, on="drug")
        .filter(~(pl.col("charted") & drip))
        .rename({"starttime": "time", "stoptime": "end"})
    )


def _radiology(source: _Source) -> Iterator[pl.LazyFrame]:
    """Reports of MIMIC-IV-Note, where a user has them: known when they were stored."""
    path = source.find("note/radiology.csv.gz", "note/radiology.csv")
    if path is not None:
        columns = {"subject_id": ID, "charttime": TIME, "storetime": TIME, "text": TEXT}
        yield (
            source.scan_file(path, columns)
            .filter(pl.col("text").str.strip_chars() != "")
            .with_columns(_known("charttime", "storetime"))
            .rename({"charttime": "time"})
        )


def _images(source: _Source) -> Iterator[pl.LazyFrame]:
    """Frontal X-rays of MIMIC-CXR-JPG, where a user has them. A lateral view, often the last of a
    study, is another picture: the model looks at the latest that it is given.
    """
    name = "mimic-cxr-2.0.0-metadata.csv"
    path = source.find(f"{name}.gz", name)
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
    # The time of day comes as 93014.531, without its leading zero.
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
        source.scan_file(path, columns)
        .filter(pl.col("ViewPosition").is_in(["AP", "PA"]))
        .select("subject_id", path=file, view="ViewPosition", time=time)
    )


# --- From the parts to the records


def _contradicting(observed: pl.DataFrame) -> Counter[tuple[int, str]]:
    rows = observed.filter(pl.col("unit").is_null()).group_by("itemid", "uom").len()
    return Counter({(item, uom): count for item, uom, count in rows.iter_rows()})


def _with_inputs(moments: pl.DataFrame, parts: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The moments with what was known at each: lists of structs, as a payload has them."""
    at = moments.select(*MOMENT, "as_of")
    known = {
        kind: part.join(at, on="stay_id").filter(
            pl.col("known" if "known" in part.columns else "time") <= pl.col("as_of")
        )
        for kind, part in parts.items()
    }
    recent = pl.col("time") > pl.col("as_of") - _WINDOW
    inputs = [
        _body(known["observations"]),
        _series(known["observations"].filter(recent)),
        _given(known["treatments"]),
        _notes(known["notes"].filter(recent)),
        known["images"]
        .filter(recent)
        .group_by(MOMENT)
        .agg(image=pl.struct("path", "view", "time").sort_by("time", "path").last()),
    ]
    for table in inputs:
        moments = moments.join(table, on=MOMENT, how="left", maintain_order="left")
    return moments


def _body(observed: pl.DataFrame) -> pl.DataFrame:
    """The last height and weight before each moment."""
    weight = next(v for v in load_variables() if v.name == "body_weight")
    kilograms = {weight.unit: 1.0} | {unit: factor for unit, (factor, _) in weight.units.items()}
    canonical = pl.col("value") * pl.col("unit").replace_strict(
        _CENTIMETRES | kilograms, default=None, return_dtype=NUMBER
    )
    variable = pl.col("variable")
    return (
        observed.filter(variable.is_in([_HEIGHT, weight.name]))
        .sort("time", "unit", "value")
        .group_by(MOMENT)
        .agg(
            height_cm=canonical.filter(variable == _HEIGHT).last(),
            weight_kg=canonical.filter(variable == weight.name).last(),
        )
    )


def _series(observed: pl.DataFrame) -> pl.DataFrame:
    adds_up = pl.col("variable").is_in([v.name for v in load_variables() if v.aggregate == "sum"])
    usable = observed.filter(pl.col("unit").is_not_null(), pl.col("variable") != _HEIGHT)
    levels = usable.filter(~adds_up).select(*MOMENT, "variable", "unit", "time", "value")
    # Two catheters charted at one time are one amount; equal values would count once otherwise.
    amounts = usable.filter(adds_up).group_by(*MOMENT, "variable", "unit", "time")
    return (
        pl.concat([levels, amounts.agg(pl.col("value").sum())])
        .sort("variable", "unit", "time", "value")
        .group_by(*MOMENT, "variable", "unit", maintain_order=True)
        .agg(times="time", values="value")
        .group_by(MOMENT, maintain_order=True)
        .agg(series=pl.struct("variable", "unit", "times", "values"))
    )


def _given(treatments: pl.DataFrame) -> pl.DataFrame:
    """Treatments that were running within the window; what still runs has no end yet."""
    end, as_of = pl.col("end"), pl.col("as_of")
    return (
        treatments.filter(end > as_of - _WINDOW)
        .with_columns(end=pl.when(end <= as_of).then(end), start="time")
        .unique()
        .sort("start", "name", "end", "rate")
        .group_by(MOMENT, maintain_order=True)
        .agg(treatments=pl.struct("name", "start", "end", "rate", "unit"))
    )


def _notes(notes: pl.DataFrame) -> pl.DataFrame:
    return (
        notes.sort("time", "text")
        .group_by(MOMENT, maintain_order=True)
        .agg(notes=pl.struct("time", "text", kind=pl.lit("radiology")))
    )


def _record(row: Mapping[str, Any]) -> Record:
    race = row["race"] or ""
    tabular = ("age", "sex", "height_cm", "weight_kg", "admission_source", "unit_type")
    payload = as_payload(
        {
            "as_of": row["as_of"],
            "tabular": {name: row[name] for name in tabular} | {"admitted_at": row["intime"]},
            "series": row["series"] or [],
            "treatments": row["treatments"] or [],
            "notes": row["notes"] or [],
            "images": _read_image(row["image"]),
        }
    )
    return Record(
        payload=payload,
        outcomes=_outcomes(row),
        patient=str(row["subject_id"]),
        site="mimic_iv",
        stay=str(row["stay_id"]),
        landmark_hours=row["landmark"],
        groups={
            "ethnicity": next(
                (group for start, group in _ETHNICITY.items() if race.startswith(start)),
                _OTHER_ETHNICITY,
            ),
            # Dates are shifted: these are the three years in which the patient's first stays lie.
            "years": row["anchor_year_group"] or "",
        },
    )


def _read_image(image: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The X-ray's bytes; none where the file is not there, as in a partial download."""
    if image is None or not (path := Path(image["path"])).exists():
        return []
    data = path.read_bytes()
    return [
        {"time": image["time"], "view": image["view"], "media_type": "image/jpeg", "data": data}
    ]


def _outcomes(row: Mapping[str, Any]) -> Outcomes:
    outcomes: dict[str, bool | float | str] = {}
    if row["codes"] is not None:
        outcomes |= diseases_of(row["codes"])
    if row["hospital_expire_flag"] is not None:
        outcomes["in_hospital_mortality"] = row["hospital_expire_flag"] == "1"
    if row["dischtime"] is not None and row["dischtime"] > row["as_of"]:
        remaining = row["dischtime"] - row["as_of"]
        outcomes["length_of_stay"] = remaining.total_seconds() / 86400
    if row["disposition"] is not None:
        outcomes["discharge_disposition"] = row["disposition"]
    return outcomes
