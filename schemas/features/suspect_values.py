"""Warnings about suspect values, which are used unchanged.

A value that is untypical in its unit and typical in another accepted unit was probably measured in
that unit. It is never converted by guess.
"""

import numpy as np

from schemas.features.input_report import InputReport
from schemas.features.observations import Observations
from schemas.features.spec import FeatureSpec

_MIN_RATIO = 1.5  # two units with a smaller ratio cannot be distinguished


def warn_of_suspect_values(read: Observations, spec: FeatureSpec, report: InputReport) -> None:
    """Warns of untypical values that suggest another unit or a detached sensor."""
    low, high = spec.typical[read.variable].T
    if ((read.value < low) | (read.value > high)).any():
        _warn_of_units(read, spec, report)
        _warn_of_sensors_off(read, spec, report)


def _warn_of_units(read: Observations, spec: FeatureSpec, report: InputReport) -> None:
    """Warns, by variable and unit, if the median of a series is typical in another unit."""
    order = np.lexsort((read.value, read.row))
    start = np.cumsum(read.length) - read.length
    median = read.value[order][start + (read.length - 1) // 2]
    low, high = spec.typical[read.index].T
    suspects: dict[tuple[int, str, str], list[int]] = {}
    for row in np.flatnonzero((median < low) | (median > high)).tolist():
        index, unit = int(read.index[row]), read.conversions[row].unit
        other = _typical_unit(float(median[row]), index, read, row, spec)
        if other is not None:
            suspects.setdefault((index, unit, other), []).append(row)
    for (index, unit, other), rows in suspects.items():
        report.warnings.append(
            f"{spec.variables[index].name} ({_pointer_summary(rows, read)}) is unusual in {unit} "
            f"and typical in {other}; it was used in {unit}: check the unit"
        )


def _typical_unit(
    median: float, index: int, read: Observations, row: int, spec: FeatureSpec
) -> str | None:
    """Returns the first accepted unit in which the same number would be typical, or None."""
    known, sent = spec.extended_variables[index], read.conversions[row]
    low, high = spec.typical[index]
    number = (median - sent.offset) / sent.factor
    for unit in known.accepted_units:
        factor, offset = known.conversion(unit) or (sent.factor, 0.0)
        differs = not 1 / _MIN_RATIO < factor / sent.factor < _MIN_RATIO or offset != sent.offset
        if differs and low <= factor * number + offset <= high:
            return unit
    return None


def _warn_of_sensors_off(read: Observations, spec: FeatureSpec, report: InputReport) -> None:
    """Warns, by variable, of values that a detached sensor reports."""
    off = read.value == spec.sensor_off[read.variable]
    for index in np.unique(read.variable[off]).tolist():
        known = spec.extended_variables[index]
        count = int((off & (read.variable == index)).sum())
        report.warnings.append(
            f"{known.name} is {known.sensor_off:g} in {count} of its observations, as from a "
            "detached sensor; they were used unchanged"
        )


def warn_of_repeated_amounts(read: Observations, spec: FeatureSpec, report: InputReport) -> None:
    """Warns, by variable, of amounts that were added although two series are identical."""
    if len(read.number) < 2:
        return
    amount_rows = np.flatnonzero(spec.is_amount[read.index] & (read.length > 1))
    stop = np.cumsum(read.length)
    seen: set[tuple[int, bytes, bytes]] = set()
    repeated: dict[int, list[int]] = {}
    for row in amount_rows.tolist():
        own = slice(stop[row] - read.length[row], stop[row])
        index = int(read.index[row])
        content = (index, read.hours[own].tobytes(), read.value[own].tobytes())
        if content in seen:
            repeated.setdefault(index, []).append(row)
        seen.add(content)
    for index, rows in repeated.items():
        report.warnings.append(
            f"{spec.variables[index].name} ({_pointer_summary(rows, read)}) repeats the times and "
            "values of an earlier series; the amounts were added: send a duplicate only once"
        )


def _pointer_summary(rows: list[int], read: Observations) -> str:
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    return read.pointer(rows[0]) + more
