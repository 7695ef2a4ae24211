"""The series of a request as arrays, with known variables and canonical units."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
import numpy.typing as npt

from schemas.features.input_report import InputReport
from schemas.features.spec import FeatureSpec
from schemas.payload import Payload, Series
from schemas.terminology.units import Conversion
from schemas.variables import Variable, load_rejected_names, normalize_name

Indices = npt.NDArray[np.intp]
Numbers = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Distinct pairs of name and unit that are looked up in one request; one may take a millisecond.
MAX_SPELLINGS = 300
MAX_POINTERS = 100  # of one entry of the receipt
_RUN = 50_000  # times converted in one call, which takes about 10 ms
_UNKNOWN = "the model does not know this variable; see GET /variables"


@dataclass(frozen=True)
class Observations:
    """The series whose variable and unit are known, and their observations.

    Arrays [series]: `number` is the index in the payload, `index` that of the variable, `length`
    the number of observations. Arrays [observations]: `row` is the index into the arrays [series],
    `variable` the index of the variable, `hours` the time before `as_of`, `value` the canonical
    value.
    """

    number: Indices
    index: Indices
    conversions: tuple[Conversion, ...]
    length: Indices
    row: Indices
    variable: Indices
    hours: Numbers
    value: Numbers

    def pointer(self, row: int) -> str:
        """Returns the JSON Pointer to the series with index `row` in the arrays [series]."""
        return f"/series/{self.number[row]}"

    @cached_property
    def pointers(self) -> dict[int, tuple[str, ...]]:
        """By variable index, the pointers to its first MAX_POINTERS series."""
        by_variable: dict[int, list[str]] = {}
        for index, number in zip(self.index.tolist(), self.number.tolist(), strict=True):
            pointers = by_variable.setdefault(index, [])
            if len(pointers) < MAX_POINTERS:
                pointers.append(f"/series/{number}")
        return {index: tuple(pointers) for index, pointers in by_variable.items()}


def read_observations(
    payload: Payload, spec: FeatureSpec, report: InputReport
) -> Observations | None:
    """Reads all series. Returns None if no series has a known variable and a convertible unit."""
    number, index, conversions = _read_series(payload.series, spec, report)
    if not number:
        return None
    given = [payload.series[i] for i in number]
    length = np.array([len(series.values) for series in given], np.intp)
    times = itertools.chain.from_iterable(series.times for series in given)
    value = np.fromiter(itertools.chain.from_iterable(s.values for s in given), np.float64)
    factor = np.array([c.factor for c in conversions])
    offset = np.array([c.offset for c in conversions])
    row = np.repeat(np.arange(len(given)), length)
    indices = np.array(index, np.intp)
    return Observations(
        number=np.array(number, np.intp),
        index=indices,
        conversions=tuple(conversions),
        length=length,
        row=row,
        variable=indices[row],
        hours=(payload.as_of.timestamp() - _seconds(times, int(length.sum()))) / 3600,
        value=value * factor[row] + offset[row],
    )


def _seconds(times: Iterator[datetime], count: int) -> Numbers:
    """Returns the Unix times [count]. Other threads can run between the converted runs."""
    seconds = np.empty(count)
    timestamps = map(datetime.timestamp, times)
    for start in range(0, count, _RUN):
        run = seconds[start : start + _RUN]
        run[:] = np.fromiter(itertools.islice(timestamps, len(run)), np.float64)
    return seconds


def _read_series(
    given: Sequence[Series], spec: FeatureSpec, report: InputReport
) -> tuple[list[int], list[int], list[Conversion]]:
    """Returns payload index, variable index and conversion of each usable series."""
    number: list[int] = []
    index: list[int] = []
    conversions: list[Conversion] = []
    lookups: dict[tuple[str, str | None], tuple[int | None, Conversion | None]] = {}
    for i, series in enumerate(given):
        spelled = (series.variable, series.unit)
        if spelled not in lookups:
            is_limited = len(lookups) >= MAX_SPELLINGS
            lookups[spelled] = _look_up(*spelled, spec, is_limited=is_limited)
        variable, conversion = lookups[spelled]
        if variable is None:
            _report_unknown_variable(i, series, report)
            continue
        known = spec.extended_variables[variable]
        if conversion is None:
            _report_unknown_unit(i, series, known, report)
            continue
        if conversion.unit != known.unit:
            report.add_converted(f"/series/{i}", known.name, conversion.unit, known.unit)
        if series.nulls:
            report.add_ignored(f"/series/{i}/values", "no_value", "null", series.nulls)
        if series.bounds:
            detail = "a bound such as <0.01; its number was used"
            report.add_read_as(f"/series/{i}/values", "the bound", detail, series.bounds)
        number.append(i)
        index.append(variable)
        conversions.append(conversion)
    return number, index, conversions


def _report_unknown_variable(i: int, series: Series, report: InputReport) -> None:
    detail = load_rejected_names().get(normalize_name(series.variable), _UNKNOWN)
    if detail != _UNKNOWN and detail not in report.warnings:
        report.warnings.append(detail)
    report.add_ignored(f"/series/{i}", "unknown_variable", detail, len(series.values))


def _report_unknown_unit(i: int, series: Series, known: Variable, report: InputReport) -> None:
    fault = "needs a unit" if series.unit is None else "cannot be converted"
    detail = f"{fault}; accepted for {known.name}: {', '.join(known.accepted_units)}"
    report.add_ignored(
        f"/series/{i}/unit",
        "unit_required" if series.unit is None else "unknown_unit",
        detail,
        len(series.values),
    )


def _look_up(
    name: str, unit: str | None, spec: FeatureSpec, *, is_limited: bool
) -> tuple[int | None, Conversion | None]:
    """Returns variable index and conversion. If `is_limited`, only accepted units are converted."""
    if not is_limited:
        return spec.look_up(name, unit)
    index = spec.find_variable(name)
    is_accepted = index is not None and unit in spec.extended_variables[index].accepted_units
    return spec.look_up(name, unit) if is_accepted else (index, None)
