"""Infusions, procedures and prescriptions of MIMIC-IV."""

import re
from collections.abc import Iterator

import polars as pl

from model.cohorts.mimic_iv.database import TIME, Database
from model.cohorts.stay_events.columns import ID, NUMBER, TEXT
from model.cohorts.stay_events.courses import pair_courses
from schemas.variables import load_spellings, load_treatments


def treatments(database: Database) -> Iterator[pl.LazyFrame]:
    """Infusions, procedures and prescriptions of declared treatments, one frame for each source.

    A treatment is known from its start: the storage time is that of the last change, which is the
    end of an infusion or procedure.
    """
    names = pl.LazyFrame(
        [(item, t.name) for t in load_treatments() for item in t.mimic_iv],
        schema={"itemid": ID, "name": TEXT},
        orient="row",
    )
    charted = {"subject_id": ID, "itemid": ID, "starttime": TIME, "endtime": TIME}
    new_names = {"starttime": "time", "endtime": "end"}
    if database.has("icu/inputevents"):
        rates = charted | {"rate": NUMBER, "rateuom": TEXT}
        infusions = database.scan("icu/inputevents", rates).rename(new_names)
    else:
        infusions = _infusions_from_meds(database.scan_meds())
    # A rate in a unit that the model does not accept is dropped; the infusion itself stays.
    rate = pl.when(pl.col("unit").is_not_null()).then(pl.col("rate"))
    yield (
        infusions.join(names, on="itemid")
        .with_columns(pl.col("rateuom").str.strip_chars())
        .join(_accepted_rate_units(), on=["name", "rateuom"], how="left")
        .with_columns(rate=rate)
    )
    no_rate = {"rate": pl.lit(None, NUMBER), "unit": pl.lit(None, TEXT)}
    procedures = database.scan("icu/procedureevents", charted).rename(new_names)
    yield procedures.join(names, on="itemid").with_columns(**no_rate)
    yield _prescriptions(database).with_columns(**no_rate)


def _accepted_rate_units() -> pl.LazyFrame:
    """`name` of a treatment, `rateuom` in each accepted spelling, `unit` in UCUM."""
    spellings = load_spellings()
    rows = [
        (treatment.name, spelled, unit)
        for treatment in load_treatments()
        for spelled, unit in (spellings | {u: u for u in treatment.accepted_units}).items()
        if unit in treatment.accepted_units
    ]
    return pl.LazyFrame(rows, schema={"name": TEXT, "rateuom": TEXT, "unit": TEXT}, orient="row")


def _infusions_from_meds(events: pl.LazyFrame) -> pl.LazyFrame:
    """Paired starts and ends. MEDS gives a rate without its unit, so rates are not used."""
    kind = pl.col("kind")
    starts = events.filter(kind == "INFUSION_START")
    ends = events.filter(kind == "INFUSION_END")
    return pair_courses(starts, ends, ["subject_id", "itemid"]).with_columns(
        rate=pl.lit(None, NUMBER), rateuom=pl.lit(None, TEXT)
    )


def _prescriptions(database: Database) -> pl.LazyFrame:
    """Orders by drug name, in whole hours. An order that stops before it starts was never given.

    An order for a drip is a permission that lasts for days (phenylephrine: ordered for 31 of the
    demo's stays at 24 h, running in 9). If the unit charts the infusion itself, only that counts.
    """
    columns = {"subject_id": ID, "starttime": TIME, "stoptime": TIME, "drug": TEXT, "route": TEXT}
    orders = database.scan("hosp/prescriptions", columns)
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
