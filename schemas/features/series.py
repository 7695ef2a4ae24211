"""Series features: the statistics of each measured variable in the window before `as_of`."""

import numpy as np

from schemas.features.input_report import Ledger
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
from schemas.response import Merged, Used


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
) -> tuple[Indices, Numbers, Numbers]:
    """All usable observations, sorted by variable and then from old to new.

    Returns variable index, hours before `as_of`, canonical value; each [observations].
    """
    read = read_observations(payload, spec, ledger)
    if read is None:
        return np.empty(0, np.intp), np.empty(0), np.empty(0)
    warn_of_suspect_values(read, spec, ledger)
    warn_of_repeated_amounts(read, spec, ledger)
    _note_unsorted(read, spec, ledger)
    usable = _usable(read, spec, ledger)
    _note_given_more_than_once(read, usable, spec, ledger)
    merged = _merge_duplicates(read, usable, spec, ledger)
    counts = np.bincount(merged[0]).tolist()
    for index in merged[0][_starts(merged[0])].tolist():
        name, unit = spec.variables[index].name, spec.variables[index].unit
        ledger.used[name] = Used(variable=name, unit=unit, observations=counts[index])
    return merged


def _note_unsorted(read: Observations, spec: FeatureSpec, ledger: Ledger) -> None:
    later = (read.hours[1:] > read.hours[:-1]) & (read.row[1:] == read.row[:-1])
    if not later.any():
        return
    for row in np.unique(read.row[1:][later]).tolist():
        ledger.merged.append(
            Merged(
                variable=spec.variables[read.index[row]].name,
                reason="unsorted_times",
                pointers=(read.pointer(row),),
                observations=int(read.length[row]),
            )
        )


def _usable(read: Observations, spec: FeatureSpec, ledger: Ledger) -> Mask:
    """[observations] whether each is plausible and in the window."""
    low, high = spec.plausible[read.variable].T
    plausible = (read.value >= low) & (read.value <= high)
    inside = read.hours < spec.window_hours
    usable: Mask = plausible & inside
    if usable.all():
        return usable
    wrong = np.bincount(read.row[~plausible], minlength=len(read.number)).tolist()
    early = np.bincount(read.row[~inside], minlength=len(read.number)).tolist()
    window = f"the model reads the last {spec.window_hours:g} hours"
    for row in np.unique(read.row[~usable]).tolist():
        if wrong[row]:
            known = spec.variables[read.index[row]]
            lowest, highest = known.plausible
            detail = (
                f"outside the plausible range {lowest:g} to {highest:g} {known.unit}; "
                "used as missing"
            )
            pointer = f"{read.pointer(row)}/values"
            ledger.ignore(pointer, "implausible_value", detail, wrong[row])
        if early[row]:
            ledger.ignore(f"{read.pointer(row)}/times", "before_window", window, early[row])
    return usable


def _note_given_more_than_once(
    read: Observations, usable: Mask, spec: FeatureSpec, ledger: Ledger
) -> None:
    times_given = np.bincount(read.index)
    if times_given.max() < 2:
        return
    used = np.bincount(read.variable[usable], minlength=len(times_given))
    for index in dict.fromkeys(read.index.tolist()):
        if times_given[index] > 1:
            ledger.merged.append(
                Merged(
                    variable=spec.variables[index].name,
                    reason="given_more_than_once",
                    pointers=read.pointers[index],
                    observations=int(used[index]),
                )
            )


def _merge_duplicates(
    read: Observations, usable: Mask, spec: FeatureSpec, ledger: Ledger
) -> tuple[Indices, Numbers, Numbers]:
    """One value for each variable and time: the sum of amounts, the mean of other values.

    A value of a level that is repeated counts once. Amounts of one time add up, equal ones too: two
    drains of 100 mL are 200 mL.
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
        ledger.merged.append(
            Merged(
                variable=spec.variables[index].name,
                reason="duplicate_times",
                pointers=read.pointers[index],
                observations=int(repeats[index]) + 1,
            )
        )
    repeated = same_time & (value[1:] == value[:-1]) & ~spec.adds_up[variable[1:]]
    first = np.append(True, ~repeated)
    variable, hours, value = variable[first], hours[first], value[first]
    start = _starts(variable, hours)
    total = np.add.reduceat(value, start)
    count_at = _lengths(start, len(value))
    adds_up = spec.adds_up[variable[start]]
    return variable[start], hours[start], np.where(adds_up, total, total / count_at)


def _statistics(
    variable: Indices,
    hours: Numbers,
    value: Numbers,
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
    count = _lengths(start, len(value))
    end = start + count
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
    """Variable index, mean, minimum, maximum and first row, for each variable that is there."""
    start = _starts(variable)
    index = variable[start]
    total = np.add.reduceat(value, start)
    count = _lengths(start, len(value))
    mean = total / np.where(spec.adds_up[index], window, count)
    low, high = np.minimum.reduceat(value, start), np.maximum.reduceat(value, start)
    return index, mean, low, high, start


def _starts(*columns: Indices | Numbers) -> Indices:
    """Where a run of equal rows begins. Slices: `np.diff` takes several times as long."""
    begins = np.ones(len(columns[0]), dtype=np.bool_)
    begins[1:] = False
    for column in columns:
        begins[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(begins)


def _lengths(start: Indices, stop: int) -> Indices:
    """The lengths of runs that begin at `start`, the last of which ends at `stop`."""
    lengths = np.empty(len(start), dtype=np.intp)
    np.subtract(start[1:], start[:-1], out=lengths[:-1])
    lengths[-1:] = stop - start[-1:]
    return lengths
