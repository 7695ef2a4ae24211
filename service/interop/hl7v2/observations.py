"""Numbers in OBX segments (HL7 v2.5.1, chapter 7.4.2)."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from schemas.features import FeatureSpec
from schemas.request_errors import safe_name
from schemas.variables import load_rejected_names
from service.interop.hl7v2.er7 import Segment
from service.interop.hl7v2.patient import HEIGHT_CODES
from service.interop.hl7v2.record import Group, Reason, Record

# Status of a result (OBX-11, table 0085) and its rank: a correction replaces a final result, and
# this a preliminary one, of the same code, time and sub-id.
_RANKS = {"C": 3, "F": 2, "P": 1}
_WITHDRAWN = ("D", "W")
_STATUS = "the status (OBX-11) is not F, C or P; the result never counts"
_NUMERIC = ("NM", "SN", "ST", "TX")
_NUMBER = re.compile(r"\s*[+-]?(?:\d{1,15}(?:\.\d{0,15})?|\.\d{1,15})\s*", re.ASCII)
# "1.500" in text may be 1500 or 1.5.
_GROUPED = re.compile(r"[+-]?\d{1,3}\.\d{3}", re.ASCII)
_BOUND = re.compile(r"\s*(<=|>=|<|>)\s*(\d{1,15}(?:\.\d{1,15})?)\s*", re.ASCII)
_COMPARATORS = ("<", "<=", ">", ">=")
_LOINC = ("LN", "LOINC", "2.16.840.1.113883.6.1")
HEIGHT = "height_cm"
_UNKNOWN = "no input of the model has this code"
_MAX_CACHED = 10_000


@dataclass(frozen=True)
class Code:
    """What an OBX-3 means: the `name` of an input, or the reason why there is none."""

    name: str | None
    detail: str = _UNKNOWN
    is_coded: bool = True


class CodeTable:
    """The codes that a spec knows. Caches the meaning of each OBX-3.

    LOINC in OBX-3.1 or OBX-3.4 selects a variable. The text never does, because "Sodium" may be of
    blood or of urine.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        self._spec = spec
        self._known: dict[str, Code] = {}

    def observation(self, segment: Segment) -> Code:
        raw = segment.raw(3)
        known = self._known.get(raw)
        if known is None:
            known = self._look_up([*segment.components(3), "", "", "", "", "", ""][:6])
            if len(self._known) < _MAX_CACHED and len(raw) <= 200:
                self._known[raw] = known
        return known

    def _look_up(self, parts: list[str]) -> Code:
        codes = [
            code.strip()
            for code, system in ((parts[0], parts[2]), (parts[3], parts[5]))
            if system.strip().upper() in _LOINC and code.strip()
        ]
        details = []
        for code in codes:
            name = f"loinc:{code}"
            if code in HEIGHT_CODES:
                return Code(HEIGHT)
            if name in self._spec.variable_index:
                return Code(name)
            details.append(load_rejected_names().get(name, _UNKNOWN))
        if not codes:
            detail = "has no LOINC code (LN) in OBX-3.1 or OBX-3.4"
            return Code(None, self._near_match(parts, detail), is_coded=False)
        return Code(None, self._near_match(parts, details[0]))

    def _near_match(self, parts: list[str], detail: str) -> str:
        """The detail, with the variable whose name is the text of the code, if any.

        Once the cache is full, names are not compared: it would take long for many codes.
        """
        if len(self._known) >= _MAX_CACHED:
            return detail
        index = next((i for t in (parts[1], parts[4]) if (i := self._find(t)) is not None), None)
        if index is None:
            return detail
        variable = self._spec.extended_variables[index]
        loinc = f"; LOINC of {variable.name}: {variable.loinc[0]}" if variable.loinc else ""
        return f"{detail}, although its text resembles {safe_name(variable.name)}{loinc}"

    def _find(self, text: str) -> int | None:
        return self._spec.find_variable(text) if text.strip() else None


class _Result(NamedTuple):
    rank: int
    value: float | str
    unit: str | None
    place: str


class ObservationReader:
    """Reads the numbers of one message. `finish` adds them to the record."""

    def __init__(self, record: Record, codes: CodeTable) -> None:
        self._record, self._codes = record, codes
        self._results: dict[tuple[str, datetime, str], list[_Result]] = {}
        self._withdrawn: set[tuple[str, datetime, str]] = set()
        self.heights, self.height_units = Group(), list[str | None]()

    def is_variable(self, segment: Segment) -> bool:
        return self._codes.observation(segment).name is not None

    def read(self, segment: Segment, order: Segment | None) -> None:
        """Reads an OBX. `order`: the OBR before it, whose time is that of results without one."""
        code = self._codes.observation(segment)
        if code.name is None:
            reason: Reason = "unknown_code" if code.is_coded else "no_code"
            self._record.skip(segment.place(3), reason, code.detail)
            return
        status = segment.text(11).upper()
        rank = _RANKS.get(status)
        if rank is None and status not in _WITHDRAWN:
            self._record.skip(segment.place(11), "status", _STATUS)
            return
        time = result_time(segment, order, self._record)
        if time is None:
            return
        key = code.name, time, segment.text(4)
        if rank is None:
            self._withdrawn.add(key)
            self._record.skip(segment.place(11), "status", _STATUS)
            return
        value = self._value(segment)
        if value is not None:
            unit = _unit(segment)
            self._results.setdefault(key, []).append(_Result(rank, value, unit, segment.place()))

    def finish(self) -> None:
        """Adds the results that count to the record."""
        for key, results in self._results.items():
            name, time, _ = key
            best = max(result.rank for result in results)
            for result in results:
                if key in self._withdrawn:
                    self._record.skip(result.place, "status", "the result was withdrawn")
                elif result.rank < best:
                    detail = "a final or corrected result of the same time replaces it"
                    self._record.skip(result.place, "superseded", detail)
                else:
                    self._add(name, time, result)

    def _add(self, name: str, time: datetime, result: _Result) -> None:
        group = self.heights
        if name == HEIGHT:
            self.height_units.append(result.unit)
        else:
            group = self._record.groups.setdefault((name, result.unit), Group())
        group.times.append(time)
        group.values.append(result.value)
        group.places.append(result.place)

    def _value(self, segment: Segment) -> float | str | None:
        """The number, or a bound such as "<0.01"; None, with a record, if there is none."""
        kind = segment.text(2).upper()
        if kind == "NM" and _NUMBER.fullmatch(segment.raw(5)):  # nearly all results
            return float(segment.raw(5))
        place = segment.place(5)
        if kind not in _NUMERIC:
            detail = "the value type is not NM, SN, ST or TX; a code or a time is no number"
            self._record.skip(place, "coded_value", detail)
            return None
        if len(segment.repetitions(5)) > 1:
            self._record.add_error(place, "one_value", "must hold one value; send an OBX for each")
            return None
        if kind == "SN":
            return self._structured(segment.components(5), place)
        return self._plain(segment.text(5), place, kind)

    def _plain(self, text: str, place: str, kind: str) -> float | str | None:
        """The value of NM, ST or TX."""
        if not text:
            self._record.skip(place, "no_value", "has no value; counts as not measured")
            return None
        if bound := _BOUND.fullmatch(text):
            return f"{bound[1]}{bound[2]}"
        if kind == "NM":
            return self._number(text, place)
        if kind == "ST" and _NUMBER.fullmatch(text) and not _GROUPED.fullmatch(text):
            return float(text)
        detail = "is not read as a number; send NM or SN"
        self._record.skip(place, "text_value", detail)
        return None

    def _structured(self, parts: list[str], place: str) -> float | str | None:
        """The value of SN: comparator, number (chapter 2.A.70); ranges and ratios are not read."""
        comparator, first, separator, second = ([p.strip() for p in parts] + [""] * 4)[:4]
        if separator or second:
            detail = "a range or ratio is not read; send a number"
            self._record.skip(place, "text_value", detail)
            return None
        if not first:
            self._record.skip(place, "no_value", "has no value; counts as not measured")
            return None
        number = self._number(first, place)
        if number is None or comparator in ("", "="):
            return number
        if comparator in _COMPARATORS:
            return f"{comparator}{number:.15g}"
        self._record.add_error(place, "allowed_values", "the comparator must be <, <=, > or >=")
        return None

    def _number(self, text: str, place: str) -> float | None:
        if _NUMBER.fullmatch(text):
            return float(text)
        self._record.add_error(place, "number", "must be a number with a decimal point")
        return None


def result_time(segment: Segment, order: Segment | None, record: Record) -> datetime | None:
    """When a value was observed: OBX-14, otherwise OBR-7; None, with a record, without a time."""
    if segment.text(14):
        return record.time(segment, 14)
    if order is not None and order.text(7):
        return record.time(order, 7)
    detail = "has no time in OBX-14 or OBR-7; its age is unknown"
    record.skip(segment.place(14), "no_time", detail)
    return None


def _unit(segment: Segment) -> str | None:
    """The unit of OBX-6: the code, otherwise its text, otherwise the alternate code."""
    if code := segment.text(6):
        return code
    parts = [*segment.components(6), "", "", "", ""]
    return next((part.strip() for part in (parts[1], parts[3]) if part.strip()), None)
