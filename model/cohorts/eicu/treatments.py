"""Orders and infusions of eICU."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import polars as pl

from model.cohorts.eicu.database import Clock, Database
from schemas.variables import load_spellings, load_treatments

# An infusion is charted about once an hour. After this time without a charting it counts as ended.
INFUSION_CHARTED_WITHIN_MINUTES = 120


def _with_treatment_names(frame: pl.DataFrame, text: str) -> pl.DataFrame:
    """The rows whose `text` matches a treatment, with its `name`; one row for each match."""
    distinct = frame.select(pl.col(text).unique()).drop_nulls()
    names = pl.concat(
        distinct.filter(pl.col(text).str.contains(f"(?i){treatment.pattern}")).with_columns(
            name=pl.lit(treatment.name)
        )
        for treatment in load_treatments()
    )
    return frame.join(names, on=text)


def orders_table(database: Database) -> pl.DataFrame:
    """[stay, known, name, start, stop] of ordered and performed treatments.

    `known` is the minute from which the row was known; `stop` is null if it is not known. A row of
    the table `treatment` has a single time.

    A cancelled order counts as ordered: the table does not say when an order was cancelled, so the
    flag may come from the future of a landmark.
    """
    performed = database.read("treatment", text=("treatmentstring",), minutes=("treatmentoffset",))
    ordered = database.read(
        "medication",
        text=("drugname", "drughiclseqno", "prn"),
        minutes=("drugorderoffset", "drugstartoffset", "drugstopoffset"),
    )
    treatments = _with_treatment_names(performed, "treatmentstring").select(
        "stay", "name", start="treatmentoffset", stop="treatmentoffset", known="treatmentoffset"
    )
    # Some hospitals give only the HICL code of the ingredients; other hospitals name the same code.
    same_ingredients = pl.col("drugname").drop_nulls().mode().min().over("drughiclseqno")
    name = pl.when(pl.col("drughiclseqno").is_not_null()).then(
        pl.col("drugname").fill_null(same_ingredients)
    )
    medication = (
        _with_treatment_names(ordered.with_columns(drugname=name.otherwise("drugname")), "drugname")
        # An order "as needed" does not mean that the drug is given.
        .filter(prn="No")
        .with_columns(stop=pl.col("drugstopoffset").replace(0, None))  # 0: not filled in
        # An order that stops before its start was never given.
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
    return (
        pl.concat([treatments.select(columns), medication.select(columns)]).unique().sort(columns)
    )


def orders_until(
    now: int, clock: Clock, orders: Iterable[tuple[Any, ...]]
) -> Iterator[dict[str, Any]]:
    """The orders of a stay as a payload has them, up to the minute `now`."""
    for known, name, start, stop in orders:
        if known <= now:
            running = stop is None or stop > now
            yield {"name": name, "start": clock(start), "end": None if running else clock(stop)}


def infusions_table(database: Database) -> pl.DataFrame:
    """[stay, name, unit, minutes, rates], a row for each infusion of a stay, in time order.

    `unit` is null where the treatment does not accept the unit; then only the times are used.
    """
    accepted = {t.name: set(t.accepted_units) for t in load_treatments()}
    spellings = load_spellings()

    def unit(row: dict[str, str]) -> str | None:
        match = re.search(r"\(([^()]+)\)\s*$", row["drugname"])  # "Norepinephrine (mcg/min)"
        ucum = match and spellings.get(match[1].strip(), match[1].strip())
        return ucum if ucum in accepted[row["name"]] else None

    charted = database.read(
        "infusiondrug", text=("drugname",), minutes=("infusionoffset",), numbers=("drugrate",)
    ).drop_nulls()
    named = _with_treatment_names(charted, "drugname")
    return (
        named.with_columns(
            unit=pl.struct("drugname", "name").map_elements(unit, return_dtype=pl.String)
        )
        # Two bags of one drug at the same time: the larger rate, so that an empty bag does not end
        # the infusion.
        .group_by("stay", "name", "drugname", "unit", "infusionoffset")
        .agg(pl.col("drugrate").max())
        .sort("stay", "name", "drugname", "infusionoffset")
        .group_by("stay", "name", "drugname", "unit", maintain_order=True)
        .agg(minutes="infusionoffset", rates="drugrate")
        .drop("drugname")
    )


def infusions_until(
    now: int, clock: Clock, infusions: Iterable[tuple[Any, ...]]
) -> Iterator[dict[str, Any]]:
    """The infusions of a stay as a payload has them, up to the minute `now`.

    Consecutive chartings are one treatment. A treatment that still runs has the latest rate.
    """
    for name, unit, minutes, rates in infusions:
        start: int | None = None
        last, rate = 0, 0.0
        for minute, charted in zip(minutes, rates, strict=True):
            if minute > now:
                break
            lapsed = minute - last > INFUSION_CHARTED_WITHIN_MINUTES
            if start is not None and (lapsed or charted <= 0):
                end = last if lapsed else minute
                yield {"name": name, "start": clock(start), "end": clock(end)}
                start = None
            if charted > 0:
                start = minute if start is None else start
                last, rate = minute, charted
        if start is None:
            continue
        if now - last > INFUSION_CHARTED_WITHIN_MINUTES:
            yield {"name": name, "start": clock(start), "end": clock(last)}
        elif unit is None:
            yield {"name": name, "start": clock(start)}
        else:
            yield {"name": name, "start": clock(start), "rate": rate, "unit": unit}
