"""The inputs known at each landmark, as lists of structs in a payload's layout."""

from collections.abc import Mapping

import polars as pl

from model.cohorts.stay_events.columns import HEIGHT, NUMBER
from model.cohorts.stay_events.moments import MOMENT, WINDOW
from schemas.variables import load_variables

_CENTIMETRES = {"cm": 1.0, "[in_i]": 2.54}


def with_inputs(moments: pl.DataFrame, events: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The landmarks with `height_cm`, `weight_kg`, `series`, `treatments`, `notes` and `image`."""
    as_of = moments.select(*MOMENT)
    known = {
        kind: rows.join(as_of, on="stay_id").filter(
            pl.col("known" if "known" in rows.columns else "time") <= pl.col("as_of")
        )
        for kind, rows in events.items()
    }
    recent = pl.col("time") > pl.col("as_of") - WINDOW
    inputs = [
        _body_size(known["observations"]),
        _series(known["observations"].filter(recent)),
        _treatments(known["treatments"]),
        _notes(known["notes"].filter(recent)),
        known["images"]
        .filter(recent)
        .group_by(MOMENT)
        .agg(image=pl.struct("path", "view", "time").sort_by("time", "path").last()),
    ]
    for table in inputs:
        moments = moments.join(table, on=MOMENT, how="left", maintain_order="left")
    return moments


def _body_size(observations: pl.DataFrame) -> pl.DataFrame:
    """The last height and weight before each landmark."""
    weight = next(v for v in load_variables() if v.name == "body_weight")
    kilograms = {weight.unit: 1.0} | {unit: factor for unit, (factor, _) in weight.units.items()}
    canonical = pl.col("value") * pl.col("unit").replace_strict(
        _CENTIMETRES | kilograms, default=None, return_dtype=NUMBER
    )
    variable = pl.col("variable")
    return (
        observations.filter(variable.is_in([HEIGHT, weight.name]))
        .sort("time", "unit", "value")
        .group_by(MOMENT)
        .agg(
            height_cm=canonical.filter(variable == HEIGHT).last(),
            weight_kg=canonical.filter(variable == weight.name).last(),
        )
    )


def _series(observations: pl.DataFrame) -> pl.DataFrame:
    summed = pl.col("variable").is_in([v.name for v in load_variables() if v.aggregate == "sum"])
    usable = observations.filter(pl.col("unit").is_not_null(), pl.col("variable") != HEIGHT)
    levels = usable.filter(~summed).select(*MOMENT, "variable", "unit", "time", "value")
    # Two catheters charted at one time are one amount; otherwise equal values would count once.
    amounts = usable.filter(summed).group_by(*MOMENT, "variable", "unit", "time")
    return (
        pl.concat([levels, amounts.agg(pl.col("value").sum())])
        .sort("variable", "unit", "time", "value")
        .group_by(*MOMENT, "variable", "unit", maintain_order=True)
        .agg(times="time", values="value")
        .group_by(MOMENT, maintain_order=True)
        .agg(series=pl.struct("variable", "unit", "times", "values"))
    )


def _treatments(treatments: pl.DataFrame) -> pl.DataFrame:
    """Treatments that ran within the window. A treatment that still runs has no end."""
    end, as_of = pl.col("end"), pl.col("as_of")
    return (
        treatments.filter(end > as_of - WINDOW)
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
        .agg(notes=pl.struct("time", "text", "kind"))
    )
