"""Vital signs, laboratory results, urine output, heights and weights of MIMIC-IV."""

from collections.abc import Iterator

import polars as pl

from model.cohorts.mimic_iv.database import DATE, TIME, Database
from model.cohorts.stay_events.columns import HEIGHT, ID, NUMBER, TEXT
from schemas.variables import load_spellings, load_variables

HEIGHT_ITEMS = {226730: ("cm", "cm"), 226707: ("Inch", "[in_i]")}

# MIMIC-IV writes "units" for a quantity without a unit (pH).
NO_UNIT = ("", "UNK", "units")

_FIRST_ICU_ITEM = 220_000


def stored_time(*times: str) -> pl.Expr:
    """`known`: the latest of the times, which is when an event was charted and stored."""
    return pl.max_horizontal(*times).alias("known")


def observations(database: Database) -> Iterator[pl.LazyFrame]:
    """The laboratory's, output and chart events of declared items, one frame for each table."""
    columns = {"subject_id": ID, "itemid": ID, "charttime": TIME, "storetime": TIME}
    for table, value in (
        ("hosp/labevents", "valuenum"),
        ("icu/outputevents", "value"),
        ("icu/chartevents", "valuenum"),
    ):
        if table == "icu/chartevents" and not database.has(table):
            # MEDS also holds the laboratory's results, under lower item ids.
            events = database.scan_meds().filter(
                pl.col("kind") == "LAB", pl.col("itemid") >= _FIRST_ICU_ITEM
            )
            yield _of_declared_items(events.with_columns(known="time"))
        else:
            events = database.scan(table, columns | {value: NUMBER, "valueuom": TEXT})
            yield _of_declared_items(
                events.with_columns(stored_time("charttime", "storetime")).rename(
                    {"charttime": "time", value: "value", "valueuom": "uom"}
                )
            )


def _of_declared_items(events: pl.LazyFrame) -> pl.LazyFrame:
    """Events of the declared items, with `variable` and `unit`.

    The unit is the row's own if the variable accepts it. Otherwise it is null, and the row is
    counted and dropped later.
    """
    units, items = _accepted_units()
    uom = pl.col("uom").str.strip_chars().fill_null("")
    return (
        events.filter(pl.col("itemid").is_in(items), pl.col("value").is_not_null())
        .with_columns(
            uom=pl.when(uom.is_in(NO_UNIT)).then(pl.lit("")).otherwise(uom),
            code=pl.format("item {}", "itemid"),
        )
        .join(units.lazy(), on=["itemid", "uom"], how="left")
    )


def _accepted_units() -> tuple[pl.DataFrame, list[int]]:
    """`itemid`, `uom` in each accepted spelling, `variable`, `unit` in UCUM; and the item ids."""
    spellings = load_spellings()
    rows = []
    for variable in load_variables():
        accepted = {s: u for s, u in spellings.items() if u in variable.accepted_units}
        accepted |= {unit: unit for unit in variable.accepted_units}
        for item, declared in variable.mimic_iv.items():
            unit = spellings.get(declared, declared)
            rows += [(item, spelled, variable.name, u) for spelled, u in accepted.items()]
            rows += [(item, "", variable.name, unit)]
    for item, (spelled, unit) in HEIGHT_ITEMS.items():
        rows += [(item, spelled, HEIGHT, unit), (item, "", HEIGHT, unit)]
    schema = {"itemid": ID, "uom": TEXT, "variable": TEXT, "unit": TEXT}
    units = pl.DataFrame(rows, schema=schema, orient="row")
    return units, units["itemid"].unique().to_list()


def clinic_measurements(database: Database) -> pl.LazyFrame:
    """Heights and weights from outpatient visits.

    The table holds a date without a time: a value is known from the next day on.
    """
    measured = {"Height (Inches)": (HEIGHT, "[in_i]"), "Weight (Lbs)": ("body_weight", "[lb_av]")}
    name = pl.col("result_name")
    day = pl.col("chartdate").cast(TIME).dt.replace_time_zone("UTC")
    columns = {"subject_id": ID, "chartdate": DATE, "result_name": TEXT, "result_value": TEXT}
    return (
        database.scan("hosp/omr", columns)
        .filter(name.is_in(list(measured)))
        .select(
            "subject_id",
            variable=name.replace_strict({k: v for k, (v, _) in measured.items()}),
            unit=name.replace_strict({k: u for k, (_, u) in measured.items()}),
            value=pl.col("result_value").cast(NUMBER, strict=False),
            time=day,
            known=day + pl.duration(days=1),
            code=pl.lit(None, TEXT),
            uom=pl.lit(None, TEXT),
        )
        .drop_nulls("value")
    )
