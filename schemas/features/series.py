"""Series features: the statistics of each measured variable in the window before `as_of`."""

import itertools
from collections import Counter, defaultdict
from datetime import datetime

import numpy as np
import numpy.typing as npt

from schemas.features.ledger import Ledger
from schemas.features.spec import STATISTICS, Array, FeatureSpec, Floats
from schemas.features.treatments import treatment_features
from schemas.payload import Payload
from schemas.response import Converted, Merged, Used


def series_features(payload: Payload, spec: FeatureSpec, ledger: Ledger) -> dict[str, Array] | None:
    variable, hours, value = _observations(payload, spec, ledger)
    treatments, treated = treatment_features(payload, spec, ledger)
    if not len(value) and not treated:
        return None
    return {
        "statistics": _statistics(variable, hours, value, spec),
        "treatments": treatments,
    }


def _observations(
    payload: Payload, spec: FeatureSpec, ledger: Ledger
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """All usable observations, sorted by variable and then from old to new.

    Returns variable index, hours before `as_of`, canonical value; each [observations].
    """
    read: list[tuple[int, int, float, float]] = []
    pointers: dict[int, list[str]] = defaultdict(list)
    for i, series in enumerate(payload.series):
        index = spec.variable_index.get(series.variable)
        if index is None:
            detail = "the model knows no such variable; see GET /variables"
            ledger.ignore(f"/series/{i}", "unknown_variable", detail, len(series.values))
            continue
        known = spec.variables[index]
        unit = spec.ucum(series.unit)
        conversion = known.conversion(unit)
        if conversion is None:
            rule = "unit_required" if unit is None else "unit"
            verb = "needs a unit" if unit is None else "cannot be converted"
            detail = f"{verb}; accepted for {known.name}: {', '.join(known.accepted)}"
            ledger.fail(f"/series/{i}/unit", rule, detail)
            continue
        if unit is not None and unit != known.unit:
            ledger.converted.append(
                Converted(
                    pointer=f"/series/{i}",
                    variable=known.name,
                    from_unit=unit,
                    to_unit=known.unit,
                )
            )
        pointers[index].append(f"/series/{i}")
        read.append((i, index, *conversion))
    if not read:
        return np.empty(0, np.intp), np.empty(0), np.empty(0)

    number, index_of, factor, offset = (np.array(column) for column in zip(*read, strict=True))
    given = [payload.series[i] for i in number.tolist()]
    each = [len(series.values) for series in given]
    times = itertools.chain.from_iterable(series.times for series in given)
    seconds = np.fromiter(map(datetime.timestamp, times), np.float64)
    hours = (payload.as_of.timestamp() - seconds) / 3600
    value = np.fromiter(itertools.chain.from_iterable(s.values for s in given), np.float64)
    value = value * np.repeat(factor, each) + np.repeat(offset, each)
    number, variable = np.repeat(number, each), np.repeat(index_of, each)
    _note_unsorted(number, hours, payload, spec, ledger)
    usable = _usable(number, variable, hours, value, spec, ledger)
    for index, of_variable in pointers.items():
        if len(of_variable) > 1:
            ledger.merged.append(
                Merged(
                    variable=spec.variables[index].name,
                    reason="given_more_than_once",
                    pointers=tuple(of_variable),
                    observations=int((usable & (variable == index)).sum()),
                )
            )
    merged = _merge_duplicates(
        variable[usable], hours[usable], value[usable], pointers, spec, ledger
    )
    for index, count in zip(*np.unique(merged[0], return_counts=True), strict=True):
        name, unit = spec.variables[index].name, spec.variables[index].unit
        ledger.used[name] = Used(variable=name, unit=unit, observations=int(count))
    return merged


def _note_unsorted(
    number: npt.NDArray[np.intp],
    hours: npt.NDArray[np.float64],
    payload: Payload,
    spec: FeatureSpec,
    ledger: Ledger,
) -> None:
    """`number` [observations]: the series of the payload that each is from."""
    later = (np.diff(hours) > 0) & (np.diff(number) == 0)
    for i in np.unique(number[1:][later]).tolist():
        series = payload.series[i]
        ledger.merged.append(
            Merged(
                variable=spec.variables[spec.variable_index[series.variable]].name,
                reason="unsorted_times",
                pointers=(f"/series/{i}",),
                observations=len(series.values),
            )
        )


def _usable(
    number: npt.NDArray[np.intp],
    variable: npt.NDArray[np.intp],
    hours: npt.NDArray[np.float64],
    value: npt.NDArray[np.float64],
    spec: FeatureSpec,
    ledger: Ledger,
) -> npt.NDArray[np.bool_]:
    """[observations] whether each is plausible and in the window."""
    low, high = spec.plausible[variable].T
    plausible = (value >= low) & (value <= high)
    inside = hours < spec.window_hours
    usable = plausible & inside
    for i in np.unique(number[~usable]).tolist():
        of_series = number == i
        known = spec.variables[variable[of_series][0]]
        if count := int((of_series & ~plausible).sum()):
            low, high = known.plausible
            detail = (
                f"outside the plausible range {low:g} to {high:g} {known.unit}; used as missing"
            )
            ledger.ignore(f"/series/{i}/values", "implausible_value", detail, count)
        if count := int((of_series & ~inside).sum()):
            detail = f"the model reads the last {spec.window_hours:g} hours"
            ledger.ignore(f"/series/{i}/times", "before_window", detail, count)
    return np.asarray(usable, dtype=np.bool_)


def _merge_duplicates(
    variable: npt.NDArray[np.intp],
    hours: npt.NDArray[np.float64],
    value: npt.NDArray[np.float64],
    pointers: dict[int, list[str]],
    spec: FeatureSpec,
    ledger: Ledger,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """One value for each variable and time: repeats count once, then the mean, or for amounts
    the sum.
    """
    order = np.lexsort((value, -hours, variable))
    variable, hours, value = variable[order], hours[order], value[order]
    if not len(value):
        return variable, hours, value
    same_time = (np.diff(variable) == 0) & (np.diff(hours) == 0)
    if not same_time.any():
        return variable, hours, value
    for index, count in Counter(variable[1:][same_time].tolist()).items():
        ledger.merged.append(
            Merged(
                variable=spec.variables[index].name,
                reason="duplicate_times",
                pointers=tuple(pointers[index]),
                observations=count + 1,
            )
        )
    first = np.append(True, ~(same_time & (np.diff(value) == 0)))
    variable, hours, value = variable[first], hours[first], value[first]
    start = np.flatnonzero(
        (np.diff(variable, prepend=-1) != 0) | (np.diff(hours, prepend=np.nan) != 0)
    )
    total = np.add.reduceat(value, start)
    count_at = np.diff(start, append=len(value))
    adds_up = spec.adds_up[variable[start]]
    return variable[start], hours[start], np.where(adds_up, total, total / count_at)


def _statistics(
    variable: npt.NDArray[np.intp],
    hours: npt.NDArray[np.float64],
    value: npt.NDArray[np.float64],
    spec: FeatureSpec,
) -> Floats:
    """[V, S] by STATISTICS; NaN where a variable was not measured (log_count: 0).

    `spread` and `change` are NaN also where it was measured once.
    """
    out = np.full((len(spec.variables), len(STATISTICS)), np.nan, dtype=np.float32)
    out[:, STATISTICS.index("log_count")] = 0.0
    if not len(value):
        return out
    index, mean, low, high, start = _summary(variable, value, spec.window_hours, spec)
    end = np.append(start[1:], len(value))
    count = end - start
    square = np.add.reduceat(value**2, start) / count
    level_mean = np.add.reduceat(value, start) / count
    last = value[end - 1]
    # One value says nothing of how much it varies. As 0 they would say how often it was measured,
    # which is a hospital's habit.
    varies = count > 1
    spread = np.where(varies, np.sqrt(np.maximum(square - level_mean**2, 0.0)), np.nan)
    change = np.where(varies, last - value[start], np.nan)
    out[index, :8] = np.stack(
        [last, mean, low, high, spread, change, np.log1p(count), hours[end - 1]], axis=1
    )
    recent = hours < spec.recent_hours
    if recent.any():
        index, mean, low, high, _ = _summary(
            variable[recent], value[recent], spec.recent_hours, spec
        )
        out[index, 8:] = np.stack([mean, low, high], axis=1)
    return out


def _summary(
    variable: npt.NDArray[np.intp],
    value: npt.NDArray[np.float64],
    window: float,
    spec: FeatureSpec,
) -> tuple[
    npt.NDArray[np.intp],
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
    npt.NDArray[np.intp],
]:
    """Variable index, mean, minimum, maximum and first row, for each variable that is there."""
    start = np.flatnonzero(np.diff(variable, prepend=-1))
    index = variable[start]
    total = np.add.reduceat(value, start)
    count = np.diff(start, append=len(value))
    mean = total / np.where(spec.adds_up[index], window, count)
    low, high = np.minimum.reduceat(value, start), np.maximum.reduceat(value, start)
    return index, mean, low, high, start
