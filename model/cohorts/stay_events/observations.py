"""Observations of declared variables, in units that the variables accept."""

from collections.abc import Iterable, Iterator
from functools import cache

import polars as pl

from model.cohorts.stay_events.columns import HEIGHT, NUMBER, TEXT
from model.cohorts.stay_events.moments import BODY_SIZE_VALIDITY, time_spans
from model.cohorts.stay_events.partitions import EventTable
from schemas.features import FeatureSpec
from schemas.terminology.height import HEIGHT_CODES, centimetres

_BODY_SIZE = (HEIGHT, "body_weight")
_MEANING = {"name": TEXT, "uom": TEXT, "variable": TEXT, "unit": TEXT, "factor": NUMBER}


def meanings(pairs: Iterable[tuple[str, str | None]]) -> pl.DataFrame:
    """What pairs of a name and a unit, both as spelled, mean.

    `name`: of a variable, or `loinc:CODE`. Pairs that name no variable are left out. A null `unit`
    is not accepted. Value in `unit` = `factor` * value.
    """
    rows = [row for pair in pairs if (row := _meaning(*pair)) is not None]
    return pl.DataFrame(rows, schema=_MEANING, orient="row")


def _meaning(name: str, uom: str | None) -> tuple[str, str | None, str, str | None, float] | None:
    if name == HEIGHT or name.removeprefix("loinc:") in HEIGHT_CODES:
        factor = centimetres(uom)
        return name, uom, HEIGHT, None if factor is None else "cm", factor or 1.0
    spec = _default_spec()
    index, conversion = spec.look_up(name, uom)
    if index is None:
        return None
    unit = None if conversion is None else conversion.unit
    return name, uom, spec.variables[index].name, unit, 1.0


@cache
def _default_spec() -> FeatureSpec:
    return FeatureSpec.default()


def observation_tables(moments: pl.DataFrame, observed: pl.LazyFrame) -> Iterator[EventTable]:
    """The tables of observations.

    `observed`: `subject_id`, `variable`, `unit`, `factor`, `value`, `time`, `known`, `code`, `uom`.
    A height or weight also counts if it was measured in the year before.
    """
    values = observed.filter(pl.col("value").is_finite()).with_columns(
        value=pl.col("value") * pl.col("factor")
    )
    is_size = pl.col("variable").is_in(_BODY_SIZE)
    spans = time_spans(moments)
    yield EventTable("observations", spans, values.filter(~is_size))
    longer = spans.with_columns(since=pl.col("since") - BODY_SIZE_VALIDITY)
    yield EventTable("observations", longer, values.filter(is_size))
