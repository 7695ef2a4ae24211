"""Series features: statistics of each measured variable in the window before `as_of`."""

import numpy as np

from schemas.features.input_report import InputReport
from schemas.features.observations import (
    Indices,
    Mask,
    Numbers,
    Observations,
    read_observations,
)
from schemas.features.spec import STATISTICS, Array, FeatureSpec, Floats
from schemas.features.suspect_values import warn_of_repeated_amounts, warn_of_suspect_values
from schemas.features.treatments import treatment_features
from schemas.payload import Payload
from schemas.response import UsedVariable


def series_features(
    payload: Payload, spec: FeatureSpec, report: InputReport
) -> dict[str, Array] | None:
    """Returns `statistics` [V, S] and `treatments` [T, 4]; None if neither holds anything."""
    variable, hours, value = _observations(payload, spec, report)
    treatments, treated = treatment_features(payload, spec, report)
    if not len(value) and not treated:
        return None
    return {
        "statistics": _statistics(variable, hours, value, spec),
        "treatments": treatments,
    }


def _observations(
    payload: Payload, spec: FeatureSpec, report: InputReport
) -> tuple[Indices, Numbers, Numbers]:
    """Returns all usable observations, sorted by variable and then from old to new.

    Returns variable index, hours before `as_of` and canonical value, each [observations].
    """
    read = read_observations(payload, spec, report)
    if read is None:
        return np.empty(0, np.intp), np.empty(0), np.empty(0)
    warn_of_suspect_values(read, spec, report)
    warn_of_repeated_amounts(read, spec, report)
    _report_unsorted(read, spec, report)
    usable = _select_usable(read, spec, report)
    _report_repeated_variables(read, usable, spec, report)
    merged = _merge_duplicates(read, usable, spec, report)
    counts = np.bincount(merged[0]).tolist()
    for index in merged[0][_starts(merged[0])].tolist():
        name, unit = spec.variables[index].name, spec.variables[index].unit
        report.used[name] = UsedVariable(variable=name, unit=unit, observations=counts[index])
    return merged


def _report_unsorted(read: Observations, spec: FeatureSpec, report: InputReport) -> None:
    later = (read.hours[1:] > read.hours[:-1]) & (read.row[1:] == read.row[:-1])
    if not later.any():
        return
    for row in np.unique(read.row[1:][later]).tolist():
        report.add_merged(
            spec.variables[read.index[row]].name,
            "unsorted_times",
            (read.pointer(row),),
            int(read.length[row]),
        )


def _select_usable(read: Observations, spec: FeatureSpec, report: InputReport) -> Mask:
    """Returns [observations] whether each is plausible and inside the window."""
    low, high = spec.plausible[read.variable].T
    plausible = (read.value >= low) & (read.value <= high)
    inside = read.hours < spec.window_hours
    usable: Mask = plausible & inside
    if usable.all():
        return usable
    implausible = np.bincount(read.row[~plausible], minlength=len(read.number)).tolist()
    early = np.bincount(read.row[~inside], minlength=len(read.number)).tolist()
    window = f"the model reads the last {spec.window_hours:g} hours"
    for row in np.unique(read.row[~usable]).tolist():
        if implausible[row]:
            known = spec.variables[read.index[row]]
            lowest, highest = known.plausible
            detail = (
                f"outside the plausible range {lowest:g} to {highest:g} {known.unit}; "
                "used as missing"
            )
            pointer = f"{read.pointer(row)}/values"
            report.add_ignored(pointer, "implausible_value", detail, implausible[row])
        if early[row]:
            report.add_ignored(f"{read.pointer(row)}/times", "before_window", window, early[row])
    return usable


def _report_repeated_variables(
    read: Observations, usable: Mask, spec: FeatureSpec, report: InputReport
) -> None:
    series_count = np.bincount(read.index)
    if series_count.max() < 2:
        return
    used = np.bincount(read.variable[usable], minlength=len(series_count))
    for index in dict.fromkeys(read.index.tolist()):
        if series_count[index] > 1:
            report.add_merged(
                spec.variables[index].name,
                "given_more_than_once",
                read.pointers[index],
                int(used[index]),
            )


def _merge_duplicates(
    read: Observations, usable: Mask, spec: FeatureSpec, report: InputReport
) -> tuple[Indices, Numbers, Numbers]:
    """Merges observations of the same variable and time: amounts are added, levels averaged.

    A repeated value of a level counts once. Equal amounts are added as well: two drains of 100 mL
    are 200 mL.
    """
    variable, hours, value = read.variable[usable], read.hours[usable], read.value[usable]
    order = np.lexsort((value, -hours, variable))
    variable, hours, value = variable[order], hours[order], value[order]
    if not len(value):
        return variable, hours, value
    same_time = (variable[1:] == variable[:-1]) & (hours[1:] == hours[:-1])
    if not same_time.any():
        return variable, hours, value
    repeats = np.bincount(variable[1:][same_time])
    for index in np.flatnonzero(repeats).tolist():
        report.add_merged(
            spec.variables[index].name,
            "duplicate_times",
            read.pointers[index],
            int(repeats[index]) + 1,
        )
    repeated = same_time & (value[1:] == value[:-1]) & ~spec.is_amount[variable[1:]]
    first = np.append(True, ~repeated)
    variable, hours, value = variable[first], hours[first], value[first]
    start = _starts(variable, hours)
    total = np.add.reduceat(value, start)
    mean = total / _lengths(start, len(value))
    is_amount = spec.is_amount[variable[start]]
    return variable[start], hours[start], np.where(is_amount, total, mean)


def _statistics(
    variable: Indices,
    hours: Numbers,
    value: Numbers,
    spec: FeatureSpec,
) -> Floats:
    """Returns [V, S], ordered by STATISTICS. Variables without a value have NaN, and log_count 0.

    `spread` and `change` are also NaN for a variable with a single value.
    """
    out = np.full((len(spec.variables), len(STATISTICS)), np.nan, dtype=np.float32)
    out[:, STATISTICS.index("log_count")] = 0.0
    if not len(value):
        return out
    index, mean, low, high, start = _summary(variable, value, spec.window_hours, spec)
    count = _lengths(start, len(value))
    end = start + count
    square = np.add.reduceat(value**2, start) / count
    level_mean = np.add.reduceat(value, start) / count
    last = value[end - 1]
    # A single value has no variation. A 0 would encode how often a hospital measures.
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
    variable: Indices,
    value: Numbers,
    window: float,
    spec: FeatureSpec,
) -> tuple[
    Indices,
    Numbers,
    Numbers,
    Numbers,
    Indices,
]:
    """Returns variable index, mean, minimum, maximum and first row of each observed variable."""
    start = _starts(variable)
    index = variable[start]
    total = np.add.reduceat(value, start)
    count = _lengths(start, len(value))
    mean = total / np.where(spec.is_amount[index], window, count)
    low, high = np.minimum.reduceat(value, start), np.maximum.reduceat(value, start)
    return index, mean, low, high, start


def _starts(*columns: Indices | Numbers) -> Indices:
    """Returns the start of each run of equal rows. Slices are much faster than `np.diff`."""
    begins = np.ones(len(columns[0]), dtype=np.bool_)
    begins[1:] = False
    for column in columns:
        begins[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(begins)


def _lengths(start: Indices, stop: int) -> Indices:
    """Returns the length of each run that begins at `start`. The last run ends at `stop`."""
    lengths = np.empty(len(start), dtype=np.intp)
    np.subtract(start[1:], start[:-1], out=lengths[:-1])
    lengths[-1:] = stop - start[-1:]
    return lengths
