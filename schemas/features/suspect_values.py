"""Warnings of observations that are used as they were sent, and look as if they were not meant so.

A value that no patient would have, and that many have in another accepted unit, was probably
measured in that unit. It is never converted by guess.
"""

import numpy as np

from schemas.features.input_report import Ledger
from schemas.features.observations import Observations
from schemas.features.spec import FeatureSpec

_ALIKE = 1.5  # two units whose ratio is smaller cannot be told apart


def warn_of_suspect_values(read: Observations, spec: FeatureSpec, ledger: Ledger) -> None:
    """Warnings of values that are not typical, and look like another unit or a detached sensor."""
    low, high = spec.typical[read.variable].T
    if ((read.value < low) | (read.value > high)).any():
        _warn_of_units(read, spec, ledger)
        _warn_of_sensors_off(read, spec, ledger)


def _warn_of_units(read: Observations, spec: FeatureSpec, ledger: Ledger) -> None:
    """A warning for each variable and unit, where the median of a series is typical of another."""
    order = np.lexsort((read.value, read.row))
    start = np.cumsum(read.length) - read.length
    median = read.value[order][start + (read.length - 1) // 2]
    low, high = spec.typical[read.index].T
    looks: dict[tuple[int, str, str], list[int]] = {}
    for row in np.flatnonzero((median < low) | (median > high)).tolist():
        index, unit = int(read.index[row]), read.conversions[row].unit
        other = _looks_like(float(median[row]), index, read, row, spec)
        if other is not None:
            looks.setdefault((index, unit, other), []).append(row)
    for (index, unit, other), rows in looks.items():
        ledger.warnings.append(
            f"{spec.variables[index].name} ({_where(rows, read)}) is unusual in {unit} and typical "
            f"in {other}; it was used as {unit}: check the unit"
        )


def _looks_like(
    median: float, index: int, read: Observations, row: int, spec: FeatureSpec
) -> str | None:
    """The first accepted unit in which the same number would be typical."""
    known, sent = spec.known[index], read.conversions[row]
    low, high = spec.typical[index]
    number = (median - sent.offset) / sent.factor
    for unit in known.accepted:
        factor, offset = known.conversion(unit) or (sent.factor, 0.0)
        differs = not 1 / _ALIKE < factor / sent.factor < _ALIKE or offset != sent.offset
        if differs and low <= factor * number + offset <= high:
            return unit
    return None


def _warn_of_sensors_off(read: Observations, spec: FeatureSpec, ledger: Ledger) -> None:
    """A warning for each variable with a value that a detached sensor gives."""
    off = read.value == spec.sensor_off[read.variable]
    for index in np.unique(read.variable[off]).tolist():
        known = spec.known[index]
        count = int((off & (read.variable == index)).sum())
        ledger.warnings.append(
            f"{known.name} is {known.sensor_off:g} in {count} of its observations, as from a "
            "sensor that is not attached; they were used as they were sent"
        )


def warn_of_repeated_amounts(read: Observations, spec: FeatureSpec, ledger: Ledger) -> None:
    """A warning for each variable whose amounts were added though a series came twice, alike."""
    if len(read.number) < 2:
        return
    adds_up = np.flatnonzero(spec.adds_up[read.index] & (read.length > 1))
    stop = np.cumsum(read.length)
    seen: set[tuple[int, bytes, bytes]] = set()
    repeated: dict[int, list[int]] = {}
    for row in adds_up.tolist():
        own = slice(stop[row] - read.length[row], stop[row])
        index = int(read.index[row])
        content = (index, read.hours[own].tobytes(), read.value[own].tobytes())
        if content in seen:
            repeated.setdefault(index, []).append(row)
        seen.add(content)
    for index, rows in repeated.items():
        ledger.warnings.append(
            f"{spec.variables[index].name} ({_where(rows, read)}) came before, with the same times "
            "and values; its amounts were added: send it once if it is the same"
        )


def _where(rows: list[int], read: Observations) -> str:
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    return read.pointer(rows[0]) + more
