"""The distinct codes of a dataset, and what each means by the code map."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache

import polars as pl

from model.cohorts.meds.code_map import CodeMap
from model.cohorts.mimic_iv.observations import HEIGHT_ITEMS, NO_UNIT
from model.cohorts.stay_events.columns import HEIGHT, TEXT
from model.cohorts.stay_events.observations import meanings
from schemas.terminology.treatment_names import AMBIGUOUS, find_treatment
from schemas.variables import load_treatments, load_variables

_LOINC_PARENT = re.compile(r"LOINC/{1,2}(\d{1,7}-\d)")


class Codes:
    """The codes that occur, with their parents."""

    def __init__(
        self, codes: Sequence[str], code_map: CodeMap, parents: Mapping[str, Sequence[str]]
    ) -> None:
        self._codes, self._map, self._parents = codes, code_map, parents

    def matching(
        self, pattern: re.Pattern[str], group: str = "", name: str | None = None
    ) -> pl.DataFrame:
        """The codes that match: `code`, and the text of the group `group`, which may be null.

        The column of the text has the name of the group, or `name`.
        """
        rows = [
            (code, match.groupdict().get(group))
            for code in self._codes
            if (match := pattern.fullmatch(code)) is not None
        ]
        schema = {"code": TEXT, name or group: TEXT}
        table = pl.DataFrame(rows, schema=schema, orient="row")
        return table if group else table.select("code")

    def observations(self) -> pl.DataFrame:
        """The codes of variables: `code`, `variable`, `unit`, `factor`, `uom`."""
        named = [(code, *pair) for code in self._codes if (pair := self._observation(code))]
        names = pl.DataFrame(named, schema={"code": TEXT, "name": TEXT, "uom": TEXT}, orient="row")
        pairs = names.select("name", "uom").unique().rows()
        return names.join(meanings(pairs), on=["name", "uom"], nulls_equal=True).drop("name")

    def _observation(self, code: str) -> tuple[str, str | None] | None:
        """The variable of a code, by name or LOINC, and the unit of its values."""
        matches = (pattern.fullmatch(code) for pattern in self._map.observations)
        match = next(filter(None, matches), None)
        groups = {} if match is None else match.groupdict()
        unit = groups.get("unit")
        unit = None if unit is None or unit.strip() in NO_UNIT else unit.strip()
        if code in self._map.variables:
            known = self._map.variables[code]
            return known.variable, known.unit if unit is None else unit
        if groups.get("loinc"):
            return f"loinc:{groups['loinc']}", unit
        if groups.get("item"):
            item = _items().get(groups["item"]) if self._map.items else None
            if item is not None:
                return item[0], item[1] if unit is None else unit
        for parent in self._parents.get(code, ()):
            if loinc := _LOINC_PARENT.fullmatch(parent):
                return f"loinc:{loinc[1]}", unit
        return None

    def treatments(self, pattern: re.Pattern[str]) -> pl.DataFrame:
        """The codes of declared treatments: `code`, `key` (item or name) and `name`."""
        matches = ((code, pattern.fullmatch(code)) for code in self._codes)
        rows = [
            (code, key, name)
            for code, match in matches
            if match is not None
            for key, name in self._treatment(match.groupdict())
        ]
        return pl.DataFrame(rows, schema={"code": TEXT, "key": TEXT, "name": TEXT}, orient="row")

    def _treatment(self, groups: Mapping[str, str | None]) -> Iterator[tuple[str, str]]:
        if (item := groups.get("item")) is not None:
            for treatment in load_treatments():
                if self._map.items and item.isdecimal() and int(item) in treatment.mimic_iv:
                    yield item, treatment.name
        elif text := groups.get("name"):
            name = find_treatment(text, frozenset(t.name for t in load_treatments()))
            if name not in (None, AMBIGUOUS):
                yield text, str(name)


@cache
def _items() -> Mapping[str, tuple[str, str]]:
    """The variable and the declared unit of each item id of MIMIC-IV."""
    declared = {str(i): (v.name, unit) for v in load_variables() for i, unit in v.mimic_iv.items()}
    return declared | {str(i): (HEIGHT, unit) for i, (_, unit) in HEIGHT_ITEMS.items()}


def distinct_codes(events: pl.LazyFrame) -> list[str]:
    codes: Iterable[str] = (
        events.select("code").unique().drop_nulls().collect(engine="streaming")["code"]
    )
    return sorted(codes)
