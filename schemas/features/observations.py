"""The series of a request as arrays: variables found, units converted."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
import numpy.typing as npt

from schemas.features.input_report import Ledger
from schemas.features.spec import FeatureSpec
from schemas.payload import Payload, Series
from schemas.response import Converted, Reason
from schemas.terminology.units import Conversion
from schemas.variables import load_not_read, name_key

Indices = npt.NDArray[np.intp]
Numbers = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Pairs of a name and a unit that are read in one request: reading one may take a millisecond.
MOST_SPELLINGS = 300
MOST_POINTERS = 100  # in one entry of the receipt
_RUN = 50_000  # times that are converted at once, in about 10 ms
_UNKNOWN = "the model knows no such variable; see GET /variables"


@dataclass(frozen=True)
class Observations:
    """The series whose variable and unit are known, and what was observed.

    [series] `number` in the payload, `index` of the variable, `conversions`, `length`;
    [observations] `row` of these, `variable` index, `hours` before `as_of`, canonical `value`.
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
        return f"/series/{self.number[row]}"

    @cached_property
    def pointers(self) -> dict[int, tuple[str, ...]]:
        """By variable index, where its series are; the first MOST_POINTERS if they are many."""
        found: dict[int, list[str]] = {}
        for index, number in zip(self.index.tolist(), self.number.tolist(), strict=True):
            of_variable = found.setdefault(index, [])
            if len(of_variable) < MOST_POINTERS:
                of_variable.append(f"/series/{number}")
        return {index: tuple(pointers) for index, pointers in found.items()}


def read_observations(payload: Payload, spec: FeatureSpec, ledger: Ledger) -> Observations | None:
    """None if no series has a known variable and a unit that converts to its canonical one."""
    number, index, conversions = _read_series(payload.series, spec, ledger)
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
    """[count] Unix time of each. Converted in runs, between which other threads can run."""
    seconds = np.empty(count)
    timestamps = map(datetime.timestamp, times)
    for start in range(0, count, _RUN):
        run = seconds[start : start + _RUN]
        run[:] = np.fromiter(itertools.islice(timestamps, len(run)), np.float64)
    return seconds


def _read_series(
    given: Sequence[Series], spec: FeatureSpec, ledger: Ledger
) -> tuple[list[int], list[int], list[Conversion]]:
    """Place, variable index and conversion of each series that can be read."""
    number: list[int] = []
    index: list[int] = []
    conversions: list[Conversion] = []
    read: dict[tuple[str, str | None], tuple[int | None, Conversion | None]] = {}
    for i, series in enumerate(given):
        spelled = (series.variable, series.unit)
        found = read.get(spelled)
        if found is None:
            found = read[spelled] = _look_up(*spelled, spec, many=len(read) >= MOST_SPELLINGS)
        variable, conversion = found
        if variable is None:
            detail = load_not_read().get(name_key(series.variable), _UNKNOWN)
            if detail != _UNKNOWN and detail not in ledger.warnings:
                ledger.warnings.append(detail)
            ledger.ignore(f"/series/{i}", "unknown_variable", detail, len(series.values))
            continue
        known = spec.known[variable]
        if conversion is None:
            reason: Reason = "unit_required" if series.unit is None else "unknown_unit"
            verb = "needs a unit" if series.unit is None else "cannot be converted"
            detail = f"{verb}; accepted for {known.name}: {', '.join(known.accepted)}"
            ledger.ignore(f"/series/{i}/unit", reason, detail, len(series.values))
            continue
        if conversion.unit != known.unit:
            ledger.converted.append(
                Converted(
                    pointer=f"/series/{i}",
                    variable=known.name,
                    from_unit=conversion.unit,
                    to_unit=known.unit,
                )
            )
        if series.nulls:
            ledger.ignore(f"/series/{i}/values", "no_value", "null", series.nulls)
        if series.bounds:
            detail = "a bound that a laboratory reports, such as <0.01; used as that number"
            ledger.read(f"/series/{i}/values", "the bound", detail, series.bounds)
        number.append(i)
        index.append(variable)
        conversions.append(conversion)
    return number, index, conversions


def _look_up(
    name: str, unit: str | None, spec: FeatureSpec, *, many: bool
) -> tuple[int | None, Conversion | None]:
    """Index of a variable and conversion of its unit; of `many`, plain units alone are read."""
    if not many:
        return spec.look_up(name, unit)
    index = spec.find_variable(name)
    plain = index is not None and unit in spec.known[index].accepted
    return spec.look_up(name, unit) if plain else (index, None)
